"""Classes from words: zero-shot heads, where "unknown" begins in them, and which prompts decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from clipkit.classify.calibration import best_cut, best_temperature, split
from clipkit.classify.head import UNKNOWN, Head, Rejection, beyond
from clipkit.classify.prompts import (
    NEUTRAL,
    Classes,
    ClassPrompts,
    Template,
    Templates,
    imagenet_classes,
    make_prompts,
    read_classes,
    read_templates,
)
from clipkit.core.arrays import Embeddings, FloatArray, check_embeddings
from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.text import readable
from clipkit.errors import NotFittedError, QueryError, ShapeError
from clipkit.models.encoder import Encoder, identity
from clipkit.models.hub import Notify
from clipkit.models.openclip import CUT_TOLERANCE, published_templates
from clipkit.models.tokenizer import LONG_BYTES

if TYPE_CHECKING:
    from clipkit.images.recipe import PictureSource


# Mean macro F1 over five class sets with the starter is best at 6.9 (.746), and .744 here, where fewer wrong names are
# given (8.7, 9.5 and 9.8 were best with those before it); six others, in
# benchmarks/zeroshot.py, say how good it is. In logits, because a model's own scale says what a difference of cosines
# is worth: .33 is little for the starter and never reached by CLIP. docs/zero-shot.md
CUT_LOGITS = 7.0
# Of a class's mean over the collection: mean AUROC is .838 at 0 and .839 at .5 on the same five (.844 and .846 with the
# starter with which it was chosen), .831 and .869 on the six others.
TYPICAL_SHARE = 0.5
CHUNK = 4096  # prompts at a time: 80,000 at once would hold 330 MB of vectors and tokens
OTHER_WORDS = " zebra volcano violin zebra volcano violin"  # says something else, if it is read
SAME = 1e-3  # length of the difference of equal texts in one batch, which is 0 wherever it was tried


class Prompted(Protocol):
    """A head of words, with the encoder and the prompts that made it; None where it came from a file."""

    @property
    def encoder(self) -> Encoder: ...
    @property
    def prompts(self) -> ClassPrompts | None: ...
    @property
    def head(self) -> Head: ...


@dataclass(frozen=True)
class PromptedHead:
    """What `head_from_words` makes: importing it is cheap, where `ZeroShotClassifier` brings scikit-learn."""

    encoder: Encoder
    prompts: ClassPrompts
    head: Head


def head_from_words(
    encoder: Encoder,
    classes: Classes,
    *,
    templates: Templates = "simple",
    unknown: bool = False,
    multi_label: bool = False,
    notify: Notify | None = None,
    in_order: bool = False,
) -> PromptedHead:
    """A zero-shot head, with parameters as `ZeroShotClassifier` has them. in_order: classes are sorted by name."""
    if unknown and multi_label:
        raise QueryError(
            "with multi_label a picture may have no class at all: unknown adds nothing",
            hint="one of them: unknown=True, or multi_label=True",
        )
    prompts = class_prompts(classes, templates)
    if in_order:
        pairs = sorted(zip(prompts.classes, prompts.prompts, strict=True))
        prompts = ClassPrompts(tuple(name for name, _ in pairs), tuple(group for _, group in pairs))
    if unknown and UNKNOWN in prompts.classes:
        raise QueryError(f"{UNKNOWN!r} is a class already", hint="call the class something else")
    head = _head(encoder, prompts, unknown=unknown, multi_label=multi_label)
    for note in head.notes:
        if notify:
            notify(note)
    return PromptedHead(encoder, prompts, head)


def adapted(head: Head, embeddings: npt.ArrayLike) -> Head:
    """The head with "unknown" where a collection without labels says, as `ZeroShotClassifier.adapt` has it."""
    rows, rule = check_embeddings(embeddings, head.dim), rejection_of(head)
    if len(rows) < 2:
        raise ShapeError(
            f"a collection of {len(rows)} pictures says nothing of what is ordinary",
            hint="pictures of many kinds, or leave unknown out",
        )
    mean = beyond(rows, rule.neutral).mean(axis=0)
    typical = np.asarray(TYPICAL_SHARE * (head.distinct() @ mean), dtype=np.float32)
    moved = replace(head, rejection=replace(rule, typical=typical))
    return _with_cut(moved, split(moved.known(rows)))


def calibrated(head: Head, embeddings: npt.ArrayLike, labels: Sequence[str | None] | npt.NDArray[Any]) -> Head:
    """The head with the temperature, and the cut, of labelled pictures, as `ZeroShotClassifier.calibrate` has it."""
    if head.multi_label:
        raise QueryError(
            "calibrate is for classes of which one is right",
            hint="make the classifier without multi_label, or choose a threshold of your own",
        )
    rows = check_embeddings(embeddings, head.dim)
    names = known_names(head, labels, len(rows))
    place = {name: i for i, name in enumerate(head.classes)}
    is_known = np.array([name in place for name in names], dtype=bool)
    if not is_known.all():
        rejection_of(head)
    if not is_known.any():
        raise QueryError(
            "calibrate needs labelled pictures of the classes",
            hint="a few pictures of each class, and their labels",
        )
    targets = np.array([place[name] for name in names if name in place], dtype=np.int64)
    plain = replace(head, temperature=1.0)
    surer = replace(head, temperature=best_temperature(plain.logits(rows[is_known]), targets))
    return surer if is_known.all() else _with_cut(surer, best_cut(surer.known(rows), is_known))


def known_names(head: Head, labels: Sequence[str | None] | npt.NDArray[Any], count: int) -> list[str]:
    """Labels of `count` pictures as names; QueryError for those that are neither a class nor unknown."""
    names = label_names(labels, count)
    strange = [name for name in dict.fromkeys(names) if name not in head.classes and name != UNKNOWN]
    if strange:
        raise QueryError(
            f"{len(strange)} labels are no class: {', '.join(strange[:5])}",
            hint="labels as in classes_, or unknown for what is none of them",
        )
    return names


def label_names(labels: Sequence[str | None] | npt.NDArray[Any], count: int) -> list[str]:
    if len(labels) != count:
        raise ShapeError(
            f"{count} pictures and {len(labels)} labels", hint="one label for each picture, in their order"
        )
    if getattr(labels, "shape", ())[1:] == (1,):
        labels = np.asarray(labels)[:, 0]  # a column of a table
    return [UNKNOWN if label is None else str(label) for label in labels]


def rejection_of(head: Head) -> Rejection:
    """Where "none of these" begins; NotFittedError for a head that always names a class."""
    if head.rejection is None:
        raise NotFittedError("this classifier always names a class", hint="make the classifier with unknown=True")
    return head.rejection


def class_prompts(classes: Classes, templates: Templates = "simple") -> ClassPrompts:
    """What will be said of each class: `prompts` reads names and files, open_clip holds what is called "imagenet"."""
    is_published = isinstance(templates, str) and templates == "imagenet"
    chosen: Sequence[Template] = published_templates() if is_published else read_templates(templates)
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


def explain_prediction(classifier: Prompted, picture: PictureSource, *, k: int = 3) -> list[ClassExplanation]:
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


def _with_cut(head: Head, cut: float) -> Head:
    return replace(head, rejection=replace(rejection_of(head), cut=cut, cuts=None))
