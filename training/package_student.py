"""The student's running mean and the starter's words as an open_clip folder."""

import argparse
from pathlib import Path

import torch
from evaluate import Model
from package import config, write
from picture_sets import STARTER
from students import STUDENTS
from train_student import folder


def main() -> None:
    """Writes work/STUDENT/starter-vit from finished.pt, or from another --checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", choices=sorted(STUDENTS), default="levit")
    parser.add_argument("--checkpoint", default="finished.pt")
    parser.add_argument("--words", type=Path, default=STARTER, help="the folder whose text tower it shares")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    state = Model(options.words).model.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith("visual.")}
    trained = torch.load(folder(options.student) / options.checkpoint, weights_only=True)
    state |= {f"visual.{name}": value for name, value in trained["mean"].items()}
    settings = config(STUDENTS[options.student].config, "shortest", float(state["logit_scale"]))
    write(state, settings, options.out or folder(options.student) / "starter-vit")
    print(f"{trained['seen']:,} pictures seen in {trained['cpu_seconds'] / 60:.0f} minutes of CPU time")


if __name__ == "__main__":
    main()
