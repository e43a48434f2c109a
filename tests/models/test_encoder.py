"""The encoder against open_clip itself, on small random models of each kind."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import clipkit
from clipkit.core.arrays import check_embeddings
from clipkit.errors import DatasetError, ImageError, ModelError, ShapeError
from clipkit.models.attention import explain_attention
from clipkit.models.encoder import encode_in_batches, encode_unique
from clipkit.models.load import load_encoder as load_any_encoder
from clipkit.models.openclip import OpenClipEncoder, causal_tower, cut, end_token, open_clip_catalogue
from clipkit.models.registry import CONFIG, PICKLE_WEIGHTS, SAFE_WEIGHTS, starter_folder
from clipkit.models.tokenizer import lengths
from tests.support.colours import ColourEncoder
from tests.support.fake_hub import serve
from tests.support.tiny_models import CONFIGS, make_model, make_tokenizer, random_network, write_weights

KINDS = sorted(CONFIGS)
TEXTS = ["a photo of a dog", "two small red boats on the lake", "dawn", "", "a photo of a dog " * 30]
Floats = npt.NDArray[np.float32]


def load_encoder(name: str, **options: Any) -> OpenClipEncoder:
    """In torch, which this file is about; tests/models/test_onnx.py has the other engine."""
    encoder = load_any_encoder(name, engine="torch", **options)
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """54 crops, upright and lying, of real photographs that come with scikit-image and scikit-learn."""
    folder = tmp_path_factory.mktemp("photographs")
    data = Path(str(importlib.import_module("skimage").__file__)).parent / "data"
    samples = Path(str(importlib.import_module("sklearn.datasets").__file__)).parent / "images"
    names = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"]
    files = []
    for source in [*(data / name for name in names), samples / "china.jpg", samples / "flower.jpg"]:
        image = Image.open(source).convert("RGB")
        for x, y in itertools.product((0, 0.5, 1), repeat=2):  # where the crop lies in what is left over
            width, height = ((0.7, 0.45), (0.4, 0.8))[len(files) % 2]
            left, top = x * (1 - width) * image.width, y * (1 - height) * image.height
            files.append(folder / f"{len(files):02}.jpg")
            box = (left, top, left + width * image.width, top + height * image.height)
            image.crop(box).save(files[-1], quality=92)
    return files


@pytest.fixture(scope="session")
def reference(models: Callable[[str], Path], photographs: list[Path]) -> Callable[[str], tuple[Floats, Floats]]:
    """What open_clip's README makes of the photographs and the texts, by kind."""
    made: dict[str, tuple[Floats, Floats]] = {}
    return lambda kind: made.get(kind) or made.setdefault(kind, readme(f"local-dir:{models(kind)}", photographs))


def readme(name: str, files: list[Path], texts: list[str] = TEXTS, **options: Any) -> tuple[Floats, Floats]:
    """The snippet of open_clip's README, word for word but for the batch."""
    import open_clip
    import torch

    model, _, preprocess = open_clip.create_model_and_transforms(name, **options)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    image = torch.stack([preprocess(Image.open(file)) for file in files])
    text = tokenizer(texts)
    with torch.no_grad():
        image_features = model.encode_image(image)
        text_features = model.encode_text(text)
        image_features /= image_features.norm(dim=-1, keepdim=True)
        text_features /= text_features.norm(dim=-1, keepdim=True)
    return image_features.numpy(), text_features.numpy()


def agreement(ours: Floats, theirs: Floats) -> float:
    """The smallest cosine of a pair after the mean is taken off: what all pictures share says nothing."""
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return float(cosines.min())


# --- agreement with open_clip ---


@pytest.mark.parametrize("kind", KINDS)
def test_exact_pixels_in_float32_are_what_open_clip_gives(
    kind: str, models: Callable[[str], Path], reference: Callable[..., Any], photographs: list[Path]
) -> None:
    encoder = load_encoder(str(models(kind)), device="cpu", precision="float32", exact_pixels=True)
    images, texts = reference(kind)
    assert len(photographs) >= 50
    assert agreement(encoder.encode_images(photographs), images) >= 0.9999
    assert agreement(encoder.encode_texts(TEXTS), texts) >= 0.9999


