"""Faults made on purpose: encoders that fail, processes that die; and what must hold afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipkit.cli.main
import clipkit.index.image_index
import clipkit.index.prefetch
from clipkit.core.arrays import Embeddings
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder, paint, shade
from tests.support.paths import REPOSITORY

BATCH = 4
BAD_FILES = (b"", b"\xff\xd8\xff\xe0 no picture", b"\x89PNG\r\n\x1a\n" + bytes(40), b"<html>404</html>")
FOREVER = 120.0


class SlowEncoder(ColourEncoder):
    """Says on stdout which batch it has encoded, and stays in the one numbered `stop`: it can only be interrupted."""

    def __init__(self, stop: int) -> None:
        super().__init__(batch_size=BATCH)
        self._stop = stop
        self._batches = 0

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        self._batches += 1
        time.sleep(FOREVER if self._batches == self._stop else 0.01)
        sys.stdout.write(f"{self._batches}\n")
        sys.stdout.flush()
        return super().encode_pixels(pixels, space=space)


class NanEncoder(ColourEncoder):
    """Fails on black pictures, or on all, as a broken model does."""

    def __init__(self, *, everywhere: bool = False) -> None:
        super().__init__(batch_size=BATCH)
        self._everywhere = everywhere

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        rows = super().encode_pixels(pixels, space=space)
        rows[pixels.reshape(len(pixels), -1).max(axis=1) == 0] = np.nan
        return rows * np.float32(np.nan) if self._everywhere else rows


class QuartersEncoder(ColourEncoder):
    """A picture is the mean colours of its four quarters: it knows left from right and top from bottom."""

    model = source = "quarters"
    dim = 12

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        quarters = pixels.reshape(len(pixels), 3, 2, 4, 2, 4).mean(axis=(3, 5)).reshape(len(pixels), 12) + 1
        rows: Embeddings = (quarters / np.linalg.norm(quarters, axis=1, keepdims=True)).astype(np.float32)
        return rows


def photo_encoder() -> ColourEncoder:
    """Mean colours of pictures at the size that real models ask for."""
    encoder = ColourEncoder(batch_size=32)
    encoder.recipe = replace(encoder.recipe, size=(224, 224))
    return encoder


def indexed(folder: Path, encoder: ColourEncoder | None = None) -> ImageIndex:
    """The up-to-date index of a folder, its encoder's count at zero."""
    encoder = encoder or ColourEncoder()
    index = ImageIndex.create(folder, encoder)
    index.update()
    encoder.encoded = 0
    return index


def paint_many(folder: Path, count: int, start: int = 0) -> Path:
    """`count` pictures of a colour each, 000.png onwards."""
    for number in range(start, start + count):
        paint(folder / f"{number:03}.png", shade(number))
    return folder


def check_aligned(index: ImageIndex, encoder: ColourEncoder | None = None) -> None:
    """Every stored embedding is the encoder's own for that very file."""
    judge = encoder or ColourEncoder()
    paths, embeddings = index.paths, index.embeddings
    assert len(paths) == len(embeddings) == len(set(paths))
    for path, embedding in zip(paths, embeddings, strict=True):
        expected = judge.encode_images([os.path.join(index.root, path)])[0]
        np.testing.assert_allclose(embedding, expected, atol=1e-3, err_msg=path)


def check_answers(index: ImageIndex, seed: int = 0) -> None:
    """Hits are those of a full sort over the stored embeddings; of equal rows the lower id comes first."""
    paths, rows = index.paths, index.embeddings
    queries = np.random.default_rng(seed).normal(size=(20, rows.shape[1])).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for k in (1, 7, len(rows) + 3):
        few = [hits for query in queries[:4] for hits in index.search_embeddings(query, k)]
        many = index.search_embeddings(queries, k)  # takes another way through the engine
        for query, hits in [*zip(queries[:4], few, strict=True), *zip(queries, many, strict=True)]:
            scores = rows @ query
            best = np.sort(scores)[::-1][:k]
            where = [paths.index(hit.path) for hit in hits]
            np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-5)
            np.testing.assert_allclose(scores[where], best, atol=1e-5)
            for place, row in enumerate(where):
                twins = np.flatnonzero((rows[:row] == rows[row]).all(axis=1))
                assert set(twins.tolist()) <= set(where[:place]), "an equal row with a lower id comes first"


