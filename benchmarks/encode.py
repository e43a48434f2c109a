"""Indexing throughput: `clipkit index` beside the two loops that people write with open_clip, in one run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    Target,
    interleaved,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    summary,
    work_folder,
    write,
)
from fixtures import photographs, random_vit

from clipkit.core.system import usable_cores

CORES = 2
INDEX, LOADER, ONE_BY_ONE, STARTER = "clipkit index", "DataLoader loop", "one by one", "clipkit index, starter"
WARM = 8  # pictures that each way sees before the clock runs


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    cores = _use_two_cores()  # before torch counts them
    private_cache("encode-cache")
    sizes = {"500x375": (500, 375), "12 MP": (4000, 3000)}
    counts = {"500x375": 16, "12 MP": 4} if arguments.quick else {"500x375": 400, "12 MP": 40}
    folders = {name: photographs(counts[name], sizes[name]) for name in sizes}
    warm = photographs(WARM, (500, 375))
    ways = _ways()
    results: dict[str, Any] = {"cores": cores, "float": "bfloat16 where clipkit chooses it, else float32"}
    for name, folder in folders.items():
        chosen = {way: run for way, run in ways.items() if name == "500x375" or way != ONE_BY_ONE}
        for run in chosen.values():
            run(warm)
        times = interleaved(
            {way: partial(run, folder) for way, run in chosen.items()}, rounds=2 if arguments.quick else 5
        )
        results[name] = _rates(times, counts[name], folder)
        print_table([("", "pictures/s", "lowest", "highest"), *_lines(name, results[name])])
    write("encode", results, _targets(results), arguments)


def _use_two_cores() -> int:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return usable_cores()


def _ways() -> dict[str, Callable[[Path], None]]:
    import open_clip
    from torch import set_num_threads

    from clipkit.models.load import load_encoder
    from clipkit.models.registry import is_cached

    set_num_threads(CORES)
    folder = random_vit()
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    network.eval()
    ways: dict[str, Callable[[Path], None]] = {
        INDEX: partial(_index, load_encoder(str(folder))),
        LOADER: partial(_loader, network, preprocess),
        ONE_BY_ONE: partial(_one_by_one, network, preprocess),
    }
    if is_cached("starter"):
        ways[STARTER] = partial(_index, load_encoder("starter"))
    return ways


def _index(encoder: Any, photos: Path) -> None:
    """As `clipkit index` does it, the search cache included; only loading the model is left out, here as elsewhere."""
    from clipkit.index.image_index import ImageIndex

    at = scratch("encode-index")
    report = ImageIndex.create(photos, encoder, at=at).update(workers=CORES)
    if report.encoded != len(_files(photos)):
        raise RuntimeError(f"only {report.encoded} pictures were encoded")
    shutil.rmtree(work_folder() / "encode-index")


class _Pictures:
    """A map-style dataset, as PyTorch's own tutorials write it."""

    def __init__(self, files: Sequence[Path], preprocess: Callable[[Any], Any]) -> None:
        self.files = files
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        from PIL import Image

        return self.preprocess(Image.open(self.files[number]))


def _loader(network: Any, preprocess: Callable[[Any], Any], photos: Path) -> None:
    import torch
    from torch.utils.data import DataLoader

    batches = DataLoader(_Pictures(_files(photos), preprocess), batch_size=64, num_workers=CORES)  # type: ignore[arg-type]
    features = []
    with torch.no_grad():
        for batch in batches:
            rows = network.encode_image(batch)
            features.append(rows / rows.norm(dim=-1, keepdim=True))
    torch.cat(features).numpy()


def _one_by_one(network: Any, preprocess: Callable[[Any], Any], photos: Path) -> None:
    """open_clip's README, in a loop."""
    import torch
    from PIL import Image

    features = []
    with torch.no_grad():
        for file in _files(photos):
            rows = network.encode_image(preprocess(Image.open(file)).unsqueeze(0))
            features.append(rows / rows.norm(dim=-1, keepdim=True))
    torch.cat(features).numpy()


def _files(photos: Path) -> list[Path]:
    return sorted(photos.glob("*.jpg"))


def _rates(times: dict[str, list[float]], count: int, photos: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in _files(photos))
    rates = {way: summary([count / taken for taken in raw]) for way, raw in times.items()}
    return {
        "pictures": count,
        "mean_file_bytes": size // count,
        "seconds": times,
        "pictures_per_second": rates,
        "ratios": {way: rates[INDEX]["median"] / rate["median"] for way, rate in rates.items() if way != INDEX},
    }


def _lines(name: str, result: dict[str, Any]) -> list[tuple[object, ...]]:
    rates = result["pictures_per_second"].items()
    return [(f"{way}, {name}", rate["median"], rate["lowest"], rate["highest"]) for way, rate in rates]


def _targets(results: dict[str, Any]) -> list[Target]:
    small, large = results["500x375"]["ratios"], results["12 MP"]["ratios"]
    rate = results["500x375"]["pictures_per_second"][INDEX]["median"]
    return [
        Target("500x375: clipkit index / DataLoader loop", small[LOADER], 3, is_floor=True),
        Target("500x375: clipkit index / one by one", small[ONE_BY_ONE], 5, is_floor=True),
        Target("12 MP: clipkit index / DataLoader loop", large[LOADER], 3, is_floor=True),
        Target("500x375: pictures/s on two idle cores", rate, 75, is_floor=True),
    ]


if __name__ == "__main__":
    main()
