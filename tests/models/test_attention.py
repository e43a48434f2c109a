"""Attention is that of the network: recomputed weights give the block's own output, and rows sum to 1."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipkit.errors import ModelError
from clipkit.models.attention import (
    AttentionMaps,
    explain_attention,
    facts,
    levit_weights,
    multihead_weights,
    pool_weights,
    rollout,
    timm_weights,
)
from clipkit.models.load import load_encoder
from clipkit.models.openclip import OpenClipEncoder
from clipkit.models.vit import ViTClassifier
from tests.support.tiny_models import CLIP_TEXT, CONFIGS, HALF, make_model
from tests.support.tiny_vits import make_vit

TIMM = {"embed_dim": 32, "custom_text": True, "text_cfg": CLIP_TEXT}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Noise with a bright square, 90 x 60."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (60, 90, 3), dtype=np.uint8)
    pixels[20:40, 30:50] = 250
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))


def timm_model(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, pool: str, size: int = 160) -> Path:
    vision = {"timm_model_name": name, "image_size": size, "timm_pool": pool, "timm_proj": "linear"}
    config = {
        "model_cfg": {**TIMM, "vision_cfg": vision},
        "preprocess_cfg": {**HALF, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    monkeypatch.setitem(CONFIGS, name, config)
    return make_model(name, folder)


@torch.no_grad()
def test_recomputed_attention_is_that_of_torchs_multihead_attention(tokens: torch.Tensor) -> None:
    attention = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval()
    torch.nn.init.normal_(attention.in_proj_bias)
    output, expected = attention(tokens, tokens, tokens, need_weights=True, average_attn_weights=False)
    weights, recomputed = multihead_weights(attention, tokens)
    assert expected.std() > 0.01
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(recomputed, output, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("has_norm", [False, True])
def test_recomputed_attention_times_values_is_the_output_of_timms_block(tokens: torch.Tensor, has_norm: bool) -> None:
    from timm.layers.attention import Attention

    torch.manual_seed(0)
    attention = Attention(32, num_heads=4, qkv_bias=True, qk_norm=has_norm, norm_layer=torch.nn.LayerNorm).eval()
    weights, output = timm_weights(attention, tokens)
    torch.testing.assert_close(output, attention(tokens), rtol=0, atol=1e-5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 7))


@torch.no_grad()
def test_recomputed_attention_of_a_pool_gives_its_output(tokens: torch.Tensor) -> None:
    from timm.layers.attention_pool import AttentionPoolLatent

    torch.manual_seed(0)
    pool = AttentionPoolLatent(32, num_heads=4, norm_layer=torch.nn.LayerNorm).eval()
    weights, output = pool_weights(pool, tokens)
    torch.testing.assert_close(output, pool(tokens), rtol=0, atol=1e-5)
    assert weights.shape == (2, 4, 1, 7)


def test_rollout_of_two_layers_is_the_product_worked_out_by_hand() -> None:
    first = np.array([[[1, 0], [1, 0]]], np.float32)  # both tokens look at the first
    second = np.array([[[0, 1], [0, 1]]], np.float32)  # and then at the second
    # (I + first) / 2 = [[1, 0], [.5, .5]]; (I + second) / 2 = [[.5, .5], [0, 1]]; their product:
    np.testing.assert_allclose(rollout([first, second]), [[0.75, 0.25], [0.5, 0.5]])


def test_rows_of_a_rollout_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    layers = [rng.dirichlet(np.ones(10), size=(3, 10)).astype(np.float32) for _ in range(6)]
    flow = rollout(layers)
    np.testing.assert_allclose(flow.sum(axis=1), 1, atol=1e-6)
    assert (flow >= 0).all()


@pytest.mark.parametrize(("kind", "prefix"), [("vit", ("class",)), ("deit", ("class", "distillation"))])
def test_a_vit_of_transformers_shows_what_its_class_token_saw(
    tmp_path: Path, photo: Path, kind: str, prefix: tuple[str, ...]
) -> None:
    model = ViTClassifier(make_vit(kind, tmp_path / kind), precision="float32")
    shown = explain_attention(model, photo)
    network = model.copy_network()
    network.set_attn_implementation("eager")
    with torch.no_grad():
        layers = network(pixel_values=model.pixels([photo]), output_attentions=True).attentions
    before = len(shown.grid.prefix)
    assert (shown.grid.rows, shown.grid.columns, shown.grid.patch) == (4, 4, (8, 8))
    assert shown.grid.tokens == 16 + before == layers[0].shape[-1]
    assert shown.grid.prefix == prefix
    assert shown.last is not None
    assert shown.rollout is not None
    np.testing.assert_allclose(shown.last.ravel(), layers[-1][0].mean(dim=0)[0, before:], atol=1e-6)
    whole = rollout([layer[0].numpy() for layer in layers])[0]
    np.testing.assert_allclose(shown.rollout.ravel(), whole[before:], atol=1e-6)


def test_explaining_leaves_the_model_as_it_was(tmp_path: Path, photo: Path) -> None:
    model = ViTClassifier(make_vit("vit", tmp_path / "vit"), precision="float32")
    before = model.logits([photo])
    explain_attention(model, photo)
    assert model.network.config._attn_implementation != "eager"
    np.testing.assert_array_equal(model.logits([photo]), before)


def test_a_vit_of_open_clip_shows_what_its_class_token_saw(tmp_path: Path, photo: Path) -> None:
    encoder = load_encoder(str(make_model("clip", tmp_path / "clip")), engine="torch", precision="float32")
    shown = explain_attention(encoder, photo)
    seen = hooked_weights(encoder, photo)
    assert (shown.grid.rows, shown.grid.columns, shown.grid.tokens) == (4, 4, 17)
    assert shown.last is not None
    assert shown.rollout is not None
    np.testing.assert_allclose(shown.last.ravel(), seen[-1].mean(axis=0)[0, 1:], atol=1e-5)
    np.testing.assert_allclose(shown.rollout.ravel(), rollout(seen)[0, 1:], atol=1e-5)


def hooked_weights(encoder: Any, photo: Path) -> list[np.ndarray]:
    """torch's own weights of every block, asked for by need_weights=True."""
    from clipkit.models.trainable import TunableEncoder

    source = TunableEncoder(encoder)
    visual = source.body().whole.visual
    found: list[np.ndarray] = []

    def ask(attention: Any, inputs: Any, output: Any) -> None:
        if not listening:
            return
        listening.clear()
        weights = attention(*inputs, need_weights=True, average_attn_weights=False)[1]
        listening.append(True)
        found.append(weights[0].numpy())

    listening = [True]
    for block in visual.transformer.resblocks:
        block.attn.register_forward_hook(ask)
    with torch.no_grad():
        visual(source.centre_inputs([str(photo)]))
    assert len(found) == 2
    return found


