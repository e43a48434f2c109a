"""`clipkit explain --prompt`: where each word was looked at, as lines, JSON and a figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clipkit.cli.main import main


def explain(*words: str) -> int:
    return main(["explain", *words])


def test_explain_says_each_words_share_and_draws_it(
    pipelines: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(pipelines("painter")), "--steps", "1", "--device", "cpu"]
    assert explain("--prompt", "a red bicycle", *model, "--out", str(tmp_path / "words.png")) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [word for _, word in lines] == ["a", "red", "bicycle"]
    assert max(lines)[1] == "red"
    assert (tmp_path / "words.png").read_bytes().startswith(b"\x89PNG")
    assert explain("--prompt", "a red bicycle", *model, "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert [one["word"] for one in told["words"]] == ["a", "red", "bicycle"]
    assert len(told["maps"]) == 3
    assert explain("--prompt", "red", *model, "--out", str(tmp_path)) == 1
    assert "cannot be written" in capfd.readouterr().err


def test_explain_says_that_a_picture_was_refused(
    pipelines: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(pipelines("guarded")), "--steps", "1", "--device", "cpu"]
    assert explain("--prompt", "red", *model, "--seed", "3") == 0
    assert "the safety checker refused the picture of seed 3: it is black" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "PICTURE, or --prompt WORDS: one of them, please"),
        (["cat.jpg", "--prompt", "red"], "PICTURE, or --prompt WORDS: one of them, please"),
        (["--prompt", "red"], "--prompt needs the --model that makes the picture"),
        (["cat.jpg", "--seed", "1"], "--seed and --steps are for --prompt"),
        (["cat.jpg", "--steps", "1"], "--seed and --steps are for --prompt"),
        (["--prompt", "red", "--model", "x/y", "--layer", "1"], "--layer, --head and --text are for a PICTURE"),
    ],
)
def test_explain_takes_a_picture_or_words(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert explain(*words) == 2
    assert said in capfd.readouterr().err
