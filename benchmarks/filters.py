"""Filters on metadata: queries with a filter beside the same query without, on an index of 1,000,000 rows.

The rows are written directly: random directions, and metadata as a collection of ten years has it, half of it without
a place and most of it without stars, tags and titles. Times are the processor's, of all threads: a query is computed by
one core nearly all the time, and other work on a shared machine does not count.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Target,
    interleaved,
    kept,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    seconds,
    summary,
    write,
)
from fixtures import DIM, BlockEncoder, unit_queries, unit_rows

from clipkit.core.arrays import Embeddings
from clipkit.explore.conditions import ids_that_meet
from clipkit.explore.question import search
from clipkit.images.recipe import Metadata
from clipkit.index.image_index import ImageIndex
from clipkit.search.query import parse_query
from clipkit.store.database import FILE, Store
from clipkit.store.records import PictureRow, ScannedFile

ROWS, K, COMMIT = 1_000_000, 10, 10_000
CLOCK = time.process_time
CAMERAS = ("FUJIFILM X100V", "Canon EOS 5D Mark III", "Apple iPhone 12", "SONY ILCE-7M3", "NIKON D750", None)
TAGS = ("family", "holiday", "work", "Österreich", "sea", "mountains")
SIZES = ((6000, 4000), (4000, 3000), (3000, 4000), (1024, 768))
FILTERS = (
    "rating:>=4",
    'camera:"X100V"',
    "-camera:iphone",
    "place:52.5,13.4,50",
    "size:>12MP",
    "width:>=4000 shape:landscape",
    "tag:family",
    "tag:österreich",
    "title:holiday",
    "date:2019-05..2019-08",
    "camera:X100V rating:>=3 date:2015..2020 -tag:work",
    "type:jpeg",
    "path:07",
)


class TextEncoder(BlockEncoder):
    """Reads a text as a direction of its own."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        rows = [np.random.default_rng(list(text.encode())).standard_normal(DIM) for text in texts]
        unit: Embeddings = np.array([row / np.linalg.norm(row) for row in rows], np.float32)
        return unit


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    private_cache("filters-cache")
    count, rounds = (50_000, 3) if arguments.quick else (ROWS, 7)
    photos = scratch("filters-photos")
    for folder in range(100):  # `path:` names one that is there
        (photos / f"{folder:02d}").mkdir()
    at, encoder = kept(f"filters-index-{count}", partial(_make, photos, count)), TextEncoder(8)
    index = ImageIndex.open(photos, at=at, encoder=encoder)  # type: ignore[arg-type]  it encodes no pictures
    results: dict[str, Any] = {
        "rows": count,
        "dim": DIM,
        "k": K,
        "bytes": (at / FILE).stat().st_size,
        "clock": "processor",
    }
    results["columns"] = _columns(index, rounds)
    results["vectors"] = _vectors(index, rounds)
    results["queries"] = _queries(index, encoder, rounds)
    _print(results)
    plain, *filtered = (found["seconds"]["median"] for found in results["queries"].values())
    targets = [
        Target("median filtered query / one without a filter", float(np.median(filtered)) / plain, 1.0),
        Target("slowest filtered query / one without a filter", max(filtered) / plain, 1.0),
    ]
    write("filters", results, targets, arguments)


def _make(photos: Path, count: int, folder: Path) -> None:
    ImageIndex.create(photos, TextEncoder(8), at=folder)
    _fill(Store(folder / FILE), count)


def _columns(index: ImageIndex, rounds: int) -> dict[str, Any]:
    """The metadata in memory: read from the rows, as once after an index was made; and opened from the cache."""

    def open_again() -> None:
        index._columns.clear()
        index.columns  # noqa: B018

    read = [seconds(index.store.columns, CLOCK) for _ in range(3)]
    open_again()
    opened = [seconds(open_again, CLOCK) for _ in range(rounds)]
    return {name: {"pictures": len(index), "seconds": summary(raw)} for name, raw in (("read", read), ("open", opened))}


def _vectors(index: ImageIndex, rounds: int) -> dict[str, Any]:
    """The search of vectors alone: among all rows, and among the ids that a filter leaves."""
    query = unit_queries(1)
    runs = {"all": partial(index.search_embeddings, query, K)}
    sizes = {"all": len(index)}
    for text in FILTERS[:4]:
        ids = ids_that_meet(index, parse_query(text).conditions)
        assert ids is not None
        runs[text], sizes[text] = partial(index.search_embeddings, query, K, only=ids), len(ids)
    interleaved(runs, 1)  # makes the cache
    times = interleaved(runs, 3 * rounds, CLOCK)
    return {name: {"pictures": sizes[name], "seconds": summary(raw)} for name, raw in times.items()}


def _queries(index: ImageIndex, encoder: TextEncoder, rounds: int) -> dict[str, Any]:
    """Whole queries in words, as Python, the command line and the page ask them; and what the ids alone take."""
    ids = {text: partial(ids_that_meet, index, parse_query(text).conditions) for text in FILTERS}
    asked = {"without a filter": "a dog"} | {text: f"a dog {text}" for text in FILTERS}
    runs = {name: partial(search, index, text, K, encoder=encoder) for name, text in asked.items()}
    interleaved(runs, 1)
    times, lookups = interleaved(runs, rounds, CLOCK), interleaved(ids, rounds, CLOCK)
    left = {text: len(found) for text in FILTERS if (found := ids[text]()) is not None}
    return {
        name: {"pictures": left.get(name, len(index)), "seconds": summary(raw)}
        | ({"ids_seconds": summary(lookups[name])} if name in lookups else {})
        for name, raw in times.items()
    }


def _fill(store: Store, count: int) -> None:
    rng, number = np.random.default_rng(0), 0
    for block in unit_rows(count):
        for start in range(0, len(block), COMMIT):
            with store.transaction() as writer:
                for row in block[start : start + COMMIT]:
                    path = f"{number % 100:02d}/{number:06d}.{'png' if number % 9 == 0 else 'jpg'}"
                    writer.put(_row(ScannedFile(path, 40_000, number, number, number), row.tobytes(), rng))
                    number += 1


def _row(found: ScannedFile, vector: bytes, rng: np.random.Generator) -> PictureRow:
    draws = rng.random(8)
    date = f"{2012 + int(12 * draws[0])}-{1 + int(12 * draws[1]):02}-{1 + int(28 * draws[2]):02}T10:00:00"
    metadata = Metadata(
        taken_at=date,
        camera=CAMERAS[int(len(CAMERAS) * draws[3])],
        latitude=None if draws[4] < 0.5 else 180 * draws[1] - 90,
        longitude=None if draws[4] < 0.5 else 360 * draws[2] - 180,
        rating=None if draws[5] < 0.8 else int(6 * draws[6]),
        tags=() if draws[7] < 0.8 else tuple(TAGS[: 1 + int(6 * draws[6])]),
        title="Summer holiday" if draws[7] > 0.95 else None,
    )
    width, height = SIZES[int(4 * draws[6])]
    row = PictureRow(found, secrets.token_bytes(32), width, height, embedding=vector, phash=secrets.token_bytes(8))
    return row.described(metadata)


def _print(results: dict[str, Any]) -> None:
    lines = [
        (f"{part}: {name}", found["pictures"], 1000 * found["seconds"]["median"], 1000 * found["seconds"]["highest"])
        + ((1000 * found["ids_seconds"]["median"],) if "ids_seconds" in found else ("",))
        for part in ("columns", "vectors", "queries")
        for name, found in results[part].items()
    ]
    print_table([("milliseconds", "pictures", "median", "highest", "ids alone"), *lines])


if __name__ == "__main__":
    main()
