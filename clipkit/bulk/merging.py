"""Merging of shards into an ordinary index: of pictures in a folder here, or of pictures that lie elsewhere."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from clipkit.bulk.queries import check_encoder, load_for, refuse_empty
from clipkit.bulk.shards import Manifest, Shards
from clipkit.core.progress import Failure, Progress
from clipkit.core.version import __version__
from clipkit.errors import ClipkitError, ModelMismatch
from clipkit.index.import_export import ImportReport, take_rows
from clipkit.index.model_check import encoder_model_cfg
from clipkit.index.places import index_folder, is_url, real_folder
from clipkit.index.rebuild import NEW_FILE
from clipkit.index.vector_files import Piece, Source
from clipkit.models.encoder import Encoder, embeddings_agree
from clipkit.models.load import load_encoder
from clipkit.store.database import FILE, Store, Writer, make_folder, writing
from clipkit.store.records import IndexInfo, PictureRow, ScannedFile

ELSEWHERE = (-1, 0, 0, 0)  # the stamp of a file that nobody has looked at
ABOUT = ("model", "weights_sha256", "engine", "precision", "pixel_recipe")


def merge(
    out: Shards | str | Path,
    root: str | Path | None = None,
    *,
    at: str | Path | None = None,
    encoder: Encoder | None = None,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Make an ordinary index of shards, in one step: one that is interrupted leaves the index that was there, or none.

    Merging again takes only what is new. Up to ten million pictures; embeddings are streamed.

    Parameters
    ----------
    out : Shards, str or Path
        The shards.
    root : str or Path, optional
        The folder of the pictures, where they lie on this machine: each file is compared with the checksum of its row,
        and `clipkit index` then encodes none of them again. Without it the pictures lie elsewhere, and hits name them
        by the source of the shards.
    at : str or Path, optional
        Keep the index in that folder; needed without `root`.
    encoder : Encoder, optional
        Instead of the model that made the shards; a few pictures below `root` are encoded again to compare.
    workers : int, optional
        Threads that read files; by default one a core, at most 8.
    progress : callable, optional
        Given a `Progress` after each batch.

    Returns
    -------
    ImportReport
        How many were `imported` and `unchanged`; what is `missing`, `changed` or `failed`.

    Raises
    ------
    ModelMismatch
        If the index there, or the encoder, is of another model.
    ClipkitError
        If there are no shards, no picture of them lies below `root`, or neither `root` nor `at` is given.
    IndexLocked
        While another process writes the index.

    Examples
    --------
    >>> from clipkit.bulk import merge
    >>> report = merge("shards", at="merged")
    >>> report.imported
    4
    >>> clipkit.ImageIndex.open(".", at="merged").search("a cat", k=1)[0].path
    'chelsea.png'
    """
    shards = out if isinstance(out, Shards) else Shards(out)
    refuse_empty(shards)
    if root is None and at is not None and _lie_here(shards):
        root = shards.manifest.source  # they lie here after all
    if root is None:
        if at is None:
            fact = "merge needs the folder of the pictures, or one for an index of pictures that lie elsewhere"
            raise ClipkitError(fact, hint="clipkit merge OUT --index FOLDER")
        return _merge_elsewhere(shards, Path(os.path.abspath(at)), progress)
    manifest = shards.manifest
    encoder = check_encoder(encoder, manifest) if encoder else load_for(manifest, _loaded)
    info = _info_of(manifest, root=os.path.abspath(root) if at is not None else None, encoder=encoder)

    @contextmanager
    def opened(place: Path, encoder: Encoder, at: str | Path | None) -> Iterator[Store]:
        with replaced_when_whole(index_folder(place, at), info) as store:
            yield store

    rows = Source("shards", {name: getattr(manifest, name) for name in ABOUT}, lambda: _pieces(shards))
    name, place = shards.storage.url, real_folder(root)
    return take_rows(rows, place, encoder, name=name, at=at, workers=workers, progress=progress, opened=opened)


@contextmanager
def replaced_when_whole(folder: Path, info: IndexInfo) -> Iterator[Store]:
    """A copy of the index in `folder`, or a new one as `info` says, which takes its place after a clean exit."""
    make_folder(folder)
    with writing(folder):
        old, new = Store(folder / FILE), Store(folder / NEW_FILE)
        new.discard()  # what a run that died here has left
        try:
            if old.file.exists():
                old.copy_to(new)
            else:
                Store.create(new.file, info)
            yield new
            old.replace_by(new)
        finally:
            new.discard()


