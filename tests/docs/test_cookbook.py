"""The cookbook's listings: the new ones run with small local models, the old ones fail as the page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import skimage
from PIL import Image

from clipkit.models.registry import starter_folder
from tests.support.colours import paint
from tests.support.paths import REPOSITORY
from tests.support.tiny_diffusion import make_pipeline
from tests.support.tiny_vits import make_vit

PAGE = (REPOSITORY / "docs" / "cookbook.md").read_text()
LISTING = re.compile(r"```python( old)?\n(.*?)```\n(?:> ([^\n]+))?", re.DOTALL)
MODELS = {
    "google/vit-base-patch16-224": "vit",
    "microsoft/swin-tiny-patch4-window7-224": "swin",
    "microsoft/beit-base-patch16-224": "beit",
}
ROW = re.compile(r"^\| ([^|]+) \| (`[^|]+`) \| ([^|]*)\|$", re.MULTILINE)
CLIP = ("openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (starter_folder() / "open_clip_model.safetensors").exists(), reason="data/starter has no weights"
    ),
]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models as the page names them, a cat, and `data` with two splits of two classes."""
    place = tmp_path_factory.mktemp("cookbook")
    for name, kind in MODELS.items():
        make_vit(kind, place / name)
    for name in CLIP:
        make_clip(place / name)
    make_pipeline(place / "made", "random").rename(place / "tiny-diffusion")
    cat = Path(skimage.__file__).parent / "data" / "chelsea.png"
    Image.open(cat).save(place / "cat.jpg")
    (place / "photos").mkdir()
    shutil.copyfile(place / "cat.jpg", place / "photos" / "cat.jpg")
    for split, count in (("trainval", 6), ("test", 3)):
        for i in range(count):
            paint(place / "data" / split / "red" / f"{i}.png", (250 - i, 10, 10))
            paint(place / "data" / split / "blue" / f"{i}.png", (10, 10, 250 - i))
    return place


def make_clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "photo</w>", "of</w>", "cat</w>"]
    text = {**tower, "vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)


def chapters() -> list[str]:
    return PAGE.split("\n## ")[1:]


def run(code: str, place: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLIPKIT_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_the_new_listings_run(kitchen: Path, tmp_path: Path) -> None:
    code = "\n".join(body for is_old, body, _ in LISTING.findall(PAGE) if not is_old)
    done = run(code, kitchen, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line == "['cat']" for line in lines), done.stdout  # zero-shot, with the starter
    assert "1.000 of 6 right" in lines, done.stdout  # red and blue are not hard
    assert lines.count("[1. 1. 1.]") == 2, done.stdout  # a pipeline and a probe, cross-validated
    assert any(line.startswith("{'probe__C': ") and line.endswith("} 1.0") for line in lines), done.stdout
    assert any(line.startswith("{'templates': ") for line in lines), done.stdout
    assert "(2, 77, 32) True" in lines, done.stdout  # the states of both prompts enter the cross-attention
    assert "the same picture: True" in lines, done.stdout
    assert "('imagined/a-red-bicycle-in-snow-0.png', 'imagined/a-red-bicycle-in-snow-1.png')" in lines, done.stdout
    for name in ("curves.png", "confusion.png", "samples.png"):
        with Image.open(kitchen / name) as figure:
            assert len(figure.convert("RGB").getcolors(1 << 24)) > 10, name


def test_each_line_and_command_of_the_tables_runs_from_top_to_bottom(kitchen: Path, tmp_path: Path) -> None:
    """One interpreter for all: commands as they are typed, through the program's own entry."""
    rows = ROW.findall(PAGE)
    assert len(rows) >= 18
    script = "import clipkit\nimport matplotlib\nmatplotlib.use('agg')\nfrom clipkit.cli.main import main\n"
    for step, python, typed in rows:
        line = python.strip("`")
        script += f"{line}\n" if "=" in line.partition("(")[0] else f"print({step!r}, {line}, sep=': ')\n"
        for command in re.findall(r"`clipkit ([^`]+)`", typed):
            script += f"assert main({shlex.split(command)!r}) == 0, {command!r}\n"
    done = run(script, kitchen, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy on the test split: 1.0" in done.stdout
    for file in ("curves.png", "confusion.png", "before-after.png", "finetune.json"):
        assert (kitchen / "pets" / file).is_file(), file
    for file in re.findall(r"--out (\w+\.png)|`(pets/[\w-]+\.png)`", PAGE):
        assert (kitchen / "".join(file)).is_file(), file


def test_the_old_listings_fail_as_the_page_says(kitchen: Path, tmp_path: Path) -> None:
    pixels = re.search(r"^processor = .*?^pixels = [^\n]+\n", PAGE, re.DOTALL | re.MULTILINE)
    assert pixels
    names = "from transformers import AutoImageProcessor, AutoModelForImageClassification"
    before = f"import sys\nimport torch\nfrom PIL import Image\n{names}\n"
    old = [(body, said) for is_old, body, said in LISTING.findall(PAGE) if is_old]
    assert len(old) >= 8
    # One interpreter for all: each imports transformers, which is seconds.
    script = before + pixels[0]
    for body, _ in old:
        script += f"try:\n    exec({body!r}, dict(globals()))\n    print('it ran')\n"
        script += "except BaseException as error:\n    print(f'{type(error).__name__}: {error}'.splitlines()[0])\n"
    done = run(script, kitchen, tmp_path)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line]
    assert len(printed) == len(old)
    for (body, said), line in zip(old, printed, strict=True):
        assert line.startswith(said), f"{body}\nsays {said}\nbut    {line}"


def test_every_old_listing_says_its_error() -> None:
    assert all(said for is_old, _, said in LISTING.findall(PAGE) if is_old)
    assert len(chapters()) >= 6
