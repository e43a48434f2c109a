"""Class names that are not UTF-8: every command that reads, prints or writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clipkit.cli.main import main
from clipkit.core.text import readable
from clipkit.models.load import load_encoder
from tests.cli.test_index_and_search import run
from tests.support.colours import paint

CAFE, DOG = os.fsdecode(b"caf\xe9"), os.fsdecode(b"h\xfbnd")


@pytest.fixture
def here(tmp_path: Path, models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """`odd` holds two class folders whose names are Latin-1; `photos` is indexed with a small random model."""
    for number, name in enumerate((CAFE, DOG)):
        for i in range(4):
            paint(tmp_path / "odd" / name / f"{i}.png", (200 * number + i, 40 * i, 90))
            paint(tmp_path / "photos" / f"{number}{i}.png", (200 * number + i, 40 * i, 90))
    monkeypatch.chdir(tmp_path)
    assert main(["index", "photos", "--model", str(models("clip"))]) == 0
    return tmp_path


def test_undecodable_bytes_are_read_as_latin_1() -> None:
    assert readable(CAFE) == "caf\u00e9"
    assert readable("caf\u00e9 \U0001f600") == "caf\u00e9 \U0001f600"
    assert readable("a\ud800") == "a\ufffd"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_model_reads_the_same_from_both_spellings(models: Callable[[str], Path], kind: str) -> None:
    first, second = load_encoder(str(models(kind)), device="cpu").encode_texts([f"a {CAFE}", "a caf\u00e9"])
    assert (first == second).all()


@pytest.mark.parametrize(
    "command",
    [
        "evaluate zeroshot odd --model MODEL --out out.json --confusion out.png",
        "evaluate zeroshot odd --model MODEL --search-templates --split . --classes odd",
        "classify photos --classes odd",
        "classify photos --classes odd --csv",
        "classify photos --classes odd --json",
        "classify photos --classes odd --explain photos/00.png",
        "classify photos --classes odd --copy-to sorted",
        "probe odd --model MODEL --out head.safetensors --method text-probe",
        "probe odd --model MODEL --out head.safetensors --json",
        "compare odd --model MODEL --methods zeroshot,probe --shots 1 --seeds 1 --out report",
        "finetune odd --model MODEL --out tuned --epochs 1 --views 1",
    ],
)
def test_no_command_stumbles(
    here: Path, models: Callable[[str], Path], capfd: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = [str(models("clip")) if word == "MODEL" else word for word in command.split()]
    code, out, err = run(capfd, *arguments)
    assert "Traceback" not in err
    if "--search-templates" in command:
        assert code == 1  # measured and chosen on are the same here, and that is said
        return
    assert code == 0, err
    if "classify" in command and "--json" not in command:
        assert "caf\\xe9" in out
    if "--json" in command and "classify" in command:
        assert {label for line in out.splitlines() for label in json.loads(line)["labels"]} <= {CAFE, DOG}


def test_a_report_shows_them_escaped(
    here: Path, models: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for i in range(4):  # one class holds the other's pictures, so that some are confused
        paint(here / "odd" / CAFE / f"more{i}.png", (200 + i, 40 * i, 91))
    where = ["--model", str(models("clip")), "--methods", "probe", "--shots", "all", "--seeds", "1", "--out", "report"]
    assert run(capfd, "compare", "odd", *where)[0] == 0
    assert "caf\\xe9" in (here / "report" / "index.html").read_text(encoding="utf-8")
    assert CAFE in json.loads((here / "report" / "results.json").read_text(encoding="utf-8"))["classes"]


def test_a_saved_head_gives_them_back(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = run(capfd, "classify", "photos", "--classes", "odd", "--save-head", "head.safetensors")
    assert run(capfd, "classify", "photos", "--head", "head.safetensors")[:2] == first[:2]
