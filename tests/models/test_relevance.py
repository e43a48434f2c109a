"""Relevance is Grad-CAM: with pooling and one linear layer it is the class activation map, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipkit.errors import ModelError
from clipkit.models.attention import explain_attention, facts
from clipkit.models.openclip import OpenClipEncoder
from clipkit.models.relevance import relevance_map
from clipkit.models.vit import ViTClassifier
from tests.support.tiny_vits import make_vit


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Grey with a bright red square at the upper left."""
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[4:28, 4:28] = (250, 20, 20)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_with_pooling_and_a_linear_layer_it_is_the_class_activation_map() -> None:
    torch.manual_seed(0)
    features = torch.nn.Conv2d(3, 5, 4, stride=4)
    head = torch.nn.Linear(5, 2)
    network = torch.nn.Sequential(features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    network.requires_grad_(False)
    pixels = torch.randn(1, 3, 16, 24)
    found = relevance_map(network, pixels, lambda tensor: network(tensor)[0, 1])
    expected = torch.einsum("c,chw->hw", head.weight[1], features(pixels)[0]).clamp_min(0)
    assert found is not None
    assert found.shape == (4, 6)
    np.testing.assert_allclose(found, (expected / expected.max()).numpy(), atol=1e-6)


def test_a_network_without_a_feature_map_has_none() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    assert relevance_map(network, torch.randn(1, 3, 2, 2), lambda tensor: network(tensor)[0, 1]) is None


@pytest.mark.parametrize(("kind", "seed"), [("convnext", 1), ("swin", 0)])
def test_a_classifier_without_attention_says_what_speaks_for_its_class(
    tmp_path: Path, photo: Path, kind: str, seed: int
) -> None:
    model = ViTClassifier(make_vit(kind, tmp_path / kind, seed=seed), precision="float32")
    shown = explain_attention(model, photo)
    assert "no class token" in str(shown.reason)
    assert shown.relevance is not None
    assert shown.target == f"the class {model.predict([photo])[0]}"
    assert shown.relevance.shape == {"convnext": (2, 2), "swin": (4, 4)}[kind]
    assert (shown.relevance.min() >= 0, shown.relevance.max()) == (True, pytest.approx(1))
    assert repr(shown).endswith("relevance)")


def test_the_starter_shows_relevance_of_a_picture_and_of_a_text(photo: Path, starter: OpenClipEncoder) -> None:
    plain, red = explain_attention(starter, photo), explain_attention(starter, photo, text="a red square")
    assert (plain.target, red.target) == ("the picture's embedding", "the text 'a red square'")
    assert plain.relevance is not None
    assert red.relevance is not None
    assert red.relevance.shape == (9, 9)
    assert not np.allclose(plain.relevance, red.relevance)
    assert np.shape(facts(red)["relevance"]) == (9, 9)
    assert facts(red)["relevance of"] == "the text 'a red square'"


def test_a_text_for_a_model_that_reads_none_is_refused(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(ModelError, match="reads no text"):
        explain_attention(ViTClassifier(make_vit("vit", tmp_path / "vit")), photo, text="a cat")


@pytest.mark.parametrize("kind", ["vit", "beit"])
def test_the_last_layer_is_the_mean_of_its_heads(tmp_path: Path, photo: Path, kind: str) -> None:
    shown = explain_attention(ViTClassifier(make_vit(kind, tmp_path / kind), precision="float32"), photo)
    assert shown.last is not None
    assert [layer.shape for layer in shown.layers] == [(2, 4, 4)] * 3
    np.testing.assert_allclose(shown.of(), shown.last, atol=1e-6)
    np.testing.assert_array_equal(shown.of(layer=1, head=2), shown.layers[0][1])
    for wrong, words in (({"layer": 4}, "has 3 layers, and no layer 4"), ({"head": 0}, "has 2 heads, and no head 0")):
        with pytest.raises(ModelError, match=words):
            shown.of(**wrong)
