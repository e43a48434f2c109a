"""`clipkit imagine`: files and two answers side by side, what is refused, and what an interruption leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipkit.cli.main import main
from clipkit.generate import DiffusionGenerator
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder

Run = Callable[..., int]


@pytest.fixture
def run(
    photos: Path,
    pipelines: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoder: ColourEncoder,
) -> Run:
    """`clipkit imagine` with the painter, beside an index of the colours."""
    ImageIndex.create(photos, encoder).update()
    monkeypatch.chdir(tmp_path)

    def opened(root: Path, **ways: Any) -> ImageIndex:
        return ImageIndex.open(root, encoder=encoder, at=ways.get("at"))

    def run(*words: str, model: str = str(pipelines("painter"))) -> int:
        return main(["imagine", *words, "--model", model, "--steps", "3", "--device", "cpu"], open_index=opened)

    return run


def test_what_pictures_find_stands_beside_what_words_find(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("a red bicycle in snow", "--search", "photos", "--n", "2", "-t", "2") == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[:3] == ["imagined/a-red-bicycle-in-snow-0.png", "imagined/a-red-bicycle-in-snow-1.png", ""]
    assert lines[3].split("  ")[0] == "BY THE PICTURES"
    assert lines[4].split() == [lines[4].split()[0], "photos/red.png", "1.0000", "photos/grey.png"]
    assert len(lines) == 6
    assert "safety checker: left out of" in err
    assert "experimental" in err


def test_json_is_one_object(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("blue", "--search", "photos", "--n", "1", "--json", "-t", "1", "--out", "kept", "--seed", "9") == 0
    (line,) = capfd.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["pictures"] == [{"file": "kept/blue-9.png", "seed": 9, "refused": False}]
    assert [hit["path"] for hit in told["by_pictures"]] == ["blue.png"]
    assert [hit["path"] for hit in told["by_words"]] == ["blue.png"]


def test_without_photos_there_are_pictures_alone(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("green", "--n", "1", "--size", "48x32") == 0
    assert capfd.readouterr().out.splitlines() == ["imagined/green-0.png"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["  "], 1, "error: the prompt is empty"),
        (["red", "--n", "0"], 2, "0 is not in the range x>=1"),
        (["red", "--size", "100"], 1, "100 x 100 is no size"),
        (["red", "--size", "big"], 2, "'big' is no size: 512, or 768x512"),
        (["red", "--search", "."], 1, "has no index"),
        (["red", "--out", "file"], 1, "file is a file"),
        (["red", "--out", ""], 2, "it is empty"),
        (["very " * 80], 1, "82 tokens with those of begin and end"),
        (["red", "--guidance", "-1"], 1, "-1.0 is no guidance scale"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_left(
    run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "file").write_text("")
    assert run(*words) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert said in err
    assert not (tmp_path / "imagined").exists()


def test_a_folder_that_is_no_pipeline_is_said(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("red", model="photos") == 1
    assert "photos holds no pipeline: it has no model_index.json" in capfd.readouterr().err


def test_an_interruption_says_what_is_kept(
    run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = DiffusionGenerator.generate

    def stopped(self: DiffusionGenerator, prompt: str, *, n: int = 1, seed: int = 0) -> Any:
        if seed == 1:
            raise KeyboardInterrupt
        return whole(self, prompt, n=n, seed=seed)

    monkeypatch.setattr(DiffusionGenerator, "generate", stopped)
    assert run("red") == 130
    assert "interrupted: pictures that were made by then are in imagined" in capfd.readouterr().err
    assert [file.name for file in (tmp_path / "imagined").iterdir()] == ["red-0.png"]


def test_a_refused_picture_is_said(
    run: Run, pipelines: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("red", "--search", "photos", "--n", "1", model=str(pipelines("guarded"))) == 1
    assert "the safety checker has refused every picture" in capfd.readouterr().err
    assert run("red", "--n", "1", model=str(pipelines("guarded"))) == 0
    assert "refused the picture of seed 0: it is black" in capfd.readouterr().err
