"""On a CUDA device: the encoder at growing batches, a whole index, and search on the GPU beside the CPU's answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from common import (
    available_bytes,
    interleaved,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    seconds,
    summary,
    write,
)
from fixtures import BLOCK, DIM, photographs, random_vit, unit_queries

BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
SIDE = 224
K = 10
QUERIES = {"one query": 1, "8 queries": 8, "100 queries": 100}


def main() -> int:
    arguments = read_arguments(__doc__ or "")
    reason = _why_not()
    if reason:
        print(f"gpu.py was not run: {reason}")
        return 0
    import torch

    private_cache("gpu-cache")
    is_quick = arguments.quick
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1),
        "cuda": torch.version.cuda,
        "encoder": _encoder(BATCHES[:2] if is_quick else BATCHES, rounds=2 if is_quick else 5),
        "index": _index(count=64 if is_quick else 4000, rounds=2 if is_quick else 3),
    }
    for count in (100_000,) if is_quick else (1_000_000, 10_000_000):
        torch.cuda.empty_cache()  # FAISS has an allocator of its own
        results[f"search_{count}"] = _search(count, rounds=3 if is_quick else 15)
    write("gpu", results, [], arguments)
    return 0


def _why_not() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    import faiss

    if not getattr(faiss, "get_num_gpus", lambda: 0)():
        return "FAISS sees no GPU"
    return None


def _encoder(batches: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Pixels in, embeddings out, both in the CPU's memory, at the precision that "auto" chooses."""
    import torch

    from clipkit.models.load import load_encoder

    found: dict[str, Any] = {"precision": None, "pictures_per_second": {}, "peak_gb": {}}
    rng = np.random.default_rng(0)
    lines: list[tuple[object, ...]] = [("batch", "pictures/s", "lowest", "highest", "peak GB")]
    for batch in batches:
        encoder = load_encoder(str(random_vit()), device="cuda", batch_size=batch)
        found["precision"] = str(encoder.towers.image)
        pixels = rng.integers(0, 256, (max(2 * batch, 1024), 3, SIDE, SIDE), dtype=np.uint8)
        encoder.encode_pixels(pixels[: 2 * batch])  # kernels are chosen and memory is taken
        torch.cuda.reset_peak_memory_stats()
        run = partial(encoder.encode_pixels, pixels)  # ends with a copy to the CPU, so nothing is still running
        rate = summary([len(pixels) / taken for taken in interleaved({"encode": run}, rounds)["encode"]])
        if encoder.batch_size != batch:
            print(f"{batch} at a time do not fit")
            break
        found["pictures_per_second"][batch] = rate
        found["peak_gb"][batch] = torch.cuda.max_memory_allocated() / 1e9
        lines.append((batch, rate["median"], rate["lowest"], rate["highest"], found["peak_gb"][batch]))
        del encoder
        torch.cuda.empty_cache()
    print_table(lines)
    return found


def _index(count: int, rounds: int) -> dict[str, Any]:
    """Files in, an index out; loading the model is left out."""
    from clipkit.index.image_index import ImageIndex
    from clipkit.models.load import load_encoder

    photos = photographs(count, (500, 375))
    encoder = load_encoder(str(random_vit()), device="cuda")

    def run() -> None:
        report = ImageIndex.create(photos, encoder, at=scratch("gpu-index")).update()
        if report.encoded != count:
            raise RuntimeError(f"only {report.encoded} of {count} pictures were encoded")

    run()
    rate = summary([count / taken for taken in interleaved({"index": run}, rounds)["index"]])
    print(f"clipkit index, 500x375, batch {encoder.batch_size}: {rate['median']:.0f} pictures/s")
    return {"pictures": count, "batch_size": encoder.batch_size, "pictures_per_second": rate}


def _search(count: int, rounds: int) -> dict[str, Any] | str:
    import torch

    from clipkit.search.vectors import Neighbors

    size = count * DIM * 2
    if available_bytes() < 4 * size or torch.cuda.mem_get_info()[0] < 3 * size:  # buffers double while they grow
        print(f"search over {count:,}: not run, too little memory")
        return "not run: too little memory"
    neighbors = Neighbors.build(_blocks(count), DIM)
    queries = unit_queries(max(QUERIES.values()))
    mirrored = seconds(lambda: neighbors.search(queries[:1], K))
    found: dict[str, Any] = {"rows": count, "dim": DIM, "k": K, "first_query_makes_the_mirror_seconds": mirrored}
    lines: list[tuple[object, ...]] = [("milliseconds", "GPU", "CPU", "same ids", "score difference")]
    for name, number in QUERIES.items():
        found[name] = _compare(neighbors, queries[:number], rounds)
        gpu, cpu = (1000 * found[name][f"{where}_seconds"]["median"] for where in ("gpu", "cpu"))
        agreement = (found[name]["share_of_equal_ids"], found[name]["largest_score_difference"])
        lines.append((f"{name} over {count:,}", gpu, cpu, *agreement))
    print_table(lines)
    return found


def _compare(neighbors: Any, queries: npt.NDArray[np.float32], rounds: int) -> dict[str, Any]:
    def on_gpu() -> Any:
        return neighbors.search(queries, K)

    def on_cpu() -> Any:
        with patch("faiss.get_num_gpus", return_value=0):  # what a machine without one would do
            return neighbors.search(queries, K)

    (gpu_scores, gpu_ids), (cpu_scores, cpu_ids) = on_gpu(), on_cpu()
    times = {"gpu": interleaved({"gpu": on_gpu}, rounds)["gpu"]}
    times["cpu"] = interleaved({"cpu": on_cpu}, max(2, rounds // 5))["cpu"]
    shared = [len(set(ours) & set(theirs)) for ours, theirs in zip(gpu_ids.tolist(), cpu_ids.tolist(), strict=True)]
    return {
        "gpu_seconds": summary(times["gpu"]),
        "cpu_seconds": summary(times["cpu"]),
        "share_of_equal_ids": float((gpu_ids == cpu_ids).mean()),  # same picture in the same place
        "share_of_common_ids": float(np.mean(shared)) / K,  # in any order
        "largest_score_difference": float(np.abs(gpu_scores - cpu_scores).max()),
    }


def _blocks(count: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]:
    """Random directions, made on the GPU: ten million take the CPU minutes."""
    import torch

    generator = torch.Generator("cuda").manual_seed(0)
    for start in range(0, count, BLOCK):
        number = min(BLOCK, count - start)
        rows = torch.randn(number, DIM, device="cuda", generator=generator)
        unit = (rows / rows.norm(dim=1, keepdim=True)).half().cpu().numpy()
        yield np.arange(start, start + number, dtype=np.int64), unit


if __name__ == "__main__":
    sys.exit(main())
