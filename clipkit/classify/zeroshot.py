"""Zero-shot classification: classes from words, and which prompts decided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.classify.calibration import best_cut, best_temperature, split
from clipkit.classify.head import UNKNOWN, Head, Rejection, beyond
from clipkit.classify.prompts import (
    NEUTRAL,
    Classes,
    ClassPrompts,
    Templates,
    imagenet_classes,
    make_prompts,
    read_classes,
    read_templates,
)
from clipkit.core.arrays import Embeddings, FloatArray, check_embeddings
from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.text import described, readable
from clipkit.errors import NotFittedError, QueryError, ShapeError
from clipkit.models.encoder import Encoder, identity
from clipkit.models.hub import Notify
from clipkit.models.openclip import CUT_TOLERANCE, published_templates
from clipkit.models.tokenizer import LONG_BYTES

if TYPE_CHECKING:
    from typing import TypeAlias

    from clipkit.images.recipe import PictureSource

    Pictures: TypeAlias = Sequence[PictureSource] | npt.NDArray[Any]


# Best mean macro F1 over five class sets with the starter (9.5 and 9.8 with those before it); six others, in
# benchmarks/zeroshot.py, say how good it is. In logits, because a model's own scale says what a difference of cosines
# is worth: .33 is little for the starter and never reached by CLIP. docs/zero-shot.md
CUT_LOGITS = 8.7
# Of a class's mean over the collection: mean AUROC is .844 at 0 and .842 at .5 on the same five (.844 and .846 with the
# starter before, when it was chosen), .840 and .874 on the six others.
TYPICAL_SHARE = 0.5
CHUNK = 4096  # prompts at a time: 80,000 at once would hold 330 MB of vectors and tokens
OTHER_WORDS = " zebra volcano violin zebra volcano violin"  # says something else, if it is read
SAME = 1e-3  # length of the difference of equal texts in one batch, which is 0 wherever it was tried


class ZeroShotClassifier:
    """Zero-shot classifier: names the class of a picture from words alone, with scikit-learn's methods.

    A class is the mean embedding of its prompts. Wherever the methods take X, it is a list of pictures (paths, Pillow
    images, uint8 arrays) or their embeddings (n, d).

    Parameters
    ----------
    encoder : Encoder
        Encodes prompts and pictures.
    classes : str, path, sequence of str, or mapping of str to sequence of str
        What `read_classes` takes, or "imagenet". A mapping gives each class its own phrases.
    templates : str, path or sequence of str, default "simple"
        A set ("plain", "simple", "imagenet", "pets", "dclip"), a template such as "a photo of a {}.", a list of them,
        or a text file with one a line.
    unknown : bool, default False
        Answer "unknown" where no class is right; see `adapt` and `calibrate`.
    multi_label : bool, default False
        Each class is a question of its own: none, one or several may be right.
    notify : callable, optional
        Given a sentence when a prompt is longer than the model reads.

    Attributes
    ----------
    classes_ : ndarray of shape (c,), str
        Names, in the order given.
    head : Head
        What is computed with, and what may be saved.
    prompts : ClassPrompts or None
        The prompts of each class; None where the head came from a file.
    encoder : Encoder
        As given.

    Raises
    ------
    QueryError
        If classes or templates cannot be used.

    See Also
    --------
    LinearProbe : Learns from labels.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    .. [2] S. Menon and C. Vondrick, "Visual Classification via Description from Large Language Models", ICLR 2023.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> classifier = clipkit.ZeroShotClassifier(encoder, ["cat", "cup of coffee", "rocket"])
    >>> classifier.predict(["photos/chelsea.png", "photos/rocket.jpg"])
    array(['cat', 'rocket'], dtype='<U13')
    >>> index = clipkit.ImageIndex.open("photos")
    >>> classifier.predict_proba(index.embeddings).shape
    (4, 3)
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: Classes,
        *,
        templates: Templates = "simple",
        unknown: bool = False,
        multi_label: bool = False,
        notify: Notify | None = None,
    ) -> None:
        if unknown and multi_label:
            raise QueryError(
                "with multi_label a picture may have no class at all: unknown adds nothing",
                hint="one of them: unknown=True, or multi_label=True",
            )
        prompts = class_prompts(classes, templates)
        if unknown and UNKNOWN in prompts.classes:
            raise QueryError(f"{UNKNOWN!r} is a class already", hint="call the class something else")
        self.encoder = encoder
        self.prompts: ClassPrompts | None = prompts
        self.head = _head(encoder, prompts, unknown=unknown, multi_label=multi_label)
        for note in self.head.notes:
            if notify:
                notify(note)

    def __repr__(self) -> str:
        return described(self, repr(self.encoder.model), repr(self.head))

    @classmethod
    def from_head(cls, encoder: Encoder, head: Head) -> ZeroShotClassifier:
        """A classifier with a head that was saved.

        Parameters
        ----------
        encoder : Encoder
            The model that the head was made with.
        head : Head
            Over projected embeddings.

        Returns
        -------
        ZeroShotClassifier
            Without prompts.

        Raises
        ------
        ModelMismatch
            If the head is of another model, or reads backbone features.

        Examples
        --------
        >>> encoder = clipkit.load_encoder("starter")
        >>> clipkit.ZeroShotClassifier(encoder, ["cat", "rocket"]).head.save("head.safetensors")
        >>> classifier = clipkit.ZeroShotClassifier.from_head(encoder, clipkit.Head.load("head.safetensors"))
        >>> classifier.predict(["photos/chelsea.png"]).tolist()
        ['cat']
        """
        head.check(encoder, space="projected")
        classifier = cls.__new__(cls)
        classifier.encoder, classifier.head, classifier.prompts = encoder, head, None
        return classifier

    @property
    def classes_(self) -> npt.NDArray[np.str_]:
        """Names (c,), in the order given."""
        return np.array(self.head.classes)

    def decision_function(self, X: Pictures) -> FloatArray:  # noqa: N803  scikit-learn's name
        """Logits of the classes.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        return self.head.logits(self._embeddings(X))

    def predict_proba(self, X: Pictures) -> FloatArray:  # noqa: N803
        """Probabilities of the classes, given that one is right; with `multi_label`, of each by itself.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        return self.head.probabilities(self._embeddings(X))

    def predict(self, X: Pictures) -> npt.NDArray[Any]:  # noqa: N803
        """Names of the classes.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n,), str, or of shape (n, c), bool
            "unknown" where all classes are rejected; with `multi_label`, which classes are there.

        Raises
        ------
        ImageError
            Names the first picture that cannot be read.
        ShapeError
            If X is one path instead of a list, or no array of embeddings.
        """
        return self.head.predict(self._embeddings(X))

    def known_score(self, X: Pictures) -> FloatArray:  # noqa: N803
        """How surely one of the classes is right; `predict` rejects what lies below `head.rejection.cut`.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n,), float32
            Larger is surer.

        Raises
        ------
        NotFittedError
            If the classifier was made without `unknown`.
        """
        return self.head.known(self._embeddings(X))

    def score(self, X: Pictures, y: Sequence[str | None] | npt.NDArray[Any]) -> float:  # noqa: N803
        """Share of right answers.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.
        y : sequence of shape (n,), or bool of shape (n, c) with `multi_label`
            None or "unknown" is right where all classes are rejected.

        Returns
        -------
        float
            From 0 to 1.
        """
        found = self.predict(X)
        if self.head.multi_label:
            return float((found == np.asarray(y, dtype=bool)).all(axis=1).mean())
        labels = _labels(y, len(found))
        return float(np.mean([name == label for name, label in zip(found.tolist(), labels, strict=True)]))

    def adapt(self, embeddings: Embeddings) -> ZeroShotClassifier:
        """Set where "unknown" begins, from a collection without labels.

        What is ordinary in the collection is taken out of each class's score; the cut splits the scores into two
        groups.

        Parameters
        ----------
        embeddings : ndarray of shape (n, d), float32
            Of two pictures or more, some of the classes and some not.

        Returns
        -------
        ZeroShotClassifier
            Itself.

        Raises
        ------
        NotFittedError
            If the classifier was made without `unknown`.
        ShapeError
            If there are fewer than two rows.

        References
        ----------
        .. [1] N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Trans. SMC 1979.

        Examples
        --------
        >>> index = clipkit.ImageIndex.open("photos")
        >>> classifier = clipkit.ZeroShotClassifier(index.encoder, ["cat"], unknown=True)
        >>> predicted = classifier.adapt(index.embeddings).predict(index.embeddings)
        >>> dict(zip(index.paths, predicted.tolist()))["chelsea.png"]
        'cat'
        """
        rows = check_embeddings(embeddings, self.encoder.dim)
        rule = self._rejection()
        if len(rows) < 2:
            raise ShapeError(
                f"a collection of {len(rows)} pictures says nothing of what is ordinary",
                hint="pictures of many kinds, or leave unknown out",
            )
        mean = beyond(rows, rule.neutral).mean(axis=0)
        typical = np.asarray(TYPICAL_SHARE * (self.head.distinct() @ mean), dtype=np.float32)
        self.head = replace(self.head, rejection=replace(rule, typical=typical))
        self._set_cut(split(self.head.known(rows)))
        return self

    def calibrate(self, embeddings: Embeddings, labels: Sequence[str | None] | npt.NDArray[Any]) -> ZeroShotClassifier:
        """Fit the temperature to labelled pictures; with labelled unknowns, the cut too.

        Parameters
        ----------
        embeddings : ndarray of shape (n, d), float32
            Of the pictures.
        labels : sequence of shape (n,)
            Names of classes; None or "unknown" for pictures of no class.

        Returns
        -------
        ZeroShotClassifier
            Itself.

        Raises
        ------
        QueryError
            If a label is no class, no picture is of a class, or the classifier is `multi_label`.
        NotFittedError
            If there are unknowns, and the classifier was made without `unknown`.

        References
        ----------
        .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        """
        if self.head.multi_label:
            raise QueryError(
                "calibrate is for classes of which one is right",
                hint="make the classifier without multi_label, or choose a threshold of your own",
            )
        rows = check_embeddings(embeddings, self.encoder.dim)
        names = _labels(labels, len(rows))
        place = {name: i for i, name in enumerate(self.head.classes)}
        strange = [name for name in dict.fromkeys(names) if name not in place and name != UNKNOWN]
        if strange:
            raise QueryError(
                f"{len(strange)} labels are no class: {', '.join(strange[:5])}",
                hint="labels as in classes_, or unknown for what is none of them",
            )
        is_known = np.array([name in place for name in names], dtype=bool)
        if not is_known.all():
            self._rejection()
        if not is_known.any():
            raise QueryError(
                "calibrate needs labelled pictures of the classes",
                hint="a few pictures of each class, and their labels",
            )
        targets = np.array([place[name] for name in names if name in place], dtype=np.int64)
        plain = replace(self.head, temperature=1.0)
        self.head = replace(self.head, temperature=best_temperature(plain.logits(rows[is_known]), targets))
        if not is_known.all():
            self._set_cut(best_cut(self.head.known(rows), is_known))
        return self

    def _rejection(self) -> Rejection:
        if self.head.rejection is None:
            raise NotFittedError("this classifier always names a class", hint="make the classifier with unknown=True")
        return self.head.rejection

    def _set_cut(self, cut: float) -> None:
        self.head = replace(self.head, rejection=replace(self._rejection(), cut=cut, cuts=None))

    def _embeddings(self, pictures: Pictures) -> Embeddings:
        if isinstance(pictures, np.ndarray) and pictures.dtype.kind == "f":
            return check_embeddings(pictures, self.encoder.dim)
        if isinstance(pictures, np.ndarray) and pictures.ndim < 4 and pictures.dtype == np.uint8:
            raise ShapeError("this takes a list of pictures", hint="predict([picture])")
        if isinstance(pictures, str | os.PathLike) or not hasattr(pictures, "__len__"):
            raise ShapeError("this takes a list of pictures", hint=f"predict([{pictures!r}])")
        if len(pictures) and isinstance(pictures[0], np.ndarray) and pictures[0].dtype.kind == "f":
            return check_embeddings(np.stack([np.asarray(row) for row in pictures]), self.encoder.dim)
        return self.encoder.encode_images(list(pictures))


