"""Whole commands of clipkit and rclip in turn: index, index again, a search in a fresh process, the same words again,
and a search beside the service that `--keep-warm` leaves.

rclip reads the same random ViT-B-32 at 256 pixels, as ONNX, and the same photographs. Every run is a process of its
own; medians. Give rclip 3.3.0 by RCLIP=/path/to/rclip, installed in an environment of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    Target,
    interleaved,
    kept,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    summary,
    write,
)
from fixtures import photographs

PICTURES, SIZE = 200, (500, 375)
ROUNDS = 5
RCLIP_MODEL = "ViT-B-32-256-datacomp_s34b_b86k"
Command = list[str]
CLIPKIT = [sys.executable, "-P", "-m", "clipkit"]
_number = itertools.count()


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        _export(Path(arguments.child[0]))
        return
    rclip = os.environ.get("RCLIP")
    count, rounds = (24, 2) if arguments.quick else (PICTURES, ROUNDS)
    private_cache("peers-cache")
    photos, model = photographs(count, SIZE), kept("ViT-B-32-256-random", _make_vit)
    peers: dict[str, Any] = {
        "clipkit": _Clipkit(photos, model, "auto"),
        "clipkit, int8": _Clipkit(photos, model, "auto", "int8"),
        "clipkit, starter": _Clipkit(photos, Path("starter"), "auto"),
    }
    if rclip:
        peers["rclip"] = _Rclip(rclip, photos, kept("rclip-models", lambda folder: _child(model, folder)))
    kinds = ("index", "index_again", "search", "search_again", "search_warm")
    results = {name: _measure(peers, name, rounds) for name in kinds}
    subprocess.run([*CLIPKIT, "serve", "--stop"], check=True, capture_output=True)
    ratios = _ratios(results) if rclip else {}
    _print(results, ratios)
    about = {"pictures": count, "size": SIZE}
    write("peers", {**about, "seconds": results, "ratios_to_rclip": ratios}, _targets(ratios), arguments)


class _Clipkit:
    def __init__(self, photos: Path, model: Path, engine: str, precision: str = "auto") -> None:
        self._photos, self._model, self._how = photos, model, ["--engine", engine, "--precision", precision]
        self._at = scratch(f"peers-{model.name}-{engine}-{precision}")
        self.environment: dict[str, str] = {}

    def index(self) -> Command:
        shutil.rmtree(self._at, ignore_errors=True)
        return self.index_again()

    def index_again(self) -> Command:
        where = [str(self._photos), "--index", str(self._at)]
        return [*CLIPKIT, "index", *where, "--model", str(self._model), *self._how]

    def search(self) -> Command:
        words = f"a red boat number {next(_number)} of {os.getpid()}"  # never asked before
        return [*CLIPKIT, "search", words, str(self._photos), "--index", str(self._at)]

    def search_warm(self) -> Command:
        return [*self.search(), "--keep-warm"]

    def search_again(self) -> Command:
        return [*CLIPKIT, "search", "a red boat", str(self._photos), "--index", str(self._at)]


class _Rclip:
    def __init__(self, rclip: str, photos: Path, models: Path) -> None:
        self._rclip, self._photos, self._models = rclip, photos, models
        self.environment = {"RCLIP_DATADIR": str(models)}

    def index(self) -> Command:
        for file in self._models.glob("db.sqlite3*"):
            file.unlink()
        return self.index_again()

    def index_again(self) -> Command:
        return [self._rclip, "a red boat"]

    def search(self) -> Command:
        return [self._rclip, "--no-indexing", f"a red boat number {next(_number)}"]

    search_warm = search  # it has no such thing

    def search_again(self) -> Command:
        return [self._rclip, "--no-indexing", "a red boat"]

    @property
    def folder(self) -> Path:
        return self._photos


def _measure(peers: dict[str, Any], what: str, rounds: int) -> dict[str, Any]:
    """Every peer's command in turn; the first of each does not count."""
    for peer in peers.values():
        _run(peer, what)
    runs: dict[str, Callable[[], object]] = {name: partial(_run, peer, what) for name, peer in peers.items()}
    return {name: summary(raw) for name, raw in interleaved(runs, rounds).items()}


def _run(peer: Any, what: str) -> None:
    command = getattr(peer, what)()
    folder = getattr(peer, "folder", None)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **peer.environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr[-500:]}")


def _ratios(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times as fast as rclip."""
    return {
        what: {name: taken["rclip"]["median"] / one["median"] for name, one in taken.items() if name != "rclip"}
        for what, taken in results.items()
    }


def _targets(ratios: dict[str, dict[str, float]]) -> list[Target]:
    if not ratios:
        return []
    return [
        Target("index: times as fast as rclip", ratios["index"]["clipkit"], 1.5, is_floor=True),
        Target("index in int8: times as fast as rclip", ratios["index"]["clipkit, int8"], 2.2, is_floor=True),
        Target("search: times as fast as rclip", ratios["search"]["clipkit"], 2.0, is_floor=True),
        Target(
            "the same words again: times as fast as rclip", ratios["search_again"]["clipkit"], 1 / 0.35, is_floor=True
        ),
    ]


def _print(results: dict[str, Any], ratios: dict[str, dict[str, float]]) -> None:
    lines: list[tuple[object, ...]] = [("seconds", "median", "lowest", "highest", "times as fast as rclip")]
    for what, taken in results.items():
        for name, one in taken.items():
            ratio = ratios.get(what, {}).get(name)
            lines.append((f"{what}, {name}", one["median"], one["lowest"], one["highest"], ratio or ""))
    print_table(lines)


def _child(model: Path, folder: Path) -> None:
    subprocess.run([sys.executable, __file__, "--child", f"{model}:{folder}"], check=True)


def _export(both: Path) -> None:
    """The random model as rclip keeps one: two graphs that read `input`, and CLIP's vocabulary."""
    import open_clip
    import torch

    model, _, folder = str(both).partition(":")
    torch.backends.mha.set_fastpath_enabled(False)
    network = open_clip.create_model(f"local-dir:{model}").eval()
    place = Path(folder) / RCLIP_MODEL
    place.mkdir(parents=True, exist_ok=True)
    (Path(folder) / "tokenizer").mkdir(exist_ok=True)
    vocabulary = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(vocabulary, Path(folder) / "tokenizer" / vocabulary.name)

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.network.encode_text(tokens)  # type: ignore[no-any-return]

    towers = {
        "visual": (network.visual, torch.zeros(2, 3, 256, 256)),
        "textual": (Text(), open_clip.tokenize(["a", "b"])),
    }
    for name, (tower, example) in towers.items():
        axes = {"input": {0: "n"}, "output": {0: "n"}}
        names = {"input_names": ["input"], "output_names": ["output"], "dynamic_axes": axes}
        torch.onnx.export(tower, (example,), place / f"{name}.onnx", dynamo=False, opset_version=17, **names)


def _make_vit(folder: Path) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32-256", load_weights=False)
    state = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    pixels = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    preprocess = {**pixels, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32-256"), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s")
