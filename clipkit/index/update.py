"""Updates of an index: changed files are read, encoded and committed in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np

from clipkit.core.arrays import check_embeddings
from clipkit.core.progress import Failure, Progress
from clipkit.core.text import described
from clipkit.errors import ShapeError
from clipkit.images.formats import file_of
from clipkit.index.crash_recovery import InFlight, Journal
from clipkit.index.ledger import Ledger
from clipkit.index.prefetch import Reading, read_ahead
from clipkit.index.scan import Changes
from clipkit.index.videos import ShotReader, is_of_video
from clipkit.models.encoder import Encoder
from clipkit.models.onnx import OnnxEncoder
from clipkit.store.database import Store, Writer
from clipkit.store.records import Known, PictureRow, ScannedFile

COMMIT_ROWS = 512  # rows without encoding (moves, copies) that share a transaction
COMMIT_SECONDS = 5.0
PAUSE_SECONDS = 300.0  # of a long run, between two calls of `now_and_then`


@dataclass
class Tally:
    """What a pass did, in pictures."""

    encoded: int = 0
    reused: int = 0
    hidden: int = 0
    shots: int = 0  # of videos that were read
    failed: list[Failure] = field(default_factory=list)


def apply_changes(
    store: Store,
    encoder: Encoder | None,
    changes: Changes,
    *,
    root: str,
    known: Mapping[str, Known],
    workers: int,
    progress: Callable[[Progress], None] | None = None,
    now_and_then: Callable[[], None] = lambda: None,
    journal: Journal | None = None,
    suspects: Sequence[InFlight] = (),
) -> Tally:
    """Read, encode and commit; then, and only then, hide what is gone.

    encoder: None where nothing is to be read. now_and_then: called every few minutes of a long run, between batches.
    suspects: what was in flight when an earlier run died; each is decoded alone, before the others.
    """
    replaced = store.replaced()
    if not (changes.read or changes.videos or changes.gone or changes.restored or replaced):
        return Tally()
    run = _Run(store, encoder, known, changes, replaced)
    if (changes.read or changes.videos) and encoder is not None:
        if isinstance(encoder, OnnxEncoder):
            encoder.expect(len(changes.read))
        in_question = {suspect.path: suspect for suspect in suspects}
        # False sorts first: those in question
        files = sorted(changes.read, key=lambda found: (found.path not in in_question, found.path))
        first = sum(found.path in in_question for found in files)
        shots = ShotReader(root, changes.videos)
        read = partial(read_ahead, root, recipe=encoder.recipe, known=run.ledger, journal=journal, content=shots.take)
        alone = (_alone(found, in_question[found.path], read) for found in files[:first])
        readings = chain(chain.from_iterable(alone), read(chain(files[first:], shots.files()), workers=workers))
        last = time.monotonic()
        for done, reading in enumerate(readings, start=1):
            if run.is_due() and run.has_whole_video(reading):
                run.flush()
            run.take(reading)
            # what was learnt at the cost of a crash is committed at once
            if (run.is_due() and not is_of_video(reading.found.path)) or done <= first:
                run.flush()
            if time.monotonic() - last > PAUSE_SECONDS:
                now_and_then()
                last = time.monotonic()
            if progress:
                shots.progress(progress, done, len(files), reading.found.path)
        run.tally.shots = shots.count
    run.finish()
    return run.tally


def _alone(found: ScannedFile, suspect: InFlight, read: Callable[..., Iterator[Reading]]) -> Iterator[Reading]:
    if suspect.is_culprit:
        return iter([Reading(found, error=f"its decoder {suspect.reason or 'took clipkit down'}")])
    return read([found], workers=1, tries=suspect.tries + 1)


class _Run:
    """The batches of one update: what was read waits in a queue, is encoded, and is written in one transaction."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder | None,
        known: Mapping[str, Known],
        changes: Changes,
        replaced: Mapping[bytes, int],
    ) -> None:
        self.tally = Tally()
        self.ledger = Ledger(known.values(), absent=_absent(known, changes), replaced=replaced)
        self._store = store
        self._encoder = encoder
        self._known = known
        self._changes = changes
        self._queue: list[Reading] = []
        self._vanished: list[int] = []
        self._committed = time.monotonic()

    def take(self, reading: Reading) -> None:
        self._queue.append(reading)

    def has_whole_video(self, following: Reading) -> bool:
        """Whether the queue ends with shots of a video, and `following` is none of them."""
        last = self._queue[-1].found.path if self._queue else ""
        return is_of_video(last) and file_of(last) != file_of(following.found.path)

    def is_due(self) -> bool:
        assert self._encoder is not None
        pictures = sum(reading.picture is not None for reading in self._queue)
        is_late = time.monotonic() - self._committed > COMMIT_SECONDS
        return pictures >= self._encoder.batch_size or len(self._queue) >= COMMIT_ROWS or is_late

    def flush(self) -> None:
        """Encode what waits and commit it in one transaction."""
        if not self._queue:
            return
        rows = self._encode([reading for reading in self._queue if reading.picture is not None])
        with self._store.transaction() as writer:
            self._write_all(writer, rows)

    def finish(self) -> None:
        """The scan was complete and everything is read: commit the last of it, hide what is gone, show what is back."""
        restore = [row.id for row in self._changes.restored]
        if self._queue or self._hidden() or restore or self.ledger.has_replaced:
            rows = self._encode([reading for reading in self._queue if reading.picture is not None])
            with self._store.transaction() as writer:
                self._write_all(writer, rows)
                hide = self._hidden()
                writer.hide(hide)
                writer.restore(restore)
                if self.ledger.has_replaced:
                    writer.drop_replaced()
            self.tally.hidden = len(hide)
        self.tally.failed.sort(key=lambda failure: failure.path)

    def _hidden(self) -> list[int]:
        """Ids of what is gone, as far as is known by now."""
        return [row.id for row in self._changes.gone if self.ledger.is_absent(row.id)] + self._vanished

    def _write_all(self, writer: Writer, rows: Mapping[str, PictureRow]) -> None:
        for reading in self._queue:
            self._write(writer, reading, rows)
        self._queue = []
        self._committed = time.monotonic()

    def _encode(self, readings: list[Reading]) -> dict[str, PictureRow]:
        if not readings:
            return {}
        assert self._encoder is not None
        try:
            vectors = _vectors(self._encoder, readings)
            return {r.found.path: _row(r, vector) for r, vector in zip(readings, vectors, strict=True)}
        except ShapeError as error:
            rows = {reading.found.path: self._encode_alone(reading) for reading in readings}
            is_hopeless = not self.ledger and all(row.embedding is None for row in rows.values())
            if len(rows) > 1 and is_hopeless:  # nothing has ever come out of this model
                raise ShapeError(f"the model fails on every picture: {error.message}", hint="clipkit models") from error
            return rows

    def _encode_alone(self, reading: Reading) -> PictureRow:
        assert self._encoder is not None
        try:
            return _row(reading, _vectors(self._encoder, [reading])[0])
        except ShapeError as error:
            return PictureRow(reading.found, reading.sha256, error=f"the model failed: {error.message}")

    def _write(self, writer: Writer, reading: Reading, rows: Mapping[str, PictureRow]) -> None:
        found, sha256 = reading.found, reading.sha256
        row = self._known.get(found.path)
        if reading.is_gone:
            if row and row.state != "missing":
                self._vanished.append(row.id)
            return
        if row:  # a shot of a video that was read again counted as absent until now
            self.ledger.appear(row.id)
        if sha256 is None:
            self._write_unreadable(writer, reading)
        elif reading.picture is not None or reading.error is not None:
            self._put(writer, rows.get(found.path) or PictureRow(found, sha256, error=reading.error))
            for twin in self.ledger.take_waiting(sha256):
                self._reuse(writer, twin, sha256)
        else:
            self._reuse(writer, found, sha256)

    def _write_unreadable(self, writer: Writer, reading: Reading) -> None:
        found, reason = reading.found, reading.error or ""
        known = self._known.get(found.path)
        has_same_date = known and (known.size_bytes, known.mtime_ns) == (found.size_bytes, found.mtime_ns)
        if known and known.is_embedded and has_same_date:
            # Its size and date say that it is the same picture: a bad day of the disk must not cost its vector.
            self.tally.failed.append(Failure(found.path, reason))
        else:
            self._put(writer, PictureRow(found, None, error=reason))

    def _put(self, writer: Writer, row: PictureRow) -> None:
        self.ledger.put(row.found.path, row.sha256 if row.embedding is not None else None, writer.put(row))
        if row.embedding is not None:
            self.tally.encoded += 1
            return
        self.tally.failed.append(Failure(row.found.path, row.error or ""))
        if row.sha256:
            self.ledger.condemn(row.sha256, row.error or "")

    def _reuse(self, writer: Writer, found: ScannedFile, sha256: bytes) -> None:
        reason, source_id = self.ledger.reason_against(sha256), self.ledger.id_of(sha256)
        if reason is not None:
            self._put(writer, PictureRow(found, sha256, error=reason))
            return
        if source_id is None:
            self.ledger.wait(sha256, found)
            return
        if self.ledger.holds(found.path, sha256):
            writer.touch(found)
        elif self.ledger.is_absent(source_id) and found.path not in self._known:
            writer.move(source_id, found)
            self.ledger.move(source_id, found.path)
        else:
            self.ledger.put(found.path, sha256, writer.copy(source_id, found, sha256))
        self.tally.reused += 1


