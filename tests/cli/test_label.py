"""The command label, as it is typed: the answers are those of transformers' own lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from clipkit.cli.main import main
from tests.support.colours import COLOURS, paint
from tests.support.saved_models import save_clip
from tests.support.tiny_models import make_model
from tests.support.tiny_vits import make_vit


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    return [str(paint(tmp_path / f"{name}.png", COLOURS[name], (40, 48))) for name in ("red", "blue", "green")]


def by_transformers(model: Path, picture: str) -> dict[str, float]:
    """The listing of the tutorials, line by line."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(model)
    network = AutoModelForImageClassification.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = network(**processor(Image.open(picture).convert("RGB"), return_tensors="pt")).logits[0]
    return {network.config.id2label[i]: float(sure) for i, sure in enumerate(logits.softmax(dim=-1))}


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_label_says_what_transformers_says(
    tmp_path: Path, pictures: list[str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_vit(kind, tmp_path / kind)
    capsys.readouterr()
    command = ["label", *pictures, "--model", str(model), "--precision", "float32"]
    assert main([*command, "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in said] == pictures
    for one in said:
        expected = by_transformers(model, one["path"])
        found = {answer["label"]: answer["probability"] for answer in one["answers"]}
        assert found == pytest.approx(expected, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)
    capsys.readouterr()
    assert main([*command, "--top", "1"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(label, picture) for _, label, picture in lines] == [
        (one["answers"][0]["label"], one["path"]) for one in said
    ]
    assert float(lines[0][0]) == pytest.approx(said[0]["answers"][0]["probability"], abs=1e-4)


def test_a_picture_that_cannot_be_read_costs_the_others_nothing(
    tmp_path: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model, bad = make_vit("vit", tmp_path / "vit"), tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    capsys.readouterr()
    assert main(["label", pictures[0], str(bad), pictures[1], "--model", str(model), "--top", "1"]) == 1
    said = capsys.readouterr()
    assert [line.rpartition("\t")[2] for line in said.out.splitlines()] == pictures[:2]
    assert f"cannot read {bad}" in said.err
    assert "1 picture of 3 could not be read" in said.err


def test_without_a_hub_it_says_what_is_missing_and_what_to_do(
    pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", pictures[0]]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: config.json of google/vit-base-patch16-224 is not on this disk")
    assert "hf download google/vit-base-patch16-224" in said[1]
    assert len(said) == 2


def test_what_is_no_classifier_or_no_picture_is_refused_before_anything_is_loaded(
    tmp_path: Path, pictures: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_clip(tmp_path / "saved")
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "head.safetensors").touch()
    capsys.readouterr()
    mistakes = {
        "ViT-B-32 is no image classifier of transformers": [pictures[0], "--model", "ViT-B-32"],
        "starter is no image classifier": [pictures[0], "--model", "starter"],
        "clip is no image classifier": [pictures[0], "--model", str(make_model("clip", tmp_path / "clip"))],
        "saved is no image classifier": [pictures[0], "--model", str(tmp_path / "saved")],
        "tuned is what finetune made": [pictures[0], "--model", "tuned"],
        "it has no config.json": [pictures[0], "--model", "./nowhere"],
        "clip is a folder": [str(tmp_path / "clip")],
        "none.jpg is not there": ["none.jpg"],
    }
    for words, given in mistakes.items():
        assert main(["label", *given]) == 1
        said = capsys.readouterr()
        assert words in said.err
        assert not said.out
    assert main(["label"]) == 2
