"""Models that transformers saved, read as open_clip's: the embeddings are those of transformers itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.core.arrays import FloatArray
from clipkit.errors import ModelError
from clipkit.index.image_index import ImageIndex
from clipkit.models import conversion
from clipkit.models.load import as_open_clip, is_transformers, load_encoder, load_query_encoder
from clipkit.models.registry import canonical_name, find_weights
from clipkit.models.trainable import tunable
from clipkit.models.vit import quietly
from tests.support.saved_models import save_clip, save_siglip

TEXTS = ["a photo of a dog", "two small red boats on the lake at dawn", "cat", "A Small blue cat"]
Make = Callable[[Path], Any]
KINDS: dict[str, Make] = {
    "quick_gelu": save_clip,
    "gelu": lambda folder: save_clip(folder, act="gelu"),
    "greatest id": lambda folder: save_clip(folder, eos=2),
    "other sizes": lambda folder: save_clip(
        folder, act="gelu_pytorch_tanh", layer_norm_eps=1e-3, intermediate_size=101
    ),
    "siglip": save_siglip,
    "siglip sizes": lambda folder: save_siglip(folder, patch_size=14, intermediate_size=131, hidden_act="gelu"),
}


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (4, 8, 10, 3), dtype=np.uint8)
    return [Image.fromarray(np.kron(block, np.ones((16, 16, 1), np.uint8))) for block in blocks]


def of_transformers(network: Any, folder: Path) -> tuple[FloatArray, FloatArray]:
    """Embeddings of the pictures and of TEXTS, by transformers alone."""
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer

    is_siglip = network.config.model_type == "siglip"
    texts = [text.lower() for text in TEXTS] if is_siglip else TEXTS  # as SigLIP's own tokenizer does
    length = network.config.text_config.max_position_embeddings
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, return_tensors="pt", padding="max_length", truncation=True, max_length=length
    )
    pixels = AutoImageProcessor.from_pretrained(folder)(images=pictures(), return_tensors="pt")
    with torch.no_grad():
        rows = [network.get_image_features(**pixels), network.get_text_features(input_ids=tokens.input_ids)]
    tensors = [getattr(row, "pooler_output", row) for row in rows]
    images, words = (np.asarray(row / row.norm(dim=-1, keepdim=True), np.float32) for row in tensors)
    return images, words


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    save_clip(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    network = KINDS[kind](tmp_path / "mine")
    images, words = of_transformers(network, tmp_path / "mine")
    encoder = load_encoder(str(tmp_path / "mine"), engine="torch", precision="float32", exact_pixels=True)
    assert np.sum(encoder.encode_images(pictures()) * images, axis=1).min() >= 0.9999
    assert np.sum(encoder.encode_texts(TEXTS) * words, axis=1).min() >= 0.9999
    assert np.sum(images[0] * images[1]) < 0.99
    assert np.sum(words[0] * words[1]) < 0.99
    assert encoder.logit_scale == pytest.approx(float(network.logit_scale.detach().exp()))
    assert encoder.logit_bias == pytest.approx(float(network.state_dict().get("logit_bias", 0)))


def test_its_export_answers_like_transformers(clip: Path) -> None:
    from transformers import CLIPModel

    with quietly():
        images, words = of_transformers(CLIPModel.from_pretrained(clip).eval(), clip)
    encoder = load_encoder(str(clip), engine="onnx")
    assert encoder.engine == "onnx"
    assert np.sum(encoder.encode_images(pictures()) * images, axis=1).min() >= 0.9999
    assert np.sum(encoder.encode_texts(TEXTS) * words, axis=1).min() >= 0.9999


def test_it_is_converted_once_and_again_when_its_content_changes(clip: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    weights = find_weights(str(clip), {}, notify=lines.append)
    assert lines == [f"converting {clip} to open_clip's layout: once"]
    assert (weights.model, weights.source) == ("local:mine", str(clip))
    assert find_weights(str(clip), {}, notify=lines.append) == weights
    moved = find_weights(str(shutil.move(clip, tmp_path / "moved")), {}, notify=lines.append)
    assert (moved.file, len(lines)) == (weights.file, 1)
    save_clip(tmp_path / "moved", act="gelu")
    assert find_weights(str(tmp_path / "moved"), {}, notify=lines.append).file != weights.file
    assert len(lines) == 2


def test_only_the_last_conversions_stay(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "MOST", 1)
    first = find_weights(str(clip), {}).file
    save_clip(clip, act="gelu")
    second = find_weights(str(clip), {}).file
    assert (first.exists(), second.exists()) == (False, True)


def test_an_index_of_such_a_model_is_opened_and_asked_again(clip: Path, photos: Path, private_cache: Path) -> None:
    ImageIndex.create(photos, load_encoder(str(clip))).update()
    opened = ImageIndex.open(photos)
    path = opened.search("cat", k=1)[0].path
    shutil.rmtree(private_cache)
    again = ImageIndex.open(photos)
    assert again.search("cat", k=1)[0].path == path
    assert again.encoder.source == str(clip)
    shutil.rmtree(clip)
    with pytest.raises(ModelError):
        load_query_encoder(
            opened.encoder.fingerprint,
            "local:mine",
            str(clip),
            exact_pixels=False,
            load=lambda: load_encoder(str(clip)),
        )


def test_a_name_alone_is_the_folder_beside_it(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    assert canonical_name("mine") == "local:mine"
    assert not is_transformers("mine")


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    network = save_clip(tmp_path / "mine")
    (tmp_path / "mine" / "model.safetensors").unlink()
    with quietly():
        network.save_pretrained(tmp_path / "mine", max_shard_size="200KB")
    assert len(list((tmp_path / "mine").glob("model-*.safetensors"))) > 1
    assert find_weights(str(tmp_path / "mine"), {}).file.is_file()


def test_a_processor_that_was_saved_whole_is_read(clip: Path) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPProcessor

    wanted = load_encoder(str(clip), engine="torch", precision="float32")
    processor = CLIPProcessor(CLIPImageProcessor.from_pretrained(clip), AutoTokenizer.from_pretrained(clip))
    for name in ("preprocessor_config.json", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (clip / name).unlink()
    processor.save_pretrained(clip)
    found = load_encoder(str(clip), engine="torch", precision="float32")
    assert found.recipe == wanted.recipe
    np.testing.assert_allclose(found.encode_texts(TEXTS), wanted.encode_texts(TEXTS), atol=1e-6)


def test_a_tuned_siglip_is_saved_with_its_image_tower(tmp_path: Path) -> None:
    save_siglip(tmp_path / "mine")
    encoder = as_open_clip(load_encoder(str(tmp_path / "mine"), engine="torch", precision="float32"))
    network = tunable(encoder)
    network.save(network.body(), tmp_path / "tuned")
    tuned = load_encoder(str(tmp_path / "tuned"), engine="torch", precision="float32")
    np.testing.assert_allclose(tuned.encode_images(pictures()), encoder.encode_images(pictures()), atol=1e-5)
    np.testing.assert_allclose(tuned.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=1e-5)


def _change(file: Path, *keys: str, value: object) -> None:
    content = json.loads(file.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "keys", "value", "fact", "hint"),
    [
        ("config.json", ("architectures",), ["BlipModel"], "a BlipModel of transformers", "CLIPModel and SiglipModel"),
        ("config.json", ("architectures",), None, "config names no architecture", "CLIPModel and SiglipModel"),
        ("config.json", ("text_config", "hidden_act"), "gelu", "QuickGELU", "CLIPModel and SiglipModel"),
        ("config.json", ("vision_config", "num_channels"), 1, "quick_gelu and 1 channels", "CLIPModel and SiglipModel"),
        ("preprocessor_config.json", ("size",), {"shortest_edge": 80}, "does not resize and crop", "crop_size 64"),
        ("preprocessor_config.json", ("resample",), 0, "by bicubic or bilinear", "resample 3"),
        ("preprocessor_config.json", ("do_normalize",), False, "does not resize and crop", "resample 3"),
    ],
)
def test_what_cannot_be_converted_is_said(
    clip: Path, file: str, keys: tuple[str, ...], value: object, fact: str, hint: str
) -> None:
    _change(clip / file, *keys, value=value)
    with pytest.raises(ModelError) as caught:
        load_encoder(str(clip))
    assert fact in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("gone", "fact"),
    [
        (["preprocessor_config.json"], "has no preprocessor_config.json"),
        (["tokenizer.json", "vocab.json", "merges.txt"], "it has no tokenizer.json"),
        (["model.safetensors"], "has its weights nowhere"),
    ],
)
def test_a_missing_part_is_named(clip: Path, gone: list[str], fact: str) -> None:
    for name in gone:
        (clip / name).unlink()
    with pytest.raises(ModelError, match=fact):
        load_encoder(str(clip))


def test_weights_of_another_model_are_refused(clip: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved = load_file(clip / "model.safetensors")
    more = {**saved, "extra.weight": saved["logit_scale"].clone()}
    save_file(more, clip / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"have extra\.weight"):
        load_encoder(str(clip))
    save_file({name: saved[name] for name in saved if name != "visual_projection.weight"}, clip / "model.safetensors")
    with pytest.raises(ModelError, match=r"its weights lack visual_projection\.weight"):
        load_encoder(str(clip))
