"""Shards of five million pictures: make, scan, merge, index; of the first million: an index and its recall for texts.

The vectors lie between embeddings of photographs by the starter and those of their 20 nearest, with noise; the queries
are texts by the same model, as far from all pictures as real ones are. Each step is a process of its own. `--quick`
takes 50,000. What is done is kept in the scratch folder, so that an interrupted run goes on; `shards-work` there may be
deleted at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from approximate import _nearest
from common import (
    Target,
    available_bytes,
    fresh,
    peak_bytes,
    photographs,
    print_table,
    read_arguments,
    summary,
    work_folder,
    write,
)

from clipkit.core.arrays import Embeddings

COUNT, QUICK = 5_000_000, 50_000
LISTED = 1_000_000  # of which an index is built; what it finds is compared with exact scans of them
SHARD = 10_000
PHOTOS = 4_000  # photographs whose embeddings the vectors lie between
EFFORTS = ((20, None), (20, 10), (20, 50), (80, 10))  # lists, candidates an answer; None: scores as compressed
ROUNDS = 5
KINDS: dict[str, dict[str, Any]] = {
    "IVF_PQ, 16 values a byte": {"index_type": "IVF_PQ", "num_sub_vectors": 24},
    "IVF_RQ, 1 bit a value": {"index_type": "IVF_RQ", "num_bits": 1},
    "IVF_RQ, 4 bits a value": {"index_type": "IVF_RQ", "num_bits": 4},
}
OF_LISTED = ("scan of listed", "build", "efforts", "recall")
STEPS = (
    *("make", "kinds", "scan", "scan of listed", "build", "efforts", "recall"),
    *("merge", "merge again", "index search", "build of all", "recall of all"),
)


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        step, count = arguments.child
        found = _STEPS[step.replace("-", " ")](int(count))
        busy = os.times()  # of the processors, which a busy machine does not change as it does the clock
        facts = {"cpu_seconds": busy.user + busy.system, "peak_bytes": peak_bytes(), "load": os.getloadavg()[0]}
        print(json.dumps({**found, **facts}))
        return
    count = QUICK if arguments.quick else COUNT
    _sources()
    done = _done(count)
    for step in STEPS:
        if step not in done:
            print(f"{step} ...", flush=True)
            size = min(count, LISTED) if step in OF_LISTED else count
            _link_shards(size)
            done[step] = {**fresh(__file__, step.replace(" ", "-"), size), "available_before": available_bytes()}
            _file(count).write_text(json.dumps(done))
    print_table([("step", "seconds", "of processors", "peak MB"), *_lines(done)])
    targets = [
        Target("recall@10 of the index for texts", done["recall"]["recall"], 0.95, is_floor=True),
        Target("peak of the merge, GB", done["merge"]["peak_bytes"] / 1e9, 2),
        Target("peak of a scan, GB", done["scan"]["peak_bytes"] / 1e9, 2),
    ]
    write("shards", {"pictures": count, "listed": min(count, LISTED), **done}, targets, arguments)
    shutil.rmtree(_work(count).parent)


def _lines(done: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (step, found["seconds"], found.get("cpu_seconds", 0.0), found["peak_bytes"] / 1e6)
        for step, found in done.items()
    ]


def _make(count: int) -> dict[str, Any]:
    from clipkit.bulk.shards import Row, shard_bytes, shard_name, write_manifest
    from clipkit.bulk.storage import Storage

    vectors, _ = _sources()
    near, storage, started = _nearest(vectors), Storage(_out(count)), time.perf_counter()
    write_manifest(storage, _manifest(vectors.shape[1]))
    for start in range(0, count, SHARD):
        made = _vectors(vectors, near, start)
        names = [f"{number // 1000:05d}/{number:09d}.jpg" for number in range(start, start + SHARD)]
        sums = np.random.default_rng(start).bytes(32 * SHARD)
        rows = [
            Row(name, sums[32 * i : 32 * i + 32], 1024, 768, "2024-05-06T07:08:09", None, made[i])
            for i, name in enumerate(names)
        ]
        storage.write(shard_name(start // SHARD, names), shard_bytes(rows, vectors.shape[1]))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes_a_picture": _size(_out(count)) / count}


def _scan(count: int) -> dict[str, Any]:
    from clipkit.bulk.scan import nearest

    shards, (_, texts) = _shards(count), _sources()
    times = [_timed(lambda: nearest(shards, texts[:1], 10)) for _ in range(3)]
    many = _timed(lambda: nearest(shards, texts[:100], 10))
    return {"seconds": summary(times)["median"], "one query": summary(times), "100 queries": many}


def _build(count: int) -> dict[str, Any]:
    from clipkit.bulk.lance_index import build

    shards, before = _shards(count), _size(_out(count))
    started = time.perf_counter()
    built = build(shards, _sources()[1][1::5])
    seconds = time.perf_counter() - started
    folder = _out(count) / built.folder
    sizes = {"table": _size(folder / "data") / count, "index": _size(folder / "_indices") / count}
    facts = {name: getattr(built, name) for name in ("kind", "nlist", "nprobes", "refine", "expected")}
    return {"seconds": seconds, "bytes_a_picture": sizes, "bytes_added": _size(_out(count)) - before, **facts}


def _kinds(count: int) -> dict[str, Any]:
    """What each compression finds for texts among the first 100,000 pictures, in all lists; refine 0: as compressed."""
    import pyarrow as pa

    from clipkit.core.lance_tables import lance, write_table

    shards, texts, started = _shards(count), _sources()[1][::5], time.perf_counter()
    rows = np.concatenate([block.embeddings for name in shards.names[:10] for block in shards.blocks(name)])
    wide = rows.astype(np.float32)
    exact = np.argsort(-(texts @ wide.T), axis=1)[:, :10]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    batch = pa.record_batch({"position": np.arange(len(rows)), "embedding": vectors})
    place, found = _work(count) / "kinds", {}
    shutil.rmtree(place, ignore_errors=True)
    dataset = write_table(str(place), [batch], batch.schema)
    lists, before = len(rows) // 4096, 0
    for kind, ways in KINDS.items():
        seconds = _timed(
            lambda ways=ways: dataset.create_index(  # type: ignore[misc]
                "embedding", metric="dot", num_partitions=lists, replace=True, **ways
            )
        )
        size = _size(place / "_indices")
        recalls = {
            refine: _found(lance().dataset(str(place)), texts, exact, lists, refine) for refine in (0, 1, 10, 50)
        }
        found[kind] = {"build_seconds": seconds, "bytes_a_picture": (size - before) / len(rows), "recall": recalls}
        before = size
    shutil.rmtree(place)
    return {"seconds": time.perf_counter() - started, "pictures": len(rows), "queries": len(texts), "kinds": found}


def _found(dataset: Any, texts: Embeddings, exact: Any, lists: int, refine: int) -> float:
    ways = {"column": "embedding", "k": 10, "nprobes": lists, "metric": "dot"}
    shares = []
    for text, ids in zip(texts, exact, strict=True):
        nearest = {**ways, "q": text, **({"refine_factor": refine} if refine else {})}
        positions = dataset.to_table(columns=["position", "_distance"], nearest=nearest)["position"].to_pylist()
        shares.append(len(set(positions) & set(ids.tolist())) / 10)
    return float(np.mean(shares))


def _link_shards(count: int) -> None:
    """The first shards of five million in a folder of their own."""
    _out(count).mkdir(parents=True, exist_ok=True)
    names = sorted(file.name for file in _out(COUNT).glob("part-*.parquet"))[: count // SHARD]
    for name in [*names, "clipkit.json"] if count == LISTED else ():
        if not (_out(count) / name).exists():
            os.link(_out(COUNT) / name, _out(count) / name)


def _efforts(count: int) -> dict[str, Any]:
    """Recall by lists and candidates, also without any: what compression costs."""
    from clipkit.bulk.lance_index import LanceIndex, exact_ids

    shards, started = _shards(count), time.perf_counter()
    texts = _sources()[1][::5]
    index, exact, found = LanceIndex.open(shards, is_judged=False), exact_ids(shards, texts), {}
    assert index is not None
    for nprobes, refine in EFFORTS:
        ways = {"nprobes": nprobes, **({"refine_factor": refine} if refine else {})}
        began = time.perf_counter()
        shares = [
            len(set(index.positions(text, 10, ways).tolist()) & set(ids.tolist())) / 10
            for text, ids in zip(texts, exact, strict=True)
        ]
        seconds = (time.perf_counter() - began) / len(texts)
        found[f"{nprobes} lists, {refine or 'no'} candidates"] = {"recall": float(np.mean(shares)), "seconds": seconds}
    return {"seconds": time.perf_counter() - started, "queries": len(texts), "recall": found}


def _recall(count: int) -> dict[str, Any]:
    from clipkit.bulk.recall import measure_recall

    started = time.perf_counter()
    found = measure_recall(_shards(count), _sources()[1])
    return {"seconds": time.perf_counter() - started, **vars(found)}


def _merge(count: int) -> dict[str, Any]:
    from clipkit.bulk.merging import merge

    at, started = _work(count) / "index", time.perf_counter()
    report = merge(_shards(count), at=at)
    seconds = time.perf_counter() - started
    sizes = {"imported": report.imported, "unchanged": report.unchanged, "bytes_a_picture": _size(at) / count}
    return {"seconds": seconds, "pictures_a_second": count / seconds, **sizes}


def _index_search(count: int) -> dict[str, Any]:
    """The merged index: its first search, which writes the search cache, and those after it."""
    os.environ["CLIPKIT_CACHE"] = str(_work(count) / "cache")
    from clipkit import ImageIndex

    index, texts = ImageIndex.open("s3://bucket/photos", at=_work(count) / "index"), _sources()[1]
    first = _timed(lambda: index.search_embeddings(texts[:1], 10))
    later = [_timed(lambda: index.search_embeddings(texts[:1], 10)) for _ in range(ROUNDS)]
    return {"seconds": first, "next": summary(later)}


_STEPS: dict[str, Callable[[int], dict[str, Any]]] = {
    "make": _make,
    "kinds": _kinds,
    "scan": _scan,
    "scan of listed": _scan,
    "build": _build,
    "build of all": _build,
    "recall of all": _recall,
    "efforts": _efforts,
    "recall": _recall,
    "merge": _merge,
    "merge again": _merge,
    "index search": _index_search,
}


def _sources() -> tuple[Embeddings, Embeddings]:
    """Embeddings of photographs (4,000, d) and of 500 prompts, made once."""
    file = work_folder() / "shards-sources.npz"
    if not file.exists():
        from clipkit import load_encoder
        from clipkit.bulk.recall import prompts
        from clipkit.index.scan import find_images

        folder = photographs()
        assert folder is not None
        encoder, found = load_encoder("starter"), find_images(str(folder / "captions")).found
        files = [folder / "captions" / one.path for one in found[:: max(1, len(found) // PHOTOS)]][:PHOTOS]
        pieces = [encoder.encode_images(files[start : start + 100]) for start in range(0, len(files), 100)]
        np.savez(file, vectors=np.concatenate(pieces), texts=encoder.encode_texts(prompts()))
    kept = np.load(file)
    return kept["vectors"], kept["texts"]


def _vectors(vectors: Embeddings, near: Any, start: int) -> Any:
    rng, dim = np.random.default_rng(start), vectors.shape[1]
    picks = rng.integers(len(vectors), size=SHARD)
    others = near[picks, rng.integers(near.shape[1], size=SHARD)]
    share = rng.uniform(0, 0.7, size=(SHARD, 1)).astype(np.float32)
    rows = (1 - share) * vectors[picks] + share * vectors[others]
    rows += 0.3 / np.sqrt(dim) * rng.standard_normal(rows.shape, dtype=np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def _manifest(dim: int) -> Any:
    from clipkit.bulk.shards import Manifest
    from clipkit.models.registry import find_weights

    sha256 = find_weights("starter", {}).fingerprint
    facts = ("starter", sha256, "onnx", "float32", dim, "none", "clipkit benchmark", "s3://bucket/photos", SHARD)
    return Manifest(*facts, model_source="starter")


def _shards(count: int) -> Any:
    from clipkit.bulk.shards import Shards

    return Shards(_out(count))


def _work(count: int) -> Path:
    folder = work_folder() / "shards-work" / str(count)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _out(count: int) -> Path:
    return _work(count) / "out"


def _file(count: int) -> Path:
    return _work(count) / "done.json"


def _done(count: int) -> dict[str, Any]:
    return dict(json.loads(_file(count).read_text())) if _file(count).exists() else {}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
