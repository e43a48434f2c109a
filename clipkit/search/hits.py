"""Search results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Hit:
    """One answer. score: cosine of query and picture, -1 to 1. path: relative to the root. file: on this disk."""

    score: float
    path: str
    file: str
    id: int


class Hits(list[Hit]):
    """Answers, best first."""

    def to_frame(self) -> pd.DataFrame:
        """A table with the columns score, path, file and id."""
        import pandas as pd

        return pd.DataFrame(
            {
                "score": [hit.score for hit in self],
                "path": [hit.path for hit in self],
                "file": [hit.file for hit in self],
                "id": [hit.id for hit in self],
            }
        )
