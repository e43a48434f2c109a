"""Import and export of an index's embeddings, as other tools lay them out."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from clipkit.core.arrays import LENGTH_TOLERANCE, Embeddings, check_embeddings
from clipkit.core.progress import Failure, Progress
from clipkit.errors import ClipkitError, ImageError, IndexDamaged, IndexLocked, ModelMismatch, ShapeError
from clipkit.images.decode import read_file
from clipkit.images.formats import split_frame
from clipkit.images.guarded_decoder import decode
from clipkit.images.recipe import Pixels
from clipkit.index.image_index import ImageIndex
from clipkit.index.places import index_folder, real_folder
from clipkit.index.prefetch import read_ahead
from clipkit.index.scan import find_images
from clipkit.index.vector_files import LAYOUTS, Entry, Piece, Source, open_layout, write_layout
from clipkit.models.encoder import Encoder, embeddings_agree
from clipkit.store.database import FILE, Store, Writer, writing
from clipkit.store.records import Known, PictureRow, ScannedFile

SAMPLE = 8  # pictures that are encoded again to see whether the vectors are this model's
SPARE = 32  # drawn, since some cannot be read or have changed
SAME_MODEL = 0.95  # cosine; another decoder and bfloat16 stay above .99, another model is far below
LOOSE_TOLERANCE = 1e-2  # of a length, before somebody must say that it is meant so
SEED = 0
COMMIT_ROWS = 1024
FEW = 3  # names in a sentence


@dataclass(frozen=True)
class ImportReport:
    """What one `import_` did, in pictures.

    Attributes
    ----------
    imported : int
        New vectors in the index.
    unchanged : int
        Already known, left alone.
    missing : tuple of str
        Names without a picture in the folder.
    changed : tuple of str
        Files that are not those the vectors were made of.
    failed : tuple of Failure
        Files that could not be read.
    checked : int
        Pictures that were encoded again to compare.
    agreement : float
        The lowest cosine among them.
    seconds : float
        Wall time.
    shots : int
        Vectors of shots of videos, which are left out: `ImageIndex.update(video=True)` makes them.
    """

    imported: int
    unchanged: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    failed: tuple[Failure, ...]
    checked: int
    agreement: float
    seconds: float
    shots: int = 0


def export(index: ImageIndex, folder: str | Path, *, layout: str = "clip-retrieval") -> int:
    """Write the embeddings of an index into a new folder, as other tools lay them out.

    The folder appears when it is complete, or not at all. Paths are relative to the index's root; those of shots of
    videos are `clip.mp4#t=12.48`.

    Parameters
    ----------
    index : ImageIndex
        Its pictures that answer are written.
    folder : str or Path
        Absent or empty.
    layout : {"clip-retrieval", "parquet", "npy", "lance", "qdrant"}, default "clip-retrieval"
        "clip-retrieval": `img_emb/img_emb_0.npy` (float16) and `metadata/metadata_0.parquet`, in shards of 100,000.
        "parquet": one table for pandas, `embeddings.parquet`. "npy": `embeddings.npy` (float32) and `paths.txt`, one
        name a line, as the disk has it. "lance": a table of Lance, `pictures.lance`, with embeddings of float16.
        "qdrant": `vectors.npy`, `payload.jsonl` and `ids.txt`, as `QdrantClient.upload_collection` takes them.

    Returns
    -------
    int
        How many pictures were written.

    Raises
    ------
    ClipkitError
        If the folder is not empty or cannot be written, or no layout has this name.
    IndexLocked
        If the index changed meanwhile.

    Examples
    --------
    >>> from clipkit.index import export
    >>> export(clipkit.ImageIndex.open("photos"), "vectors", layout="npy")
    4
    >>> np.load("vectors/embeddings.npy").shape
    (4, 384)
    """
    if layout not in LAYOUTS:
        raise ClipkitError(f"no layout is called {layout}", hint=f"one of {', '.join(LAYOUTS)}")
    target = _new_folder(folder)
    store = Store(index.folder / FILE)
    info, count = store.info(), store.counts()["ok"]
    names = ("model", "weights_sha256", "engine", "precision", "dim", "pixel_recipe", "created_by")
    about = {name: getattr(info, name) for name in names}
    part = target.with_name(f".{target.name}.part-{secrets.token_hex(4)}")
    try:
        part.mkdir(parents=True)
        pieces = _unchanging(store, info.revision, info.dim)
        write_layout(part, layout, pieces, count=count, dim=info.dim, about=about)
        with suppress(FileNotFoundError):
            target.rmdir()
        os.rename(part, target)
    except (OSError, ValueError, TypeError) as error:  # Arrow's own errors derive from the last two
        fact = f"cannot write {folder}: {getattr(error, 'strerror', None) or error}; nothing was exported"
        raise ClipkitError(fact, hint="export to another disk, or free some space") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return count


def import_(
    source: str | Path,
    root: str | Path,
    encoder: Encoder,
    *,
    at: str | Path | None = None,
    normalise: bool = False,
    exclude_dirs: Collection[str] = (),
    include_hidden: bool = False,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Give the pictures below `root` the embeddings that `source` has for them.

    All of the source is read and checked before anything is written; the index is made if there is none. Shots of
    videos are counted and left out: an index knows a video whole or not at all.

    Parameters
    ----------
    source : str or Path
        What `export` or clip-retrieval wrote. Relative names are taken from `root`, or else from the current folder.
    root : str or Path
        The folder of pictures.
    encoder : Encoder
        The model that made the embeddings; a sample of pictures is encoded again to see whether it did.
    at : str or Path, optional
        Keep the index in that folder instead of `root/.clipkit`.
    normalise : bool, default False
        Accept vectors whose length is not 1.
    exclude_dirs : collection of str, optional
        Names of folders, or paths relative to the root, to leave out.
    include_hidden : bool, default False
        Also what begins with a dot.
    workers : int, optional
        Threads that read files; by default one a core, at most 8.
    progress : callable, optional
        Given a `Progress` after each batch.

    Returns
    -------
    ImportReport
        How many were `imported` and `unchanged`, what is `missing`, `changed` or `failed`, how many were `checked`, and
        the lowest cosine among those, `agreement`.

    Raises
    ------
    ShapeError
        If the vectors are no embeddings of this width.
    ModelMismatch
        If `encoder` did not make them.
    ClipkitError
        If a name lies outside `root`, or the source is incomplete.

    References
    ----------
    .. [1] R. Beaumont, "Clip Retrieval: Easily compute clip embeddings and build a clip retrieval system with them",
       2022.

    Examples
    --------
    >>> from clipkit.index import export, import_
    >>> index = clipkit.ImageIndex.open("photos")
    >>> n = export(index, "vectors")
    >>> report = import_("vectors", "photos", index.encoder, at="another-index")
    >>> report.imported, report.agreement > 0.99
    (4, True)
    """
    return take_rows(
        open_layout(Path(source)),
        real_folder(root),
        encoder,
        name=str(source),
        at=at,
        normalise=normalise,
        exclude_dirs=exclude_dirs,
        include_hidden=include_hidden,
        workers=workers,
        progress=progress,
    )


