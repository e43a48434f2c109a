"""Search results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clipkit.errors import QueryError

if TYPE_CHECKING:
    import pandas as pd

Relevance = Literal["strong", "likely", "weak"]
Verdict = Literal["fits", "unsure", "nothing"]


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes
    ----------
    score : float
        Cosine of query and picture, -1 to 1.
    path : str
        Relative to the index's root, with `/`.
    file : str
        On this disk.
    id : int
        Of the picture in its index.
    is_partial : bool
        Whether the picture is a JPEG that was cut off: what is missing of it counts as grey.
    relevance : {"strong", "likely", "weak"} or None
        How well the picture fits, where `clipkit.explore.search` has judged it.

    Examples
    --------
    >>> index = clipkit.ImageIndex.open("photos")
    >>> hit = index.search("a cat", k=1)[0]
    >>> hit.path, hit.score > 0.4
    ('chelsea.png', True)
    """

    score: float
    path: str
    file: str
    id: int
    is_partial: bool = False
    relevance: Relevance | None = None


def check_count(k: int) -> None:
    """QueryError where fewer than one result is asked for."""
    if k < 1:
        raise QueryError(f"{k} answers were asked for", hint="ask for 1 or more")


class Hits(list[Hit]):
    """Search results, best first: a list of `Hit`.

    Parameters
    ----------
    hits : iterable of Hit
        Best first.
    verdict : {"fits", "unsure", "nothing"}, optional
        Whether any of them fits, where `clipkit.explore.search` has judged them.

    Examples
    --------
    >>> hits = clipkit.ImageIndex.open("photos").search("a rocket on its launch pad", k=2)
    >>> len(hits), hits[0].path
    (2, 'rocket.jpg')
    >>> hits[0].score >= hits[1].score
    True
    """

    def __init__(self, hits: Iterable[Hit] = (), *, verdict: Verdict | None = None) -> None:
        super().__init__(hits)
        self.verdict = verdict

    def to_frame(self) -> pd.DataFrame:
        """The hits as a pandas table.

        Returns
        -------
        pandas.DataFrame
            With the columns score, path, file and id.

        Examples
        --------
        >>> hits = clipkit.ImageIndex.open("photos").search("a cat")
        >>> hits.to_frame().columns.tolist()
        ['score', 'path', 'file', 'id']
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "score": [hit.score for hit in self],
                "path": [hit.path for hit in self],
                "file": [hit.file for hit in self],
                "id": [hit.id for hit in self],
            }
        )
