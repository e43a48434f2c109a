"""Index runs in a process of their own that dies at any system call, or whose writes are recorded and replayed."""

from __future__ import annotations

import codecs
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import clipkit.index.scan
import clipkit.search.vectors
import clipkit.store.database
from clipkit.index.image_index import ImageIndex
from clipkit.store.migrations import migrate
from clipkit.store.schema import FORMAT
from tests.support.colours import ColourEncoder
from tests.support.downgrade import add_replaced, to_format
from tests.support.faults import BATCH, check_aligned, check_answers, check_sound, indexed, paint_many, rows_of
from tests.support.paths import REPOSITORY

OLD, NEW = 6, 10  # pictures that are indexed, and that are there when the run begins
OTHER = "0e" * 32  # the fingerprint of other weights
CHANGING = r"trace=/^(pwrite64|f(data)?sync|ftruncate|rename(at2?)?|unlink(at)?)$"
RECORDED = r"trace=/^(openat|open|write|pwrite64|f(data)?sync|ftruncate|rename(at2?)?|unlink(at)?)$"
IS_FULL = os.environ.get("CLIPKIT_FAULTS") == "full"


class LoudEncoder(ColourEncoder):
    """Says on stdout how many pictures were promised to be safe when it was asked for more."""

    def encode_pixels(self, pixels: object, *, space: str = "projected") -> object:
        _say(self.encoded)
        return super().encode_pixels(pixels, space=space)  # type: ignore[arg-type]


def prepare(root: Path, mode: str = "update") -> Path:
    """A folder with an index that lags behind, and is of format 1 for the mode "migrate", of 2 for "migrate-2"."""
    index = indexed(paint_many(root, OLD))
    if mode.startswith("migrate"):
        add_replaced(index.store.file)
        to_format(index.store.file, 2 if mode.endswith("-2") else 1)
    return paint_many(root, NEW - OLD, start=OLD)


def need_strace() -> None:
    """Skip where there is no strace, or where it may not trace; and let FAISS's threads not wait for each other."""
    import faiss

    faiss.omp_set_num_threads(1)  # 17 ms a search become 0.1 where two cores are busy; the checks make thousands
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")


def steps_of(mode: str, root: Path, log: Path) -> list[tuple[str, int]]:
    """Every system call of a run that changes something on the disk: (name, which one of that name).

    Of the run's own process: strace counts the calls of each process, and its decoders write to shared memory alone.
    """
    _strace(mode, root, "-f", "-o", str(log), "-s", "0", "-e", CHANGING)
    calls = re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE)
    run = Counter(process for process, _ in calls).most_common(1)[0][0]
    assert {name for process, name in calls if process != run} <= {"pwrite64"}
    seen: Counter[str] = Counter()
    steps = []
    for name in (name for process, name in calls if process == run):
        seen[name] += 1
        steps.append((name, seen[name]))
    return steps


