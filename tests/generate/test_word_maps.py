"""Word maps: they are the model's own attention, change no pixel, and find the one word that the painter looks at."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipkit.errors import ModelError, QueryError
from clipkit.generate import DiffusionGenerator, explain_words
from clipkit.generate.word_maps import attention_weights
from clipkit.plot.reports import words_png
from tests.support.tiny_diffusion import STEPS

PROMPT = "a red bicycle in snow"


@pytest.fixture(scope="module")
def random_weights(pipelines: Callable[[str], Path]) -> DiffusionGenerator:
    return DiffusionGenerator(pipelines("random"), device="cpu", steps=2)


def test_the_weights_are_those_of_diffusers_own_processor(random_weights: DiffusionGenerator) -> None:
    """Weights times values, through the layer's last map, are what the layer itself gives."""
    layer = random_weights.pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    places, states = torch.randn(2, 64, 32), torch.randn(2, 77, 32)
    with torch.inference_mode():
        weights = attention_weights(layer, places, states)
        values = layer.to_v(states).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        ours = layer.to_out[0]((weights @ values).transpose(1, 2).flatten(2))
        theirs = layer(places, encoder_hidden_states=states)
    assert weights.shape == (2, layer.heads, 64, 77)
    assert torch.allclose(weights.sum(-1), torch.ones(1))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_picture_is_made_as_ever_and_nothing_keeps_watching(random_weights: DiffusionGenerator) -> None:
    expected = random_weights.generate(PROMPT, seed=2)[0].pixels
    maps = explain_words(random_weights, PROMPT, seed=2)
    assert np.array_equal(maps.picture, expected)
    assert (maps.words, maps.steps, maps.layers) == (("a", "red", "bicycle", "in", "snow"), 2, 4)
    unet = random_weights.pipeline.unet
    assert not any(module._forward_pre_hooks for module in unet.modules())


def test_the_maps_are_the_mean_over_layers_and_steps(random_weights: DiffusionGenerator) -> None:
    """An oracle by other means: scores as `Attention.get_attention_scores` gives them, layer by layer."""
    seen: list[np.ndarray] = []

    def note(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        query = layer.head_to_batch_dim(layer.to_q(given[0][1:]))
        key = layer.head_to_batch_dim(layer.to_k(named["encoder_hidden_states"][1:]))
        share = layer.get_attention_scores(query, key).mean(0)[:, 2]  # the token of red: begin, a, red
        side = math.isqrt(len(share))
        grown = torch.nn.functional.interpolate(share.view(1, 1, side, side), (16, 16), mode="bilinear")
        seen.append(grown[0, 0].numpy())

    named = random_weights.pipeline.unet.named_modules()
    hooks = [one.register_forward_pre_hook(note, with_kwargs=True) for name, one in named if name.endswith("attn2")]
    random_weights.generate(PROMPT)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 8
    maps = explain_words(random_weights, PROMPT)
    assert np.allclose(maps.maps[1], np.mean(seen, axis=0), atol=1e-6)


def test_the_painter_looks_at_the_colour_alone(painter: DiffusionGenerator) -> None:
    """One of its four layers attends to the flag of the colour, three to all 77 tokens alike."""
    maps = explain_words(painter, PROMPT)
    assert maps.layers == 4
    assert maps.steps == STEPS
    assert maps.shares["red"] == pytest.approx((1 + 3 / 77) / 4, abs=1e-4)
    assert maps.shares["bicycle"] == pytest.approx(3 / 77 / 4, abs=1e-4)


def test_a_word_of_several_tokens_is_one_and_a_word_that_comes_twice_is_two(painter: DiffusionGenerator) -> None:
    maps = explain_words(painter, "magenta and magenta")
    assert maps.words == ("magenta", "and", "magenta")
    assert maps.maps.shape == (3, 16, 16)
    assert set(maps.shares) == {"magenta", "and"}


def test_words_are_shown_as_they_were_written(painter: DiffusionGenerator) -> None:
    assert explain_words(painter, "Une très belle mer, 雪!").words == ("une", "très", "belle", "mer", ",", "雪", "!")
    with pytest.raises(QueryError, match="the prompt has no words"):
        explain_words(painter, "<|endoftext|>")


def test_pictures_that_are_not_square_have_maps_that_are_not(pipelines: Callable[[str], Path]) -> None:
    generator = DiffusionGenerator(pipelines("random"), device="cpu", steps=1, size=(56, 24))
    maps = explain_words(generator, "a cat")
    assert maps.picture.shape == (24, 56, 3)
    assert maps.maps.shape == (2, 12, 28)


def test_the_figure_has_a_panel_a_word(painter: DiffusionGenerator) -> None:
    from io import BytesIO

    from PIL import Image

    sizes = [
        Image.open(BytesIO(words_png(explain_words(painter, prompt)))).size
        for prompt in ("red", "a red cat", PROMPT, "a $x_1$ red")
    ]
    assert sizes[0][0] < sizes[1][0] == sizes[2][0]
    assert sizes[1][1] < sizes[2][1]


def test_a_pipeline_without_a_unet_is_said(pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = DiffusionGenerator(pipelines("random"), device="cpu", steps=1)
    monkeypatch.setattr(generator.pipeline, "unet", None)
    with pytest.raises(ModelError, match="has no UNet with cross-attention"):
        explain_words(generator, "red")
    with pytest.raises(QueryError, match="the prompt is empty"):
        explain_words(generator, "")
