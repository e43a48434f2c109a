"""The student's running mean and the starter's words as an open_clip folder."""

import argparse
from pathlib import Path

import torch
from evaluate import Model
from package import config, write
from sources import STARTER
from vit import CHECKPOINT, FOLDER, VISION

OUT = FOLDER / "starter-vit"


def main() -> None:
    """Writes work/vit/starter-vit from the last checkpoint, or from --checkpoint finished.pt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--words", type=Path, default=STARTER, help="the folder whose text tower it shares")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    state = Model(options.words).model.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith("visual.")}
    trained = torch.load(options.checkpoint, weights_only=True)
    state |= {f"visual.{name}": value for name, value in trained["mean"].items()}
    write(state, config(VISION, "shortest", float(state["logit_scale"])), options.out)
    print(f"{trained['seen']:,} pictures seen in {trained['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    main()
