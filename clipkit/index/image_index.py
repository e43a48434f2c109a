"""ImageIndex: a folder of pictures that can be searched."""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from clipkit.core.arrays import Embeddings, IntArray, check_embeddings
from clipkit.core.progress import Failure, Progress
from clipkit.core.text import counted, described
from clipkit.errors import BadIndex, ClipkitError, IndexNotFound, ModelError, QueryError
from clipkit.images.formats import can_read_video, file_of
from clipkit.index.crash_recovery import Journal, in_flight
from clipkit.index.model_check import check_model, check_model_cfg, current_model_cfg, encoder_model_cfg, is_same_model
from clipkit.index.paths import filter_for, folder_below, near_folder, take_back
from clipkit.index.places import FOLDER, UrlPath, index_folder, is_url, real_folder, refuse_url, root_of
from clipkit.index.rebuild import Rebuild
from clipkit.index.scan import Changes, Scan, find_images, stale_files
from clipkit.index.videos import find_changes
from clipkit.models.devices import FLOAT32, INT8
from clipkit.models.encoder import Encoder
from clipkit.models.exports import model_cfg_beside
from clipkit.models.load import ensure_export, load_encoder, load_query_encoder
from clipkit.models.registry import find_weights
from clipkit.search.column_cache import ColumnCache
from clipkit.search.hits import Hit, Hits, check_count
from clipkit.search.inverted_file import Quality
from clipkit.search.query import embed, parse, parse_query
from clipkit.search.saved import LIST, MOST_SEARCHES, check_name, expand, is_saved_name
from clipkit.search.vector_cache import IndexCache
from clipkit.store.columns import Columns
from clipkit.store.database import FILE, Store, make_folder, writing
from clipkit.store.records import IndexInfo, Known, ScannedFile

if TYPE_CHECKING:
    import pandas as pd

    from clipkit.images.recipe import PictureSource
    from clipkit.index.update import IndexReport, Tally


# A model's name, whether pixels are exact, and where it is not plain floating point the precision.
SAMPLE = 2_000  # pictures whose scores stand for those of all
Loader = Callable[..., Encoder]