@contextmanager
def _live(place: Path, encoder: Encoder, at: str | Path | None) -> Iterator[Store]:
    """The index that answers: what is committed stays, whatever happens."""
    index = ImageIndex.create(place, encoder, at=at)
    with writing(index.folder):
        yield Store(index.folder / FILE)


def take_rows(
    rows: Source,
    place: Path,
    encoder: Encoder,
    *,
    name: str,
    at: str | Path | None = None,
    normalise: bool = False,
    exclude_dirs: Collection[str] = (),
    include_hidden: bool = False,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    opened: Callable[[Path, Encoder, str | Path | None], AbstractContextManager[Store]] = _live,
) -> ImportReport:
    """`import_` of an open source, which people call `name`. opened: gives the database that the rows go into."""
    started = time.monotonic()
    _check_origin(rows.about, encoder, name)
    remembered: tuple[str, ...] = ()
    if (index_folder(place, at) / FILE).exists():
        remembered = ImageIndex.create(place, encoder, at=at).info.excluded  # ModelMismatch before the long work
    scan = find_images(str(place), exclude_dirs=exclude_dirs, remembered=remembered, include_hidden=include_hidden)
    names = _Names(place, {found.path: found for found in scan.found})
    survey = _survey(rows, names, encoder.dim, normalise, name)
    checked, agreement = _compare_sample(survey.sample, encoder, place)
    with opened(place, encoder, at) as store:
        run = _Run(store, place, encoder, workers or min(8, os.cpu_count() or 1))
        wanted = ((path, entry, vector) for path, entry, vector in _rows(rows, names, encoder.dim, normalise) if path)
        done = 0
        while batch := list(islice(wanted, COMMIT_ROWS)):
            run.take([(names.found[path], entry, vector) for path, entry, vector in batch])
            done += len(batch)
            if progress:
                progress(Progress(done, survey.present, batch[-1][0]))
    return run.report(survey, checked, agreement, seconds=time.monotonic() - started)


