"""Search results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


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


class Hits(list[Hit]):
    """Search results, best first: a list of `Hit`.

    Examples
    --------
    >>> hits = clipkit.ImageIndex.open("photos").search("a rocket on its launch pad", k=2)
    >>> len(hits), hits[0].path
    (2, 'rocket.jpg')
    >>> hits[0].score >= hits[1].score
    True
    """

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
