"""Adaptation of a model to pictures and words of one's own: tuned, measured on pictures it did not see, and then kept.

What is not proven better is not written.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.classify.prompts import TEMPLATES
from clipkit.core.arrays import Embeddings, FloatArray
from clipkit.core.files import check_writable, digest, replace_file
from clipkit.core.progress import Progress
from clipkit.core.requirements import missing_packages_named
from clipkit.core.text import counted, described
from clipkit.core.version import __version__
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import Dataset, load_dataset, pets_root
from clipkit.errors import DatasetError, ModelError
from clipkit.learn.captioned import Captioned, ThreeParts, check_size, three_parts
from clipkit.learn.fitting import part_to_learn_from
from clipkit.learn.retrieval_change import SUMMARY, Change, change, changes, hits, read_change
from clipkit.models.encoder import Encoder
from clipkit.models.image_tower import image_tower_sha256
from clipkit.models.openclip import published_class_names
from clipkit.models.registry import CONFIG, SAFE_WEIGHTS
from clipkit.models.trainable import TunableEncoder

if TYPE_CHECKING:
    from clipkit.learn.tuning import AdaptRecipe, Towers, Tuned

REPORT, CARD, CHECKPOINT = "adaptation.json", "README.md", "checkpoint.safetensors"
FIGURES = ("loss.png", "before-after.png")  # `plot` draws them beside the rest
SHARES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)  # of the way from before to after
TOLERATED = 0.02  # loss on the general set that its interval must exclude
PARTS_OF_TRAINING = (0.25, 0.5)  # of the learning curve, beside all of it
MOST_TIMES = 16  # as many pictures as there are: beyond that nothing is foretold
BY_SHARE = ("validation", "general_low")  # fields of a report whose keys JSON would make strings
LICENCES = ("LICENSE", "NOTICE")  # of the base model, which go with what is made of it


@dataclass(frozen=True)
class CurvePoint:
    """Gain of one size of the training part.

    Attributes
    ----------
    pictures : int
        Learned from.
    gain : float
        On the test pictures: the mean of both ways.
    low, high : float
        Its 95 % interval.

    Examples
    --------
    >>> from clipkit.learn import CurvePoint
    >>> CurvePoint(pictures=60, gain=0.01, low=-0.02, high=0.04)
    CurvePoint(pictures=60, gain=0.01, low=-0.02, high=0.04)
    """

    pictures: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Adaptation:
    """What `adapt` found, and whether it was written.

    Attributes
    ----------
    folder : Path
        The model, where it was written; the report in any case.
    is_written : bool
        Whether there is a model in it.
    base : str
        The model before.
    recipe : dict
        Hyperparameters, as `AdaptRecipe` has them.
    changes : tuple of Change
        Both ways, each with R@1, R@5, R@10 and their mean, on the test pictures.
    general : Change
        Forgetting: the same model on something else.
    general_name : str
        On what.
    share : float
        Of the way from the weights before to those after: the best on the validation pictures that keeps the general
        set.
    validation : dict of float to float
        For each share, the mean recall there.
    general_low : dict of float to float
        The lower end of the interval of the difference on the general set, from the smallest share to the best one on
        validation, or to the first that loses too much.
    losses : tuple of float
        Mean loss of each epoch.
    sizes : dict of str to int
        Pictures of train, validation and test, and the texts of the first.
    reasons : tuple of str
        Why it was not written, or would not have been without `force`; empty where it is proven better.
    needed : str
        How many pictures it would take, or that this cannot be told; "" where it is proven better.
    curve : tuple of CurvePoint
        Gain by the number of training pictures; empty where it is proven better.
    notes : tuple of str
        What was left out, near copies, and how many captions are longer than the model reads.
    keeps_indexes : bool
        Whether indexes of the base model stay valid.

    Examples
    --------
    >>> from clipkit.learn import Adaptation
    >>> Adaptation.load("my-model").is_written  # doctest: +SKIP
    True
    """

    folder: Path
    is_written: bool
    base: str
    recipe: dict[str, Any]
    changes: tuple[Change, ...]
    general: Change
    general_name: str
    share: float
    validation: dict[float, float]
    general_low: dict[float, float]
    losses: tuple[float, ...]
    sizes: dict[str, int]
    reasons: tuple[str, ...] = ()
    needed: str = ""
    curve: tuple[CurvePoint, ...] = ()
    notes: tuple[str, ...] = ()
    keeps_indexes: bool = False

    def __repr__(self) -> str:
        state = "written" if self.is_written else "not written"
        return described(self, repr(self.folder.name), state, *(f"{one.way} {one.gain:+.3f}" for one in self.summary))

    @property
    def summary(self) -> tuple[Change, ...]:
        """The mean of R@1, R@5 and R@10, both ways."""
        return tuple(one for one in self.changes if one.measure == SUMMARY)

    @property
    def is_proven(self) -> bool:
        """Whether it is better, with no loss in any interval."""
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON takes it; `load` reads it.

        Returns
        -------
        dict
            Without `folder`.
        """
        record = asdict(replace(self, folder=Path()))
        del record["folder"]
        return {**record, **{name: [*map(list, record[name].items())] for name in BY_SHARE}}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Adaptation:
        """Read the report of a folder.

        Parameters
        ----------
        folder : str or path
            What `adapt` was given as `out`, or its adaptation.json.

        Returns
        -------
        Adaptation
            As it was found.

        Raises
        ------
        ModelError
            If there is none, or it cannot be read.
        """
        file = Path(folder) if Path(folder).name == REPORT else Path(folder) / REPORT
        hint = "the folder that this wrote: clipkit adapt CAPTIONS.csv --out FOLDER"
        try:
            record = json.loads(file.read_bytes())
            whole = {name: record[name] for name in cls.__dataclass_fields__ if name != "folder"}
            whole |= {name: tuple(whole[name]) for name in ("losses", "reasons", "notes")}
            whole["changes"] = tuple(read_change(one) for one in whole["changes"])
            whole["general"] = read_change(whole["general"])
            whole["curve"] = tuple(CurvePoint(**one) for one in whole["curve"])
            whole["sizes"] = {name: int(count) for name, count in whole["sizes"].items()}
            for name in BY_SHARE:
                whole[name] = {float(share): float(score) for share, score in whole[name]}
            return cls(folder=file.parent, **whole)
        except FileNotFoundError as error:
            raise ModelError(f"{file} is not there", hint=hint) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file} is no report of an adaptation: {error}", hint=hint) from error


