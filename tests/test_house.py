"""The house: imports go down, each outside library has one door, and importing clipkit costs nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import clipkit

LIBRARY = Path(clipkit.__file__).parent
HEAVY = ("numpy", "torch", "open_clip", "faiss", "gradio", "pandas", "sklearn", "safetensors", "transformers", "PIL")


@pytest.mark.parametrize(
    "statement", ["import clipkit", "import clipkit.cli.main", "from clipkit.cli.main import main; main(['--help'])"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    script = f"import sys\n{statement}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("folder", ["benchmarks", "training"])
def test_every_script_finds_what_it_imports(folder: str) -> None:
    scripts = sorted(file.stem for file in (LIBRARY.parent / folder).glob("*.py"))
    assert scripts
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(scripts)}"],
        cwd=LIBRARY.parent / folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_these() -> None:
    assert clipkit.__all__ == [
        "BadIndex",
        "ClipkitError",
        "Encoder",
        "Head",
        "Hit",
        "Hits",
        "ImageError",
        "ImageIndex",
        "IndexDamaged",
        "IndexLocked",
        "IndexNotFound",
        "IndexReport",
        "IndexTooNew",
        "LinearProbe",
        "ModelError",
        "ModelMismatch",
        "PixelRecipe",
        "QueryError",
        "ShapeError",
        "UNKNOWN",
        "ViTClassifier",
        "ZeroShotClassifier",
        "load_encoder",
        "__version__",
    ]
    for name in clipkit.__all__:
        assert getattr(clipkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = clipkit.Nothing  # type: ignore[attr-defined]


def test_nothing_is_installed_under_a_general_name() -> None:
    packages = tomllib.loads((LIBRARY.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.partition(".")[0] for name in packages} == {"clipkit", "clipkit_apps", "clipkit_data"}
    folders = {file.parent.relative_to(LIBRARY.parent) for file in LIBRARY.rglob("__init__.py")}
    assert {name for name in packages if name.startswith("clipkit.") or name == "clipkit"} == {
        ".".join(folder.parts) for folder in folders
    }
