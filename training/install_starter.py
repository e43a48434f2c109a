"""Installation of a packaged folder as the starter: data/starter, and what the model card says it was made with."""

import argparse
import json
import shutil
from pathlib import Path

from evaluate import WEIGHTS, fingerprint
from package import MADE_WITH
from package_tuned import CANDIDATE
from picture_sets import STARTER

CONFIG = "open_clip_config.json"
LARGEST = 60e6  # bytes of weights and config


def main() -> None:
    """Copies the files; the card and the numbers are made again after it, by `make bench-quality`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=CANDIDATE)
    options = parser.parse_args()
    install(options.folder, STARTER, made_with=Path(__file__).parent / MADE_WITH)


def install(folder: Path, starter: Path, *, made_with: Path) -> None:
    """Each file swapped in whole; a ValueError where they are too large, or others than made_with.json names."""
    size = sum((folder / name).stat().st_size for name in (CONFIG, WEIGHTS))
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.1f} MB, and the starter may have {LARGEST / 1e6:.0f}")
    if json.loads((folder / MADE_WITH).read_text())["sha256"] != fingerprint(folder):
        raise ValueError(f"{folder / MADE_WITH} is of other weights: package_tuned.py")
    for source, target in (
        (folder / MADE_WITH, made_with),
        (folder / CONFIG, starter / CONFIG),
        (folder / WEIGHTS, starter / WEIGHTS),
    ):
        part = target.with_suffix(".part")
        shutil.copyfile(source, part)
        part.replace(target)
    print(f"{fingerprint(starter)} {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
