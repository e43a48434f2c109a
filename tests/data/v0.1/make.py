"""Maker of the files in this folder; runs with the code of version 0.1 alone, see README.md."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))

import old_files  # noqa: E402
from clipkit.head import Head, Rejection  # noqa: E402
from clipkit.hidden import Hidden  # noqa: E402

import clipkit  # noqa: E402

WORDS = ("a red picture", "dark noise", "something blue")


class StopError(Exception):
    pass


def stop(_: object) -> None:
    raise StopError


def answers(index: clipkit.ImageIndex, queries: dict[str, np.ndarray]) -> dict[str, object]:
    found = {
        words: [[hit.path, hit.score] for hit in index.search_embeddings(query, k=20)[0]]
        for words, query in queries.items()
    }
    failed = [[failure.path, failure.reason] for failure in index.failures()]
    return {"counts": index.counts(), "paths": index.paths, "failed": failed, "found": found}


def make_index(place: Path) -> None:
    encoder = clipkit.load_encoder("starter", precision="float32", batch_size=1)
    queries = {words: encoder.encode_texts([words]) for words in WORDS}
    root = old_files.paint_indexed(place / "photos")
    index = clipkit.ImageIndex.create(root, encoder)
    index.update()
    (root / f"{old_files.GONE:02}.bmp").unlink()
    index.update()
    old_files.change_pictures(root)
    with suppress(StopError):
        index.update(progress=stop, workers=1)
    shutil.copyfile(root / ".clipkit" / "index.db", HERE / "index.db")
    info = index.info
    record = {
        "info": {name: getattr(info, name) for name in ("model", "weights_sha256", "dim", "pixel_recipe", "revision")},
        "queries": {words: query[0].tolist() for words, query in queries.items()},
        "before": answers(index, queries),
    }
    old_files.move_old_content(root)
    report = index.update()
    record["report"] = {name: getattr(report, name) for name in ("encoded", "reused", "missing", "unchanged")}
    record["after"] = answers(index, queries)
    (HERE / "index.json").write_text(json.dumps(record))


def make_heads() -> None:
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        rows = rng.normal(size=shape).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    embeddings = unit(12, 8)
    common = {"classes": ("cat", "dog", "horse"), "temperature": 20.0, "model": "colour", "fingerprint": "c0" * 32}
    bias = rng.normal(size=3).astype(np.float32) / 10
    hidden = Hidden(rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=5).astype(np.float32))
    rejection = Rejection(unit(8) / 2, rng.normal(size=3).astype(np.float32) / 20, 0.3)
    heads = {
        "plain": Head(weight=unit(3, 8), bias=bias, notes=("made by hand",), **common),
        "hidden": Head(weight=unit(3, 5), bias=bias, hidden=hidden, space="backbone", **common),
        "rejecting": Head(weight=unit(3, 8), bias=bias, rejection=rejection, **common),
    }
    record: dict[str, object] = {"embeddings": embeddings.tolist()}
    for name, head in heads.items():
        head.save(HERE / f"head-{name}.safetensors")
        record[name] = {
            "predict": head.predict(embeddings).tolist(),
            "probabilities": head.probabilities(embeddings).tolist(),
            "known": head.known(embeddings).tolist() if head.rejection else None,
            "space": head.space,
            "notes": list(head.notes),
        }
    (HERE / "heads.json").write_text(json.dumps(record))


def make_comparison(place: Path) -> None:
    from clipkit.compare import compare
    from clipkit.comparison import as_record, load_comparison

    old_files.paint_classes(place / "pictures")
    encoder = clipkit.load_encoder("starter", precision="float32")
    methods = ("zeroshot", "prototypes", "probe")
    compare("pictures", encoder, methods=methods, shots=(2, None), seeds=2, out="out", thumbnails=False)
    shutil.copyfile(place / "out" / "results.json", HERE / "results.json")
    comparison = load_comparison(HERE / "results.json")
    record = {
        "rows": [as_record(row) for row in comparison.rows],
        "pairs": [[pair.actual, pair.predicted, pair.n, pair.of] for pair in comparison.pairs],
        "confusion": comparison.confusion(comparison.best.method, comparison.best.shots).tolist(),
    }
    (HERE / "rows.json").write_text(json.dumps(record))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CLIPKIT_CACHE"] = str(Path(folder) / "cache")
        os.chdir(folder)
        make_index(Path(folder))
        make_heads()
        make_comparison(Path(folder))
