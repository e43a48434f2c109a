"""The commands finetune and explain, as they are typed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.classify.head import Head
from clipkit.cli.main import main
from clipkit.models.vit import ViTClassifier
from tests.support.colours import COLOURS, paint
from tests.support.tiny_models import make_model
from tests.support.tiny_vits import make_vit

QUICK = ("--epochs", "2", "--views", "1", "--batch-size", "4", "--lr", "0.01")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    for name in ("red", "blue"):
        for number in range(5):
            paint(tmp_path / "colours" / name / f"{number}.png", COLOURS[name], (40 + number, 48))
    return tmp_path / "colours"


def test_finetune_says_what_learns_what_it_said_and_what_to_type_next(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = make_model("clip", tmp_path / "clip"), tmp_path / "out"
    (colours / "red" / "bad.png").write_bytes(b"nothing")
    assert main(["finetune", str(colours), "--out", str(out), "--model", str(model), *QUICK]) == 0
    said = capsys.readouterr()
    head = Head.load(out / "head.safetensors")
    assert head.classes == ("blue", "red")
    assert head.space == "backbone"
    lines = dict(line.split(maxsplit=1) for line in said.out.splitlines())
    assert lines["parameters"].startswith(f"{2 * 64 + 2:,} learn, ")
    assert {"before", "after", "best", "validation"} <= set(lines)
    assert "n = 2; these pictures chose the epoch" in lines["validation"]
    assert [line[:9] for line in said.err.splitlines()[:2]] == ["epoch   1", "epoch   2"]
    assert "left out" in said.err
    assert said.err.splitlines()[-1] == f"next: clipkit classify ./photos --head {out / 'head.safetensors'}"
    for name in ("curves.png", "confusion.png", "before-after.png"):
        assert name in said.err.splitlines()[-2]
        with Image.open(out / name) as figure:
            assert len(figure.convert("RGB").getcolors(1 << 24)) > 20, name


def test_finetune_goes_on_where_it_was_and_refuses_another_recipe(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = make_model("clip", tmp_path / "clip"), tmp_path / "out"
    command = ["finetune", str(colours), "--out", str(out), "--model", str(model), *QUICK]
    assert main(command) == 0
    capsys.readouterr()
    assert main(command) == 0
    assert "epoch " not in capsys.readouterr().err.replace("best epoch", "")
    assert main([*command, "--seed", "1"]) == 1
    assert "another run: seed 42, not 1" in capsys.readouterr().err


def test_finetune_follows_its_weight_decay_and_warmup(tmp_path: Path, colours: Path) -> None:
    model, out = make_model("clip", tmp_path / "clip"), tmp_path / "out"
    options = ["--weight-decay", "0.3", "--warmup", "0.5"]
    assert main(["finetune", str(colours), "--out", str(out), "--model", str(model), *QUICK, *options]) == 0
    said = json.loads((out / "finetune.json").read_text())
    assert (said["recipe"]["weight_decay"], said["recipe"]["warmup"]) == (0.3, 0.5)
    assert said["history"][0]["lr"] == pytest.approx(0.01)  # the warmup ends with the first of two epochs


def test_finetune_of_a_transformers_model_ends_with_a_command_that_works(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = make_vit("vit", tmp_path / "vit"), tmp_path / "out"
    command = ["finetune", str(colours), "--out", str(out), "--model", str(model), "--unfreeze", "last:1", *QUICK]
    assert main(command) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    typed = shlex.split(last.removeprefix("next: "))
    assert typed == ["clipkit", "label", "--model", str(out), "cat.jpg"]
    assert main([*typed[1:-1], str(next(colours.rglob("*.png"))), "--top", "1"]) == 0
    assert ViTClassifier(out).classes_.tolist() == ["blue", "red"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "/dev/null/out"], "/dev/null/out cannot be written"),
        (["--unfreeze", "tail"], "'tail' cannot be unfrozen"),
        (["--lr", "-1"], "lr = -1"),
        (["--weight-decay", "-1"], "weight_decay = -1"),
        (["--warmup", "1.5"], "warmup = 1.5"),
        (["--split", "test"], "test"),
    ],
)
def test_finetune_refuses_what_it_cannot_do(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    model = make_model("clip", tmp_path / "clip")
    assert main(["finetune", str(colours), "--out", str(tmp_path / "out"), "--model", str(model), *options]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "epoch" not in said  # no work is lost
    assert not (tmp_path / "out").exists()


def test_explain_counts_the_patches_and_draws_the_overlay(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = make_vit("vit", tmp_path / "vit"), tmp_path / "overlay.png"
    assert main(["explain", str(colours / "red" / "0.png"), "--model", str(model), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "17 = 32 * 32 / (8 * 8) + 1 class" in said
    assert "4 x 4, each of 8 x 8 pixels" in said
    with Image.open(out) as drawn:
        assert drawn.width > 2.5 * drawn.height > 2_000  # three panels


def test_explain_draws_the_layer_and_head_that_were_asked_for_and_names_those_that_there_are(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, picture = make_vit("vit", tmp_path / "vit"), str(colours / "red" / "0.png")
    drawn = []
    for choice in ([], ["--layer", "1"], ["--layer", "1", "--head", "2"]):
        out = tmp_path / "one.png"
        assert main(["explain", picture, "--model", str(model), "--out", str(out), *choice]) == 0
        drawn.append(out.read_bytes())
    assert len(set(drawn)) == 3
    capsys.readouterr()
    assert main(["explain", picture, "--model", str(model), "--layer", "2", "--head", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (np.shape(said["attention"]), said["layer"], said["head"]) == ((4, 4), 2, 1)
    for choice, words in (("--layer", "3 layers, and no layer 9"), ("--head", "2 heads, and no head 9")):
        assert main(["explain", picture, "--model", str(model), choice, "9"]) == 1
        assert words in capsys.readouterr().err
    assert main(["explain", picture, "--model", str(model), "--text", "a dog"]) == 1
    assert "reads no text" in capsys.readouterr().err


def test_explain_as_json_has_the_attention_of_every_patch(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model("clip", tmp_path / "clip")
    assert main(["explain", str(colours / "red" / "0.png"), "--model", str(model), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert np.shape(said["last"]) == np.shape(said["rollout"]) == (4, 4)
    assert said["grid"]["tokens"] == 17
    assert said["reason"] is None


def test_explain_with_the_starter_gives_its_grid_a_reason_and_a_hint(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(colours / "red" / "0.png")
    assert main(["explain", picture, "--model", "starter"]) == 0
    said = capsys.readouterr()
    assert "9 x 9, each of 32 x 32 pixels" in said.out
    assert "starter: a convolutional tower has no class token" in said.err
    assert "--model ViT-B-16" in said.err
    assert "Grad-CAM" in said.err
    assert "relevance of  the picture's embedding" in said.out


def test_explain_draws_relevance_of_a_convolutional_tower_and_no_layer_of_it(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(colours / "red" / "0.png"), "--model", "starter", "--out", str(tmp_path / "one.png")]
    assert main([*command, "--text", "a red square"]) == 0
    assert "relevance of  the text 'a red square'" in capsys.readouterr().out
    with Image.open(tmp_path / "one.png") as drawn:
        assert 1.5 * drawn.height < drawn.width < 2.5 * drawn.height  # two panels
    (tmp_path / "one.png").unlink()
    assert main([*command, "--layer", "1"]) == 1
    assert "no class token" in capsys.readouterr().err
    assert not (tmp_path / "one.png").exists()


def test_explain_of_a_missing_picture_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_vit("vit", tmp_path / "vit")
    assert main(["explain", str(tmp_path / "none.jpg"), "--model", str(model)]) == 1
    assert "none.jpg is not there\n" in capsys.readouterr().err


def test_explain_of_a_folder_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a model is loaded: there is none of this name."""
    assert main(["explain", f"{tmp_path}/", "--model", str(tmp_path / "none")]) == 1
    expected = f"error: {tmp_path}/ is a folder\n  hint: one of its pictures: clipkit explain {tmp_path}/cat.jpg\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["finetune", "--lr", "0"], "--lr 0.0003 (in Python lr=0.0003)"),
        (["adapt", "--lr", "-1"], "--lr 0.005 (in Python lr=0.005)"),
        (["adapt", "--lr", "nan", "--recipe", "full"], "--lr 1e-05 (in Python lr=1e-05)"),
    ],
)
def test_a_bad_learning_rate_gets_one_that_can_be_typed(
    command: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "dataset", "--out", "out"]) == 1
    assert capsys.readouterr().err.endswith(f"cannot be followed\n  try: {hint}\n")
