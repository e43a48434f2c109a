"""Encoders pickle by name: another process loads them again, and refuses other weights."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.errors import ModelError, ModelMismatch
from clipkit.models.load import load_encoder
from clipkit.models.onnx import OnnxEncoder
from clipkit.models.openclip import OpenClipEncoder

WORDS = ["a red square", "a dog"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"engine": "torch", "device": "cpu", "precision": "float32", "batch_size": 7, "exact_pixels": True},
        {"engine": "torch", "device": "cpu", "precision": "bfloat16"},
        {"engine": "onnx", "exact_pixels": True, "batch_size": 3},
        {"precision": "int8"},
    ],
    ids=str,
)
def test_an_encoder_is_loaded_again_as_it_was_asked_for(options: Any, models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), **options)
    content = pickle.dumps(encoder)
    assert len(content) < 2000  # no weights
    again = pickle.loads(content)
    assert again is not encoder
    for name in ("model", "source", "fingerprint", "engine", "precision", "dim", "recipe", "batch_size"):
        assert getattr(again, name) == getattr(encoder, name), name
    np.testing.assert_allclose(again.encode_texts(WORDS), encoder.encode_texts(WORDS), atol=1e-5)


def test_another_process_makes_the_same_embeddings(models: Callable[[str], Path], tmp_path: Path) -> None:
    encoder = load_encoder(str(models("clip")), engine="onnx")
    (tmp_path / "encoder.pickle").write_bytes(pickle.dumps(encoder))
    script = f"import pickle; print(*pickle.load(open('encoder.pickle', 'rb')).encode_texts({WORDS!r})[0][:3])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = encoder.encode_texts(WORDS)[0][:3]
    np.testing.assert_allclose([float(value) for value in done.stdout.split()], expected, atol=1e-5)


def test_other_weights_under_the_same_name_are_refused(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(models("clip"), tmp_path / "mine")
    content = pickle.dumps(load_encoder(str(folder), engine="onnx"))
    from tests.support.tiny_models import make_model

    shutil.rmtree(folder)
    make_model("clip", folder, seed=1)
    with pytest.raises(ModelMismatch, match="mine has other weights here"):
        pickle.loads(content)
    shutil.rmtree(folder)
    with pytest.raises(ModelError):
        pickle.loads(content)


def test_int8_is_not_taken_for_floating_point(models: Callable[[str], Path]) -> None:
    from clipkit.models.encoder import load_again

    plain = load_encoder(str(models("clip")), engine="onnx")
    with pytest.raises(ModelMismatch, match="is computed in float32 by onnx here"):
        load_again(
            lambda source: plain, plain.source, plain.fingerprint, plain.model_cfg_sha256, ("onnx", "int8 float32")
        )


def test_a_copy_is_the_encoder_itself(models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), engine="onnx")
    assert copy.copy(encoder) is encoder
    assert copy.deepcopy({"encoder": encoder})["encoder"] is encoder


def test_an_encoder_that_nobody_can_load_again_says_so(models: Callable[[str], Path]) -> None:
    made = load_encoder(str(models("clip")), engine="torch")
    assert isinstance(made, OpenClipEncoder)
    by_hand = OpenClipEncoder(
        made._network,
        made._tokenizer,
        weights=made.weights,
        recipe=made.recipe,
        towers=made.towers,
        batch_size=2,
    )
    with pytest.raises(ModelError, match="was not made by load_encoder") as caught:
        pickle.dumps(by_hand)
    assert "load_encoder(" in str(caught.value.hint)


def test_the_encoder_of_an_index_pickles(photos: Path, models: Callable[[str], Path]) -> None:
    import clipkit

    index = clipkit.ImageIndex.create(photos, load_encoder(str(models("clip"))))
    index.update()
    for encoder in (index.encoder, index.query_encoder):
        again = pickle.loads(pickle.dumps(encoder))
        np.testing.assert_allclose(again.encode_texts(WORDS), encoder.encode_texts(WORDS), atol=1e-3)
    assert isinstance(index.query_encoder, OnnxEncoder)