@pytest.mark.parametrize("kind", KINDS)
def test_default_pixels_and_precision_stay_close_to_open_clip(
    kind: str, models: Callable[[str], Path], reference: Callable[..., Any], photographs: list[Path]
) -> None:
    encoder = load_encoder(str(models(kind)), device="cpu")
    images, texts = reference(kind)
    assert agreement(encoder.encode_images(photographs), images) >= 0.99
    assert agreement(encoder.encode_texts(TEXTS), texts) >= 0.99


MUTANTS: dict[str, dict[str, Any]] = {
    "crop": {"resize_mode": "squash"},
    "mean": {"mean": (0.5, 0.5, 0.5)},
    "std": {"std": (0.5, 0.5, 0.5)},
    "interpolation": {"interpolation": "bilinear"},
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_agreement_fails_for_wrong_pixels(
    mutant: str, models: Callable[[str], Path], reference: Callable[..., Any], photographs: list[Path]
) -> None:
    encoder = load_encoder(str(models("clip")), device="cpu", precision="float32", exact_pixels=True)
    encoder.recipe = dataclasses.replace(encoder.recipe, **MUTANTS[mutant])
    assert agreement(encoder.encode_images(photographs), reference("clip")[0]) < 0.9999


def test_the_agreement_fails_for_gelu_in_place_of_quickgelu(
    models: Callable[[str], Path], reference: Callable[..., Any], photographs: list[Path], tmp_path: Path
) -> None:
    config = json.loads((models("quickgelu") / CONFIG).read_text())
    del config["model_cfg"]["quick_gelu"]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / SAFE_WEIGHTS).symlink_to(models("quickgelu") / SAFE_WEIGHTS)
    encoder = load_encoder(str(tmp_path), device="cpu", precision="float32", exact_pixels=True)
    assert agreement(encoder.encode_images(photographs), reference("quickgelu")[0]) < 0.9999


@pytest.mark.slow
def test_the_starter_agrees_with_open_clip(photographs: list[Path], starter: OpenClipEncoder) -> None:
    images, texts = readme(f"local-dir:{starter_folder()}", photographs)
    exact = load_encoder("starter", device="cpu", precision="float32", exact_pixels=True)
    assert exact.model == "starter"
    assert agreement(exact.encode_images(photographs), images) >= 0.9999
    assert agreement(exact.encode_texts(TEXTS), texts) >= 0.9999
    assert agreement(starter.encode_images(photographs), images) >= 0.99
    assert agreement(starter.encode_texts(TEXTS), texts) >= 0.99


# --- pictures ---


@pytest.fixture(scope="session")
def encoder(models: Callable[[str], Path]) -> OpenClipEncoder:
    return load_encoder(str(models("clip")), device="cpu", precision="float32", batch_size=4)


@pytest.fixture(params=KINDS)
def any_encoder(request: pytest.FixtureRequest, models: Callable[[str], Path]) -> OpenClipEncoder:
    return load_encoder(str(models(request.param)), device="cpu", precision="float32", batch_size=4)