def class_prompts(classes: Classes, templates: Templates = "simple") -> ClassPrompts:
    """What will be said of each class: `prompts` reads names and files, open_clip holds what is called "imagenet"."""
    is_published = isinstance(templates, str) and templates == "imagenet"
    chosen = published_templates() if is_published else read_templates(templates)
    if isinstance(classes, str) and classes == "imagenet":
        words = imagenet_classes()
        return make_prompts(list(words), chosen, words=words)
    return make_prompts(read_classes(classes), chosen)


def ensemble(encoder: Encoder, groups: Sequence[Sequence[str]]) -> tuple[Embeddings, tuple[str, ...]]:
    """One embedding for each group of prompts (g, d): normalised, averaged, normalised; and what had to be said.

    Kept on disk by model and prompts, so that the second time costs nothing.
    """
    cache = ArrayCache("classes", form="clipkit classes 1")
    key = cache_key(identity(encoder), [list(group) for group in groups])
    if (stored := cache.get(key)) is not None:
        arrays, notes = stored
        return arrays["embeddings"], tuple(notes)
    texts = [text for group in groups for text in group]
    rows = np.concatenate([encoder.encode_texts(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)])
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    sums = np.add.reduceat(rows, starts, axis=0)
    weight = np.ascontiguousarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), dtype=np.float32)
    notes = lost_words(encoder, texts, rows)
    cache.put(key, {"embeddings": weight}, notes)
    return weight, notes