def kill_at(mode: str, root: Path, step: tuple[str, int]) -> None:
    """The run, killed by the kernel at that very system call."""
    name, number = step
    options = ("-f", "-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
    assert _strace(mode, root, *options) != 0, f"the run ended before its {number}. {name}"


def _strace(mode: str, root: Path, *options: str) -> int:
    command = ["strace", "-qq", *options, sys.executable, "-B", "-m", __name__, mode, str(root)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert "Error" not in done.stderr, done.stderr
    return done.returncode


def check_old_or_new(root: Path, *, promised: int = OLD, is_done: bool = False) -> None:
    """What is there answers in full, is either the old index or the new one, and holds all that was promised."""
    index = ImageIndex.open(root)
    is_new = index.info.weights_sha256 == OTHER
    kept = len(index)
    assert sorted(index.paths) == [f"{number:03}.png" for number in range(kept)]
    assert kept in ((NEW,) if is_new else (OLD, OLD + BATCH)), "half a batch, or a mixture"
    assert kept >= promised, "what was committed is lost"
    assert kept == NEW or not is_done, "a run that had ended is lost"
    check_aligned(index)
    check_sound(index)
    check_answers(index)


def check_next_run(root: Path, cache: Path, *, rebuild: bool) -> None:
    """The next run completes, and nothing is left of the one that died."""
    fingerprint = OTHER if rebuild else ImageIndex.open(root).info.weights_sha256
    encoder = ColourEncoder(fingerprint=fingerprint)
    index = ImageIndex.create(root, encoder, rebuild=rebuild)
    index.update()
    assert len(index) == NEW
    assert rows_of(index, "PRAGMA user_version") == [(FORMAT,)]
    assert rows_of(index, "SELECT id FROM images WHERE state = 'replaced'") == []
    check_aligned(index)
    check_answers(index)
    assert sorted(os.listdir(index.folder)) == ["index.db", "lock"]
    own = f"{index.info.index_id}-{index.info.revision}-{index.info.token}"
    left = {file.name for file in cache.rglob("*") if file.is_file()}
    expected = {f"{own}.{suffix}" for suffix in ("faiss", "ids", "json")} | {f"{index.info.index_id}.safetensors"}
    assert left == expected, f"litter in the cache: {left - expected}, not there: {expected - left}"


# power cuts

Names = dict[str, int]


@dataclass
class Disk:
    """Files as the programs see them, and as they would be found after a power cut.

    What a file holds is safe once it was synced, what a folder lists once the folder was; in between the disk may have
    done any part of it, in any order.
    """

    now: Names = field(default_factory=dict)  # path -> file
    safe: Names = field(default_factory=dict)
    waiting: list[tuple[str, int | None]] = field(default_factory=list)  # in order: path, and the file or nothing
    bytes_now: dict[int, bytearray] = field(default_factory=dict)
    bytes_safe: dict[int, bytes] = field(default_factory=dict)
    writes: dict[int, list[tuple[int, bytes | None]]] = field(default_factory=dict)  # place, bytes; None: cut off there
    changes: int = 0

    @classmethod
    def of(cls, *folders: Path) -> Disk:
        """What lies in these folders, long since safe."""
        disk = cls()
        for file in (file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()):
            disk._new(str(file), file.read_bytes())
        disk.safe, disk.waiting = dict(disk.now), []
        disk.bytes_safe = {number: bytes(data) for number, data in disk.bytes_now.items()}
        return disk

    def _new(self, path: str, data: bytes = b"") -> None:
        number = len(self.bytes_now)
        self.bytes_now[number], self.bytes_safe[number], self.writes[number] = bytearray(data), b"", []
        self._name(path, number)

    def _name(self, path: str, number: int | None) -> None:
        self.waiting.append((path, number))
        self.changes += 1
        _put(self.now, path, number)

    def open(self, path: str, flags: str) -> None:
        if "O_CREAT" in flags and path not in self.now:
            self._new(path)
        elif "O_TRUNC" in flags and path in self.now:
            self.truncate(path, 0)

    def write(self, path: str, data: bytes, place: int | None = None) -> None:
        if (number := self.now.get(path)) is not None:
            place = len(self.bytes_now[number]) if place is None else place
            self.writes[number].append((place, data))
            self.changes += 1
            _write(self.bytes_now[number], place, data)

    def truncate(self, path: str, size: int) -> None:
        if (number := self.now.get(path)) is not None:
            self.writes[number].append((size, None))
            self.changes += 1
            _write(self.bytes_now[number], size, None)

    def sync(self, path: str) -> None:
        self.changes += 1
        if (number := self.now.get(path)) is not None:
            self.bytes_safe[number], self.writes[number] = bytes(self.bytes_now[number]), []
            return
        for name, number in [entry for entry in self.waiting if os.path.dirname(entry[0]) == path]:
            _put(self.safe, name, number)
        self.waiting = [entry for entry in self.waiting if os.path.dirname(entry[0]) != path]

    def rename(self, old: str, new: str) -> None:
        number = self.now[old]
        self._name(new, number)
        self._name(old, None)

    def unlink(self, path: str) -> None:
        self._name(path, None)

    def cuts(self, chance: random.Random) -> Iterator[dict[str, bytes]]:
        """What may be found after a power cut now: as little as possible; all names but few bytes; and by chance."""
        yield {path: self.bytes_safe[number] for path, number in self.safe.items()}
        yield {path: self.bytes_safe[number] for path, number in self.now.items()}
        names = dict(self.safe)
        for path, number in self.waiting[: chance.randrange(len(self.waiting) + 1)]:
            _put(names, path, number)
        yield {path: self._by_chance(number, chance) for path, number in names.items()}

    def _by_chance(self, number: int, chance: random.Random) -> bytes:
        data = bytearray(self.bytes_safe[number])
        for place, piece in self.writes[number]:
            if chance.random() < 0.5:
                _write(data, place, piece)
        return bytes(data)


def _put(names: Names, path: str, number: int | None) -> None:
    if number is None:
        names.pop(path, None)
    else:
        names[path] = number


def _write(data: bytearray, place: int, piece: bytes | None) -> None:
    data.extend(bytes(max(0, place - len(data))))
    if piece is None:
        del data[place:]
    else:
        data[place : place + len(piece)] = piece


@dataclass(frozen=True)
class Moment:
    """A moment at which the power may go. cut: what is then found, by path."""

    cut: dict[str, bytes]
    promised: int
    is_done: bool


def power_cuts(mode: str, root: Path, cache: Path, log: Path, *, every: int = 1) -> Iterator[Moment]:
    """All that may be found after a power cut during or after a run, at one moment in `every` and at the end."""
    disk = Disk.of(root / ".clipkit", cache)
    _strace(mode, root, "-ff", "-o", str(log), "-y", "-s", "200000", "-e", RECORDED)
    main = min(log.parent.glob(f"{log.name}.*"), key=lambda file: int(file.suffix[1:]))
    promised, is_done, chance = OLD, False, random.Random(0)
    looked_at = 0
    for line in main.read_text(errors="surrogateescape").splitlines():
        said = _replay(disk, line)
        if said is not None:
            is_done = said == b"done\n"
            promised = promised if is_done or "rebuild" in mode else OLD + int(said)
        if disk.changes >= looked_at + every or is_done:
            looked_at = disk.changes
            yield from (Moment(cut, promised, is_done) for cut in disk.cuts(chance))


def _replay(disk: Disk, line: str) -> bytes | None:
    """Do what a line of strace says; what was said on stdout, if that is what it was."""
    matched = re.match(r"(\w+)\((.*)\) += (-?\d+)", line)
    if not matched or matched[3].startswith("-"):
        return None
    call, told, result = matched[1], matched[2], int(matched[3])
    texts = [codecs.escape_decode(text)[0] for text in re.findall(r'"((?:[^"\\]|\\.)*)"', told)]
    paths = [os.fsdecode(text) for text in texts]
    target = match[1] if (match := re.match(r"\d+<(.*?)>", told)) else ""
    if call == "write" and told.startswith("1<"):
        return texts[0]  # type: ignore[return-value]
    if call in ("open", "openat"):
        disk.open(paths[0], told)
    elif call == "write":
        disk.write(target, texts[0][:result])
    elif call == "pwrite64":
        disk.write(target, texts[0][:result], int(told.rpartition(", ")[2]))
    elif call == "ftruncate":
        disk.truncate(target, int(told.rpartition(", ")[2]))
    elif call in ("fsync", "fdatasync"):
        disk.sync(target)
    elif call.startswith("rename"):
        disk.rename(*paths)
    elif call.startswith("unlink"):
        disk.unlink(paths[0])
    return None


def check_cut(moment: Moment, root: Path, cache: Path) -> None:
    """Lay the files out as the power cut left them: they answer, and the next run completes."""
    for folder in (root / ".clipkit", cache):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for path, data in moment.cut.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    check_old_or_new(root, promised=moment.promised, is_done=moment.is_done)


# the child


def _say(what: object) -> None:
    os.write(1, f"{what}\n".encode())


class Unsynced(sqlite3.Connection):
    """SQLite that trusts the disk with everything."""

    def execute(self, query: str, *rest: object) -> sqlite3.Cursor:
        return super().execute(query.replace("synchronous = EXTRA", "synchronous = OFF"), *rest)  # type: ignore[arg-type]


def migrate_piecemeal(db: sqlite3.Connection) -> bool:
    """The migration with each of its statements a transaction of its own."""
    db.execute("COMMIT")
    is_migrated = migrate(db)
    db.execute("BEGIN IMMEDIATE")
    return is_migrated


def _main(mode: str, root: Path) -> None:
    clipkit.index.scan.TICK_NS = clipkit.index.scan.COARSE_NS = 0
    if mode.endswith("-unsynced"):  # a mutant
        connect = sqlite3.connect
        sqlite3.connect = lambda *args, **options: connect(*args, factory=Unsynced, **options)  # type: ignore[assignment]
        os.fsync = lambda _: None
    if mode.endswith("-piecemeal"):  # another one
        clipkit.store.database.migrate = migrate_piecemeal
    is_rebuild = mode.startswith("rebuild")
    encoder = LoudEncoder(fingerprint=OTHER) if is_rebuild else LoudEncoder()
    ImageIndex.create(root, encoder, rebuild=is_rebuild).update(workers=1)
    _say("done")


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
