"""Metadata of an index's pictures, and filters on it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray, IntArray
from clipkit.core.text import counted, described, printable
from clipkit.errors import QueryError
from clipkit.images.formats import RAW, VIDEO, file_of, is_picture, is_video
from clipkit.index.image_index import ImageIndex
from clipkit.index.paths import FolderPatterns, filter_for

_DAY = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?", re.ASCII)
SQUARE = 1.05  # sides that differ by less than this are called equal
KINDS = {"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "tif": "TIFF", "heif": "HEIC", "hif": "HEIC"}
KINDS |= {"dib": "BMP", "heic": "HEIC"}
MAX_FOLDERS = 2_000  # offered in the page's list
BLOCK = 50_000  # rows of facts a read


@dataclass(frozen=True)
class Fact:
    """Metadata of one picture.

    Attributes
    ----------
    id : int
        In the index.
    path : str
        Relative to the root.
    width, height : int
        Of the upright picture, in pixels.
    taken : str
        "YYYY-MM-DDTHH:MM:SS", or "" where it has no date.
    sha256 : str
        Of its bytes, in hex; or "".
    """

    id: int
    path: str
    width: int
    height: int
    taken: str
    sha256: str


@dataclass(frozen=True)
class Filters:
    """Filters: which pictures may answer.

    Attributes
    ----------
    folder : str
        Relative to the root; "" for all.
    since, until : str
        First and last day, "YYYY-MM-DD"; a picture without a date is out. "" for no bound.
    shapes : tuple of {"landscape", "portrait", "square"}
        Empty for all.
    kinds : tuple of str
        File types such as "JPEG" and "PNG"; empty for all.
    exclude_dirs : tuple of str
        Names of folders that are left out.

    Examples
    --------
    >>> from clipkit.explore import Catalogue, Filters
    >>> catalogue = Catalogue.read(clipkit.ImageIndex.open("photos"))
    >>> [catalogue.fact(int(id_)).path for id_ in catalogue.chosen(Filters(kinds=("JPEG",)))]
    ['rocket.jpg']
    """

    folder: str = ""
    since: str = ""
    until: str = ""
    shapes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    exclude_dirs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.folder or self.exclude_dirs or self.needs_metadata)

    @property
    def needs_metadata(self) -> bool:
        """Whether paths alone cannot tell which pictures are left."""
        return bool(self.since or self.until or self.shapes or self.kinds)


class Catalogue:
    """Metadata of all pictures that answer, at one revision of an index; made by `read`.

    Parameters
    ----------
    revision : int
        Of the index.
    ids : ndarray of shape (n,), int64
        Ascending.
    paths : sequence of str
        Relative to the root, one an id.
    facts : sequence of tuple
        (sha256, width, height, date), one an id; None for what is not known.

    Attributes
    ----------
    revision : int
        Of the index when it was read.
    ids : ndarray of shape (n,), int64
        Ascending.
    paths : sequence of str
        Relative to the root, one an id.
    sample : ndarray of shape (m, d), float32
        Embeddings of at most 2,000 pictures, drawn evenly.
    folders : list of str
        All folders that hold pictures, and those above them, relative to the root.
    kinds : list of str
        The file types that occur.
    months : list of (str, int)
        Months, as "2024-06", and how many pictures were taken in each; the newest first.
    years : tuple of str
        First and last day on which a picture was taken; ("", "") where no picture has a date.

    Examples
    --------
    >>> from clipkit.explore import Catalogue
    >>> catalogue = Catalogue.read(clipkit.ImageIndex.open("photos"))
    >>> len(catalogue), catalogue.kinds
    (4, ['JPEG', 'PNG'])
    >>> fact = catalogue.fact(int(catalogue.ids[0]))
    >>> fact.path, fact.width, fact.height
    ('astronaut.png', 512, 512)
    """

    def __init__(self, revision: int, ids: IntArray, paths: Sequence[str], facts: Sequence[tuple[object, ...]]) -> None:
        self.revision = revision
        self.ids = ids
        self.sample: FloatArray = np.empty((0, 0), np.float32)
        self._place = {id_: row for row, id_ in enumerate(ids.tolist())}
        self.paths = paths
        self._sums = [fact[0] if isinstance(fact[0], bytes) else b"" for fact in facts]
        sizes = [(_side(fact[1]), _side(fact[2])) for fact in facts]
        self._sizes: npt.NDArray[np.int32] = np.array(sizes, np.int32).reshape(-1, 2)
        taken = [str(fact[3] or "")[:19] for fact in facts]
        self._taken: npt.NDArray[np.str_] = np.array(taken, "U19")
        self._kinds: npt.NDArray[np.str_] = np.array([kind(path) for path in paths], "U8")

    def __repr__(self) -> str:
        return described(self, counted(len(self), "picture"), f"revision {self.revision}")

    @classmethod
    def read(cls, index: ImageIndex) -> Catalogue:
        """The metadata as an index has it now.

        Parameters
        ----------
        index : ImageIndex
            Whose pictures are listed.

        Returns
        -------
        Catalogue
            At the index's revision.
        """
        revision, paths = index.store.paths()
        ids = np.fromiter(paths, dtype=np.int64, count=len(paths))
        facts: dict[int, tuple[object, ...]] = {}
        for start in range(0, len(ids), BLOCK):
            block = ids[start : start + BLOCK]
            facts |= index.store.facts(int(block[0]), int(block[-1]))
        nothing = (None, None, None, None)
        catalogue = cls(revision, ids, list(paths.values()), [facts.get(id_, nothing) for id_ in ids.tolist()])
        catalogue.sample = index.sample_embeddings(ids)
        return catalogue

    def __len__(self) -> int:
        return len(self.ids)

    def fact(self, id_: int) -> Fact | None:
        """Metadata of one picture.

        Parameters
        ----------
        id_ : int
            Of the picture in the index.

        Returns
        -------
        Fact or None
            `id`, `path`, `width`, `height`, `taken` and `sha256`; None where the picture does not answer.
        """
        row = self._place.get(id_)
        if row is None:
            return None
        width, height = self._sizes[row].tolist()
        return Fact(id_, self.paths[row], width, height, str(self._taken[row]), self._sums[row].hex())

    @cached_property
    def folders(self) -> list[str]:
        """All folders that hold pictures, and those above them, relative to the root."""
        found: set[str] = set()
        for folder in {os.path.dirname(path) for path in self.paths}:
            found |= {str(above) for above in (PurePosixPath(folder), *PurePosixPath(folder).parents)}
        return sorted(found - {"."})[:MAX_FOLDERS]

    @cached_property
    def kinds(self) -> list[str]:
        """The file types that occur, sorted."""
        return sorted(set(self._kinds.tolist()))

    @cached_property
    def years(self) -> tuple[str, str]:
        """First and last day on which a picture was taken; ("", "") where no picture has a date."""
        known = np.sort(self._taken[self._taken != ""])
        return (str(known[0])[:10], str(known[-1])[:10]) if len(known) else ("", "")

    def chosen(self, filters: Filters) -> IntArray | None:
        """Ids of the pictures that the filters leave.

        Parameters
        ----------
        filters : Filters
            All of them hold.

        Returns
        -------
        ndarray of shape (m,), int64, or None
            None for all pictures.

        Raises
        ------
        QueryError
            If no picture lies in the folder of the filters.
        """
        if not filters:
            return None
        keep = np.ones(len(self), dtype=np.bool_)
        if (is_chosen := filter_for(self.paths, filters.folder, filters.exclude_dirs)) is not None:
            keep &= np.fromiter(map(is_chosen, self.paths), np.bool_, len(self))
        if filters.since or filters.until:
            keep &= (self._taken != "") & (self._taken >= filters.since)
        if filters.until:
            keep &= self._taken <= f"{filters.until}T99"
        if filters.shapes:
            keep &= np.isin(self._shapes(), filters.shapes)
        if filters.kinds:
            keep &= np.isin(self._kinds, filters.kinds)
        return self.ids[keep]

    def newest_first(self, ids: IntArray) -> IntArray:
        """Ids by date, the newest first; those without a date come last, and equals in the order of ids.

        Parameters
        ----------
        ids : ndarray of shape (m,), int64
            Of this catalogue, ascending.

        Returns
        -------
        ndarray of shape (m,), int64
            The same ids.
        """
        return ids[np.argsort(-self._ranks[np.searchsorted(self.ids, ids)], kind="stable")]

    @cached_property
    def months(self) -> list[tuple[str, int]]:
        """Months, as "2024-06", and how many pictures were taken in each; the newest first, "" for no date last."""
        found, counts = np.unique(self._taken.astype("U7"), return_counts=True)
        return list(zip(found[::-1].tolist(), counts[::-1].tolist(), strict=True))

    @cached_property
    def _ranks(self) -> IntArray:
        """Of each date among all, the oldest first; 0 for none, where any has none."""
        return np.unique(self._taken, return_inverse=True)[1].astype(np.int64)

    def twins(self, id_: int) -> list[int]:
        """The other pictures with the same bytes.

        Parameters
        ----------
        id_ : int
            Of the picture in the index.

        Returns
        -------
        list of int
            Ids; empty where there are none.
        """
        row = self._place.get(id_)
        if row is None or not self._sums[row]:
            return []
        return [int(other) for other, sha256 in zip(self.ids, self._sums, strict=True) if sha256 == self._sums[row]]

    def copies(self, id_: int) -> int:
        """How many pictures have the bytes of this one, itself among them.

        Parameters
        ----------
        id_ : int
            Of the picture in the index.

        Returns
        -------
        int
            1 where there is no other.
        """
        row = self._place.get(id_)
        return 1 if row is None or not self._sums[row] else self._counts[self._sums[row]]

    @cached_property
    def _counts(self) -> Counter[bytes]:
        return Counter(self._sums)

    def duplicates(self) -> list[list[int]]:
        """Groups of pictures with equal bytes, the largest first.

        Returns
        -------
        list of list of int
            Ids.
        """
        groups: dict[bytes, list[int]] = {}
        for id_, sha256 in zip(self.ids.tolist(), self._sums, strict=True):
            groups.setdefault(sha256, []).append(id_)
        return sorted((ids for sha256, ids in groups.items() if sha256 and len(ids) > 1), key=len, reverse=True)

    def _shapes(self) -> npt.NDArray[np.str_]:
        width, height = self._sizes[:, 0], self._sizes[:, 1]
        tall, wide = height > SQUARE * width, width > SQUARE * height
        return np.select([wide, tall], ["landscape", "portrait"], "square")


def choose_ids(index: ImageIndex, filters: Filters) -> IntArray | None:
    """Ids (m,) of the pictures that the filters leave; None for all. Metadata is read only where they need it."""
    if filters.needs_metadata:
        from_root = FolderPatterns(filters.exclude_dirs, index.root).texts  # a catalogue has no root
        return Catalogue.read(index).chosen(replace(filters, exclude_dirs=from_root))
    return index.ids_in(filters.folder, filters.exclude_dirs)


def parse_day(text: str, *, is_end: bool = False) -> str:
    """A day, month or year (`2019-07-31`, `2019-07`, `2019`), to compare with dates; QueryError for anything else.

    is_end: the last day of what is meant.
    """
    day = text.strip()
    if not day:
        return ""
    if not _DAY.fullmatch(day):
        raise QueryError(f"“{printable(day[:40])}” is no date", hint="write 2019, 2019-07 or 2019-07-31")
    return day + "-99-99"[: 10 - len(day)] * is_end


def parse_kinds(text: str) -> tuple[str, ...]:
    """A file type as somebody types it (`jpg`, `.png`, `HEIC`, `raw`: of all cameras), as `kind` says it.

    `video`: of all videos. QueryError for one never indexed.
    """
    suffix = text.strip().lower().lstrip(".")
    if suffix in ("raw", "video"):
        return tuple(sorted(kind(f"x{one}") for one in (RAW if suffix == "raw" else VIDEO)))
    if not (is_picture(f"x.{suffix}") or is_video(f"x.{suffix}")):
        raise QueryError(
            f"“{printable(text[:40])}” is no type of picture", hint="one of jpeg, png, webp, heic, raw, ..."
        )
    return (kind(f"x.{suffix}"),)


def kind(path: str) -> str:
    """What the suffix says of a file, in capitals: JPEG, PNG, HEIC ..."""
    suffix = file_of(path).rpartition(".")[2].lower()
    return KINDS.get(suffix, suffix.upper()[:8])


def _side(value: object) -> int:
    """A width or height as an index has it, which may come from anybody."""
    return value if isinstance(value, int) and 0 < value < 2**31 else 1