class _Names:
    """From the names of another tool to files that a scan of the root found."""

    def __init__(self, root: Path, found: Mapping[str, ScannedFile]) -> None:
        self.found = found
        self.root = str(root)
        self._bases = [f"{base.rstrip(os.sep)}{os.sep}" for base in dict.fromkeys((self.root, os.path.realpath(root)))]
        self._here = os.getcwd()

    def path(self, name: str) -> str:
        """Relative to the root, or "" where no such picture is there; ClipkitError for a name that leads out."""
        if name in self.found:
            return name
        if "\0" in name or ".." in name.replace(os.sep, "/").split("/"):
            raise ClipkitError(
                f"the name {name!r} leads out of {self.root}", hint="names relative to PHOTOS, without .. in them"
            )
        if os.path.isabs(name):
            inside = self._below_root(name)
            if inside is None:
                raise ClipkitError(f"the name {name!r} is not in {self.root}", hint="give the folder that holds it")
        else:
            inside = os.path.normpath(name).replace(os.sep, "/")
            if inside not in self.found:
                inside = self._below_root(os.path.join(self._here, name))
        return inside if inside and inside in self.found else ""

    def _below_root(self, file: str) -> str | None:
        normal = os.path.normpath(file)
        base = next((base for base in self._bases if normal.startswith(base)), None)
        return normal.removeprefix(base).replace(os.sep, "/") if base else None


@dataclass
class _Survey:
    """What a first reading of the source showed."""

    present: int = 0
    shots: int = 0
    missing: list[str] = field(default_factory=list)
    sample: list[tuple[str, Entry, Embeddings]] = field(default_factory=list)