def _absent(known: Mapping[str, Known], changes: Changes) -> list[Known]:
    present = {row.path for row in changes.restored} | {found.path for found in changes.read}
    gone = {row.path for row in changes.gone} | {path for path, row in known.items() if row.state == "missing"}
    return [known[path] for path in gone - present]


def _vectors(encoder: Encoder, readings: list[Reading]) -> list[bytes]:
    if not readings:
        return []
    pixels = np.stack([reading.picture.pixels for reading in readings if reading.picture is not None])
    embeddings = check_embeddings(encoder.encode_pixels(pixels), encoder.dim)
    if len(embeddings) != len(readings):
        raise ShapeError(f"the model gave {len(embeddings)} embeddings for {len(readings)} pictures")
    return [row.tobytes() for row in embeddings.astype("<f2")]


def _row(reading: Reading, vector: bytes) -> PictureRow:
    picture = reading.picture
    assert picture is not None
    facts = (picture.width, picture.height, picture.taken_at, picture.share)
    row = PictureRow(reading.found, reading.sha256, *facts, embedding=vector, phash=picture.phash)
    return row.described(picture.metadata)


@dataclass(frozen=True)
class IndexReport:
    """What one run of `ImageIndex.update` did, in pictures.

    Attributes
    ----------
    found : int
        Met by the scan.
    encoded : int
        Went through the model.
    reused : int
        Moved, copied or merely touched; the embedding is reused.
    restored : int
        Back after they were missing.
    unchanged : int
        Not opened at all.
    missing : int
        Newly missing, and hidden from results.
    failed : tuple of Failure
        Pictures met in this run that could not be read, each with `path` and `reason`.
    unreadable : tuple of Failure
        Folders and files that the scan could not enter.
    seconds : float
        Wall time.
    refreshed : int
        Unchanged or moved, and their metadata was read again.
    skipped : dict of str to int
        Files of kinds that are not read, by suffix.
    unmatched : tuple of str
        Exclusions of this run that no folder matched.
    not_excluded : tuple of str
        What was to be taken back, and was not left out.
    unread_raws : int
        RAW files that were left out, because the extra `raw` is not installed.
    paired : int
        RAW files beside the camera's own JPEG or HEIC, and videos of live photos: they count with that picture.
    videos : int
        Whose frames are pictures.
    unread_videos : int
        Left out, because the extra `video` is not installed.

    Examples
    --------
    >>> import os
    >>> index = clipkit.ImageIndex.open("photos")
    >>> os.remove("photos/coffee.png")
    >>> report = index.update()
    >>> report.found, report.missing, report.encoded
    (3, 1, 0)
    """

    found: int
    encoded: int
    reused: int
    restored: int
    unchanged: int
    missing: int
    failed: tuple[Failure, ...]
    unreadable: tuple[Failure, ...]
    seconds: float
    refreshed: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    not_excluded: tuple[str, ...] = ()
    unread_raws: int = 0
    paired: int = 0
    videos: int = 0
    unread_videos: int = 0

    def __repr__(self) -> str:
        names = ("encoded", "reused", "restored", "unchanged", "missing", "failed", "unreadable", "refreshed")
        counts = {name: getattr(self, name) for name in names}
        numbers = {name: value if isinstance(value, int) else len(value) for name, value in counts.items()}
        shown = [f"{name}={number}" for name, number in numbers.items() if number]
        return described(self, f"found={self.found}", *shown, f"seconds={self.seconds:.1f}")