@missing_packages_named()
def adapt(
    encoder: Encoder,
    dataset: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    recipe: AdaptRecipe | None = None,
    general: str | os.PathLike[str] | Dataset | None = None,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Adaptation:
    """Adapt a model to pictures and words of your own, and write it if it is proven better.

    The pictures are split in three, near copies together: .6 are learned from, .15 choose how far to go from the
    weights before towards those after (WiSE-FT), no further than where the interval of the difference on the general
    set excludes a loss of .02; .25 are the test, which nothing has seen. It is written where, on the
    test pictures, the 95 % interval of the difference (paired bootstrap) of the mean of R@1, R@5 and R@10 holds no loss
    in either way, there is a gain in one, and the interval on the general set excludes a loss of .02. A run that is
    killed goes on where it stood when it is called again.

    Parameters
    ----------
    encoder : Encoder
        An open_clip model, as `load_encoder` gives it; it stays as it is.
    dataset : str, path or Dataset
        Captioned pictures, or labelled ones, whose labels become captions through templates. Of a path only what is to
        be learned from, never a test part.
    out : str or path
        Folder for the model and the report; empty, not there, or of the same run before.
    recipe : AdaptRecipe, optional
        What learns, and how. With "words", the default, and "projection" indexes of the base model stay valid.
    general : str, path or Dataset, optional
        A labelled or captioned dataset on which nothing should be lost. By default the names of ImageNet's classes:
        whether each, after, is still nearest to what the base model made of it. That sees no picture.
    force : bool, default False
        Write it in any case.
    progress : callable, optional
        Given a `Progress` in pictures, then in steps.

    Returns
    -------
    Adaptation
        Before and after, and why it was or was not written.

    Raises
    ------
    DatasetError
        If there are too few pictures, or captions that the model cannot read.
    ModelError
        If the folder holds something else, the model is none of open_clip, or the loss is not finite.

    References
    ----------
    .. [1] M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    .. [2] E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    .. [3] X. Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022.

    Examples
    --------
    >>> from clipkit.learn import AdaptRecipe
    >>> starter, recipe = clipkit.load_encoder("starter"), AdaptRecipe("projection", epochs=2)
    >>> adapted = clipkit.adapt(starter, "tiles", out="my-model", recipe=recipe, force=True)
    >>> adapted.is_written, adapted.keeps_indexes, adapted.sizes["test"]
    (True, True, 8)
    >>> clipkit.load_encoder("my-model").dim
    384
    """
    from clipkit.learn.tuning import AdaptRecipe, Towers

    recipe, folder = recipe or AdaptRecipe(), Path(out)
    pictures = dataset if isinstance(dataset, Dataset) else part_to_learn_from(dataset)
    check_size(pictures)
    _check_place(folder)
    try:
        towers = Towers(TunableEncoder(encoder))
        templates = TEMPLATES["simple" if isinstance(dataset, Dataset) or not pets_root(dataset) else "pets"]
        ways: dict[str, Any] = {"templates": templates, "seed": recipe.seed, "progress": progress}
        parts = _with_cut(three_parts(pictures, encoder, tokens=towers.tokens, **ways), towers)
        return Adapting(towers, encoder, parts, recipe, folder, progress).run(general, force=force)
    finally:
        with suppress(OSError):
            folder.rmdir()  # only where nothing was left in it


class Adapting:
    """One adaptation: trained, chosen on validation, measured on the test, written or not."""

    def __init__(
        self,
        towers: Towers,
        encoder: Encoder,
        parts: ThreeParts,
        recipe: AdaptRecipe,
        folder: Path,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._towers, self._encoder, self._parts = towers, encoder, parts
        self._recipe, self._folder, self._progress = recipe, folder, progress
        self._before = self._hits(parts.test)

    def run(self, general: str | os.PathLike[str] | Dataset | None, *, force: bool) -> Adaptation:
        forgetting = self.forgetting(general)
        result, tuned = self.measure(forgetting)
        if result.is_proven or force:
            return self._written(result)
        return self._kept(self._with_curve(result, tuned, forgetting))

    def measure(self, forgetting: Forgetting) -> tuple[Adaptation, Tuned]:
        """Train, choose and test; the network is then as it would be written."""
        tuned = self._tuned(self._parts.train, CHECKPOINT)
        choice = self._choose(tuned, forgetting)
        self._towers.put(tuned, choice.share)
        found = changes(self._before, self._hits(self._parts.test))
        kept = forgetting.change()
        result = Adaptation(
            folder=self._folder,
            is_written=False,
            base=self._encoder.model,
            recipe=asdict(self._recipe) | {"lr": self._recipe.rate},
            changes=found,
            general=kept,
            general_name=forgetting.name,
            share=choice.share,
            validation=choice.validation,
            general_low=choice.general_low,
            losses=tuned.losses,
            sizes=self._sizes(),
            reasons=tuple(reasons(found, kept, choice.share)),
            notes=self._parts.notes,
            keeps_indexes=not self._recipe.is_open,
        )
        return result, tuned

    def _tuned(self, train: Captioned, name: str) -> Tuned:
        from clipkit.learn.tuning import Tuning

        texts = [list(words) for words in train.texts]
        identity = {
            "model": self._encoder.model,
            "weights": self._encoder.fingerprint,
            "recipe": asdict(self._recipe),
            "pictures": train.contents(),
            "captions": texts,
            "right": np.packbits(train.right).tobytes().hex(),
        }
        return Tuning(self._towers, train, self._recipe, self._folder / name, identity).run(self._progress)

    def _choose(self, tuned: Tuned, forgetting: Forgetting) -> Choice:
        """How far to go, by mean recall on the validation pictures and by the general set."""
        scores = {}
        for share in SHARES:
            self._towers.put(tuned, share)
            scores[share] = float(self._hits(self._parts.validation).mean())

        def general_low(share: float) -> float:
            self._towers.put(tuned, share)
            return forgetting.change().low

        return choose(scores, general_low)

    def _hits(self, part: Captioned) -> FloatArray:
        images = self._towers.pictures(part.files) if self._recipe.is_open else part.embeddings
        return hits(images, self._towers.texts(part.texts), part.right)

    def forgetting(self, other: str | os.PathLike[str] | Dataset | None) -> Forgetting:
        """The general set, with the model as it was before; DatasetError where it has pictures learned from."""
        if other is None:
            return Forgetting(_ClassNames(self._towers))
        dataset = other if isinstance(other, Dataset) else load_dataset(other)
        learned = {*self._parts.train.contents(), *self._parts.validation.contents()}
        if shared := sum(digest(file) in learned for file in dataset.files):
            fact = f"{counted(shared, 'picture')} of {dataset.name} are learned from or choose: they cannot show a loss"
            raise DatasetError(fact, hint="--general with other pictures")
        return Forgetting(_OtherPictures(self._towers, self._encoder, dataset, is_open=self._recipe.is_open))

    def _sizes(self) -> dict[str, int]:
        parts = {name: len(getattr(self._parts, name)) for name in ("train", "validation", "test")}
        return {**parts, "texts": int(self._parts.train.right.sum())}

    # ---- how many it would take ----

    def _with_curve(self, result: Adaptation, tuned: Tuned, forgetting: Forgetting) -> Adaptation:
        """With the gain of fewer training pictures, and what follows from it."""
        order = np.random.default_rng(self._recipe.seed).permutation(len(self._parts.train))
        points = []
        for part in PARTS_OF_TRAINING:
            places = np.sort(order[: max(2, round(part * len(order)))])
            fewer = self._tuned(self._parts.train.only(places), f"checkpoint-{part:g}.safetensors")
            points.append(self._point(fewer, len(places), self._choose(fewer, forgetting).share))
        points.append(self._point(tuned, len(order), result.share))
        return replace(result, curve=tuple(points), needed=needed(points, sum(map(len, self._all_parts()))))

    def _all_parts(self) -> tuple[Captioned, ...]:
        return self._parts.train, self._parts.validation, self._parts.test

    def _point(self, tuned: Tuned, count: int, share: float) -> CurvePoint:
        self._towers.put(tuned, share)
        after = self._hits(self._parts.test)
        mean = change("both", SUMMARY, self._before.mean(axis=(0, 1)), after.mean(axis=(0, 1)))
        return CurvePoint(count, mean.gain, mean.low, mean.high)

    # ---- what is left on the disk ----

    def _kept(self, result: Adaptation) -> Adaptation:
        """The report alone; with the checkpoint, so that `force` need not train again."""
        replace_file(self._folder / REPORT, json.dumps(result.to_json(), indent=1).encode())
        return result

    def _written(self, result: Adaptation) -> Adaptation:
        """The model in open_clip's layout: its config last, without which the folder is no model."""
        result = replace(result, is_written=True)
        source, beside = self._towers.source, self._folder / f".clipkit-{secrets.token_hex(4)}.part"
        try:
            source.save_network(self._towers.network, beside)
            (beside / CARD).write_text(card(result), encoding="utf-8")
            for name in LICENCES:
                if (source.folder / name).is_file():
                    shutil.copyfile(source.folder / name, beside / name)
            for file in sorted(beside.iterdir(), key=lambda file: file.name == CONFIG):
                os.replace(file, self._folder / file.name)
        except OSError as error:
            reason = error.strerror or error
            raise ModelError(
                f"{self._folder} cannot take the model: {reason}; what was learned is kept in {CHECKPOINT}",
                hint="make room, and give the same command: it trains no more",
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._kept(result)
        for file in self._folder.glob("checkpoint*.safetensors"):
            file.unlink()
        image_tower_sha256(self._encoder.fingerprint, self._encoder.source)  # now, while both are at hand
        return result


# ---- forgetting ------------------------------------------------------------------------------------------------------


class Forgetting:
    """A general set with what the model did before, so that a change can be told at any time."""

    def __init__(self, general: _ClassNames | _OtherPictures) -> None:
        self.name = general.name
        self._general, self._before = general, general.values()

    def change(self) -> Change:
        """From the model before to the model as it is now."""
        measure = "top-1" if self._general.is_top1 else SUMMARY
        return change("general", measure, self._before, self._general.values())


class _ClassNames:
    """Whether the name of each ImageNet class is nearest to what the base model made of "a photo of a NAME."."""

    name = "names of ImageNet's classes, without pictures"
    is_top1 = True

    def __init__(self, towers: Towers) -> None:
        self._towers, self._names = towers, list(dict.fromkeys(published_class_names()))
        self._there = towers.texts([(f"a photo of a {name}.",) for name in self._names])

    def values(self) -> FloatArray:
        """1 or 0 for each: (n,)."""
        found = (self._towers.texts([(name,) for name in self._names]) @ self._there.T).argmax(axis=1)
        return np.asarray(found == np.arange(len(found)), dtype=np.float32)


class _OtherPictures:
    """Pictures of a dataset that nothing was learned from: top-1 of labels, or mean recall of captions."""

    def __init__(self, towers: Towers, encoder: Encoder, dataset: Dataset, *, is_open: bool) -> None:
        from clipkit.learn.captioned import texts_of

        embedded = embed_once(dataset, encoder)
        self.name, self.is_top1 = dataset.name, bool(dataset.labels)
        self._towers, self._is_open = towers, is_open
        self._files, self._rows = embedded.dataset.files, embedded.embeddings
        self._texts, self._right = texts_of(embedded.dataset, ("a photo of a {}.",))

    def values(self) -> FloatArray:
        """From 0 to 1 for each picture: (n,)."""
        images: Embeddings = self._towers.pictures(self._files) if self._is_open else self._rows
        found = hits(images, self._towers.texts(self._texts), self._right)
        return np.asarray(found[1, 0] if self.is_top1 else found.mean(axis=(0, 1)), dtype=np.float32)


# ---- what follows from numbers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """How far to go. validation: mean recall of each share. general_low: of those that were tested, in order."""

    share: float
    validation: dict[float, float]
    general_low: dict[float, float]


def choose(validation: dict[float, float], general_low: Callable[[float], float]) -> Choice:
    """The best share on validation that keeps the general set, of equal ones the smallest.

    Shares are tested on the general set from the smallest on, up to the best on validation, and none after the first
    that loses too much. In an order that was fixed before, each test has its full level and all that pass hold together
    (fixed-sequence procedure: W. Maurer, L. Hothorn and W. Lehmacher, 1995); so the same pictures limit the choice and
    prove it. general_low: lower end of the interval of the difference there.
    """
    furthest = max(validation, key=lambda share: (validation[share], -share))
    lows, kept = dict[float, float](), [0.0]
    for share in sorted(share for share in validation if 0 < share <= furthest):
        lows[share] = general_low(share)
        if lows[share] < -TOLERATED:
            break
        kept.append(share)
    return Choice(max(kept, key=lambda share: (validation[share], -share)), validation, lows)


def reasons(found: Sequence[Change], general: Change, share: float) -> list[str]:
    """Why these changes are no proof of something better; none where they are."""
    summary = [one for one in found if one.measure == SUMMARY]
    if share == 0:
        return ["no step away from the weights before did better on the validation pictures and kept the general set"]
    said = [
        f"{one.way}: the interval of the difference holds a loss ({one.low:+.3f} to {one.high:+.3f})"
        for one in summary
        if one.low < 0
    ]
    if not said and all(one.gain <= 0 for one in summary):
        said.append("nothing is found better than before")
    if general.low < -TOLERATED:
        said.append(
            f"general: a loss of more than {TOLERATED:g} is not excluded ({general.low:+.3f} to {general.high:+.3f})"
        )
    return said


def needed(points: Sequence[CurvePoint], pictures: int) -> str:
    """How many captioned pictures a proof would take, from the gains at three sizes and the last interval.

    The gain is taken to grow with the logarithm of the number, the interval to shrink with its root.
    """
    sizes, gains = [math.log2(point.pictures) for point in points], [point.gain for point in points]
    slope, start = np.polyfit(sizes, gains, 1)
    if slope <= 0:
        return "cannot be told: more pictures did not help"
    last = points[-1]
    half = (last.high - last.low) / 2
    times = 1.0
    while times <= MOST_TIMES:
        gain = start + slope * math.log2(last.pictures * times)
        if times > 1 and gain > half / math.sqrt(times):
            return f"about {round(pictures * times, -2):,.0f} captioned pictures, guessed from three sizes"
        times *= 1.25
    return f"cannot be told: more than {counted(pictures * MOST_TIMES, 'picture')}, if they help at all"


def card(result: Adaptation) -> str:
    """Model card, as Markdown."""
    proof = "proven better" if result.is_proven else "not proven better, and written because that was asked for"
    tower = (
        "The picture tower is that of the base model: its indexes stay valid."
        if result.keeps_indexes
        else ("The picture tower has changed: indexes of the base model must be made anew.")
    )
    sizes = result.sizes
    return "\n".join(
        [
            f"# {result.folder.name}",
            "",
            f"{result.base}, adapted by clipkit {__version__} with the recipe `{result.recipe['kind']}`: {proof}.",
            f"{tower} Loads in open_clip as `local-dir:FOLDER`, in clipkit as `--model FOLDER`.",
            "",
            f"Learned from {counted(sizes['train'], 'picture')} with {counted(sizes['texts'], 'text')}; "
            f"{sizes['validation']:,} others chose to go {result.share:g} of the way from the weights before to those "
            f"after; {sizes['test']:,} more, which nothing had seen, are measured here. "
            f"General: {result.general_name}.",
            "",
            "| | | before | after | difference (95 %) | n |",
            "|---|---|---|---|---|---|",
            *(_row(one) for one in (*result.changes, result.general)),
            "",
            *(f"- {reason}" for reason in result.reasons),
            "",
        ]
    )


def _row(one: Change) -> str:
    difference = f"{one.gain:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
    return f"| {one.way} | {one.measure} | {one.before:.3f} | {one.after:.3f} | {difference} | {one.n:,} |"


def _with_cut(parts: ThreeParts, towers: Towers) -> ThreeParts:
    """With a note on the texts that are longer than the model reads, if any are."""
    whole = (part.texts for part in (parts.train, parts.validation, parts.test))
    cut = towers.cut(sorted({text for texts in whole for wordings in texts for text in wordings}))
    note = f"{counted(cut, 'text')} longer than {towers.source.model} reads: the ends are cut off"
    return replace(parts, notes=(*parts.notes, note)) if cut else parts


def _check_place(folder: Path) -> None:
    """ModelError where the folder holds anything but an adaptation that has written no model yet."""
    ours = (REPORT, *FIGURES)
    inside = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    if SAFE_WEIGHTS in inside and REPORT in inside:
        raise ModelError(f"{folder} holds a finished adaptation", hint="another place: --out FOLDER")
    other = [name for name in inside if name not in ours and not name.startswith(("checkpoint", ".clipkit-"))]
    if other or (folder.exists() and not folder.is_dir()):
        raise ModelError(f"{folder} is not an empty folder", hint="another place: --out FOLDER")
    check_writable(folder)