class _Run:
    """Writes rows, batch by batch."""

    def __init__(self, store: Store, root: Path, encoder: Encoder, workers: int) -> None:
        self.imported = self.unchanged = 0
        self.changed: list[str] = []
        self.failed: list[Failure] = []
        self._store, self._root, self._encoder, self._workers = store, root, encoder, workers
        self._known = store.known()

    def take(self, batch: list[tuple[ScannedFile, Entry, Embeddings]]) -> None:
        rows = [row for row in batch if not _is_as_known(row[0], self._known.get(row[0].path))]
        self.unchanged += len(batch) - len(rows)
        files = [found for found, _, _ in rows]
        readings = read_ahead(
            str(self._root), files, recipe=self._encoder.recipe, known=_Anything(), workers=self._workers
        )  # hashes only: what is known is not decoded
        hashed = [(*row, reading) for row, reading in zip(rows, readings, strict=True)]
        if not hashed:
            return
        with self._store.transaction() as writer:
            for found, entry, vector, reading in hashed:
                if reading.sha256 is None:
                    self.failed.append(Failure(found.path, reading.error or "it is gone"))
                elif entry.sha256 not in (None, reading.sha256):
                    self.changed.append(found.path)
                else:
                    self._write(writer, found, reading.sha256, entry, vector)

    def report(self, survey: _Survey, checked: int, agreement: float, *, seconds: float) -> ImportReport:
        """What was done."""
        missing, changed, failed = tuple(survey.missing), tuple(self.changed), tuple(self.failed)
        facts = (self.imported, self.unchanged, missing, changed, failed, checked, agreement, seconds, survey.shots)
        return ImportReport(*facts)

    def _write(self, writer: Writer, found: ScannedFile, sha256: bytes, entry: Entry, vector: Embeddings) -> None:
        known = self._known.get(found.path)
        if known and known.is_embedded and known.sha256 == sha256:
            writer.touch(found)
            self.unchanged += 1
            return
        facts = (entry.width, entry.height, entry.taken_at)
        writer.put(PictureRow(found, sha256, *facts, embedding=vector.astype("<f2").tobytes()))
        self.imported += 1


class _Anything:
    """Contains everything."""

    def __contains__(self, _: object) -> bool:
        return True


def _new_folder(folder: str | Path) -> Path:
    target = Path(os.path.realpath(folder))
    try:
        is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    except OSError as error:
        raise ClipkitError(f"cannot look into {folder}: {error.strerror}", hint="export to a new folder") from error
    if not is_free or target == Path.cwd() or os.path.ismount(target):
        raise ClipkitError(f"{folder} is not free for an export", hint=f"give a new folder: {Path(folder) / 'vectors'}")
    return target


def _unchanging(store: Store, revision: int, dim: int) -> Iterator[Piece]:
    for info, ids, rows in store.blocks():
        if not len(ids):
            return
        facts = store.facts(int(ids[0]), int(ids[-1]))
        now, paths = store.paths(ids.tolist())
        if {info.revision, now} != {revision}:
            hint = "wait for the other program to end, then export again"
            raise IndexLocked(f"{store.file} changed while it was exported", hint=hint)
        try:
            check_embeddings(rows, dim)
        except ShapeError as error:
            raise IndexDamaged(f"{store.file}: {error.message}", hint="clipkit check --repair") from error
        yield Piece([Entry(paths[id_], *facts[id_]) for id_ in ids.tolist()], rows)


def _check_origin(about: Mapping[str, object], encoder: Encoder, source: str | Path) -> None:
    hint = "load the model that made them, or make new vectors: clipkit index"
    if about.get("weights_sha256", encoder.fingerprint) != encoder.fingerprint:
        raise ModelMismatch(f"{source} was made with {about.get('model')}, not {encoder.model}", hint=hint)
    if about.get("pixel_recipe", str(encoder.recipe)) != str(encoder.recipe):
        raise ModelMismatch(f"{source} was made with other pixels ({about['pixel_recipe']})", hint=hint)
    made = (str(about.get("engine")), str(about.get("precision")))
    if "precision" in about and not embeddings_agree(made, (encoder.engine, encoder.precision)):
        fact = f"{source} was made with {' in '.join(made)}, not {encoder.engine} in {encoder.precision}"
        raise ModelMismatch(fact, hint=hint)


