"""Puts the two towers together as an open_clip folder: config and float16 weights, swapped in as a whole file each."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import open_clip
import torch
from evaluate import Model, fingerprint
from image_tower import NAME, image_tower
from picture_sets import DISTILLED_STARTER, photographs
from safetensors.torch import load_file, save_file
from torch.nn import functional as F  # noqa: N812
from train_projection import HEAD
from train_text_tower import CHECKPOINT, CONTEXT, EMBED, HEADS, LAYERS, WIDTH

MADE_WITH = "made_with.json"  # beside the weights of a package: what the model card says of it
AGREEMENT = 0.9999  # cosine of what is packaged to the checkpoint
COMPARED = 64  # pictures, and as many captions


def main() -> None:
    """Writes work/distilled from the last text tower and head, and what they were made with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tower", type=Path, default=CHECKPOINT)
    parser.add_argument("--head", type=Path, default=HEAD)
    parser.add_argument("--out", type=Path, default=DISTILLED_STARTER)
    options = parser.parse_args()
    head = load_file(options.head)
    used = json.loads(options.head.with_suffix(".json").read_text())
    state = {f"visual.trunk.{k}": v for k, v in image_tower().state_dict().items() if not k.startswith("classifier")}
    state |= {f"visual.{k}": v for k, v in head.items() if k.startswith("trunk.")}  # tuned by tune_last_convolution.py
    state |= {f"visual.head.mlp.{k}": v for k, v in head.items() if k.startswith("fc")}
    state |= load_file(options.tower) | {"logit_scale": head["logit_scale"]}
    write(state, config(vision(used["size"]), used["resize"], float(head["logit_scale"])), options.out)
    text = json.loads(options.tower.with_suffix(".json").read_text())
    write_made_with(options.out, {"text": text, "head": used})


def vision(size: int) -> dict[str, Any]:
    """The CNN, the mean over its cells, and the two-layer head."""
    return {
        "image_size": size,
        "timm_model_name": NAME,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "mlp",
        "timm_proj_bias": True,
    }


def config(vision: dict[str, Any], resize: str, logit_scale: float) -> dict[str, Any]:
    """What open_clip reads from open_clip_config.json."""
    text = {"context_length": CONTEXT, "vocab_size": 49408, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": resize}
    model = {"embed_dim": EMBED, "init_logit_scale": logit_scale, "vision_cfg": vision, "text_cfg": text}
    return {"model_cfg": model, "preprocess_cfg": pixels}


def write(state: dict[str, torch.Tensor], settings: dict[str, Any], folder: Path) -> None:
    """The folder, if what open_clip loads from it agrees with the given weights; a ValueError if it does not."""
    model = open_clip.model.CLIP(**settings["model_cfg"])
    missing, unknown = model.load_state_dict(state, strict=False)
    if unknown or missing:
        raise ValueError(f"missing {missing}, unknown {unknown}")
    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    if not all(torch.isfinite(v).all() for v in weights.values()):
        raise ValueError("a weight does not fit into float16")
    folder.mkdir(parents=True, exist_ok=True)
    _swap(folder / "open_clip_config.json", (json.dumps(settings, indent=2) + "\n").encode())
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "part.safetensors")
    (folder / "part.safetensors").chmod(0o644)
    os.replace(folder / "part.safetensors", folder / "open_clip_model.safetensors")
    files = ("open_clip_config.json", "open_clip_model.safetensors")
    print(f"{sum((folder / name).stat().st_size for name in files) / 1e6:.1f} MB")
    for name, least in agreement(model, Model(folder)).items():
        print(f"{name}: cosine to the checkpoint {least:.6f} at least")
        if least < AGREEMENT:
            raise ValueError(f"the packaged {name} do not agree with the checkpoint")


def write_made_with(folder: Path, made: dict[str, Any]) -> None:
    """What the weights of the folder were made with, and which they are."""
    _swap(folder / MADE_WITH, (json.dumps({"sha256": fingerprint(folder)} | made, indent=1) + "\n").encode())


@torch.inference_mode()
def agreement(checkpoint: open_clip.model.CLIP, packaged: Model) -> dict[str, float]:
    """The least cosine between the two, over some validation photographs and their first captions."""
    rows = photographs("validation")[:COMPARED]
    pixels = torch.stack([packaged.open(file) for file in rows.file])
    tokens = packaged.tokenizer([group[0] for group in rows.captions])
    checkpoint = checkpoint.eval()
    both = {
        "pictures": (checkpoint.encode_image(pixels), packaged.model.encode_image(pixels)),
        "texts": (checkpoint.encode_text(tokens), packaged.model.encode_text(tokens)),
    }
    return {name: float(F.cosine_similarity(*pair).min()) for name, pair in both.items()}


def _swap(file: Path, data: bytes) -> None:
    part = file.with_suffix(".part")
    part.write_bytes(data)
    os.replace(part, file)


if __name__ == "__main__":
    main()