def test_a_timm_vit_shows_its_class_token(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = timm_model(tmp_path / "timm", monkeypatch, "test_vit", "token")
    shown = explain_attention(load_encoder(str(folder), precision="float32"), photo)
    assert shown.speaker == "class token"
    assert shown.grid.tokens == shown.grid.rows * shown.grid.columns + 1 == 101
    assert shown.last is not None
    assert 0 < shown.last.sum() < 1


def test_an_attention_pool_speaks_for_a_tower_without_a_class_token(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = timm_model(tmp_path / "timm", monkeypatch, "test_vit3", "map")
    shown = explain_attention(load_encoder(str(folder), precision="float32"), photo)
    assert shown.speaker == "attention pool"
    assert shown.last is not None
    assert shown.grid.prefix == ("register",)  # which the pool asks too
    assert 0.9 < shown.last.sum() < 1
    assert shown.grid.tokens == 101


@torch.no_grad()
def test_recomputed_attention_of_levit_is_that_of_both_its_blocks() -> None:
    from timm.models.levit import Attention, AttentionDownsample

    torch.manual_seed(0)
    tokens = torch.randn(2, 25, 32)
    among_all = Attention(32, 8, num_heads=2, attn_ratio=2, resolution=5, act_layer=torch.nn.Hardswish)
    narrowing = AttentionDownsample(32, 48, 8, num_heads=2, attn_ratio=4, resolution=5)
    for attention, asking in ((among_all, 25), (narrowing, 9)):
        attention.eval()  # returns nothing
        torch.nn.init.normal_(attention.attention_biases)
        torch.nn.init.ones_(attention.proj.ln.bn.weight)  # 0 at the start
        weights, output = levit_weights(attention, tokens)
        assert output.std() > 0.01
        torch.testing.assert_close(output, attention(tokens), rtol=0, atol=1e-5)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, asking))


