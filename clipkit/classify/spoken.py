"""Which prompts spoke for and against the classes of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.errors import QueryError

if TYPE_CHECKING:
    from clipkit.models.openclip import Source


@dataclass(frozen=True)
class Spoken:
    """One prompt. score: its cosine with the picture. lead: by how much that is above the rivals' prompts."""

    text: str
    score: float
    lead: float


@dataclass(frozen=True)
class Verdict:
    """One class and all its prompts, those first that spoke for it most: a lead below 0 speaks against."""

    label: str
    probability: float
    prompts: tuple[Spoken, ...]


def explain(classifier: ZeroShotClassifier, picture: Source, *, k: int = 3) -> list[Verdict]:
    """The k likeliest classes of a picture, likeliest first, with what was said of each.

    A prompt's lead is over the same template filled with the other classes shown; where classes have prompts of their
    own, over the mean of what was said of the others. QueryError for a head from a file, which keeps no prompts.
    """
    prompts = classifier.prompts
    if prompts is None:
        raise QueryError("a saved head does not keep the words it was made from", hint="--classes and --templates")
    row = classifier.encoder.encode_images([picture])
    places, sure = classifier.head.ranked(row, k)
    best = places[0].tolist()
    groups = [prompts.prompts[place] for place in best]
    flat = classifier.encoder.encode_texts([text for group in groups for text in group]) @ row[0]
    scores = np.split(flat, np.cumsum([len(group) for group in groups])[:-1])
    is_shared = _share_templates([prompts.classes[place] for place in best], groups)
    return [
        Verdict(
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


def _ordered(texts: Sequence[str], scores: np.ndarray, leads: np.ndarray) -> tuple[Spoken, ...]:
    order = np.argsort(-leads, kind="stable")
    return tuple(Spoken(texts[i], float(scores[i]), float(leads[i])) for i in order)
