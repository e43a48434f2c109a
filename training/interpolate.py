"""Weight interpolation between the distilled and the tuned towers (WiSE-FT), measured on captions/ and Pets trainval.

"Robust fine-tuning of zero-shot models" (Wortsman et al. 2022).
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from picture_sets import DISTILLED_STARTER
from safetensors.torch import load_file
from tune_contrastive import FOLDER, Towers, Validation

SHARES = (0.6, 0.8, 1.0)


def main() -> None:
    """Prints a line for every share of the tuned image head and text tower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="stage")
    parser.add_argument("--start", type=Path, default=DISTILLED_STARTER)
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--resize", default="squash", help="of the validation photographs")
    options = parser.parse_args()
    before, tuned = load_towers(options.start, options.name)
    validation = Validation(options.resize, below=before.image.stage is not None)
    for image in options.shares:
        for text in options.shares:
            found = validation.measure(interpolated(before, tuned, image=image, text=text))
            print(json.dumps({"image": image, "text": text} | found), flush=True)


def load_towers(start: Path, name: str) -> tuple[Towers, Towers]:
    """Before, and as `tune_contrastive.py` has written them."""
    weights = load_file(FOLDER / f"{name}.safetensors")
    with_stage = any(key.startswith("image.stage") for key in weights)
    before, tuned = (Towers(start, with_stage=with_stage).eval() for _ in range(2))
    tuned.load_state_dict(weights)
    return before, tuned


@torch.no_grad()
def interpolated(before: Towers, tuned: Towers, *, image: float, text: float) -> Towers:
    """The towers between the two; image and text are the shares of the tuned weights."""
    between = copy.deepcopy(before).eval()
    for name, value in between.named_parameters():
        value.lerp_(tuned.get_parameter(name), text if name.startswith("text") else image)
    return between


if __name__ == "__main__":
    main()