def lost_words(encoder: Encoder, texts: Sequence[str], rows: Embeddings) -> tuple[str, ...]:
    """A sentence on the texts (n,), with embeddings `rows` (n, d), whose last words the model does not read, if any.

    A word is lost where saying something else in its place leaves the embedding as it was: true of every model.
    """
    long = [i for i, text in enumerate(texts) if len(readable(text).encode()) > LONG_BYTES]
    if not long:
        return ()
    others = [texts[i][: _last_word(texts[i])] + OTHER_WORDS for i in long]
    changed = np.concatenate([encoder.encode_texts(others[at : at + CHUNK]) for at in range(0, len(others), CHUNK)])
    near = np.flatnonzero(np.linalg.norm(changed - rows[long], axis=1) < CUT_TOLERANCE)
    cut = [text for text in (texts[long[i]] for i in near) if _is_lost(encoder, text, _last_word(text))]
    if not cut:
        return ()
    text = cut[0]
    low, high = 0, _last_word(text)  # more than text[:low] is read, no more than text[:high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_lost(encoder, text, middle) else (middle, high)
    count = f"{len(cut)} prompts are" if len(cut) > 1 else "1 prompt is"
    return (f"{count} longer than {encoder.model} reads: {text[high:].strip()!r} is lost from {text!r}",)


