"""Diffusion pipelines: a seed is a picture, a word decides its colour, what cannot be painted is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipkit.errors import ModelError, QueryError
from clipkit.generate import DiffusionGenerator, PictureGenerator
from clipkit.images.thumbnails import Canvas
from tests.support.colours import COLOURS
from tests.support.tiny_diffusion import SIDE, STEPS

LONG = "a very " * 45 + "red bicycle"


def one(generator: DiffusionGenerator, prompt: str, seed: int = 0) -> Canvas:
    return generator.generate(prompt, seed=seed)[0].pixels


def test_the_same_seed_paints_the_same_pixels_also_by_another_process_of_loading(
    painter: DiffusionGenerator, pipelines: Callable[[str], Path]
) -> None:
    first = one(painter, "a red bicycle", 3)
    assert np.array_equal(one(painter, "a red bicycle", 3), first)
    again = DiffusionGenerator(pipelines("painter"), device="cpu", steps=STEPS)
    assert np.array_equal(one(again, "a red bicycle", 3), first)
    assert not np.array_equal(one(painter, "a red bicycle", 4), first)


def test_random_weights_paint_by_seed_and_by_word(pipelines: Callable[[str], Path]) -> None:
    generator = DiffusionGenerator(pipelines("random"), device="cpu", steps=2, size=(48, 32))
    first = one(generator, "a cat")
    assert first.shape == (32, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(one(generator, "a cat"), first)
    assert not np.array_equal(one(generator, "a dog"), first)


def test_a_picture_does_not_depend_on_how_many_are_asked_for(painter: DiffusionGenerator) -> None:
    four = painter.generate("blue", n=4, seed=10)
    assert [picture.seed for picture in four] == [10, 11, 12, 13]
    assert np.array_equal(four[0].pixels, one(painter, "blue", 10))
    assert np.array_equal(four[3].pixels, one(painter, "blue", 13))


@pytest.mark.parametrize("name", [name for name in COLOURS if name != "grey"])
def test_the_word_decides_the_colour(painter: DiffusionGenerator, name: str) -> None:
    mean = one(painter, f"a {name} bicycle in snow").reshape(-1, 3).mean(axis=0)
    assert np.abs(mean - COLOURS[name]).max() < 5


def test_a_negative_prompt_leads_away_from_its_colour(pipelines: Callable[[str], Path]) -> None:
    """Guidance goes from the negative prompt's answer to the prompt's: from yellow on towards no colour is blue."""
    generator = DiffusionGenerator(pipelines("painter"), device="cpu", steps=STEPS, negative="yellow")
    mean = one(generator, "a bicycle").reshape(-1, 3).mean(axis=0)
    assert np.abs(mean - COLOURS["blue"]).max() < 5


def test_it_is_a_picture_generator_and_says_what_it_is(painter: DiffusionGenerator) -> None:
    assert isinstance(painter, PictureGenerator)
    assert painter.facts["model"] == "pipeline"  # not where it lies
    assert painter.facts["num_inference_steps"] == str(STEPS)
    assert "left out of" in painter.safety


def test_a_safety_checker_that_is_there_is_on_and_what_it_refuses_is_black(pipelines: Callable[[str], Path]) -> None:
    generator = DiffusionGenerator(pipelines("guarded"), device="cpu", steps=1)
    assert generator.safety.startswith("safety checker: on")
    (picture,) = generator.generate("red")
    assert picture.is_refused
    assert not picture.pixels.any()


@pytest.mark.parametrize(
    ("prompt", "n", "seed", "said"),
    [
        ("", 1, 0, "the prompt is empty"),
        (" \n", 1, 0, "the prompt is empty"),
        ("red", 0, 0, "0 pictures were asked for"),
        ("red", 1, -1, "-1 is no seed"),
        ("red", 2, 2**63, "is no seed"),
        (LONG, 1, 0, r"the prompt has \d+ tokens with those of begin and end, and .* reads 77"),
    ],
)
def test_what_cannot_be_asked_is_said(painter: DiffusionGenerator, prompt: str, n: int, seed: int, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        painter.generate(prompt, n=n, seed=seed)


def test_more_steps_than_a_scheduler_has_are_refused_with_the_option_to_leave_out(
    pipelines: Callable[[str], Path],
) -> None:
    with pytest.raises(QueryError, match="1000") as caught:
        DiffusionGenerator(pipelines("painter"), device="cpu", steps=2000).generate("red")
    assert "--steps" in (caught.value.hint or "")


def test_the_longest_prompt_is_read_whole(painter: DiffusionGenerator) -> None:
    fits = "a " * 74 + "red"  # 75 words, and begin and end
    assert one(painter, fits).reshape(-1, 3).mean(axis=0)[0] > 250
    with pytest.raises(QueryError, match="78 tokens"):
        painter.generate(f"a {fits}")


@pytest.mark.parametrize(
    ("settings", "said", "hint"),
    [
        ({"size": (100, 64)}, "100 x 64 is no size", "--size 96x64"),
        ({"size": (0, 64)}, "0 x 64 is no size", "--size 8x64"),
        ({"steps": 0}, "0 steps make no picture", "--steps 30"),
        ({"guidance": float("nan")}, "nan is no guidance scale", "--guidance 7.5"),
    ],
)
def test_settings_that_are_none_are_refused_before_anything_is_loaded(
    settings: dict[str, object], said: str, hint: str
) -> None:
    with pytest.raises(QueryError, match=said) as caught:
        DiffusionGenerator("nowhere", **settings)  # type: ignore[arg-type]
    assert hint in str(caught.value.hint)


def test_pictures_of_nan_are_an_error_and_not_black(pipelines: Callable[[str], Path]) -> None:
    generator = DiffusionGenerator(pipelines("painter"), device="cpu", steps=1)
    generator.pipeline.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="computes no picture in float32: it has NaN in it") as caught:
        generator.generate("red")
    assert caught.value.hint == "--precision float32"


def test_float16_on_a_cpu_is_refused(pipelines: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="float16 does not go with cpu"):
        DiffusionGenerator(pipelines("painter"), device="cpu", precision="float16")


def test_weights_that_are_cut_off_are_an_error(pipelines: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(pipelines("painter"), tmp_path / "cut"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cut cannot be loaded"):
        DiffusionGenerator(folder, device="cpu")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, pipelines: Callable[[str], Path]) -> None:
    folder = pipelines("painter")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match="made by diffusers") as caught:
        DiffusionGenerator(folder)
    assert caught.value.hint == "pip install 'clipkit[imagine]'"


def test_the_defaults_give_the_size_that_the_model_was_made_for(painter: DiffusionGenerator) -> None:
    assert one(painter, "white").shape == (SIDE, SIDE, 3)
