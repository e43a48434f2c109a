"""Names, models and datasets of Hugging Face on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_classify_and_evaluate import ColourPhrases
from tests.cli.test_index_and_search import run
from tests.datasets.test_arrow_tables import make_table, save_to_disk, write_parquet
from tests.support.saved_models import save_siglip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same data twice: `hub` as the hub has it, and `saved` as save_to_disk writes it."""
    tables = {"train": make_table([0, 1, 2] * 4), "test": make_table([2, 1, 0])}
    for split, table in tables.items():
        write_parquet(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet", table)
        save_to_disk(tmp_path / "saved" / split, [table])
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": list(tables)}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["hub", "saved"])
def test_commands_take_datasets_by_name(
    here: Path, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda name, **options: ColourPhrases())
    code, out, _ = run(capfd, "evaluate", "zeroshot", name, "--templates", "plain")
    assert (code, "n = 3" in out, "1.000" in out) == (0, True, True)
    code, out, _ = run(capfd, "probe", name, "--out", "head.safetensors", "--json")
    assert (code, json.loads(out)["n"], json.loads(out)["classes"]) == (0, 12, ["blue", "green", "red"])
    code, _, err = run(capfd, "compare", name, "--methods", "zeroshot,knn", "--shots", "1", "--seeds", "1")
    assert (code, err.splitlines()[0]) == (0, "measured on 3 pictures, its own train and test")
    code, _, err = run(capfd, "probe", name, "--out", "head.safetensors", "--split", "dev")
    assert (code, "has no split 'dev'" in err, "try: --split train" in err) == (1, True, True)


def test_finetune_takes_a_model_and_a_dataset_of_theirs(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_siglip(here / "mine")
    code, out, err = run(
        capfd, "finetune", "saved", "--model", "mine", "--out", "tuned", "--epochs", "1", "--views", "0"
    )
    assert code == 0, err
    assert "converting" in err
    assert (here / "tuned" / "head.safetensors").is_file()
    assert "best epoch       1 of 1" in out


def test_the_name_in_open_clip_is_said_on_stderr(
    photos: Path, capfd: pytest.CaptureFixture[str], models: Callable[[str], Path]
) -> None:
    code, out, err = run(capfd, "index", str(photos), "--model", "openai/clip-vit-base-patch32")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "openai/clip-vit-base-patch32 is ViT-B-32/openai in open_clip"


def test_an_architecture_alone_is_answered_with_a_model_to_take(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capfd, "index", str(photos), "--model", "ViT-B/32")
    assert code == 1
    assert "error: ViT-B-32 names no weights\n  try: --model ViT-B-32/laion2b_s34b_b79k; ViT-B-32/ also takes" in err


def test_a_model_of_another_kind_is_refused_in_a_sentence(
    here: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "blip").mkdir()
    (here / "blip" / "config.json").write_text('{"architectures": ["BlipModel"], "model_type": "blip"}')
    code, _, err = run(capfd, "index", str(photos), "--model", "blip")
    assert code == 1
    assert err.startswith("error: blip holds a BlipModel of transformers, which cannot be converted to open_clip\n")
    assert "CLIPModel and SiglipModel of transformers are converted" in err
