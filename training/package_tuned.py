"""Packages the contrastively tuned towers as an open_clip folder, checked against the checkpoint in float16."""

import argparse
import json
from pathlib import Path

import torch
from feature_maps import SIZE
from image_tower import image_tower
from interpolate import interpolated, load_towers
from package import MADE_WITH, config, vision, write, write_made_with
from picture_sets import DISTILLED_STARTER, WORK
from tune_contrastive import FOLDER, Towers

CANDIDATE = WORK / "candidate"


def main() -> None:
    """Writes the folder, and beside it what it was made with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--names", nargs="+", default=["stage", "mirrored"], help="tunings, of which the mean is taken")
    parser.add_argument("--start", type=Path, default=DISTILLED_STARTER)
    parser.add_argument(
        "--image-share", type=float, default=1.0, help="of the tuned head; the rest is the distilled one"
    )
    parser.add_argument("--text-share", type=float, default=1.0)
    parser.add_argument("--resize", default="shortest", choices=("shortest", "squash"))
    parser.add_argument("--goal", default="captions", choices=("captions", "mentions"), help="of the tunings")
    parser.add_argument("--out", type=Path, default=CANDIDATE)
    options = parser.parse_args()
    before, tuned = load_towers(options.start, options.names)
    towers = interpolated(before, tuned, image=options.image_share, text=options.text_share)
    scale = towers.logit_scale.detach()
    write(packaged(towers), config(vision(SIZE), options.resize, float(scale)), options.out)
    made = json.loads((options.start / MADE_WITH).read_text())
    used = {"tunings": {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in options.names}}
    used |= {"image_share": options.image_share, "text_share": options.text_share, "resize": options.resize}
    before_that = {step: how for step, how in made.items() if step not in ("sha256", options.goal)}
    write_made_with(options.out, before_that | {options.goal: used})


def packaged(towers: Towers) -> dict[str, torch.Tensor]:
    """All tensors of the model by the names that open_clip gives them."""
    trunk = image_tower().state_dict().items()
    state = {f"visual.trunk.{name}": value for name, value in trunk if not name.startswith("classifier")}
    state |= towers.image.packaged() | {"logit_scale": towers.logit_scale.detach()}
    return state | {name: value.detach() for name, value in towers.text.state_dict().items() if name != "attn_mask"}


if __name__ == "__main__":
    main()
