"""Features before the projection, against what each kind of tower computes by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clipkit.errors import ShapeError
from clipkit.models.backbone import without_projection
from clipkit.models.load import load_encoder
from clipkit.models.openclip import OpenClipEncoder
from tests.support.tiny_models import CONFIGS, make_model, random_network

Floats = npt.NDArray[np.float32]
KINDS = sorted(CONFIGS)
WIDTHS = {"clip": 64, "quickgelu": 64, "siglip": 64, "cnn": 256, "resnet": 512}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")
    made: dict[str, Path] = {}
    return lambda kind: made.get(kind) or made.setdefault(kind, make_model(kind, root / kind))


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    """Nine smooth random pictures of 64 x 64."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8))
    return np.ascontiguousarray(coarse.repeat(8, axis=2).repeat(8, axis=3), dtype=np.uint8)


def float_encoder(models: Callable[[str], Path], kind: str, **options: Any) -> OpenClipEncoder:
    return load_encoder(str(models(kind)), engine="torch", device="cpu", precision="float32", **options)


def unit(rows: npt.ArrayLike) -> Floats:
    table = np.asarray(rows, dtype=np.float32)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def original(kind: str, encoder: OpenClipEncoder, pixels: npt.NDArray[np.uint8]) -> tuple[Any, Any]:
    """The network as it is in the file, nothing fused or cut off, and the pixels as it reads them."""
    import torch

    network = random_network(CONFIGS[kind]["model_cfg"])
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (encoder.recipe.mean, encoder.recipe.std))
    return network, (torch.from_numpy(pixels).float() / 255 - mean) / std


