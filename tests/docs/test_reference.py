"""The command that reproduces published numbers: its path, on a handful of pictures with the bundled model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipkit.models.registry import starter_folder
from tests.support.colours import paint
from tests.support.paths import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "reference.py"


@pytest.mark.skipif(
    not (starter_folder() / "open_clip_model.safetensors").exists(), reason="data/starter has no weights"
)
def test_the_reference_command_measures_whatever_model_and_pictures_it_is_given(tmp_path: Path) -> None:
    pets = tmp_path / "oxford-iiit-pet"
    (pets / "annotations").mkdir(parents=True)
    names = ["Abyssinian_1", "Abyssinian_2", "american_bulldog_1", "yorkshire_terrier_1"]
    for i, name in enumerate(names):
        paint(pets / "images" / f"{name}.jpg", (60 * i, 90, 200 - 60 * i), (40, 30))
    lines = [f"{name} {number} 1 1\n" for name, number in zip(names, (1, 1, 2, 37), strict=True)]
    (pets / "annotations" / "test.txt").write_text("".join(lines))
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path), "starter", "nowhere/to-be-found"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, header, starter, missing = done.stdout.splitlines()[-4:]
    assert said == "4 pictures, not 3,669: a trial of this script, no reproduction"
    assert header.split() == ["model", "published", "here", "low", "high", "note"]
    name, published, found, low, high = starter.split()
    assert (name, published) == ("starter", "-")
    assert 0 <= float(low) <= float(found) <= float(high) <= 1
    assert missing.split()[:3] == ["nowhere/to-be-found", "-", "nan"]
