"""Weight interpolation between the distilled and the tuned towers (WiSE-FT), measured on captions/ and Pets trainval.

"Robust fine-tuning of zero-shot models", and of several tunings their mean: "Model soups" (both Wortsman et al. 2022).
"""

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from picture_sets import DISTILLED_STARTER
from safetensors.torch import load_file
from torch import Tensor
from tune_contrastive import FOLDER, Towers, Validation

SHARES = (0.6, 0.8, 1.0)


def main() -> None:
    """Prints a line for every share of the tuned image head and text tower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", default=["stage", "mirrored"], help="tunings, of which the mean is taken")
    parser.add_argument("--start", type=Path, default=DISTILLED_STARTER)
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--resize", default="squash", help="of the validation photographs")
    options = parser.parse_args()
    before, tuned = load_towers(options.start, options.names)
    validation = Validation(options.resize, below=before.image.stage is not None)
    for image in options.shares:
        for text in options.shares:
            found = validation.measure(interpolated(before, tuned, image=image, text=text))
            print(json.dumps({"image": image, "text": text} | found), flush=True)


@torch.no_grad()
def load_towers(start: Path, names: Sequence[str]) -> tuple[Towers, Towers]:
    """Before, and the mean of what `tune_contrastive.py` has written by those names."""
    weights = [load_file(FOLDER / f"{name}.safetensors") for name in names]
    with_stage = any(key.startswith("image.stage") for key in weights[0])
    before, tuned = (Towers(start, with_stage=with_stage).eval() for _ in range(2))
    tuned.load_state_dict(average(weights))
    return before, tuned


def average(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of tensors of the same names; whole numbers are those of the first."""
    first = weights[0]
    return {
        name: torch.stack([each[name] for each in weights]).mean(0) if value.is_floating_point() else value
        for name, value in first.items()
    }


@torch.no_grad()
def interpolated(before: Towers, tuned: Towers, *, image: float, text: float) -> Towers:
    """The towers between the two; image and text are the shares of the tuned weights."""
    between = copy.deepcopy(before).eval()
    for name, value in between.named_parameters():
        value.lerp_(tuned.get_parameter(name), text if name.startswith("text") else image)
    return between


if __name__ == "__main__":
    main()
