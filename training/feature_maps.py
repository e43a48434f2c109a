"""Feature maps of the CNN before its last convolution: 9 x 9 cells and 352 channels a picture."""

from pathlib import Path

import numpy as np
import torch
from features import batches, features_file
from image_tower import image_tower
from picture_sets import TRAINING_SETS, photographs

SIZE, CELLS, CHANNELS = 288, 9, 352


def stage_file(name: str) -> Path:
    """(n, 352, 9, 9) float16, in the order of `photographs(name)`."""
    return features_file(name, SIZE, "shortest", "stage")


def main() -> None:
    """Extracts what is not yet there."""
    tower = image_tower().to(memory_format=torch.channels_last)
    for name in TRAINING_SETS:
        target = stage_file(name)
        if target.exists():
            continue
        store = np.lib.format.open_memmap(
            target.with_suffix(".part"), "w+", np.float16, (len(photographs(name)), CHANNELS, CELLS, CELLS)
        )
        done = 0
        for batch in batches(name, SIZE, "shortest", "plain"):
            with torch.inference_mode():
                x = tower.blocks(tower.bn1(tower.conv_stem(batch.contiguous(memory_format=torch.channels_last))))
            store[done : done + len(x)] = x.half().numpy()
            done += len(x)
        store.flush()
        target.with_suffix(".part").rename(target)
        print(target.name, flush=True)


if __name__ == "__main__":
    main()
