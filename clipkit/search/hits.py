"""Search results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, SupportsIndex, overload

from clipkit.core.text import counted, described, printable
from clipkit.errors import QueryError
from clipkit.images.formats import split_frame

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

    @property
    def seconds(self) -> float | None:
        """The time of a frame in its video; None for what is no frame."""
        frame = split_frame(self.path)
        return frame[1] if frame else None

    def __repr__(self) -> str:
        return described(self, f"{self.score:.4f}", repr(self.path), self.relevance or "")


def check_count(k: int) -> None:
    """QueryError where fewer than one result is asked for."""
    if k < 1:
        raise QueryError(f"{k} answers were asked for", hint="ask for 1 or more")


class Hits(list[Hit]):
    """Search results, best first: a list of `Hit`.

    A slice is `Hits` again, and `"trip/sea.jpg" in hits` asks for a path. Notebooks show the first twelve as pictures.

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

    def __repr__(self) -> str:
        best = f"best {self[0].score:.4f} {self[0].path!r}" if self else ""
        return described(self, counted(len(self), "picture"), best, f"verdict={self.verdict!r}" if self.verdict else "")

    def __contains__(self, item: object) -> bool:
        return any(hit.path == item for hit in self) if isinstance(item, str) else super().__contains__(item)

    @overload
    def __getitem__(self, at: SupportsIndex) -> Hit: ...

    @overload
    def __getitem__(self, at: slice) -> Hits: ...

    def __getitem__(self, at: SupportsIndex | slice) -> Hit | Hits:
        return Hits(super().__getitem__(at), verdict=self.verdict) if isinstance(at, slice) else super().__getitem__(at)

    def _repr_html_(self) -> str:
        """The first twelve as thumbnails, with score and path, as notebooks show them."""
        from clipkit.images.notebook import Captioned, notebook_html, rest

        pictures = (Captioned(hit.file, f"{hit.score:.4f} {printable(hit.path)}") for hit in self)
        more = rest(len(self), "pictures", "to_frame()")
        return notebook_html(counted(len(self), "picture"), ["best first"], pictures=pictures, more=more)

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