def test_embeddings_do_not_depend_on_the_batch(any_encoder: OpenClipEncoder, photographs: list[Path]) -> None:
    together = any_encoder.encode_images(photographs[:7])
    alone = np.concatenate([any_encoder.encode_images([file]) for file in photographs[:7]])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_files_images_and_arrays_of_the_same_pixels_are_the_same(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(rows).save(tmp_path / "noise.png")
    rows.setflags(write=False)
    sources = [tmp_path / "noise.png", str(tmp_path / "noise.png"), Image.fromarray(rows), rows]
    for embedding in encoder.encode_images(sources):
        np.testing.assert_allclose(embedding, encoder.encode_images(sources[:1])[0], atol=1e-6)


def test_a_bad_picture_is_named(encoder: OpenClipEncoder, photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        encoder.encode_images([photographs[0], tmp_path / "bad.jpg", photographs[1]])


def test_pixels_of_another_size_or_type_are_refused(encoder: OpenClipEncoder) -> None:
    for pixels in (np.zeros((2, 3, 32, 32), np.uint8), np.zeros((2, 3, 64, 64), np.float32)):
        with pytest.raises(ShapeError, match=r"reads uint8 \(n, 3, 64, 64\)"):
            encoder.encode_pixels(pixels)  # type: ignore[arg-type]  # that is the point


def test_nothing_gives_no_rows_of_the_right_width(encoder: OpenClipEncoder) -> None:
    assert encoder.dim == 32
    for empty in (
        encoder.encode_images([]),
        encoder.encode_texts([]),
        encoder.encode_pixels(np.zeros((0, 3, 64, 64), np.uint8)),
    ):
        assert empty.shape == (0, 32)
        assert empty.dtype == np.float32


def test_one_item_that_is_no_list_is_refused(encoder: OpenClipEncoder) -> None:
    with pytest.raises(ShapeError, match="list of texts"):
        encoder.encode_texts("dog")
    with pytest.raises(ShapeError, match="list of pictures"):
        encoder.encode_images("dog.jpg")


# --- texts ---


def test_texts_come_back_in_order_and_equal_ones_are_encoded_once(
    any_encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["dawn", "two small red boats on the lake at dawn", "a dog", "dawn", "a", "a photo of a cat", "a dog"]
    alone = np.concatenate([any_encoder.encode_texts([text]) for text in texts])
    seen: list[str] = []
    tokenizer = any_encoder._tokenizer
    monkeypatch.setattr(any_encoder, "_tokenizer", lambda some: seen.extend(some) or tokenizer(some))
    np.testing.assert_allclose(any_encoder.encode_texts(texts), alone, atol=1e-3)
    assert len(seen) == len(set(texts))


@pytest.mark.parametrize("kind", KINDS)
def test_only_causal_text_towers_are_cut(kind: str, models: Callable[[str], Path]) -> None:
    tower = causal_tower(load_encoder(str(models(kind)))._network)
    assert (tower is None) == (kind == "siglip")


@pytest.mark.parametrize("kind", ["clip", "cnn"])
def test_a_cut_text_tower_gives_what_the_full_one_gives(kind: str, models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models(kind)), device="cpu", precision="float32")
    texts = ["a dog", "!", "", "two small red boats on the lake", "a photo of a dog " * 30]
    short = encoder.encode_texts(texts)
    assert encoder._causal_tower is not None
    encoder._causal_tower = None
    np.testing.assert_allclose(short, encoder.encode_texts(texts), atol=1e-5)


def test_a_tower_whose_cut_differs_is_used_in_full(models: Callable[[str], Path], monkeypatch: Any) -> None:
    full = load_encoder(str(models("clip")), device="cpu", precision="float32").encode_texts(TEXTS)

    def cut_too_much(tower: Any, length: int) -> Any:
        short = cut(tower, length)
        short._parameters["positional_embedding"] = tower.positional_embedding[1 : length + 1] * 100
        return short

    monkeypatch.setattr("clipkit.models.openclip.cut", cut_too_much)
    careful = load_encoder(str(models("clip")), device="cpu", precision="float32")
    assert careful._causal_tower is None
    np.testing.assert_allclose(careful.encode_texts(TEXTS), full, atol=1e-5)


def test_the_length_of_a_text_ends_with_its_end_token(encoder: OpenClipEncoder) -> None:
    tokens = encoder._tokenizer(["!", "", "a dog", "dog " * 100])  # "!" is token 0 or 256, and 0 is padding too
    assert lengths(tokens.numpy(), end_token(encoder._causal_tower)).tolist() == [3, 2, 4, 77]
    assert lengths(tokens.numpy(), end_token(None)).tolist() == [77] * 4


def test_threads_get_what_one_thread_gets(any_encoder: OpenClipEncoder, photographs: list[Path]) -> None:
    texts = [f"a photo of {n} boats" + " at dawn" * n for n in range(8)]
    expected = any_encoder.encode_texts(texts), any_encoder.encode_images(photographs[:4])
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(3):
            order = np.random.default_rng(n).permutation(8)
            found = any_encoder.encode_texts([texts[i] for i in order])
            if not np.allclose(found, expected[0][order], atol=1e-3):
                wrong.append(n)
        if not np.allclose(any_encoder.encode_images(photographs[:4]), expected[1], atol=1e-3):
            wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- memory ---


def _fails_above(limit: int, encode: Callable[[Any], Any], error: Exception) -> Callable[[Any], Any]:
    def encode_image(batch: Any) -> Any:
        if len(batch) > limit:
            raise error
        return encode(batch)

    return encode_image


def test_the_batch_halves_when_memory_runs_out_and_nothing_is_lost(
    models: Callable[[str], Path], photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    errors = (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    )
    for error in errors:
        lines: list[str] = []
        encoder = load_encoder(
            str(models("clip")), device="cpu", precision="float32", batch_size=16, notify=lines.append
        )
        expected = encoder.encode_images(photographs[:20])
        network = encoder._network
        monkeypatch.setattr(network, "encode_image", _fails_above(5, network.encode_image, error))
        np.testing.assert_allclose(encoder.encode_images(photographs[:20]), expected, atol=1e-3)
        assert encoder.batch_size == 4
        assert lines == [f"out of memory with {n} at a time: going on with {n // 2}" for n in (16, 8)]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("variable", "calls"), [("MALLOC_ARENA_MAX", 0), ("OTHER", 2)])
def test_freed_memory_is_kept_unless_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, variable: str, calls: int
) -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(variable, "1")
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=lambda *what: asked.append(what)))
    load_encoder("starter", device="cpu")
    assert len(asked) == calls


