"""Puts the two towers together as an open_clip folder: config and float16 weights, swapped in as a whole file each."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from image_tower import NAME, image_tower
from projection import HEAD
from safetensors.torch import load_file, save_file
from sources import STARTER
from text_tower import CHECKPOINT, CONTEXT, EMBED, HEADS, LAYERS, WIDTH


def config(size: int, resize: str, logit_scale: float) -> dict[str, Any]:
    """What open_clip reads from open_clip_config.json."""
    return {
        "model_cfg": {
            "embed_dim": EMBED,
            "init_logit_scale": logit_scale,
            "vision_cfg": {
                "image_size": size,
                "timm_model_name": NAME,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "mlp",
                "timm_proj_bias": True,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": 49408,
                "width": WIDTH,
                "heads": HEADS,
                "layers": LAYERS,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": resize,
        },
    }


def main() -> None:
    """Writes data/starter from the last text tower and head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tower", type=Path, default=CHECKPOINT)
    parser.add_argument("--out", type=Path, default=STARTER)
    options = parser.parse_args()
    head = load_file(HEAD)
    used = json.loads(HEAD.with_suffix(".json").read_text())
    settings = config(used["size"], used["resize"], float(head["logit_scale"]))
    model = open_clip.model.CLIP(**settings["model_cfg"])
    state = {f"visual.trunk.{k}": v for k, v in image_tower().state_dict().items() if not k.startswith("classifier")}
    state |= {f"visual.head.mlp.{k}": v for k, v in head.items() if k != "logit_scale"}
    state |= load_file(options.tower) | {"logit_scale": head["logit_scale"]}
    missing, unknown = model.load_state_dict(state, strict=False)
    if unknown or missing:
        raise ValueError(f"missing {missing}, unknown {unknown}")
    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    if not all(torch.isfinite(v).all() for v in weights.values()):
        raise ValueError("a weight does not fit into float16")
    options.out.mkdir(parents=True, exist_ok=True)
    _swap(options.out / "open_clip_config.json", (json.dumps(settings, indent=2) + "\n").encode())
    save_file({k: v.contiguous() for k, v in weights.items()}, options.out / "part.safetensors")
    (options.out / "part.safetensors").chmod(0o644)
    os.replace(options.out / "part.safetensors", options.out / "open_clip_model.safetensors")
    files = ("open_clip_config.json", "open_clip_model.safetensors")
    print(np.round(sum((options.out / name).stat().st_size for name in files) / 1e6, 1), "MB")


def _swap(file: Path, data: bytes) -> None:
    part = file.with_suffix(".part")
    part.write_bytes(data)
    os.replace(part, file)


if __name__ == "__main__":
    main()
