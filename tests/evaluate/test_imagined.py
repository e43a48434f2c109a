"""Imagined queries against words: counted by hand on colours, where it is known what each of them finds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipkit.cli.main import main
from clipkit.datasets.load import Dataset, load_dataset
from clipkit.errors import DatasetError
from clipkit.evaluate import evaluate_imagined
from clipkit.generate import DiffusionGenerator, GeneratedPicture
from tests.support.colours import COLOURS, ColourEncoder


class Painting:
    """A generator that paints what `of` says of a prompt, white where it says nothing."""

    model = "painting"

    def __init__(self, **of: str) -> None:
        self._of = of

    def generate(self, prompt: str, *, n: int = 1, seed: int = 0) -> list[GeneratedPicture]:
        pixels = np.full((8, 8, 3), COLOURS[self._of.get(prompt, "white")], np.uint8)
        return [GeneratedPicture(pixels, seed + i) for i in range(n)]


def captioned(photos: Path, **captions: str) -> Dataset:
    table = photos.parent / "captions.csv"
    with open(table, "w", newline="") as stream:
        csv.writer(stream).writerows(
            [("image", "caption"), *((f"photos/{n}.png", text) for n, text in captions.items())]
        )
    return load_dataset(table)


def test_a_generator_that_paints_what_words_miss_is_worth_all_of_it(photos: Path, painter: DiffusionGenerator) -> None:
    """To ColourEncoder these sentences are grey; the painter reads the colour in them."""
    names = ("red", "blue", "cyan", "yellow")
    dataset = captioned(photos, grey="grey", **{name: f"a {name} bicycle" for name in names})
    metrics = evaluate_imagined(dataset, ColourEncoder(), painter).metrics
    assert (metrics["n"], metrics["photographs"]) == (5, 5)
    assert metrics["words_recall@1"] == 1 / 5  # grey's alone
    assert metrics["imagined_recall@1"] >= 4 / 5
    assert metrics["imagined_minus_words@1"] == pytest.approx(metrics["imagined_recall@1"] - 1 / 5)


def test_a_generator_that_paints_nonsense_loses_what_words_found(photos: Path) -> None:
    dataset = captioned(photos, **{name: name for name in COLOURS})
    result = evaluate_imagined(dataset, ColourEncoder(), Painting(red="red", green="green"), n=2)
    metrics = result.metrics
    assert metrics["words_recall@1"] == 1.0
    assert metrics["imagined_recall@1"] == 3 / 8  # red, green, white
    assert metrics["imagined_minus_words@1"] == -5 / 8
    low, high = metrics["ci95"]["imagined_minus_words@1"]
    assert -1 <= low < -5 / 8 < high <= 0
    assert metrics["imagined_recall@10"] == metrics["words_recall@10"] == 1.0
    assert metrics["ci95"]["imagined_minus_words@10"] == (0.0, 0.0)
    assert metrics["pictures_a_caption"] == 2
    assert "imagined by painting" in result.model


def test_both_queries_together_are_the_mean_of_their_vectors(photos: Path) -> None:
    encoder, painting = ColourEncoder(), Painting(red="green")
    dataset = captioned(photos, red="red", green="green", yellow="yellow")
    metrics = evaluate_imagined(dataset, encoder, painting).metrics
    rows = encoder.encode_texts(["red", "green", "yellow"])
    order = [0, 1, 2]
    imagined = encoder.encode_texts(["green", "white", "white"])
    best = ((rows[order] + imagined) @ rows.T).argmax(axis=1)
    assert metrics["both_recall@1"] == (best == order).mean()


def test_the_limit_draws_captions_and_all_photographs_answer(photos: Path) -> None:
    dataset = captioned(photos, **{name: name for name in COLOURS})
    results = [
        evaluate_imagined(dataset, ColourEncoder(), Painting(), limit=3, seed=seed).metrics for seed in (0, 0, 1)
    ]
    assert results[0] == results[1]
    assert (results[0]["n"], results[0]["photographs"]) == (3, 8)


def test_captions_that_cannot_be_imagined_are_left_out_of_both(photos: Path, painter: DiffusionGenerator) -> None:
    dataset = captioned(photos, red="red", blue="very " * 80)
    result = evaluate_imagined(dataset, ColourEncoder(), painter)
    assert result.metrics["n"] == 1
    assert "tokens" in result.failed[0].reason
    with pytest.raises(DatasetError, match=r"no caption of .* could be imagined"):
        evaluate_imagined(captioned(photos, blue="very " * 80), ColourEncoder(), painter)
    with pytest.raises(DatasetError, match="has no captions"):
        evaluate_imagined(Dataset("d", (), (), ()), ColourEncoder(), painter)


def test_a_stopped_run_goes_on_where_it_was(
    photos: Path, painter: DiffusionGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = captioned(photos, **{name: f"a {name} thing" for name in ("red", "blue", "cyan", "yellow")})
    made: list[str] = []
    whole = DiffusionGenerator.generate

    def counted(self: DiffusionGenerator, prompt: str, *, n: int = 1, seed: int = 0) -> list[GeneratedPicture]:
        if len(made) == 3:
            made.append("stopped")
            raise KeyboardInterrupt
        made.append(prompt)
        return whole(self, prompt, n=n, seed=seed)

    monkeypatch.setattr(DiffusionGenerator, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_imagined(dataset, ColourEncoder(), painter)
    first = evaluate_imagined(dataset, ColourEncoder(), painter)
    assert len(made) == 5  # three, the one that was stopped, and that one again
    assert len(set(made[:3]) | {made[4]}) == 4
    assert first.metrics["imagined_recall@1"] == 1.0
    evaluate_imagined(dataset, ColourEncoder(fingerprint="c1" * 32), painter)
    assert len(made) == 9  # another encoder's queries are others


def test_other_settings_are_another_generator(painter: DiffusionGenerator, pipelines: Callable[[str], Path]) -> None:
    again = DiffusionGenerator(pipelines("painter"), device="cpu", steps=3)
    other = DiffusionGenerator(pipelines("painter"), device="cpu", steps=4)
    random = DiffusionGenerator(pipelines("random"), device="cpu", steps=3)
    assert painter.identity == again.identity
    assert len({painter.identity, other.identity, random.identity}) == 3


def test_the_command_prints_both_and_the_paired_difference(
    photos: Path, pipelines: Callable[[str], Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    captioned(photos, red="a red thing", blue="a blue thing")
    words = ["evaluate", "retrieval", str(tmp_path / "captions.csv"), "--model", "starter", "--device", "cpu"]
    assert (
        main([*words, "--imagine", str(pipelines("painter")), "--steps", "2", "--out", str(tmp_path / "r.json")]) == 0
    )
    printed = capfd.readouterr().out
    assert "imagined by" in printed
    for key in ("words_recall@1 ", "imagined_recall@1 ", "both_recall@1 ", "imagined_minus_words@1 "):
        assert f"  {key}" in printed, key
    assert "paired" in printed
    assert json.loads((tmp_path / "r.json").read_text())["metrics"]["n"] == 2


@pytest.mark.parametrize("option", ["--limit", "--n", "--steps"])
def test_settings_of_pictures_without_a_model_are_wrong_usage(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "retrieval", "captions.csv", option, "3"]) == 2
    assert "--limit, --n and --steps are for --imagine" in capfd.readouterr().err