@pytest.mark.parametrize(("model", "batch_size", "most"), [("clip", None, 18), ("starter", None, 4), ("clip", 16, 16)])
def test_a_cpu_takes_as_many_pictures_at_once_as_its_widest_layer_bears_unless_told(
    models: Callable[[str], Path],
    photographs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    batch_size: int | None,
    most: int,
) -> None:
    source = model if model == "starter" else str(models(model))
    encoder = load_encoder(source, device="cpu", batch_size=batch_size)
    sizes: list[int] = []
    encode = encoder._network.encode_image
    encoder.encode_images(photographs[:1])  # which looks at the layers
    monkeypatch.setattr(encoder._network, "encode_image", lambda x: (sizes.append(len(x)), encode(x))[1])
    assert len(encoder.encode_images(photographs[:18])) == 18
    assert max(sizes) == most
    assert sum(sizes) == 18


def test_one_picture_that_does_not_fit_is_an_error(
    models: Callable[[str], Path], photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(models("clip")), device="cpu", batch_size=3)
    monkeypatch.setattr(encoder._network, "encode_image", _fails_above(0, print, RuntimeError("not enough memory")))
    with pytest.raises(ModelError, match="does not fit into memory"):
        encoder.encode_images(photographs[:3])


def test_other_errors_of_torch_are_not_taken_for_full_memory(
    models: Callable[[str], Path], photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(models("clip")), device="cpu")
    monkeypatch.setattr(encoder._network, "encode_image", _fails_above(0, print, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        encoder.encode_images(photographs[:1])


# --- what is refused ---


def _changed(source: Path, folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """A copy of a model after `change(config, weights)`."""
    from safetensors.torch import load_file, save_file

    config, weights = json.loads((source / CONFIG).read_text()), load_file(source / SAFE_WEIGHTS)
    change(config, weights)
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(weights, folder / SAFE_WEIGHTS)
    return folder


def test_weights_with_a_nan_are_refused(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = _changed(
        models("clip"), tmp_path, lambda _, weights: weights["visual.proj"].view(-1)[7:8].fill_(float("nan"))
    )
    with pytest.raises(ModelError, match="NaN or infinite"):
        load_encoder(str(folder))


def test_weights_of_another_resolution_are_refused_and_not_stretched(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = _changed(
        models("clip"), tmp_path, lambda config, _: config["model_cfg"]["vision_cfg"].update(image_size=96)
    )
    with pytest.raises(
        ModelError, match=r"the weights have 17 positions in visual\.positional_embedding, the config 37"
    ):
        load_encoder(str(folder))


def test_an_image_tower_of_another_size_than_the_config_says_is_refused(tmp_path: Path) -> None:
    config = json.loads(json.dumps(CONFIGS["cnn"]))
    config["model_cfg"]["vision_cfg"] = {"timm_model_name": "test_vit", "image_size": 64, "timm_pool": "token"}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    write_weights(tmp_path / SAFE_WEIGHTS, random_network(config["model_cfg"]))
    with pytest.raises(ModelError, match="says 64x64 pixels, but its image tower reads 160x160"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda config, _: config["model_cfg"].update(embed_dim=48),
        lambda config, _: config["model_cfg"].update(vision_cfg={"unheard_of": 1}),
        lambda config, _: config.pop("model_cfg"),
        lambda _, weights: weights.pop("visual.proj"),
        lambda config, _: config["preprocess_cfg"].update(interpolation="nearest"),
    ],
)
def test_a_config_that_does_not_fit_is_an_error_with_the_models_name(
    change: Any, models: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"local:{tmp_path.name}"):
        load_encoder(str(_changed(models("clip"), tmp_path, change)))


def test_a_damaged_file_is_an_error(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = _changed(models("clip"), tmp_path, lambda *_: None)
    with open(folder / SAFE_WEIGHTS, "r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_encoder(str(folder))


def test_an_allowed_pickle_is_loaded_without_running_its_code(models: Callable[[str], Path], tmp_path: Path) -> None:
    import pickle

    import torch

    harmless, evil = tmp_path / "harmless", tmp_path / "evil"
    for folder in (harmless, evil):
        folder.mkdir()
        (folder / CONFIG).write_text((models("clip") / CONFIG).read_text())
    torch.save(random_network(CONFIGS["clip"]["model_cfg"]).state_dict(), harmless / PICKLE_WEIGHTS)
    with pytest.raises(ModelError, match="only as a pickle"):
        load_encoder(str(harmless))
    loaded = load_encoder(str(harmless), allow_pickle=True, device="cpu", precision="float32")
    safe = load_encoder(str(models("clip")), device="cpu", precision="float32")
    np.testing.assert_allclose(loaded.encode_texts(TEXTS), safe.encode_texts(TEXTS), atol=1e-6)

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    (evil / PICKLE_WEIGHTS).write_bytes(pickle.dumps({"a": Bomb()}, protocol=2))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_encoder(str(evil), allow_pickle=True)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision float16 does not go with cpu"),
        ({"precision": "int8"}, "precision int8 does not go with cpu"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"device": "cuda:77"}, "no device 'cuda:77'"),
        ({"batch_size": 0}, "a batch of 0"),
    ],
)
def test_impossible_options_are_refused(options: Any, message: str, models: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=message):
        load_encoder(str(models("clip")), **{"device": "cpu", **options})


def test_precision_is_chosen_by_tower(models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for has_bfloat16, transformer in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("clipkit.models.devices.has_fast_bfloat16", lambda has=has_bfloat16: has)
        clip, cnn = (load_encoder(str(models(kind)), device="cpu").towers for kind in ("clip", "cnn"))
        assert (clip.image, clip.text, clip.channels_last) == (transformer, transformer, False)
        assert (cnn.image, cnn.text, cnn.channels_last) == (torch.float32, transformer, True)


def test_logits_are_open_clips(models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("siglip")), device="cpu")
    assert encoder.logit_scale == pytest.approx(1 / 0.07)
    assert encoder.logit_bias == -10
    assert load_encoder(str(models("clip")), device="cpu").logit_bias == 0


# --- check_embeddings ---


def test_embeddings_that_are_right_pass_as_contiguous_float32() -> None:
    rows = np.eye(4, dtype=np.float64)[:, ::-1]
    checked = check_embeddings(rows, 4)
    assert checked.dtype == np.float32
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, rows)
    assert check_embeddings(np.empty((0, 4)), 4).shape == (0, 4)
    half = np.random.default_rng(0).normal(size=(100, 512))
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    check_embeddings(half.astype(np.float16), 512)


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 2])
def test_a_wrong_row_is_named(value: float) -> None:
    rows = np.eye(4, dtype=np.float32)
    rows[2, 2] = value
    with pytest.raises(ShapeError, match="embedding 2 of 4"):
        check_embeddings(rows, 4)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (1, 4, 4)])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="are not"):
        check_embeddings(np.ones(shape, np.float32), 4)