def check_sound(index: ImageIndex) -> None:
    """SQLite finds nothing wrong."""
    assert rows_of(index, "PRAGMA integrity_check") == [("ok",)]


def rows_of(index: ImageIndex, query: str, *values: object) -> list[tuple[object, ...]]:
    """Run one statement on the database itself, behind clipkit's back."""
    with closing(sqlite3.connect(index.folder / "index.db")) as db, db:
        return db.execute(query, values).fetchall()


def unseen(index: ImageIndex) -> int:
    """How many contents on disk the index holds no embedding of."""
    held = {row[0] for row in rows_of(index, "SELECT sha256 FROM images WHERE embedding IS NOT NULL")}
    files = [file for file in index.root.rglob("*.png") if file.is_file()]
    return len({hashlib.sha256(file.read_bytes()).digest() for file in files} - held)


def spy_on_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened from now on."""
    opened: list[str] = []
    read = clipkit.index.prefetch.read_file

    def spy(file: str) -> bytes:
        opened.append(os.path.basename(file))
        return read(file)

    monkeypatch.setattr("clipkit.index.prefetch.read_file", spy)
    return opened


def after_the_scan(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Something happens to the folder when the scan is over and no file has been read."""
    find = clipkit.index.image_index.find_images

    def find_and_act(*args: object, **options: object) -> object:
        scan = find(*args, **options)  # type: ignore[arg-type]
        act()
        return scan

    monkeypatch.setattr("clipkit.index.image_index.find_images", find_and_act)


def cache_files(cache: Path, suffix: str = "*") -> list[Path]:
    """What the search cache has written."""
    return sorted((cache / "faiss").glob(f"*.{suffix}"))


def run_cli(monkeypatch: pytest.MonkeyPatch, command: str, encoder: ColourEncoder) -> int:
    """A command line as a person types it, with `encoder` as the only model there is."""
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: encoder)
    program, *arguments = shlex.split(command)
    assert program == "clipkit"
    return clipkit.cli.main.main(arguments)


@contextmanager
def running(mode: str, folder: Path, stop: int = 0) -> Iterator[subprocess.Popen[str]]:
    """This file as a process of its own, which has said that it is ready; killed at the end if it is still there."""
    command = [sys.executable, "-m", __name__, mode, str(folder), str(stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
            yield child
        finally:
            child.kill()


def wait_for_batch(child: subprocess.Popen[str], number: int) -> None:
    assert child.stdout
    for _ in range(number):
        assert child.stdout.readline()


def _ready() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with SIGINT ignored
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _index(folder: Path, stop: int) -> int:
    index = ImageIndex.create(folder, SlowEncoder(stop))
    _ready()
    index.update(workers=2)
    return 0


def _cli(folder: Path, stop: int) -> int:
    import clipkit.models.load

    def load_slow(*_: object, **__: object) -> SlowEncoder:
        _ready()
        return SlowEncoder(stop)

    clipkit.models.load.load_encoder = load_slow  # type: ignore[assignment]
    return clipkit.cli.main.main(["index", str(folder)])


def _photos(folder: Path, _: int) -> int:
    import faiss  # noqa: F401
    import simplejpeg  # noqa: F401
    import torch  # noqa: F401

    def peak_bytes() -> int:  # of this process alone: getrusage begins with the parent's
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

    index = ImageIndex.create(folder, photo_encoder())
    Image.init()
    before = peak_bytes()
    _ready()
    report = index.update(workers=2)
    grown = peak_bytes() - before
    sys.stdout.write(json.dumps({"grown": grown, "failed": [failure.path for failure in report.failed]}))
    return 0


if __name__ == "__main__":
    sys.exit({"index": _index, "cli": _cli, "photos": _photos}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3])))
