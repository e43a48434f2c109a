"""Sessions of the Classify tab: what a window has sorted, and what is remembered of its visitor while the page runs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from clipkit.classify.collection import USUAL
from clipkit.classify.head import Head
from clipkit.explore.library import Library
from clipkit.learn.corrections import Lesson
from clipkit.output.copy_files import Transfer

MOST = 256  # sets of labels, or of cuts, that are remembered, of all visitors
MOST_SESSIONS = 32  # of one visitor each: a head of 2,000 classes takes 4 MB
Value = TypeVar("Value")


@dataclass(frozen=True)
class ClassifySession:
    """What one browser tab has sorted. head: what sorts; start: the same before it learned; judge: who sets aside.

    visitor: whose labels count. words, templates, own: what was typed.
    """

    library: str = ""
    visitor: str = ""
    words: str = ""
    templates: str = "simple"
    own: str = ""
    start: Head | None = None
    head: Head | None = None
    judge: Head | None = None
    lesson: Lesson | None = None
    strict: float = USUAL
    turn: int = 0
    plan: tuple[Transfer, ...] = ()


class Memory:
    """Labels, cuts and last sessions, by visitor. Labels and cuts are remembered by being changed where they are."""

    def __init__(self) -> None:
        self._labels: _LastUsed[dict[int, str]] = _LastUsed(MOST)
        self._cuts: _LastUsed[dict[int, float]] = _LastUsed(MOST)
        self._sessions: _LastUsed[list[ClassifySession]] = _LastUsed(MOST_SESSIONS)

    def keep(self, session: ClassifySession) -> None:
        """From now on this is the visitor's last."""
        self._sessions.get(session.visitor, [])[:] = [session]

    def last(self, visitor: str) -> ClassifySession:
        """What the visitor sorted last, in whichever window; empty where there is nothing."""
        return next(iter(self._sessions.get(visitor, [])), ClassifySession())

    def labels(self, visitor: str, library: Library, head: Head) -> dict[int, str]:
        """Names by id, for these classes: a reload loses nothing."""
        return self._labels.get((visitor, library.index.info.index_id, head.classes), {})

    def cuts(self, visitor: str, library: Library, judge: Head) -> dict[int, float]:
        """Least scores by place of the class, for whoever scores: another model's scores are other numbers."""
        digest = hashlib.sha256(judge.distinct().tobytes()).digest()
        return self._cuts.get((visitor, library.index.info.index_id, judge.classes, digest), {})


class _LastUsed(Generic[Value]):
    """The values that were asked for last, so many of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable, new: Value) -> Value:
        found = self._values.setdefault(key, new)
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)
        return found
