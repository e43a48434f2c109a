"""The notebooks run from top to bottom on small data, show what they are meant to, and are stored without outputs."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import skimage
from PIL import Image

from clipkit.models.registry import starter_folder
from tests.support.paths import REPOSITORY
from tests.support.tiny_vits import make_vit

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "motorcycle_left.png", "rocket.jpg")
CROPS = 5  # pictures of each class in `animals`
OBJECT = re.compile(r"<[^>]* at 0x[0-9a-f]+>")
SOURCE = Path(skimage.__file__).parent / "data"


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the notebooks name: photographs, a cat, two classes of crops, and a small ViT by the name of a large one."""
    place = tmp_path_factory.mktemp("notebooks")
    (place / "demo-photos").mkdir()
    for name in PHOTOS:
        shutil.copyfile(SOURCE / name, place / "demo-photos" / name)
    with Image.open(SOURCE / "chelsea.png") as picture:
        picture.save(place / "cat.jpg")
    for label, names in {"cat": ["chelsea.png"], "other": ["coffee.png", "rocket.jpg"]}.items():
        (place / "animals" / label).mkdir(parents=True)
        for i in range(CROPS):
            with Image.open(SOURCE / names[i % len(names)]) as picture:
                picture.crop((10 * i, 5 * i, 280 + 10 * i, 260 + 5 * i)).save(place / "animals" / label / f"{i}.png")
    make_vit("vit", place / "google" / "vit-base-patch16-224")
    return place


def run(notebook: Path) -> Iterator[object]:
    """What each code cell shows: the value of its last line, or what is left of it without one."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(notebook, "code"):
        tree, label = ast.parse("".join(cell["source"])), f"{notebook.stem}, {cell['id']}"
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, label, "exec"), names)
        if isinstance(last, ast.Expr):
            yield eval(compile(ast.Expression(last.value), label, "eval"), names)


def as_shown(value: object) -> str:
    """As Jupyter shows it."""
    html = getattr(value, "_repr_html_", lambda: None)()
    return str(html if html is not None else repr(value))


@pytest.mark.slow
@pytest.mark.skipif(
    not (starter_folder() / "open_clip_model.safetensors").exists(), reason="data/starter has no weights"
)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(place)
    try:
        shown = list(run(notebook))
        texts = [as_shown(value) for value in shown if value is not None and type(value).__module__ != "builtins"]
        drawn = [plt.figure(number) for number in plt.get_fignums()]
        for figure in drawn:
            figure.canvas.draw()
    finally:
        plt.close("all")
    assert len(shown) > 8
    assert drawn, "no figure"
    assert not [text for text in texts if OBJECT.search(text)]
    assert not [text for text in texts if str(place) in text]
    words = {"photographer": "<img", "ml-engineer": "prototypes", "student": "best epoch"}[notebook.stem]
    assert any(words in text for text in texts)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_stored_without_outputs(notebook: Path) -> None:
    whole = json.loads(notebook.read_text())
    assert (whole["nbformat"], set(whole["metadata"])) == (4, {"kernelspec", "language_info"})
    for cell in cells(notebook, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
    ids = [cell["id"] for cell in whole["cells"]]
    assert len(set(ids)) == len(ids)
    assert "://" not in notebook.read_text()
    assert cells(notebook, "markdown")[0]["source"][0].startswith("# ")


def test_there_is_a_notebook_for_each_reader() -> None:
    assert [file.stem for file in NOTEBOOKS] == ["ml-engineer", "photographer", "student"]
