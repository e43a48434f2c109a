"""Approximate beside exact search: 100,000 to 5,000,000 vectors like those of photographs, and real text queries.

The vectors: the starter's embeddings of the photographs, and points between each and one of its 20 nearest, turned into
512 dimensions (cosines stay). Above a million they are these with other signs. `--child SIZE` measures one size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import (
    Target,
    interleaved,
    photographs,
    print_table,
    read_arguments,
    scratch,
    seconds,
    summary,
    work_folder,
    write,
)
from fixtures import BLOCK, DIM
from search import numpy_reader, torch_reader

from clipkit.core.arrays import Embeddings

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 5_000_000)
LISTED = (1_000_000,)  # for which an inverted file is made
REAL = 1_000_000
MANY = 100
K = 10
Half = npt.NDArray[np.float16]


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        print(json.dumps(_measure(int(arguments.child[0]))))
        return
    sizes = (20_000, 100_000) if arguments.quick else SIZES
    runs = {str(count): _fresh(count) for count in sizes}
    lines = [
        (f"{int(count):,}", *(1000 * run["seconds"][name]["median"] for name in ("one query", "one read")))
        for count, run in runs.items()
    ]
    print_table([("vectors", "one query, ms", "one read, ms"), *lines])
    targets = [Target(f"exact search of {n} / one read", run["ratio_to_one_read"], 1.4) for n, run in runs.items()]
    targets += [
        Target(f"100 queries over {n}, seconds", run["listed"]["many"]["median"], 0.5)
        for n, run in runs.items()
        if "listed" in run
    ]
    write("approximate", {"dim": DIM, "k": K, "sizes": runs}, targets[-2:], arguments)


def _fresh(count: int) -> dict[str, Any]:
    """In a process of its own, by what CLIPKIT_BENCH_WITH names if anything: a command that quiets the machine."""
    command = [*os.environ.get("CLIPKIT_BENCH_WITH", "").split(), sys.executable, __file__, "--child", str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # after what it made on the way
    return answer


def _measure(count: int) -> dict[str, Any]:
    from clipkit.search.vectors import Neighbors

    prefix = scratch("approximate-vectors") / "vectors"
    vectors, texts = _sources()
    Neighbors.build(_blocks(vectors, count), DIM, expected=count).save(prefix)
    base = Neighbors.load(prefix, DIM)
    assert base is not None
    readers = {"one read, torch": torch_reader(base.rows()), "one read, numpy": numpy_reader(base.rows())}
    one = partial(base.search, texts[:1], K)
    interleaved({**readers, "one query": one}, 2)
    times = {name: summary(raw) for name, raw in interleaved({**readers, "one query": one}, 9).items()}
    times["one read"] = min((times.pop(name) for name in readers), key=lambda found: found["median"])
    ratio = times["one query"]["median"] / times["one read"]["median"]
    found: dict[str, Any] = {"seconds": times, "ratio_to_one_read": ratio}
    if count in LISTED or count < min(SIZES):
        found["listed"] = _listed(base, texts, prefix)
    for file in prefix.parent.iterdir():
        file.unlink()
    return found


def _listed(base: Any, texts: Embeddings, prefix: Path) -> dict[str, Any]:
    from clipkit.search.inverted_file import InvertedFile

    started = time.perf_counter()
    built = InvertedFile.build(base, texts)
    made = time.perf_counter() - started
    if not built.quality.nprobe:
        return {"build_seconds": made, "quality": vars(built.quality)}
    built.save(prefix)
    opened = seconds(lambda: InvertedFile.load(prefix, base))
    inverted = InvertedFile.load(prefix, base)
    assert inverted is not None
    rounds = {
        "one": partial(inverted.search, base, texts[7:8], K),
        "many": partial(inverted.search, base, texts[:MANY], K),
        "many, exact": partial(base.search, texts[:MANY], K),
    }
    times = {name: summary(raw) for name, raw in interleaved(rounds, 5).items()}
    recalls = {str(k): _recall(inverted, base, texts, k) for k in (10, 50, 100)}
    return {
        "build_seconds": made,
        "quality": vars(built.quality),
        "open_seconds": opened,
        "recall_at": recalls,
        **times,
    }


def _recall(inverted: Any, base: Any, texts: Embeddings, k: int) -> float:
    pairs = zip(inverted.search(base, texts, k)[1].tolist(), base.search(texts, k)[1].tolist(), strict=True)
    return float(np.mean([len(set(near) & set(exact)) / k for near, exact in pairs]))


def _blocks(vectors: Embeddings, count: int) -> Iterator[tuple[npt.NDArray[np.int64], Half]]:
    near = _nearest(vectors)
    for start in range(0, count, BLOCK):
        size, rng = min(BLOCK, count - start), np.random.default_rng(start % REAL)
        picks = rng.integers(len(vectors), size=size)
        others = near[picks, rng.integers(near.shape[1], size=size)]
        share = rng.uniform(0, 0.7, size=(size, 1)).astype(np.float32)
        rows = (1 - share) * vectors[picks] + share * vectors[others]
        rows += 0.3 / np.sqrt(DIM) * rng.standard_normal(rows.shape, dtype=np.float32)
        rows *= np.random.default_rng(start // REAL).choice(np.float32([-1, 1]), DIM) if start >= REAL else 1
        ids = np.arange(start, start + size, dtype=np.int64)
        yield ids, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def _nearest(vectors: Embeddings) -> npt.NDArray[np.int64]:
    pieces = [vectors[start : start + 1024] @ vectors.T for start in range(0, len(vectors), 1024)]
    return np.concatenate([np.argpartition(-scores, 21, axis=1)[:, :21] for scores in pieces])


def _sources() -> tuple[Embeddings, Embeddings]:
    """Embeddings of photographs and of the vocabulary, in DIM dimensions; their index stays for the next run."""
    import clipkit
    from clipkit.explore.relevance import embed_vocabulary

    at = work_folder() / "approximate-index"
    folder = photographs()
    assert folder is not None
    if not at.exists():
        clipkit.ImageIndex.create(folder, clipkit.load_encoder("starter"), at=at).update()
    index = clipkit.ImageIndex.open(folder, at=at)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, index.info.dim)))[0].T.astype(np.float32)
    return index.embeddings @ turn, embed_vocabulary(index.query_encoder) @ turn


if __name__ == "__main__":
    main()