# --- open_clip's names, through the hub ---


def test_the_catalogue_says_what_open_clip_says() -> None:
    catalogue = open_clip_catalogue()
    openai, siglip = catalogue["ViT-B-32"]["openai"], catalogue["ViT-B-16-SigLIP-256"]["webli"]
    assert (openai.repo, openai.file, openai.quick_gelu) == ("timm/vit_base_patch32_clip_224.openai", "", True)
    assert (siglip.mean, siglip.resize_mode, siglip.quick_gelu) == ((0.5, 0.5, 0.5), "squash", False)
    assert catalogue["ViTamin-S"]["datacomp1b"].file == "pytorch_model.bin"


LOAD = """
import sys, json, numpy as np
from clipkit.models.load import load_encoder
for name, out in json.loads(sys.argv[1]).items():
    lines = []
    encoder = load_encoder(name, device="cpu", precision="float32", exact_pixels=True, notify=lines.append)
    images, texts = encoder.encode_images(sys.argv[2:]), encoder.encode_texts(["a photo of a dog"])
    np.savez(out, images=images, texts=texts)
    print(json.dumps({"model": encoder.model, "dim": encoder.dim, "recipe": str(encoder.recipe), "lines": lines}))
    del encoder
"""


def load_in_a_process(
    names: Sequence[str], folder: Path, files: list[Path], environment: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """By name; a fresh process, because huggingface_hub reads its environment once."""
    outs = {name: str(folder / f"{number}.npz") for number, name in enumerate(names)}
    command = [sys.executable, "-W", "error::UserWarning", "-c", LOAD, json.dumps(outs), *map(str, files)]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    return {name: {**record, **np.load(outs[name])} for name, record in zip(names, records, strict=True)}


def test_a_model_of_the_hub_loads_with_its_tokenizer_and_then_without_the_hub(
    models: Callable[[str], Path], photographs: list[Path], tmp_path: Path
) -> None:
    make_model("siglip", tmp_path / "served/org/tiny")
    for file in (tmp_path / "served/org/tiny").glob("*token*"):
        file.unlink()  # open_clip looks for the tokenizer in the repository that the config names
    (tmp_path / "served/nobody/siglip-words").mkdir(parents=True)
    make_tokenizer(tmp_path / "served/nobody/siglip-words")
    with serve(tmp_path / "served") as hub:
        environment = hub.environment(tmp_path / "home")
        (first,) = load_in_a_process(["hf-hub:org/tiny"], tmp_path, photographs[:2], environment).values()
        assert hub.requests
        hub.requests.clear()
        (second,) = load_in_a_process(["hf-hub:org/tiny"], tmp_path, photographs[:2], environment).values()
        assert hub.requests == []
    images, texts = readme(f"local-dir:{models('siglip')}", photographs[:2], ["a photo of a dog"])
    for found in (first, second):
        assert found["model"] == "hf-hub:org/tiny"
        np.testing.assert_allclose(found["images"], images, atol=1e-4)
        np.testing.assert_allclose(found["texts"], texts, atol=1e-4)


@pytest.mark.slow
def test_a_text_tower_of_transformers_gets_its_config_and_tokenizer_from_the_hub(
    photographs: list[Path], tmp_path: Path
) -> None:
    import open_clip
    from transformers import RobertaConfig

    model, tower = tmp_path / "served/org/model", tmp_path / "served/org/tower"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    RobertaConfig(vocab_size=64, max_position_embeddings=90, pad_token_id=1, **sizes).save_pretrained(tower)
    make_tokenizer(tower)
    config = json.loads(json.dumps(CONFIGS["clip"]))
    text = {"hf_model_name": "org/tower", "hf_tokenizer_name": "org/tower", "hf_pooler_type": "mean_pooler"}
    config["model_cfg"]["text_cfg"] = text
    model.mkdir()
    (model / CONFIG).write_text(json.dumps(config))
    local = {**text, "hf_model_name": str(tower), "hf_model_pretrained": False}
    network = open_clip.CustomTextCLIP(32, config["model_cfg"]["vision_cfg"], local).eval()
    write_weights(model / SAFE_WEIGHTS, network)
    with serve(tmp_path / "served") as hub:
        environment = hub.environment(tmp_path / "home")
        (found,) = load_in_a_process(["hf-hub:org/model"], tmp_path, photographs[:1], environment).values()
    tokens = open_clip.tokenizer.HFTokenizer(str(tower), context_length=77)(["a photo of a dog"])
    expected = network.encode_text(tokens, normalize=True).detach().numpy()
    np.testing.assert_allclose(found["texts"], expected, atol=1e-4)


FULL_SIZE = {
    "ViT-B-32/laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "ViT-B-32/openai": "timm/vit_base_patch32_clip_224.openai",
    "ViT-B-16-SigLIP/webli": "timm/ViT-B-16-SigLIP",
}


@pytest.fixture(scope="module")
def full_size(
    photographs: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """The folder of a hub with all of FULL_SIZE, and what one process that loaded each by its name has found.

    The two ViT-B-32 have the same random weights: only their configs differ.
    """
    root = tmp_path_factory.mktemp("full-size")
    written: dict[str, Path] = {}
    for name, repo in FULL_SIZE.items():
        architecture, folder = name.partition("/")[0], root / "served" / repo
        folder.mkdir(parents=True)
        if architecture in written:
            os.link(written[architecture], folder / SAFE_WEIGHTS)
        else:
            written[architecture] = folder / SAFE_WEIGHTS
            write_weights(folder / SAFE_WEIGHTS, random_network(architecture))
        make_tokenizer(folder, vocab_size=32_000)
    with serve(root / "served") as hub:
        environment = hub.environment(root / "home")
        yield root / "served", load_in_a_process(tuple(FULL_SIZE), root, photographs[:3], environment)
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_full_size_model_loads_by_its_open_clip_name_and_agrees(
    name: str, photographs: list[Path], full_size: tuple[Path, dict[str, dict[str, Any]]]
) -> None:
    import open_clip

    folder, found = full_size[0] / FULL_SIZE[name], full_size[1][name]
    architecture, tag = name.split("/")
    quick = {"force_quick_gelu": True} if tag == "openai" else {}
    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    pixels = {f"image_{key}": pretrained[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    images, texts = _readme_of_a_file(architecture, folder, photographs[:3], {**pixels, **quick})
    assert found["model"] == name
    np.testing.assert_allclose(found["images"], images, atol=1e-4)
    np.testing.assert_allclose(found["texts"], texts, atol=1e-4)
    if quick:  # would GELU have been noticed? The other name has it, over the same weights and pixels
        gelu = full_size[1]["ViT-B-32/laion2b_s34b_b79k"]
        assert found["recipe"] == gelu["recipe"]
        assert np.abs(found["images"] - gelu["images"]).max() > 1e-3


def _readme_of_a_file(architecture: str, folder: Path, files: list[Path], options: dict[str, Any]) -> Any:
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    with pytest.MonkeyPatch.context() as patch:
        if "SigLIP" in architecture:
            tokenizer = HFTokenizer(str(folder), context_length=64, clean="canonicalize")
            patch.setattr(open_clip, "get_tokenizer", lambda _: tokenizer)
        return readme(architecture, files, ["a photo of a dog"], pretrained=str(folder / SAFE_WEIGHTS), **options)


def test_what_is_no_list_of_pictures_or_texts_gets_a_sentence() -> None:
    encoder = ColourEncoder()
    picture = Image.new("RGB", (4, 4))
    for given in (picture, (picture for _ in range(2))):
        with pytest.raises(ShapeError, match="takes a list of pictures, and this is one"):
            encode_in_batches(encoder, given, "projected")  # type: ignore[arg-type]
    for wrong, kind in ((None, "NoneType"), ((picture, 0), "tuple")):
        with pytest.raises(ImageError, match=f"a {kind} is no picture") as caught:
            encode_in_batches(encoder, [wrong], "projected")
        assert "DATASET.files" in str(caught.value.hint)
    for texts in ([1], [None], ["a", None], (text for text in "ab")):
        with pytest.raises(ShapeError, match="takes a list of texts, each a str"):
            encode_unique(encoder, texts, encoder.encode_texts)  # type: ignore[arg-type]


def test_a_model_is_named_by_a_path_too_and_a_name_is_no_model(models: Callable[[str], Path]) -> None:
    assert load_any_encoder(models("clip"), engine="torch").dim == 32
    with pytest.raises(ModelError, match="None is no name of a model"):
        load_any_encoder(None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="'starter' is a name, and no model") as caught:
        explain_attention("starter", "cat.jpg")  # type: ignore[arg-type]
    assert caught.value.hint == "clipkit.models.load_model('starter') loads it"


def test_a_name_is_no_model_and_a_folder_no_dataset(tmp_path: Path, encoder: ColourEncoder) -> None:
    with pytest.raises(ModelError, match="'starter' is a name, and no model") as refused:
        clipkit.compare(tmp_path, "starter")  # type: ignore[arg-type]
    assert refused.value.hint == "clipkit.load_encoder('starter') loads it"
    with pytest.raises(DatasetError, match="is no dataset"):
        clipkit.finetune(encoder, str(tmp_path))  # type: ignore[arg-type]