def by_hand(visual: Any, batch: Any) -> Any:
    """(features before the projection, what the projection makes of them), step by step."""
    import torch

    if hasattr(visual, "trunk"):
        features = visual.trunk(batch)
        return features, features @ visual.head.proj.weight.T
    if hasattr(visual, "attnpool"):
        for step in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            batch = step(batch)
        pool = visual.attnpool
        tokens = batch.flatten(2).transpose(1, 2)  # (n, hw, width)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + pool.positional_embedding
        split = (len(tokens), -1, pool.num_heads, tokens.shape[2] // pool.num_heads)
        q, k, v = (layer(tokens).view(split).transpose(1, 2) for layer in (pool.q_proj, pool.k_proj, pool.v_proj))
        attention = (q[:, :, :1] @ k.transpose(2, 3) / split[3] ** 0.5).softmax(dim=-1)
        features = (attention @ v).transpose(1, 2).flatten(1)
        return features, pool.c_proj(features)
    tokens = visual.transformer(visual._embeds(batch))
    if visual.pool_type == "avg":
        features = (
            visual.ln_post(tokens[:, 1:].mean(dim=1))
            if visual.final_ln_after_pool
            else (visual.ln_post(tokens)[:, 1:].mean(dim=1))
        )
    else:
        features = visual.ln_post(tokens)[:, 0]
    return features, features @ visual.proj


@pytest.mark.parametrize("kind", KINDS)
def test_backbone_features_are_what_goes_into_the_projection(
    kind: str, models: Callable[[str], Path], pixels: npt.NDArray[np.uint8]
) -> None:
    import torch

    encoder = float_encoder(models, kind)
    network, batch = original(kind, encoder, pixels)
    with torch.inference_mode():
        features, projected = by_hand(network.visual, batch)
    rows = encoder.encode_pixels(pixels, space="backbone")
    assert rows.shape == (9, WIDTHS[kind])
    np.testing.assert_allclose(rows, unit(features), atol=2e-5)
    np.testing.assert_allclose(encoder.encode_pixels(pixels), unit(projected), atol=1e-4)
    assert rows.std(axis=0).max() > 1e-3  # 50 times the tolerance: the row of another picture would be seen


@pytest.mark.parametrize("kind", ["clip", "cnn"])
def test_projecting_the_backbone_by_hand_gives_the_embedding(
    kind: str, models: Callable[[str], Path], pixels: npt.NDArray[np.uint8]
) -> None:
    encoder = float_encoder(models, kind)
    visual = encoder._network.visual
    matrix = visual.proj if kind == "clip" else visual.head.proj.weight.T  # without a bias: lengths do not matter
    projected = encoder.encode_pixels(pixels, space="backbone") @ matrix.numpy()
    np.testing.assert_allclose(unit(projected), encoder.encode_pixels(pixels), atol=1e-5)


@pytest.mark.parametrize(
    ("vision", "width", "is_projected"),
    [
        ({"timm_pool": "avg", "timm_proj": "mlp"}, 256, True),
        ({"timm_pool": "avg", "timm_proj": None}, 256, True),  # the trunk's own classifier projects
        ({"timm_pool": "avg", "timm_proj": "none"}, 256, False),
        ({"timm_pool": "abs_attn", "timm_proj": None}, 256, True),
        ({"timm_pool": "rot_attn", "timm_proj": None}, 256, True),
        ({"timm_pool": "rot_attn", "timm_proj": "linear"}, 32, True),
        ({"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": None}, 64, True),
        ({"timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": None}, 64, True),
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()) if isinstance(value, dict) else None,
)
def test_timm_towers_lose_their_projection_wherever_it_is(
    vision: dict[str, Any], width: int, is_projected: bool
) -> None:
    import torch

    size = 160 if "timm_model_name" in vision or vision["timm_pool"] == "abs_attn" else 64
    config = {"timm_model_name": "test_efficientnet", "image_size": size, **vision}
    visual = random_network({**CONFIGS["cnn"]["model_cfg"], "vision_cfg": config}).visual
    batch = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = visual(batch)
    bare = without_projection(visual)
    features = bare(batch)
    assert features.shape == (2, width)
    torch.testing.assert_close(visual(batch), before)  # the original is as it was
    if not is_projected:
        torch.testing.assert_close(features, before)
        return
    shared = {id(parameter) for parameter in visual.parameters()}
    assert {id(parameter) for parameter in bare.parameters()} < shared
    last = [module for module in visual.modules() if isinstance(module, torch.nn.Linear)][-1]
    project = visual.head.mlp if vision["timm_proj"] == "mlp" else last
    torch.testing.assert_close(project(features), before)


def test_coca_gives_its_pooled_token_before_the_projection() -> None:
    import open_clip
    import torch

    config = open_clip.get_model_config("coca_ViT-B-32")
    config["vision_cfg"] |= {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    visual = open_clip.CoCa(
        config["embed_dim"],
        **{part: config[part] for part in ("vision_cfg", "text_cfg", "multimodal_cfg")},
    ).visual.eval()
    batch = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embedding, tokens = visual(batch)
        features, same_tokens = without_projection(visual)(batch)
        torch.testing.assert_close(features @ visual.proj, embedding)
        torch.testing.assert_close(same_tokens, tokens)


def test_a_tower_without_a_projection_is_its_own_backbone() -> None:
    visual = random_network(CONFIGS["clip"]["model_cfg"]).visual
    visual.proj = None
    assert without_projection(visual) is visual


@pytest.mark.parametrize("kind", KINDS)
def test_backbone_features_depend_neither_on_the_batch_nor_much_on_the_precision(
    kind: str, models: Callable[[str], Path], pixels: npt.NDArray[np.uint8]
) -> None:
    encoder = float_encoder(models, kind)
    together = encoder.encode_pixels(pixels, space="backbone")
    alone = np.concatenate([encoder.encode_pixels(row[None], space="backbone") for row in pixels])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    rough = load_encoder(str(models(kind)), engine="torch", device="cpu", precision="bfloat16")
    assert (rough.encode_pixels(pixels, space="backbone") * together).sum(axis=1).min() > 0.995


def test_a_fused_tower_has_the_same_backbone(models: Callable[[str], Path], pixels: npt.NDArray[np.uint8]) -> None:
    import torch

    encoder = float_encoder(models, "cnn")
    fused = encoder._network.visual
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    network, batch = original("cnn", encoder, pixels)
    with torch.inference_mode():
        np.testing.assert_allclose(
            encoder.encode_pixels(pixels, space="backbone"), unit(network.visual.trunk(batch)), atol=2e-5
        )


def test_the_batch_halves_for_the_backbone_too(
    models: Callable[[str], Path], pixels: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = float_encoder(models, "clip", batch_size=8)
    expected = encoder.encode_pixels(pixels, space="backbone")
    whole = encoder._backbone

    def small(batch: Any) -> Any:
        if len(batch) > 3:
            raise RuntimeError("not enough memory")
        return whole(batch)

    monkeypatch.setattr(encoder, "_backbone", small)
    np.testing.assert_allclose(encoder.encode_pixels(pixels, space="backbone"), expected, atol=1e-5)
    assert encoder.batch_size == 2


def test_nothing_has_the_width_of_the_backbone(models: Callable[[str], Path]) -> None:
    encoder = float_encoder(models, "cnn")
    assert encoder.encode_images([], space="backbone").shape == (0, 256)
    assert encoder.encode_images([]).shape == (0, 32)
    assert encoder.dim == 32


def test_another_space_is_refused(models: Callable[[str], Path], pixels: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ShapeError, match="'pixels', not one of projected, backbone"):
        float_encoder(models, "clip").encode_pixels(pixels, space="pixels")
