"""Library: a folder of pictures with its index, model and metadata, safe to share between threads."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np

from clipkit.core.arrays import Embeddings
from clipkit.core.text import described
from clipkit.explore.metadata import Catalogue, Fact
from clipkit.explore.relevance import RelevanceScale, scale_for
from clipkit.images.decode import MAX_FILE_BYTES
from clipkit.images.formats import file_of, is_picture
from clipkit.index.image_index import ImageIndex, Loader
from clipkit.index.places import FOLDER
from clipkit.models.encoder import Encoder
from clipkit.search.query import Query, Sum, embed, parse_query
from clipkit.search.saved import expand, is_saved_name
from clipkit.store.database import FILE
from clipkit.store.records import IndexInfo

KEY_LENGTH = 12  # hex digits of a library's name in addresses
REMEMBERED = 256  # queries in words: each page of one answer asks again
SETTLED_NS = 2 * 10**9  # a file younger than that may change once more without a younger date

Stamp = tuple[int, int, int, int]


class Library:
    """A folder of pictures with its index, model and metadata; safe to share between threads.

    It may have no index until its first run.

    Parameters
    ----------
    root : Path
        The folder of pictures.
    load : callable
        Loads an encoder, given a model's name and whether pixels are exact.
    at : Path, optional
        Where the index is, if not in `root/.clipkit`.

    Attributes
    ----------
    root : Path
        The folder of pictures.
    at : Path or None
        As given.
    key : str
        12 hex digits that name the library in addresses.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.explore import Library
    >>> library = Library(Path("photos"), lambda name, exact: clipkit.load_encoder(name))
    >>> library.name, library.is_indexed, len(library.catalogue())
    ('photos', True, 4)
    """

    def __init__(self, root: Path, load: Loader, *, at: Path | None = None) -> None:
        self.root = root
        self.key = hashlib.sha256(os.fsencode(root)).hexdigest()[:KEY_LENGTH]
        self.at = at
        self._load_model = load
        self._encoder: Encoder | None = None
        self._index: ImageIndex | None = None
        self._known: tuple[Stamp | None, IndexInfo] | None = None
        self._checked: tuple[IndexInfo, Encoder] | None = None
        self._catalogue: Catalogue | None = None
        self._scale: tuple[tuple[str, int], RelevanceScale] | None = None
        self._words: OrderedDict[tuple[str, Sum], Embeddings] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return described(self, repr(self.name), "indexed" if self.is_indexed else "no index")

    @property
    def name(self) -> str:
        """The folder's own name, for people."""
        return self.root.name or str(self.root)

    @property
    def folder(self) -> Path:
        """Where the index is, or will be."""
        return self.at or self.root / FOLDER

    @property
    def is_there(self) -> bool:
        """Whether the folder is there; its disk may be gone."""
        return self.root.is_dir()

    @property
    def is_indexed(self) -> bool:
        """Whether there is an index."""
        return (self.folder / FILE).exists()

    @property
    def index(self) -> ImageIndex:
        """The index; IndexNotFound before the first run."""
        with self._lock:
            if self._index is None:
                self._index = ImageIndex.open(self.root, at=self.at, load=self._load)
            return self._index

    @property
    def loaded(self) -> Encoder | None:
        """The model, if it has been loaded already; else None."""
        return self._encoder

    @property
    def info(self) -> IndexInfo:
        """Model, width, recipe and revision of the index; its file is opened only when it has changed."""
        stamp = _stamp(self.folder / FILE)  # before it is read: what is written meanwhile shows next time
        known = self._known
        if known is None or stamp is None or known[0] != stamp:
            self._known = known = (stamp, self.index.info)
        return known[1]

    @property
    def encoder(self) -> Encoder:
        """What encodes queries, loaded on first use and compared with the index whenever that has changed."""
        info, checked = self.info, self._checked
        if checked is None or checked[0] is not info:
            self._checked = checked = (info, self.index.query_encoder)
        return checked[1]

    def catalogue(self) -> Catalogue:
        """Metadata of the pictures now; read again when the index has changed.

        Returns
        -------
        Catalogue
            At the index's revision.
        """
        index, revision = self.index, self.info.revision
        with self._lock:
            if self._catalogue is None or self._catalogue.revision != revision:
                self._catalogue = Catalogue.read(index)
            return self._catalogue

    def parse(self, text: str) -> Query:
        """A query in words, read; it may name no file, since it may come from anybody.

        Parameters
        ----------
        text : str
            In the query language; "" is a query for everything, "@beaches" the search that was saved as beaches.

        Returns
        -------
        Query
            Tree, filters and notes.
        """
        if is_saved_name(text):
            text = expand(text, dict(self.info.searches))
        return parse_query(text, words_only=True) if text.strip() else Query(None)

    def embed(self, leaf: Sum) -> Embeddings:
        """Embedding of a sum of words; the last 256 are cached.

        Parameters
        ----------
        leaf : Sum
            Of words.

        Returns
        -------
        ndarray of shape (1, d), float32
            Of length 1.
        """
        encoder = self.encoder
        key = (encoder.fingerprint, leaf)
        known = self._words.get(key)
        if known is None:
            known = embed(leaf.terms, encoder)
        with self._lock:
            self._words[key] = known
            self._words.move_to_end(key)
            if len(self._words) > REMEMBERED:
                self._words.popitem(last=False)
        return known

    def relevance_scale(self) -> RelevanceScale:
        """What relevance is measured against, by this library's model and pictures now.

        Returns
        -------
        RelevanceScale
            Of the catalogue's revision.
        """
        encoder, catalogue = self.encoder, self.catalogue()
        key = (encoder.fingerprint, catalogue.revision)
        if self._scale is None or self._scale[0] != key:
            self._scale = (key, scale_for(encoder, catalogue.sample, len(catalogue)))
        return self._scale[1]

    def warm(self) -> None:
        """Load what the first search would wait for: model, catalogue, search cache."""
        if self.is_indexed and len(self.catalogue()):
            self.relevance_scale()
            self.index.search_embeddings(np.eye(1, self.index.info.dim, dtype=np.float32), 1)

    def file_of(self, id_: int) -> Path | None:
        """The file of a picture, if it may be shown.

        Parameters
        ----------
        id_ : int
            Of the picture in the index.

        Returns
        -------
        Path or None
            None unless it is a picture by its suffix, a regular file, and below the root when links are followed.
        """
        fact = self.catalogue().fact(id_)
        return None if fact is None else self.place_of(fact.path)

    def place_of(self, path: str) -> Path | None:
        """The file of a path that the catalogue has, if it may be shown.

        Parameters
        ----------
        path : str
            Relative to the root.

        Returns
        -------
        Path or None
            As `file_of`.
        """
        if not is_picture(path.rpartition("/")[2]):
            return None
        return picture_below(self.root, path)

    def _load(self, name: str, exact_pixels: bool) -> Encoder:
        self._encoder = self._load_model(name, exact_pixels)
        return self._encoder

    def content(self, fact: Fact, file: Path) -> str:
        """What tells this picture's content from any other: its bytes as indexed, and size and date of the file now.

        Parameters
        ----------
        fact : Fact
            Of the catalogue.
        file : Path
            The picture's file.

        Returns
        -------
        str
            SHA-256, bytes and nanoseconds.
        """
        status = os.stat(file_of(str(file)))
        return f"{fact.sha256} {status.st_size} {status.st_mtime_ns}"


def picture_below(root: Path, path: str) -> Path | None:
    """The file, if it is a regular one and a picture, and lies below `root` when links are followed.

    A frame of a video is one, if the video is.
    """
    whole, fragment = file_of(path), path[len(file_of(path)) :]
    try:
        file = Path(os.path.realpath(root / whole, strict=True))
        status = file.stat()
    except (OSError, ValueError):
        return None
    picture = file.with_name(file.name + fragment)
    is_inside = file.is_relative_to(os.path.realpath(root))
    is_plain = stat.S_ISREG(status.st_mode) and (status.st_size <= MAX_FILE_BYTES or bool(fragment))
    return picture if is_inside and is_plain and is_picture(picture.name) else None


def _stamp(file: Path) -> Stamp | None:
    """What changes when the file is written or replaced; None where that could not be told yet."""
    try:
        status = file.stat()
    except OSError:
        return None
    is_settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) if is_settled else None