class ImageIndex:
    """A folder of pictures that can be searched.

    Made by `create` or `open`. The encoder is loaded on the first query or file that needs it. Usable from several
    threads; may be used as a context manager, though nothing is held open between calls. `len(index)` is the number of
    pictures that answer, iteration gives their paths, and `"trip/sea.jpg" in index` asks for one.

    Parameters
    ----------
    root : Path
        The folder of pictures.
    folder : Path
        Where `index.db` lies.
    encoder : Encoder, optional
        Used instead of loading the model that the index was made with.
    load : callable, optional
        Loads an encoder, given a model's name and whether pixels are exact; by default `load_encoder`.

    Attributes
    ----------
    root : Path
        The folder of pictures, absolute.
    folder : Path
        Where `index.db` lies: `root/.clipkit`, or what was given as `at`.
    is_exact : bool
        Whether every search is exact, also where an inverted file would answer sooner; False by default.
    former_model : str
        The model before, where `create` has given the index another one with the same image tower; else "".
    store : Store
        The rows that answer; those of a rebuild take their place when `update` has completed.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> index = clipkit.ImageIndex.create("animals", encoder)
    >>> report = index.update()
    >>> report.found, len(index)
    (10, 10)
    >>> index.embeddings.shape
    (10, 384)
    >>> index.search("a cat", k=1)[0].path.startswith("cat/")
    True
    """

    def __init__(self, root: Path, folder: Path, *, encoder: Encoder | None = None, load: Loader | None = None) -> None:
        self.root = root
        self.folder = folder
        self.store = Store(folder / FILE)
        self._encoder = encoder
        self._load = load or _load
        self._given = encoder
        self._query_encoder: Encoder | None = None
        self._cache = IndexCache(self.store)
        self._columns = ColumnCache(self.store)
        self._rebuild: Rebuild | None = None
        self.is_exact = False
        self.former_model = ""

    @classmethod
    def create(
        cls, root: str | Path, encoder: Encoder, *, at: str | Path | None = None, rebuild: bool = False
    ) -> ImageIndex:
        """The index of `root`, made if there is none.

        Nothing is encoded before `update`.

        Parameters
        ----------
        root : str or Path
            The folder of pictures.
        encoder : Encoder
            The model of the index. One with other weights for words and the same image tower, as `adapt` makes it,
            takes the place of the one before: nothing is encoded again.
        at : str or Path, optional
            Keep the index in that folder instead of `root/.clipkit`.
        rebuild : bool, default False
            Replace whatever is there, in one step and only when `update` has completed.

        Returns
        -------
        ImageIndex
            Open.

        Raises
        ------
        ModelMismatch
            If there is an index of another model or pixel recipe.
        ClipkitError
            If `root` is not a folder.

        Examples
        --------
        >>> encoder = clipkit.load_encoder("starter")
        >>> index = clipkit.ImageIndex.create("animals", encoder, at="animals-index")
        >>> len(index)
        0
        """
        place = real_folder(root)
        index = cls(place, index_folder(place, at), encoder=encoder)
        if rebuild:
            index._begin_rebuild(encoder, is_outside=at is not None)
        elif not index.store.file.exists():
            index._make(encoder, is_outside=at is not None)
        else:
            refuse_url(index.info.root, "an index of a folder here")
            index._check_model(encoder, index.info)
            index._note_source(encoder)
        return index

    @classmethod
    def open(
        cls,
        root: str | Path,
        *,
        at: str | Path | None = None,
        encoder: Encoder | None = None,
        load: Loader | None = None,
    ) -> ImageIndex:
        """The index that `root` has.

        Parameters
        ----------
        root : str or Path
            The folder of pictures.
        at : str or Path, optional
            Where the index is, if not in `root/.clipkit`.
        encoder : Encoder, optional
            Used instead of loading the model that the index was made with.
        load : callable, optional
            Loads an encoder when it is first needed, given a model's name and whether pixels are exact.

        Returns
        -------
        ImageIndex
            Its model is not loaded yet.

        Raises
        ------
        IndexNotFound
            If there is none.
        IndexTooNew, IndexDamaged
            If it cannot be read.
        ModelMismatch
            If `encoder` is not the model it was made with.

        Examples
        --------
        >>> with clipkit.ImageIndex.open("photos") as index:
        ...     index.model, index.paths
        ('starter', ['astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg'])
        """
        place = root_of(root)
        index = cls(place, index_folder(place, at), encoder=encoder, load=load)
        if not index.store.file.exists():
            command = ["--index", str(root)] if (place / FILE).exists() else ["clipkit", "index", str(root)]
            raise IndexNotFound(f"{root} has no index", hint=shlex.join(command))
        recorded = index.store.info().root
        if recorded and is_url(recorded):
            index.root = UrlPath(recorded)
        if encoder is not None:
            index._check_model(encoder, index.info)
        return index

    def __enter__(self) -> ImageIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cache.clear()
        self._columns.clear()

    def __len__(self) -> int:
        return self.store.counts()["ok"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __contains__(self, path: object) -> bool:
        return path in self.store.paths()[1].values()

    def __repr__(self) -> str:
        try:
            facts = [counted(len(self), "picture"), f"model {self.model!r}"]
        except ClipkitError as error:  # a debugger asks too, also where the database is gone or damaged
            facts = [f"cannot be read: {type(error).__name__}"]
        return described(self, repr(self.root.name), *facts)

    def _repr_html_(self) -> str:
        """Twelve pictures from all over the index as thumbnails, as notebooks show them."""
        from clipkit.images.notebook import MOST, Captioned, notebook_html, rest

        ids = self.ids
        chosen = ids[:: max(1, -(-len(ids) // MOST))].tolist()
        _, paths = self.store.paths(chosen)
        pictures = [Captioned(str(self.root / paths[id_]), paths[id_]) for id_ in chosen if id_ in paths]
        facts = [counted(len(ids), "picture"), self.model]
        more = rest(len(ids), "pictures", "to_frame()", most=len(pictures))
        return notebook_html(self.root.name, facts, pictures=pictures, more=more)

    @property
    def info(self) -> IndexInfo:
        """Model, width, recipe and revision as the index has them now."""
        return self.store.info()

    @property
    def model(self) -> str:
        """Canonical name of the model it was made with."""
        return self.info.model

    @property
    def revision(self) -> int:
        """Number of the last transaction; grows by one with each."""
        return self.info.revision

    @property
    def ids(self) -> IntArray:
        """Ids (n,) of the pictures that answer, ascending; row i belongs to embeddings[i]."""
        return self._cache.ids()

    @property
    def columns(self) -> Columns:
        """Metadata of the pictures that answer, as the filters of a query read it."""
        return self._columns.current()

    @property
    def paths(self) -> list[str]:
        """Paths of the pictures that answer, relative to the root; row i belongs to embeddings[i]."""
        return list(self.store.paths()[1].values())

    @property
    def embeddings(self) -> Embeddings:
        """All embeddings that answer, float32 (n, d), in the order of `paths`; see `blocks` for large ones."""
        blocks = list(self.blocks())
        return np.concatenate(blocks) if blocks else np.empty((0, self.info.dim), dtype=np.float32)

    @property
    def encoder(self) -> Encoder:
        """The model of this index, loaded on first use; ModelMismatch where the weights are not the same any more."""
        return self._encoder_of(self.info)

    @property
    def query_encoder(self) -> Encoder:
        """What encodes queries: the encoder that was given, or the export of the model, which loads without torch."""
        if self._given is not None:
            return self.encoder
        info = self.info
        if self._query_encoder is None or not is_same_model(self._query_encoder, info):
            self._query_encoder = self._load_query_encoder(info)
        return self._query_encoder

    def refresh_query_encoder(self) -> None:
        """Look again for what encodes queries, as a new process would; what is still the same stays loaded."""
        if self._query_encoder is not None:
            self._query_encoder = self._load_query_encoder(self.info)

    @property
    def saved_searches(self) -> dict[str, str]:
        """Queries by name, as `@name` asks for them."""
        return dict(self.info.searches)

    def save_search(self, name: str, query: str) -> None:
        """Remember a query by name, in the index: `search("@name")` asks it again.

        Parameters
        ----------
        name : str
            Letters, digits, dots and dashes; an earlier search of that name is replaced.
        query : str
            As `clipkit search` reads it.

        Raises
        ------
        QueryError
            If the name cannot be one, or the query cannot be read.
        IndexLocked
            While another process writes.

        Examples
        --------
        >>> index = clipkit.ImageIndex.open("photos")
        >>> index.save_search("cats", "a cat")
        >>> index.search("@cats", k=1)[0].path
        'chelsea.png'
        """
        own = check_name(name)
        words = expand(query, self.saved_searches)
        parse_query(words)
        self._change_searches(lambda searches: {**searches, own: words})

    def forget_search(self, name: str) -> None:
        """Forget a saved search.

        Parameters
        ----------
        name : str
            With or without its @.

        Raises
        ------
        QueryError
            If there is none of that name.

        Examples
        --------
        >>> index = clipkit.ImageIndex.open("photos")
        >>> index.save_search("cats", "a cat")
        >>> index.forget_search("cats")
        >>> index.saved_searches
        {}
        """
        own = check_name(name)
        expand(f"@{own}", self.saved_searches)
        self._change_searches(lambda searches: {key: text for key, text in searches.items() if key != own})

    @property
    def ann_quality(self) -> Quality | None:
        """What approximate search was measured to find; None where there is none."""
        return Quality.parse(self.info.ann_quality)

    def to_frame(self) -> pd.DataFrame:
        """The pictures that answer as a pandas table.

        Returns
        -------
        pandas.DataFrame
            With the columns path, width, height and taken (the date as it was read, None without one); its index is
            the pictures' ids, in the order of `paths`.

        Examples
        --------
        >>> clipkit.ImageIndex.open("photos").to_frame()[["path", "width"]].head(2)
                     path  width
        id
        1   astronaut.png    512
        2     chelsea.png    451
        """
        import pandas as pd

        _, paths = self.store.paths()
        facts = self.store.facts(min(paths, default=0), max(paths, default=0))
        unknown = (None, None, None, None)
        rows = [(path, *facts.get(id_, unknown)[1:]) for id_, path in paths.items()]
        names = pd.Index(list(paths), name="id", dtype="int64")
        return pd.DataFrame(rows, columns=["path", "width", "height", "taken"], index=names)

    def counts(self) -> dict[str, int]:
        """Number of pictures by state.

        Returns
        -------
        dict
            With the keys ok, missing and failed.
        """
        return self.store.counts()

    def partial_count(self) -> int:
        """Number of pictures that answer by a part: JPEGs that were cut off.

        Returns
        -------
        int
            Of those that `counts` calls ok.
        """
        return self.store.partial_count()

    def without_metadata_count(self) -> int:
        """Number of pictures that answer and whose metadata was never read: `update(refresh_metadata=True)` does.

        Returns
        -------
        int
            Of those that `counts` calls ok.
        """
        return self.store.without_metadata_count()

    def failures(self) -> list[Failure]:
        """Pictures that could not be read.

        Returns
        -------
        list of Failure
            Each with `path` and `reason`.
        """
        return self.store.failures()

    def blocks(self) -> Iterator[Embeddings]:
        """The embeddings in pieces, for indexes that do not fit into memory.

        Yields
        ------
        ndarray of shape (m, d), float32
            At most 2,048 rows, in the order of `paths`.
        """
        return (rows.astype(np.float32) for _, _, rows in self.store.blocks() if len(rows))

    def update(
        self,
        *,
        progress: Callable[[Progress], None] | None = None,
        workers: int | None = None,
        exclude_dirs: Collection[str] = (),
        include_dirs: Collection[str] = (),
        include_hidden: bool = False,
        checksum: bool = False,
        retry_failed: bool = False,
        refresh_metadata: bool = False,
        video: bool | None = None,
    ) -> IndexReport:
        """Bring the index up to date with the folder; what is committed stays, whatever happens.

        Parameters
        ----------
        progress : callable, optional
            Given a `Progress` (`done`, `total`, `path`) after each picture.
        workers : int, optional
            Threads that read and decode; by default one a core, at most 8.
        exclude_dirs : collection of str, optional
            Names of folders, or paths relative to the root, to leave out now and in later runs: the index remembers
            them (`info.excluded`).
        include_dirs : collection of str, optional
            Of those that are left out, the ones to take back.
        include_hidden : bool, default False
            Also what begins with a dot.
        checksum : bool, default False
            Read every file again, not only those whose size or date changed.
        retry_failed : bool, default False
            Read those again that failed before.
        refresh_metadata : bool, default False
            Read the metadata of all pictures again, not only where a sidecar changed; nothing is encoded for that.
        video : bool, optional
            Whether frames of videos are pictures too, one for each shot, as `clip.mp4#t=12.48` (seconds); the index
            remembers it.

        Returns
        -------
        IndexReport
            What was done, in pictures.

        Raises
        ------
        IndexLocked
            While another process writes.
        ModelError
            If `video` wants the extra of this name, and it is not installed.

        Examples
        --------
        >>> report = clipkit.ImageIndex.open("photos").update()
        >>> report.unchanged + report.reused, report.encoded
        (4, 0)
        """
        started = time.monotonic()
        refuse_url(None if self._rebuild else self.store.info().root, "an update")
        with writing(self.folder):
            store = self._rebuild.store if self._rebuild else self.store
            self._note_model_cfg(store)
            before = store.info().excluded
            kept = take_back(before, include_dirs, self.root)
            scan = find_images(
                str(self.root),
                exclude_dirs=exclude_dirs,
                remembered=kept.texts,
                include_hidden=include_hidden,
                with_videos=_remember_video(store, video),
            )
            if scan.exclusions != before:
                with store.transaction() as writer:
                    writer.exclude(scan.exclusions)
            known = store.known()
            changes = find_changes(scan, known, checksum=checksum, retry_failed=retry_failed)
            if self._rebuild:
                self._refuse_to_lose(scan)
            unread_raws = sum(path not in known for path in scan.unread_raws)
            workers = workers or min(8, os.cpu_count() or 1)
            tally = self._apply(store, changes, known, workers=workers, progress=progress)
            known = store.known() if changes.read or changes.videos else known
            stale = _stale(scan, changes, known, everything=refresh_metadata)
            refreshed = self._refresh_metadata(store, stale, known, workers=workers, progress=progress)
            self._complete_rebuild()
            self._refresh_cache()
            self._columns.write()
        report = _report(scan, changes, tally, seconds=time.monotonic() - started)
        return replace(report, not_excluded=kept.not_excluded, refreshed=refreshed, unread_raws=unread_raws)

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        add: Sequence[str] = (),
        subtract: Sequence[str] = (),
        below: str = "",
        exclude_dirs: Collection[str] = (),
    ) -> Hits:
        """The k pictures nearest to a query.

        Parameters
        ----------
        query : str
            Words, a picture's path (beginning with `./`, `../`, `/` or `~`), or a sum of them with weights and signs,
            as `clipkit search` reads it.
        k : int, default 10
            Cut to what is there.
        add, subtract : sequence of str, optional
            Further terms that are added to or taken from the query.
        below : str, optional
            Only pictures in that folder, relative to the root; a glob may match several.
        exclude_dirs : collection of str, optional
            No pictures in folders of these names.

        Returns
        -------
        Hits
            Best first.

        Raises
        ------
        QueryError
            If the query cannot be understood, names a file that is not there, or no picture lies in `below`.
        ModelMismatch
            If the weights of the index's model are not the same any more.

        Examples
        --------
        >>> index = clipkit.ImageIndex.open("photos")
        >>> [hit.path for hit in index.search("a cup of coffee", k=2)]
        ['coffee.png', 'chelsea.png']
        """
        words = expand(query, self.saved_searches) if is_saved_name(query) else query
        terms = parse(words, add=add, subtract=subtract)
        is_mixed = len({term.is_file for term in terms}) > 1
        vector = embed(terms, self.query_encoder, sample=self.sample_embeddings() if is_mixed else None)
        return self.search_embeddings(vector, k, below=below, exclude_dirs=exclude_dirs)[0]

    def search_image(self, picture: PictureSource, k: int = 10, *, below: str = "") -> Hits:
        """The k pictures nearest to a picture.

        Parameters
        ----------
        picture : path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
            RGB, of any size.
        k : int, default 10
            Cut to what is there.
        below : str, optional
            Only pictures in that folder, relative to the root.

        Returns
        -------
        Hits
            Best first.

        Examples
        --------
        >>> index = clipkit.ImageIndex.open("photos")
        >>> index.search_image("animals/cat/0.png", k=1)[0].path
        'chelsea.png'
        """
        if isinstance(picture, str | os.PathLike):
            from clipkit.images.guarded_decoder import warm_up

            warm_up()  # while the model is loaded
        return self.search_embeddings(self.query_encoder.encode_images([picture]), k, below=below)[0]

    def search_embeddings(
        self,
        embeddings: Embeddings,
        k: int = 10,
        *,
        below: str = "",
        exclude_dirs: Collection[str] = (),
        only: IntArray | None = None,
    ) -> list[Hits]:
        """The k nearest pictures of each row of embeddings.

        Parameters
        ----------
        embeddings : ndarray of shape (q, d) or (d,), float32
            Rows of length 1, by the index's model.
        k : int, default 10
            Cut to what is there.
        below : str, optional
            Only pictures in that folder, relative to the root.
        exclude_dirs : collection of str, optional
            No pictures in folders of these names.
        only : ndarray of shape (n,), int64, optional
            Only these ids, instead of `below` and `exclude_dirs`.

        Returns
        -------
        list of Hits
            One a row, best first; equal scores in the order of ids.

        Raises
        ------
        QueryError
            If k is less than 1, or no picture lies in `below`.
        ShapeError
            If the rows are no embeddings of this width.

        Examples
        --------
        >>> index = clipkit.ImageIndex.open("photos")
        >>> texts = index.encoder.encode_texts(["a cat", "a rocket on its launch pad"])
        >>> [hits[0].path for hits in index.search_embeddings(texts, k=1)]
        ['chelsea.png', 'rocket.jpg']
        """
        check_count(k)
        queries = check_embeddings(np.atleast_2d(np.asarray(embeddings, dtype=np.float32)), self.info.dim)
        for _ in range(3):  # an index run may commit between the search and the look-up of the names
            chosen = self.ids_in(below, exclude_dirs) if only is None else only
            revision, scores, ids = self._cache.search(queries, k, only=chosen, exact=self.is_exact)
            now, paths = self.store.paths(dict.fromkeys(ids.ravel().tolist()))
            if now == revision:
                break
        partial = self.store.partial_among(paths)
        return [
            Hits(
                Hit(min(float(score), 1.0), paths[id_], str(self.root / paths[id_]), id_, id_ in partial)
                for score, id_ in zip(row_scores.tolist(), row_ids.tolist(), strict=True)
                if id_ in paths
            )
            for row_scores, row_ids in zip(scores, ids, strict=True)
        ]

    def sample_embeddings(self, ids: IntArray | None = None, *, about: int = SAMPLE) -> Embeddings:
        """Embeddings of some pictures, at most 2,000, drawn evenly, whose scores stand for those of all.

        Parameters
        ----------
        ids : ndarray of shape (n,), int64, optional
            Those to draw from; by default all that answer.
        about : int, default 2,000
            How many are enough; fewer than twice as many are read.

        Returns
        -------
        ndarray of shape (m, d), float32
            In the order of ids.
        """
        ids = self.ids if ids is None else ids
        step = max(1, len(ids) // SAMPLE)
        drawn = ids[::step][:SAMPLE]
        return self.store.vectors(drawn[:: max(1, len(drawn) // about)].tolist())[1].astype(np.float32)

    def ids_in(self, below: str = "", exclude_dirs: Collection[str] = ()) -> IntArray | None:
        """Ids of the pictures that `search` may answer with.

        Parameters
        ----------
        below : str, optional
            Only pictures in that folder, relative to the root.
        exclude_dirs : collection of str, optional
            No pictures in folders of these names.

        Returns
        -------
        ndarray of shape (n,), int64, or None
            None for all of them.

        Raises
        ------
        QueryError
            If no picture lies in `below`.
        """
        if below in ("", ".") and not exclude_dirs:
            return None
        _, paths = self.store.paths()
        is_chosen = filter_for(paths.values(), below, exclude_dirs, self.root)
        if is_chosen is None:
            return None
        return np.fromiter((id_ for id_, path in paths.items() if is_chosen(path)), dtype=np.int64)

    def _change_searches(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        with writing(self.folder):
            searches = change(self.saved_searches)
            if len(searches) > MOST_SEARCHES:
                raise QueryError(f"{MOST_SEARCHES:,} searches are saved already", hint=LIST)
            with self.store.transaction() as writer:
                writer.save_searches(searches)

    def _apply(
        self,
        store: Store,
        changes: Changes,
        known: dict[str, Known],
        *,
        workers: int,
        progress: Callable[[Progress], None] | None,
    ) -> Tally:
        from clipkit.index.agreement import check_agreement
        from clipkit.index.update import apply_changes

        suspects = in_flight(self.folder)
        encoder = self._encoder_of(store.info()) if changes.read or changes.videos else None
        if encoder is not None and not any(row.is_embedded for row in known.values()):
            command = f"{self._command()} --rebuild --precision float32"
            check_agreement(encoder, str(self.root), changes.read, hint=command)
        with closing(Journal(self.folder)) as journal:
            return apply_changes(
                store,
                encoder,
                changes,
                root=str(self.root),
                known=known,
                workers=workers,
                progress=progress,
                now_and_then=(lambda: None) if self._rebuild else self._refresh_cache,
                journal=journal,
                suspects=suspects,
            )

    def _refresh_metadata(
        self,
        store: Store,
        stale: Sequence[ScannedFile],
        known: Mapping[str, Known],
        *,
        workers: int,
        progress: Callable[[Progress], None] | None,
    ) -> int:
        """Read the metadata of these pictures again; how many were read."""
        if not stale:
            return 0
        from clipkit.index.metadata_refresh import refresh_metadata

        return refresh_metadata(store, stale, known, root=str(self.root), workers=workers, progress=progress)

    def _make(self, encoder: Encoder, *, is_outside: bool) -> None:
        make_folder(self.folder)
        with writing(self.folder):
            if self.store.file.exists():  # another program was first
                return self._check_model(encoder, self.info)
            Rebuild.begin(self.folder, self._new_info(encoder, is_outside=is_outside)).install()

    def _begin_rebuild(self, encoder: Encoder, *, is_outside: bool) -> None:
        make_folder(self.folder)
        with writing(self.folder):
            info, texts = self._new_info(encoder, is_outside=is_outside), dict[bytes, str]()
            with suppress(BadIndex):  # what somebody has set up for this folder stays, and what was read in pictures
                old = self.info
                refuse_url(old.root, "an index of a folder here")
                info = replace(info, excluded=old.excluded, searches=old.searches, ann=old.ann, video=old.video)
                texts = self.store.texts()
            self._rebuild = Rebuild.begin(self.folder, info)
            if texts:
                with self._rebuild.store.transaction() as writer:
                    writer.put_texts(texts)

    def _refuse_to_lose(self, scan: Scan) -> None:
        """ModelError where the old index has pictures that nothing here can read: the new one would not have them."""
        old: set[str] = set()
        with suppress(BadIndex):
            old = {file_of(row.path) for row in self.store.known().values() if row.is_embedded}
        for paths, what, extra in ((scan.unread_raws, "RAW file", "raw"), (scan.unread_videos, "video", "video")):
            if lost := sum(path in old for path in paths):
                fact = f"a rebuilt index would not have the {counted(lost, what)} that this one has"
                raise ModelError(f"{fact}: nothing here reads them", hint=f"pip install 'clipkit[{extra}]'")

    def _complete_rebuild(self) -> None:
        """What was built beside the old database takes its place; what a dead run left there goes."""
        if self._rebuild is None:
            Rebuild(self.folder).discard()
        else:
            self._rebuild.install()
            self._rebuild = None

    def _new_info(self, encoder: Encoder, *, is_outside: bool) -> IndexInfo:
        from clipkit.core.version import __version__

        return IndexInfo(
            index_id=secrets.token_hex(16),
            revision=0,
            token=secrets.token_hex(8),
            model=encoder.model,
            model_source=encoder.source,
            weights_sha256=encoder.fingerprint,
            engine=encoder.engine,
            precision=encoder.precision,
            dim=encoder.dim,
            pixel_recipe=str(encoder.recipe),
            model_cfg_sha256=encoder_model_cfg(encoder),
            created_by=f"clipkit {__version__}",
            root=str(self.root) if is_outside else None,
        )

    def _note_source(self, encoder: Encoder) -> None:
        """The same weights may have moved on this disk; others with the same image tower read the queries from now on.

        All facts of the model change in one transaction, and no embedding.
        """
        info = self.info
        facts = {"model_source": encoder.source}
        if encoder.fingerprint != info.weights_sha256:
            cfg = encoder_model_cfg(encoder) or info.model_cfg_sha256
            facts |= {"model": encoder.model, "weights_sha256": encoder.fingerprint, "model_cfg_sha256": cfg}
            self.former_model = info.model
        if any(getattr(info, name) != value for name, value in facts.items()):
            with writing(self.folder), self.store.transaction() as writer:
                for name, value in facts.items():
                    writer.note(name, value)

    def _note_model_cfg(self, store: Store) -> None:
        """An index that was made before configs were compared remembers its own; ModelMismatch where it is another."""
        info = store.info()
        found = encoder_model_cfg(self._encoder) if self._encoder else current_model_cfg(info)
        self._check_config(info, found)
        if found and not info.model_cfg_sha256:
            with store.transaction() as writer:
                writer.note("model_cfg_sha256", found)

    def _refresh_cache(self) -> None:
        with suppress(OSError):  # a cache that cannot be written is only slower
            self._cache.write()

    def _encoder_of(self, info: IndexInfo) -> Encoder:
        encoder = self._encoder or self._loaded(info)
        self._check_model(encoder, info)  # each time: another program may have rebuilt the index
        self._encoder = encoder
        return encoder

    def _load_query_encoder(self, info: IndexInfo) -> Encoder:
        self._check_config(info, model_cfg_beside(info.model, info.model_source))
        loaded = load_query_encoder(
            info.weights_sha256,
            info.model,
            info.model_source,
            model_cfg_sha256=info.model_cfg_sha256,
            exact_pixels=info.pixel_recipe.startswith("exact"),
            load=lambda: self.encoder,
            precision=INT8 if _is_int8(info) else FLOAT32,
            loaded=self._query_encoder,
        )
        return self.encoder if str(loaded.recipe) != info.pixel_recipe else loaded

    def _loaded(self, info: IndexInfo) -> Encoder:
        try:
            precision = [INT8] if _is_int8(info) else []
            return self._load(info.model_source, info.pixel_recipe.startswith("exact"), *precision)
        except ModelError as error:
            if not info.model.startswith("local:") or os.path.isdir(info.model_source.removeprefix("local-dir:")):
                raise
            raise ModelError(
                f"{self.root} was indexed with a model that is not there any more: {info.model_source}",
                hint=f"{self._command()} --model FOLDER, where it is now",
            ) from error

    def _command(self) -> str:
        place = [] if self.folder == self.root / FOLDER else ["--index", str(self.folder)]
        return shlex.join(["clipkit", "index", str(self.root), *place])

    def _check_model(self, encoder: Encoder, info: IndexInfo) -> None:
        check_model(encoder, info, root=self.root, command=self._command())

    def _check_config(self, info: IndexInfo, model_cfg_sha256: str) -> None:
        source = info.model_source
        check_model_cfg(model_cfg_sha256, info, root=self.root, command=self._command(), source=source)


def _remember_video(store: Store, video: bool | None) -> bool:
    """Whether videos are read, as somebody says now or has said before. ModelError where nothing here reads them."""
    if video and not can_read_video():
        raise ModelError("frames of videos are read by PyAV", hint="pip install 'clipkit[video]'")
    before = bool(store.info().video)
    if video is not None and video != before:
        with store.transaction() as writer:
            writer.note("video", "on" if video else "")
    return before if video is None else video


def _stale(scan: Scan, changes: Changes, known: Mapping[str, Known], *, everything: bool) -> list[ScannedFile]:
    return stale_files(scan.found, known, everything=everything, but={file.path for file in changes.read})


def _report(scan: Scan, changes: Changes, tally: Tally, *, seconds: float) -> IndexReport:
    from clipkit.index.update import IndexReport

    return IndexReport(
        found=len(scan.found) + tally.shots,
        encoded=tally.encoded,
        reused=tally.reused,
        restored=len(changes.restored),
        unchanged=changes.unchanged,
        missing=tally.hidden,
        failed=tuple(tally.failed),
        unreadable=tuple(scan.unreadable),
        skipped=dict(scan.skipped),
        paired=scan.paired,
        videos=len(scan.videos),
        unread_videos=len(scan.unread_videos),
        unmatched=scan.unmatched,
        seconds=seconds,
    )


def _load(name: str, exact_pixels: bool, precision: str = "auto") -> Encoder:
    return load_encoder(name, exact_pixels=exact_pixels, precision=precision)


def _is_int8(info: IndexInfo) -> bool:
    return INT8 in info.precision.split(" ")


def open_or_create(
    root: str | Path,
    load: Loader,
    *,
    model: str | None = None,
    exact_pixels: bool = False,
    rebuild: bool = False,
    at: str | Path | None = None,
) -> ImageIndex:
    """What `clipkit index` works on: an index keeps its model; a new one gets `model`, or "auto"."""
    place = real_folder(root)
    recorded = None
    if (index_folder(place, at) / FILE).exists():
        with suppress(BadIndex) if rebuild else nullcontext():
            recorded = ImageIndex.open(place, at=at, load=load)
    if recorded is not None and not (model or exact_pixels or rebuild):
        _refuse_another_starter(recorded)
        return recorded
    encoder = load(model or (recorded.info.model_source if recorded else "auto"), exact_pixels)
    ensure_export(encoder)
    return ImageIndex.create(place, encoder, at=at, rebuild=rebuild)


def plan(
    root: str | Path,
    *,
    at: str | Path | None = None,
    rebuild: bool = False,
    exclude_dirs: Collection[str] = (),
    include_dirs: Collection[str] = (),
    include_hidden: bool = False,
    checksum: bool = False,
    retry_failed: bool = False,
    refresh_metadata: bool = False,
    video: bool | None = None,
) -> Changes:
    """What `clipkit index` would do, by stat alone; nothing is written."""
    place = real_folder(root)
    store = Store(index_folder(place, at) / FILE)
    known = store.known() if store.file.exists() and not rebuild else {}
    info = store.info() if store.file.exists() else None
    if known and info:
        refuse_url(info.root, "an update")
    kept = take_back(info.excluded if info else (), include_dirs, place)
    scan = find_images(
        str(place),
        exclude_dirs=exclude_dirs,
        remembered=kept.texts,
        include_hidden=include_hidden,
        with_videos=bool(info and info.video) if video is None else video,
    )
    changes = find_changes(scan, known, checksum=checksum, retry_failed=retry_failed)
    stale = _stale(scan, changes, known, everything=refresh_metadata)
    unread_raws = sum(path not in known for path in scan.unread_raws)
    return replace(changes, unmatched=scan.unmatched, stale=tuple(stale), unread_raws=unread_raws)


def model_for(root: str | Path, model: str | None, *, at: str | Path | None = None) -> tuple[str, bool]:
    """The model of the index of `root` and whether its pixels are exact; for a new one `model`, or "auto"."""
    place = real_folder(root)
    if model or not (index_folder(place, at) / FILE).exists():
        return model or "auto", False
    info = ImageIndex.open(place, at=at).info
    return info.model_source, info.pixel_recipe.startswith("exact")


def find(
    start: str | Path,
    *,
    below: str = "",
    at: str | Path | None = None,
    load: Loader | None = None,
    open_index: Callable[..., ImageIndex] = ImageIndex.open,
) -> tuple[ImageIndex, str]:
    """The index that the folder `start` has or lies under, and `below` (relative to `start`) as seen from its root."""
    here = Path(os.path.abspath(start))
    if not here.is_dir():
        raise _no_folder(start)
    root = _root_above(here) if at is None else _recorded_root(here, Path(at), is_default=str(start) == ".")
    index = open_index(root, at=at, load=load)
    if isinstance(root, UrlPath):
        return index, below.strip("/")
    above = here if here.is_relative_to(root) else root
    return index, folder_below(below, above, root)


def _no_folder(start: str | Path) -> IndexNotFound:
    """With the folder of a file, or the nearest name beside it."""
    place = Path(start)
    if place.is_file():
        return IndexNotFound(f"{start} is a file, not a folder", hint=f"the folder it lies in: {place.parent}")
    meant = near_folder(start)
    hint = f"did you mean {meant}" if meant else "a folder that has an index: clipkit index FOLDER"
    return IndexNotFound(f"{start} is not a folder", hint=hint)


def _refuse_another_starter(index: ImageIndex) -> None:
    """ModelMismatch where the model that comes with clipkit is not the one of this index any more.

    Any other model is compared when it is loaded; but a run that finds nothing new loads none, and would say that
    pictures can be found which no search finds. This costs one hash of 44 MB, and is remembered.
    """
    info = index.info
    if info.model == "starter" and find_weights("starter", {}).fingerprint != info.weights_sha256:
        index.encoder  # noqa: B018  says so


def _root_above(here: Path) -> Path:
    return next((folder for folder in (here, *here.parents) if (folder / FOLDER / FILE).exists()), here)


def _recorded_root(here: Path, at: Path, *, is_default: bool) -> Path:
    """An index that lies elsewhere says what it is of; a folder that the user names wins, since it may have moved."""
    recorded = root_of(Store(at / FILE).info().root or here)
    is_kept = is_default or isinstance(recorded, UrlPath) or here.is_relative_to(recorded)
    return recorded if is_kept else here