def _head(encoder: Encoder, prompts: ClassPrompts, *, unknown: bool, multi_label: bool) -> Head:
    weight, notes = ensemble(encoder, prompts.prompts)
    count = len(prompts.classes)
    rule = None
    if unknown:
        rule = Rejection(neutral_mean(encoder), np.zeros(count, np.float32), CUT_LOGITS / encoder.logit_scale)
    if multi_label and not encoder.logit_bias:  # no bias to ask each class by: the question is class or neutral text
        neutral = neutral_mean(encoder)
        weight = weight - neutral / np.linalg.norm(neutral)
    return Head(
        classes=prompts.classes,
        weight=weight,
        bias=np.full(count, encoder.logit_bias / encoder.logit_scale, np.float32),
        temperature=encoder.logit_scale,
        model=encoder.model,
        fingerprint=encoder.fingerprint,
        multi_label=multi_label,
        rejection=rule,
        notes=notes,
    )


def neutral_mean(encoder: Encoder) -> FloatArray:
    """The mean of the texts that say nothing of a picture, (d,), shorter than 1; kept from run to run."""
    rows, _ = ensemble(encoder, [(text,) for text in NEUTRAL])
    return np.asarray(rows.mean(axis=0), dtype=np.float32)


def _last_word(text: str) -> int:
    """Where it begins; the end of a text that is one word, as those of languages without spaces are."""
    return text.rstrip().rfind(" ") + 1 or len(text)


