"""Exact search: one query over 1,000,000 vectors beside reading them once, FAISS's float32, and a whole index."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import (
    Target,
    available_bytes,
    fresh,
    interleaved,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    seconds,
    summary,
    write,
)
from fixtures import BLOCK, DIM, BlockEncoder, unit_queries, unit_rows

from clipkit.core.system import usable_cores

ROWS = 1_000_000
PICTURES = 100_000
K = 10
MANY = 100
COMMIT = 10_000
Half = npt.NDArray[np.float16]


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        _child(*arguments.child)
        return
    private_cache("search-cache")
    count, pictures, rounds = (100_000, 5000, 7) if arguments.quick else (ROWS, PICTURES, 25)
    results: dict[str, Any] = {"rows": count, "dim": DIM, "k": K, "queries": MANY}
    results["vectors"] = _vectors(count, rounds)
    results["float32"] = _float32(count, results["vectors"].pop("found"), rounds)
    results["index"] = _index(pictures, rounds)
    _print(results)
    ratio = results["vectors"]["ratio_to_one_read"]
    name = f"one query over {count:,} x {DIM} / reading the matrix once"
    write("search", results, [Target(name, ratio, 1.6)], arguments)


def _vectors(count: int, rounds: int) -> dict[str, Any]:
    from clipkit.search.vectors import Neighbors

    prefix = scratch("search-vectors") / "vectors"
    started = time.perf_counter()
    built = Neighbors.build(_blocks(count), DIM)
    made = time.perf_counter() - started
    saved = seconds(partial(built.save, prefix))
    del built  # a second gigabyte
    started = time.perf_counter()
    neighbors = Neighbors.load(prefix, DIM)
    loaded = time.perf_counter() - started
    verified = seconds(lambda: Neighbors.load(prefix, DIM, verify=True))
    if neighbors is None:
        raise RuntimeError("what was saved could not be loaded")
    queries = unit_queries(MANY)
    readers = {"one read, torch": torch_reader(neighbors.rows()), "one read, numpy": numpy_reader(neighbors.rows())}
    one = partial(neighbors.search, queries[:1], K)
    interleaved({**readers, "one query": one}, rounds=2)  # every page is in memory from here on
    times = interleaved({**readers, "one query": one}, rounds)
    many = interleaved({"many queries": partial(neighbors.search, queries, K)}, max(1, rounds // 5))
    summaries = {name: summary(raw) for name, raw in (times | many).items()}
    read = min(summaries[name]["median"] for name in readers)
    return {
        "build_and_making_rows_seconds": made,
        "save_seconds": saved,
        "load_seconds": loaded,
        "load_and_verify_seconds": verified,
        "seconds": summaries,
        "how_read": f"the mmapped float16 bytes, summed as 64-bit integers by {usable_cores()} threads; the faster of "
        "torch.sum and numpy's add.reduce on one slice a thread",
        "read_gb_per_second": count * DIM * 2 / read / 1e9,
        "ratio_to_one_read": summaries["one query"]["median"] / read,
        "found": neighbors.search(queries, K)[1],
    }


def _blocks(count: int) -> Iterator[tuple[npt.NDArray[np.int64], Half]]:
    for number, rows in enumerate(unit_rows(count)):
        yield np.arange(len(rows), dtype=np.int64) + number * BLOCK, rows


def torch_reader(rows: Half) -> Callable[[], object]:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the map is read-only; it is only read
        words = torch.from_numpy(rows.reshape(-1).view(np.int64))
    return words.sum


def numpy_reader(rows: Half) -> Callable[[], object]:
    words = rows.reshape(-1).view(np.int64)
    slices = np.array_split(words, usable_cores())
    pool = ThreadPoolExecutor(len(slices))
    return lambda: list(pool.map(np.add.reduce, slices))


def _float32(count: int, found: npt.NDArray[np.int64], rounds: int) -> dict[str, Any] | None:
    """FAISS's exact index at full precision, if it fits: twice the bytes; and what the float16 rows cost in recall."""
    import faiss

    if available_bytes() < 3 * count * DIM * 4:  # FAISS doubles its buffer while it grows
        return None
    flat = faiss.IndexFlatIP(DIM)
    for rows in unit_rows(count):
        flat.add(rows.astype(np.float32))
    queries = unit_queries(MANY)
    one = interleaved({"one query": partial(flat.search, queries[:1], K)}, max(3, rounds // 2))
    many = interleaved({"many queries": partial(flat.search, queries, K)}, max(1, rounds // 5))
    _, exact = flat.search(queries, K)
    shared = [len(set(ours) & set(theirs)) for ours, theirs in zip(found.tolist(), exact.tolist(), strict=True)]
    return {
        "seconds": {name: summary(raw) for name, raw in (one | many).items()},
        "recall_at_10_of_clipkit": float(np.mean(shared)) / K,
    }


def _index(pictures: int, rounds: int) -> dict[str, Any]:
    """The store, its cache and the names: what a caller of `search_embeddings` waits for."""
    from clipkit.index.image_index import ImageIndex
    from clipkit.store.database import FILE, Store

    photos, at = scratch("search-photos"), scratch("search-index")
    ImageIndex.create(photos, BlockEncoder(8), at=at)
    _fill(Store(at / FILE), pictures)
    index, query = ImageIndex.open(photos, at=at), unit_queries(1)
    first = seconds(lambda: index.search_embeddings(query, K))
    warm = interleaved({"warm": lambda: index.search_embeddings(query, K)}, rounds)["warm"]
    opened = [fresh(__file__, photos, at)["seconds"] for _ in range(5)]
    return {
        "pictures": pictures,
        "first_search_makes_the_cache_seconds": first,
        "warm_search_seconds": summary(warm),
        "open_and_first_search_in_a_fresh_process_seconds": summary(opened),
    }


def _fill(store: Any, pictures: int) -> None:
    from clipkit.store.records import PictureRow, ScannedFile

    number = 0
    for block in unit_rows(pictures):
        for start in range(0, len(block), COMMIT):
            with store.transaction() as writer:
                for row in block[start : start + COMMIT]:
                    found = ScannedFile(f"{number % 100:02d}/{number:06d}.jpg", 40_000, number, number, number)
                    writer.put(PictureRow(found, secrets.token_bytes(32), 500, 375, embedding=row.tobytes()))
                    number += 1


def _child(photos: str, at: str) -> None:
    import faiss  # noqa: F401  what is timed begins after the imports
    import torch  # noqa: F401

    from clipkit.index.image_index import ImageIndex

    query = unit_queries(1)
    taken = seconds(lambda: ImageIndex.open(Path(photos), at=at).search_embeddings(query, K))
    print(json.dumps({"seconds": taken}))


def _print(results: dict[str, Any]) -> None:
    timed = {f"{name}, clipkit": taken for name, taken in results["vectors"]["seconds"].items()}
    if results["float32"]:
        timed |= {f"{name}, FlatIP float32": taken for name, taken in results["float32"]["seconds"].items()}
    index = results["index"]
    timed[f"ImageIndex of {index['pictures']:,}, warm"] = index["warm_search_seconds"]
    timed["the same, opened in a fresh process"] = index["open_and_first_search_in_a_fresh_process_seconds"]
    lines = [(name, *(1000 * taken[key] for key in ("median", "lowest", "highest"))) for name, taken in timed.items()]
    print_table([("milliseconds", "median", "lowest", "highest"), *lines])
    print(f"one read: {results['vectors']['read_gb_per_second']:.1f} GB/s")


if __name__ == "__main__":
    main()