def _survey(rows: Source, names: _Names, dim: int, normalise: bool, source: str | Path) -> _Survey:
    survey, seen, total = _Survey(), set[str](), 0
    draw = random.Random(SEED)
    for path, entry, vector in _rows(rows, names, dim, normalise):
        total += 1
        if not path and split_frame(entry.path):
            survey.shots += 1
            continue
        if not path:
            survey.missing.append(entry.path)
            continue
        if path in seen:
            raise ClipkitError(f"{source} has two vectors for {path!r}", hint="keep one of the two")
        seen.add(path)
        survey.present += 1
        if len(survey.sample) < SPARE:  # copies: a view would keep its whole piece in memory
            survey.sample.append((path, entry, vector.copy()))
        elif (seat := draw.randrange(survey.present)) < SPARE:  # every picture has the same chance
            survey.sample[seat] = (path, entry, vector.copy())
    if rows.about.get("count", total) != total:
        raise ClipkitError(
            f"{source} is not complete: {total:,} of {rows.about['count']} pictures are there",
            hint="export again: clipkit export PHOTOS FOLDER",
        )
    if not survey.present and survey.shots:
        hint = f"make them here: clipkit index {shlex.quote(names.root)} --video"
        raise ClipkitError(f"{source} has no picture of {names.root} but shots of videos", hint=hint)
    if not survey.present:
        named = ", ".join(map(repr, survey.missing[:FEW])) or "it names none"
        raise ClipkitError(f"no picture of {source} is in {names.root} ({named})", hint="give the folder they lie in")
    draw.shuffle(survey.sample)
    return survey


def _rows(rows: Source, names: _Names, dim: int, normalise: bool) -> Iterator[tuple[str, Entry, Embeddings]]:
    for piece in rows.pieces():
        vectors = _unit(piece, dim, normalise)
        for entry, vector in zip(piece.entries, vectors, strict=True):
            yield names.path(entry.path), entry, vector


def _unit(piece: Piece, dim: int, normalise: bool) -> Embeddings:
    rows = piece.embeddings
    if rows.shape[1] != dim:
        raise ShapeError(f"the vectors have {rows.shape[1]} values, and this model makes {dim}", hint="clipkit models")
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = ~(np.isfinite(lengths) & (lengths > 0))  # written so that a NaN is bad
    if not normalise:
        bad |= ~(np.abs(lengths - 1) <= LOOSE_TOLERANCE)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        hint = "--normalise" if np.isfinite(lengths[row]) and lengths[row] > 0 else None
        fact = f"the vector of {piece.entries[row].path!r} has length {lengths[row]:.4g}, not 1"
        raise ShapeError(fact, hint=hint)
    # What is long enough for us stays bit for bit, so that an export comes back as it was.
    scale = np.where(np.abs(lengths - 1) <= LENGTH_TOLERANCE, 1.0, lengths)
    return (rows / scale[:, None]).astype(np.float32)


def _compare_sample(sample: list[tuple[str, Entry, Embeddings]], encoder: Encoder, root: Path) -> tuple[int, float]:
    """How many pictures were encoded again, and the lowest cosine; ModelMismatch if that is too low."""
    paths: list[str] = []
    vectors: list[Embeddings] = []
    pixels: list[Pixels] = []
    for path, entry, vector in sample:
        if len(paths) == SAMPLE:
            break
        with suppress(ImageError):
            data = read_file(root / path)
            if entry.sha256 in (None, hashlib.sha256(data).digest()):
                pixels.append(decode(data, encoder.recipe, name=path).pixels)
                paths.append(path)
                vectors.append(vector)
    if not paths:
        fact = f"none of {len(sample)} pictures could be compared: they cannot be read, or changed since"
        raise ClipkitError(fact, hint=f"clipkit index {root}")
    cosines = (encoder.encode_pixels(np.stack(pixels)) * np.stack(vectors)).sum(axis=1)
    worst = int(cosines.argmin())
    if not cosines[worst] >= SAME_MODEL:
        raise ModelMismatch(
            f"these vectors were not made by {encoder.model}: that of {paths[worst]!r} has cosine {cosines[worst]:.2f}",
            hint=f"load the model that made them, or make new vectors: clipkit index {root}",
        )
    return len(paths), min(float(cosines[worst]), 1.0)


def _is_as_known(found: ScannedFile, known: Known | None) -> bool:
    return known is not None and known.is_embedded and known.state == "ok" and known.stamp == found.stamp
