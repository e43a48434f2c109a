"""Peak memory by the number of pictures, beyond their vectors."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from common import MB, Target, fresh, peak_bytes, print_table, private_cache, read_arguments, scratch, write
from fixtures import DIM, BlockEncoder, photographs

ROUNDS = 3  # the peak of one run differs by 50 MB from that of the next
SIZE = (320, 240)  # larger than the 224 x 224 that is kept, so that every step of the real path is taken


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        _child(*arguments.child)
        return
    private_cache("memory-cache")
    pairs = {"blocks": (1000, 20_000), "starter": (500, 2000)}
    if arguments.quick:
        pairs = {"blocks": (100, 1000), "starter": (40, 80)}
    if not _has_starter():
        del pairs["starter"]
    results: dict[str, Any] = {"picture_size": SIZE}
    rows: list[tuple[object, ...]] = [("encoder", "pictures", "peak MB", "after import MB", "beyond vectors MB")]
    for name, counts in pairs.items():
        rounds = []
        for _ in range(1 if arguments.quick else ROUNDS):
            few, many = (_measure(name, count) for count in counts)
            vectors = (many["pictures"] - few["pictures"]) * many["dim"] * 2
            growth = (many["peak_bytes"] - few["peak_bytes"] - vectors) / MB
            rounds.append({"few": few, "many": many, "growth_beyond_vectors_mb": growth})
            for run, beyond in ((few, ""), (many, growth)):
                rows.append((name, run["pictures"], run["peak_bytes"] / MB, run["import_bytes"] / MB, beyond))
        growths = [round_["growth_beyond_vectors_mb"] for round_ in rounds]
        results[name] = {"rounds": rounds, "growth_beyond_vectors_mb": statistics.median(growths)}
    print_table(rows)
    few_count, many_count = pairs["blocks"]
    name = f"growth of the peak from {few_count:,} to {many_count:,} pictures beyond the vectors, MB, median"
    target = Target(name, results["blocks"]["growth_beyond_vectors_mb"], 100)
    write("memory", results, [target], arguments)


def _measure(encoder: str, count: int) -> dict[str, Any]:
    run = fresh(__file__, encoder, photographs(count, SIZE), scratch("memory-index"))
    if run["pictures"] != count:
        raise RuntimeError(f"only {run['pictures']} of {count} pictures were encoded")
    return run


def _has_starter() -> bool:
    from clipkit.models.registry import is_cached

    return is_cached("starter")


def _child(name: str, photos: str, at: str) -> None:
    import faiss  # noqa: F401  part of the size after import
    import torch  # noqa: F401

    from clipkit.index.image_index import ImageIndex
    from clipkit.models.load import load_encoder

    encoder: Any = BlockEncoder(224) if name == "blocks" else load_encoder(name)
    at_start = peak_bytes()
    report = ImageIndex.create(Path(photos), encoder, at=at).update()
    said = {"pictures": report.encoded, "dim": encoder.dim, "import_bytes": at_start, "peak_bytes": peak_bytes()}
    assert name != "blocks" or encoder.dim == DIM
    print(json.dumps(said))


if __name__ == "__main__":
    main()
