"""Memory of the Classify tab: what each visitor did by hand, as long as the page runs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from clipkit.classify.head import Head
from clipkit.explore.library import Library

MOST = 256  # sets of labels, or of cuts, that are remembered, of all visitors
Value = TypeVar("Value")


class Memory:
    """Labels and cuts, by visitor and library. What is asked for may be changed: that is how it is remembered."""

    def __init__(self) -> None:
        self._labels: _LastUsed[dict[int, str]] = _LastUsed()
        self._cuts: _LastUsed[dict[int, float]] = _LastUsed()

    def labels(self, visitor: str, library: Library, head: Head) -> dict[int, str]:
        """Names by id, for these classes: a reload loses nothing."""
        return self._labels.get((visitor, library.index.info.index_id, head.classes), {})

    def cuts(self, visitor: str, library: Library, judge: Head) -> dict[int, float]:
        """Least scores by place of the class, for whoever scores: another model's scores are other numbers."""
        digest = hashlib.sha256(judge.distinct().tobytes()).digest()
        return self._cuts.get((visitor, library.index.info.index_id, judge.classes, digest), {})


class _LastUsed(Generic[Value]):
    """The values that were asked for last."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable, new: Value) -> Value:
        found = self._values.setdefault(key, new)
        self._values.move_to_end(key)
        while len(self._values) > MOST:
            self._values.popitem(last=False)
        return found