@dataclass
class _Tally:
    imported: int = 0
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)


def _merge_elsewhere(shards: Shards, folder: Path, progress: Callable[[Progress], None] | None) -> ImportReport:
    started = time.monotonic()
    root = _url_of(shards.manifest.source)
    _check_index(folder, shards.manifest, root)
    tally, names = _Tally(), shards.names
    with replaced_when_whole(folder, _info_of(shards.manifest, root=root)) as store:
        for number, name in enumerate(names, start=1):
            with store.transaction() as writer:
                _take(writer, shards, name, tally)
            if progress:
                progress(Progress(number, len(names), name))
    counts = (tally.imported, tally.unchanged, (), (), tuple(tally.failed))
    return ImportReport(*counts, checked=0, agreement=1.0, seconds=time.monotonic() - started)


def _take(writer: Writer, shards: Shards, name: str, tally: _Tally) -> None:
    """Write the rows of a shard that the index does not have."""
    for piece in shards.pieces(name):
        rows = piece.embeddings.astype("<f2")
        for entry, row in zip(piece.entries, rows, strict=True):
            if writer.has(_inside(entry.path, shards, name), entry.sha256):
                tally.unchanged += 1
                continue
            facts = (entry.width, entry.height, entry.taken_at)
            found = ScannedFile(entry.path, *ELSEWHERE)
            writer.put(PictureRow(found, entry.sha256, *facts, embedding=row.tobytes()))
            tally.imported += 1
    for path, error in shards.failures(name):
        writer.put(PictureRow(ScannedFile(_inside(path, shards, name), *ELSEWHERE), None, error=error))
        tally.failed.append(Failure(path, error))


def _inside(path: str, shards: Shards, name: str) -> str:
    """The same; ClipkitError for a path that leads out of the source."""
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        fact = f"{shards.storage.url}/{name} names a picture outside of its source: {path!r}"
        raise ClipkitError(fact, hint="names relative to the source, without .. in them")
    return path


def _lie_here(shards: Shards) -> bool:
    """Whether the source is a folder with such pictures in it: those of tars and tables have no file of their own."""
    source = shards.manifest.source
    first = next((piece.entries for piece in _pieces(shards) if piece.entries), [])
    return any(os.path.isfile(os.path.join(source, entry.path)) for entry in first)


def _pieces(shards: Shards) -> Iterator[Piece]:
    return chain.from_iterable(map(shards.pieces, shards.names))


def _check_index(folder: Path, manifest: Manifest, root: str) -> None:
    """ModelMismatch where the index there is of another model; ClipkitError where it is of other pictures."""
    if not (folder / FILE).exists():
        return
    info = Store(folder / FILE).info()
    made, asks = (info.engine, info.precision), (manifest.engine, manifest.precision)
    same = (info.weights_sha256, info.dim, info.pixel_recipe)
    if same != (manifest.weights_sha256, manifest.dim, manifest.pixel_recipe) or not embeddings_agree(made, asks):
        fact = f"{folder} has an index made with {info.model} ({info.pixel_recipe}), not as these shards were"
        raise ModelMismatch(fact, hint="another folder: clipkit merge OUT --index FOLDER")
    if info.root != root:
        fact = f"{folder} has an index of {info.root or folder.parent}, not of {root}"
        raise ClipkitError(fact, hint="another folder: clipkit merge OUT --index FOLDER")


def _url_of(source: str) -> str:
    """The source as a URL, also a folder of another machine: nothing of it is looked for here."""
    return source.rstrip("/") if is_url(source) else f"file:///{source.strip('/')}"


def _loaded(name: str, exact_pixels: bool) -> Encoder:
    return load_encoder(name, exact_pixels=exact_pixels)


def _info_of(manifest: Manifest, *, root: str | None, encoder: Encoder | None = None) -> IndexInfo:
    """What an index of these shards says of itself."""
    return IndexInfo(
        index_id=secrets.token_hex(16),
        revision=0,
        token=secrets.token_hex(8),
        model=manifest.model,
        model_source=manifest.model_source or manifest.model,
        weights_sha256=manifest.weights_sha256,
        engine=manifest.engine,
        precision=manifest.precision,
        dim=manifest.dim,
        pixel_recipe=manifest.pixel_recipe,
        created_by=f"clipkit {__version__}",
        root=root,
        model_cfg_sha256=encoder_model_cfg(encoder) if encoder else "",
    )
