"""`make demo`: index a few real photographs, ask questions whose answers are known, and say how many came first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path("demo-photos")
ENOUGH = 4  # of six: below that the demo fails
BUNDLED = {
    "skimage/data": [
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "clock_motion.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "moon.png",
        "motorcycle_left.png",
        "page.png",
        "rocket.jpg",
    ],
    "sklearn/datasets/images": ["china.jpg", "flower.jpg"],
}
QUESTIONS = (
    ("a cat", "chelsea.png"),
    ("a cup of coffee", "coffee.png"),
    ("a rocket on its launch pad", "rocket.jpg"),
    ("a motorcycle", "motorcycle_left.png"),
    ("a flower", "flower.jpg"),
)
BY_PICTURE = ("skimage/data/motorcycle_right.png", "motorcycle_left.png")  # the other half of a stereo pair


def main(photos: str | None) -> int:
    """Index `photos`, or the pictures that scikit-image and scikit-learn bring along; the exit code."""
    if photos:
        return _own_photos(photos)
    for source, names in BUNDLED.items():
        for name in names:
            FOLDER.mkdir(exist_ok=True)
            shutil.copyfile(site_packages() / source / name, FOLDER / name)
    if _show("index", str(FOLDER)):
        return 1
    picture, expected_twin = BY_PICTURE
    questions = [*QUESTIONS, (str(site_packages() / picture), expected_twin)]
    first = 0
    for query, expected in questions:
        best = _best(query)
        first += best == expected
        print(f"{'right' if best == expected else 'WRONG'}  {Path(query).name:28} -> {best}", flush=True)
    print(f"\n{first} of {len(questions)} came first")
    if first < ENOUGH:
        print(f"that is fewer than {ENOUGH}: something is wrong with this installation", file=sys.stderr)
        return 1
    _what_next(str(FOLDER), "a brick wall")
    return 0


def _own_photos(photos: str) -> int:
    code = _show("index", photos) or _show("search", "a dog on a beach", photos, "--top", "5")
    if not code:
        _what_next(photos, "whatever you look for")
    return code


def _what_next(photos: str, query: str) -> None:
    steps = (
        ". .venv/bin/activate",
        f'clipkit search "{query}" {photos}',
        f"clipkit ui {photos}",
        "clipkit index ~/Pictures",
    )
    print("\nNow type:", *steps, sep="\n  ")


def _show(*arguments: str) -> int:
    print(f"$ clipkit {' '.join(arguments)}", flush=True)
    return subprocess.run([_clipkit(), *arguments], check=False).returncode


def _best(query: str) -> str:
    command = [_clipkit(), "search", query, str(FOLDER), "--top", "1", "--filepath-only"]
    return Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()).name


def site_packages() -> Path:
    import skimage

    return Path(skimage.__file__).parent.parent


def _clipkit() -> str:
    return str(Path(sys.executable).with_name("clipkit"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