def _is_lost(encoder: Encoder, text: str, start: int) -> bool:
    """Whether text[start:] changes nothing; both in one batch, since bfloat16 rounds another batch otherwise."""
    row, other = encoder.encode_texts([text, text[:start].rstrip() + OTHER_WORDS])
    return bool(np.linalg.norm(row - other) < SAME)


def _labels(labels: Sequence[str | None] | npt.NDArray[Any], count: int) -> list[str]:
    if len(labels) != count:
        raise ShapeError(
            f"{count} pictures and {len(labels)} labels", hint="one label for each picture, in their order"
        )
    return [UNKNOWN if label is None else str(label) for label in labels]


@dataclass(frozen=True)
class PromptScore:
    """One prompt's score.

    Attributes
    ----------
    text : str
        The prompt.
    score : float
        Its cosine with the picture.
    lead : float
        By how much that is above the prompts of the other classes.
    """

    text: str
    score: float
    lead: float


@dataclass(frozen=True)
class ClassExplanation:
    """One class and all its prompts.

    Attributes
    ----------
    label : str
        The class.
    probability : float
        Of the class.
    prompts : tuple of PromptScore
        By lead, highest first; a lead below 0 speaks against the class.
    """

    label: str
    probability: float
    prompts: tuple[PromptScore, ...]


def explain_prediction(classifier: ZeroShotClassifier, picture: PictureSource, *, k: int = 3) -> list[ClassExplanation]:
    """The likeliest classes of a picture, with the score of every prompt.

    Parameters
    ----------
    classifier : ZeroShotClassifier
        Made from classes and templates, not from a file.
    picture : path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
        RGB, of any size.
    k : int, default 3
        Cut to the number of classes.

    Returns
    -------
    list of ClassExplanation
        Likeliest first: `label`, `probability` and `prompts`, each with `text`, its cosine `score` and its `lead`: by
        how much it is above the same template filled with the other classes, or, where classes have prompts of their
        own, above the mean of the others' prompts. Below 0 it speaks against the class.

    Raises
    ------
    QueryError
        If the head came from a file, which stores no prompts.

    Examples
    --------
    >>> from clipkit.classify import explain_prediction
    >>> encoder = clipkit.load_encoder("starter")
    >>> classifier = clipkit.ZeroShotClassifier(encoder, ["cat", "rocket"], templates="a photo of a {}.")
    >>> best = explain_prediction(classifier, "photos/chelsea.png")[0]
    >>> best.label, best.prompts[0].text, best.prompts[0].lead > 0
    ('cat', 'a photo of a cat.', True)
    """
    prompts = classifier.prompts
    if prompts is None:
        raise QueryError(
            "a saved head does not keep the words it was made from",
            hint="--classes A,B --templates SET, instead of --head FILE",
        )
    row = classifier.encoder.encode_images([picture])
    places, sure = classifier.head.ranked(row, k)
    best = places[0].tolist()
    groups = [prompts.prompts[place] for place in best]
    flat = classifier.encoder.encode_texts([text for group in groups for text in group]) @ row[0]
    scores = np.split(flat, np.cumsum([len(group) for group in groups])[:-1])
    is_shared = _share_templates([prompts.classes[place] for place in best], groups)
    return [
        ClassExplanation(
            prompts.classes[place],
            float(sure[0, i]),
            _ordered(groups[i], scores[i], scores[i] - _rivals(i, scores, is_shared=is_shared)),
        )
        for i, place in enumerate(best)
    ]


def _share_templates(names: Sequence[str], groups: Sequence[Sequence[str]]) -> bool:
    with_slots = {tuple(text.replace(name, "{}") for text in group) for name, group in zip(names, groups, strict=True)}
    return len(with_slots) == 1


def _rivals(own: int, scores: Sequence[np.ndarray], *, is_shared: bool) -> np.ndarray:
    others = [row for i, row in enumerate(scores) if i != own]
    if not others:
        return np.zeros_like(scores[own])
    if is_shared:
        return np.asarray(np.mean(others, axis=0))
    return np.full_like(scores[own], np.concatenate(others).mean())


def _ordered(texts: Sequence[str], scores: np.ndarray, leads: np.ndarray) -> tuple[PromptScore, ...]:
    order = np.argsort(-leads, kind="stable")
    return tuple(PromptScore(texts[i], float(scores[i]), float(leads[i])) for i in order)