def test_levit_shows_all_patches_rolled_out_and_a_narrower_grid_at_the_end(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = timm_model(tmp_path / "levit", monkeypatch, "levit_128s", "avg", size=224)
    shown = explain_attention(load_encoder(str(folder), precision="float32"), photo)
    assert shown.last is not None
    assert shown.rollout is not None
    assert (shown.speaker, shown.last.shape, shown.rollout.shape) == ("mean of the patches", (4, 4), (14, 14))
    assert shown.grid.tokens == 196
    assert shown.rollout.sum() == pytest.approx(1, abs=1e-4)
    assert facts(shown)["tokens"] == "196 = 224 * 224 / (16 * 16)"
    assert Image.open(BytesIO(shown.overlay())).width == 3 * 448 + 16


def test_a_tower_that_answers_from_the_mean_of_its_patches_shows_their_mean(tmp_path: Path, photo: Path) -> None:
    shown = explain_attention(ViTClassifier(make_vit("beit", tmp_path / "beit")), photo)
    assert shown.speaker == "mean of the patches"
    assert shown.rollout is not None
    assert shown.rollout.shape == (4, 4)
    assert 0.5 < shown.rollout.sum() < 1  # the rest is the class token's share
    assert (
        explain_attention(load_encoder(str(make_model("siglip", tmp_path / "siglip"))), photo).speaker == shown.speaker
    )


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_a_classifier_without_class_attention_says_so(tmp_path: Path, photo: Path, kind: str) -> None:
    words = "no class token"
    shown = explain_attention(ViTClassifier(make_vit(kind, tmp_path / kind)), photo)
    assert words in str(shown.reason)
    assert shown.last is None
    with pytest.raises(ModelError, match=words):
        shown.overlay()
    assert shown.grid.rows * shown.grid.patch[0] == 32


@pytest.mark.parametrize(("kind", "words"), [("cnn", "convolutional"), ("resnet", "convolutional")])
def test_a_tower_without_class_attention_says_so(tmp_path: Path, photo: Path, kind: str, words: str) -> None:
    shown = explain_attention(load_encoder(str(make_model(kind, tmp_path / kind))), photo)
    assert words in str(shown.reason)
    assert shown.rollout is None


def test_the_starter_says_that_it_has_no_attention_and_how_fine_its_last_map_is(
    photo: Path, starter: OpenClipEncoder
) -> None:
    shown = explain_attention(starter, photo)
    assert "convolutional" in str(shown.reason)
    assert (shown.grid.rows, shown.grid.columns, shown.grid.patch, shown.grid.tokens) == (9, 9, (32, 32), 0)


def test_attention_that_cannot_be_recomputed_is_not_shown(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(make_model("clip", tmp_path / "clip")), engine="torch", precision="float32")

    def wrong(attention: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights, output = multihead_weights(attention, tokens)
        return weights, output * 1.1

    monkeypatch.setattr("clipkit.models.attention.multihead_weights", wrong)
    assert "cannot be recomputed" in str(explain_attention(encoder, photo).reason)


def test_the_overlay_is_brightest_where_attention_is(tmp_path: Path, photo: Path) -> None:
    shown = explain_attention(ViTClassifier(make_vit("vit", tmp_path / "vit")), photo)
    corner = np.zeros((4, 4), np.float32)
    corner[3, 0] = 1
    drawn = AttentionMaps(shown.model, shown.grid, np.zeros_like(shown.seen), corner, corner)
    panels = np.asarray(Image.open(BytesIO(drawn.overlay())))
    side = (panels.shape[1] - 16) // 3
    assert panels.shape[0] == side == 448
    heat = panels[:, side + 8 : 2 * side + 8].sum(axis=2)
    assert heat[-50, 50] > 3 * max(heat[50, 50], heat[50, -50], heat[-50, -50], 1)
    assert not panels[:, :side].any()


def test_the_facts_of_a_vit_add_up(tmp_path: Path, photo: Path) -> None:
    said = facts(explain_attention(ViTClassifier(make_vit("vit", tmp_path / "vit")), photo))
    assert said["tokens"] == "17 = 32 * 32 / (8 * 8) + 1 class"
    assert np.shape(said["rollout"]) == (4, 4)
