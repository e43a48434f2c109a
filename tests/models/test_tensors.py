"""Torch tensors at the border of an encoder: its transform, pictures as tensors, embeddings as tensors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.errors import ShapeError
from clipkit.models.load import load_encoder
from clipkit.models.openclip import OpenClipEncoder


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(np.kron(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8)))


@pytest.fixture
def tiny(models: Callable[[str], Path]) -> OpenClipEncoder:
    encoder = load_encoder(str(models("clip")), engine="torch", precision="float32", exact_pixels=True)
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


def test_preprocess_is_the_transform_of_open_clip(
    tiny: OpenClipEncoder, models: Callable[[str], Path], picture: Image.Image
) -> None:
    import open_clip

    _, _, theirs = open_clip.create_model_and_transforms(f"local-dir:{models('clip')}")
    ours = tiny.preprocess(picture)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs(picture), atol=1e-5, rtol=0)


def test_preprocess_goes_to_the_workers_of_a_dataloader(tiny: OpenClipEncoder, picture: Image.Image) -> None:
    there = pickle.loads(pickle.dumps(tiny.preprocess))
    torch.testing.assert_close(there(picture), tiny.preprocess(picture))


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_tensors_are_the_pictures_they_were_made_of(
    models: Callable[[str], Path], engine: str, picture: Image.Image
) -> None:
    encoder = load_encoder(str(models("clip")), engine=engine, precision="float32")
    wanted = encoder.encode_images([picture])
    made = encoder.preprocess(picture)
    raw = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    for given in (made[None], [made], raw[None], [raw], [made.half().float()], [made.requires_grad_()]):
        np.testing.assert_allclose(encoder.encode_images(given), wanted, atol=1e-4)
    assert encoder.encode_images(torch.stack([raw, raw, raw])).shape == (3, encoder.dim)


def test_one_channel_is_grey(tiny: OpenClipEncoder) -> None:
    grey = torch.arange(0, 240, dtype=torch.uint8).reshape(1, 15, 16)
    both = tiny.encode_images([grey, grey.expand(3, -1, -1)])
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)


def test_embeddings_come_as_tensors_when_asked_for(tiny: OpenClipEncoder, picture: Image.Image) -> None:
    images, texts = tiny.encode_images([picture], as_tensor=True), tiny.encode_texts(["a", "b"], as_tensor=True)
    assert (images.dtype, images.device.type) == (torch.float32, "cpu")
    np.testing.assert_array_equal(images.numpy(), tiny.encode_images([picture]))
    assert (images @ texts.T).shape == (1, 2)


def test_a_classifier_takes_tensors_of_pictures_and_of_embeddings(tiny: OpenClipEncoder, picture: Image.Image) -> None:
    classifier = ZeroShotClassifier(tiny, ["cat", "dog"])
    wanted = classifier.predict_proba([picture])
    pixels, rows = tiny.preprocess(picture)[None], tiny.encode_images([picture], as_tensor=True)
    np.testing.assert_allclose(classifier.predict_proba(pixels), wanted, atol=1e-4)
    np.testing.assert_allclose(classifier.predict_proba(rows), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        (torch.zeros(3, 64, 64), r"a tensor of pictures is \(n, 3, h, w\), not \(3, 64, 64\)"),
        (torch.zeros(1, 3, 50, 64), r"is not \(3, 64, 64\), as the model reads"),
        (torch.zeros(1, 4, 64, 64, dtype=torch.uint8), r"a tensor of uint8 \(4, 64, 64\) is no picture"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.int64), "a tensor of int64"),
        (torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64), "from 0 to 1 is not normalised"),
        (torch.full((1, 3, 64, 64), torch.nan), "not normalised"),
    ],
)
def test_a_tensor_that_is_no_picture_is_refused(tiny: OpenClipEncoder, given: torch.Tensor, fact: str) -> None:
    with pytest.raises(ShapeError, match=fact):
        tiny.encode_images(given)
