"""Classifiers of transformers: the same logits as the library's own, from files of any size, or a clear refusal."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipkit.errors import ImageError, ModelError, NotFittedError, ShapeError
from clipkit.images.decode import decode, from_image, read_header
from clipkit.images.recipe import Picture, PixelRecipe
from clipkit.models.vit import ViTClassifier, read_whole
from tests.support.tiny_vits import KINDS, LABELS, make_processor, make_vit


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Noise of three sizes."""
    rng = np.random.default_rng(0)
    files = []
    for number, size in enumerate([(40, 60), (90, 33), (32, 32)]):
        file = tmp_path / f"{number}.png"
        small = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        small.resize(size[::-1]).save(file)
        files.append(str(file))
    return files


def logits_of_transformers(folder: Path, files: list[str]) -> np.ndarray:
    """As its documentation says: processor, network, no pipeline, one picture at a time."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor: Any = AutoImageProcessor
    made = processor.from_pretrained(folder)
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        rows = [network(**made(images=Image.open(file).convert("RGB"), return_tensors="pt")).logits for file in files]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(tmp_path: Path, photos: list[str], kind: str) -> None:
    folder = make_vit(kind, tmp_path / kind)
    classifier = ViTClassifier(folder, precision="float32")
    expected = logits_of_transformers(folder, photos)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(classifier.logits(photos), expected, rtol=0, atol=1e-5)
    assert classifier.predict(photos).tolist() == [LABELS[i] for i in expected.argmax(axis=1)]


def test_files_pictures_and_arrays_are_read_alike(tmp_path: Path, photos: list[str]) -> None:
    classifier = ViTClassifier(make_vit("vit", tmp_path / "vit"), precision="float32")
    images = [Image.open(file) for file in photos]
    arrays = [np.asarray(image) for image in images]
    expected = classifier.logits(photos)
    np.testing.assert_array_equal(classifier.logits(images), expected)
    np.testing.assert_array_equal(classifier.logits(arrays), expected)
    np.testing.assert_array_equal(classifier.logits([Path(file) for file in photos]), expected)


def test_a_batch_in_pieces_is_the_batch(tmp_path: Path, photos: list[str]) -> None:
    classifier = ViTClassifier(make_vit("vit", tmp_path / "vit"), precision="float32")
    expected = classifier.logits(photos)
    classifier.batch_size = 2
    np.testing.assert_allclose(classifier.logits(photos), expected, atol=1e-6)
    assert classifier.logits([]).shape == (0, 3)


def test_probabilities_are_the_softmax_of_the_logits_and_top_k_is_their_order(
    tmp_path: Path, photos: list[str]
) -> None:
    classifier = ViTClassifier(make_vit("vit", tmp_path / "vit"), precision="float32")
    table = classifier.predict_proba(photos)
    np.testing.assert_allclose(table, torch.from_numpy(classifier.logits(photos)).softmax(dim=1), atol=1e-6)
    best = classifier.top_k(photos, 2)
    for row, answers in zip(table, best, strict=True):
        order = np.argsort(-row)[:2]
        assert [answer.label for answer in answers] == [LABELS[i] for i in order]
        assert [answer.probability for answer in answers] == pytest.approx(row[order].tolist())
    assert len(classifier.top_k(photos, 9)[0]) == 3


def test_a_model_of_several_labels_a_picture_answers_each_by_a_sigmoid(tmp_path: Path, photos: list[str]) -> None:
    folder = make_vit("vit", tmp_path / "vit", problem_type="multi_label_classification")
    classifier = ViTClassifier(folder, precision="float32")
    expected = torch.from_numpy(classifier.logits(photos)).sigmoid()
    np.testing.assert_allclose(classifier.predict_proba(photos), expected, atol=1e-6)


def test_pictures_are_read_upright_and_whole(tmp_path: Path) -> None:
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by a quarter
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_whole(tmp_path / "turned.png"), np.rot90(stored, -1))
    assert np.array_equal(read_whole(stored), stored)


def read_in_two_passes(picture: object) -> np.ndarray:
    """The pixels by way of the recipe of the picture's own size, which an earlier decode tells."""

    def read(recipe: PixelRecipe) -> Picture:
        if isinstance(picture, Path):
            return decode(picture.read_bytes(), recipe, name="it")
        return from_image(picture, recipe)  # type: ignore[arg-type]

    half = (0.5, 0.5, 0.5)
    small = read(PixelRecipe((8, 8), half, half, resize_mode="squash"))
    whole = read(PixelRecipe((small.height, small.width), half, half, resize_mode="squash", exact=True))
    return whole.pixels.transpose(1, 2, 0)


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        *(("jpg", mode) for mode in ("RGB", "L", "CMYK")),
        ("webp", "RGBA"),
        ("tif", "RGB"),
        ("gif", "P"),
    ],
)
def test_a_picture_is_decoded_once_to_the_pixels_of_the_exact_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, mode: str, orientation: int
) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (90, 130, 4), dtype=np.uint8))
    image = Image.fromarray(rng.integers(0, 65536, (90, 130), dtype=np.uint16)) if mode == "I;16" else image
    image = image if image.mode == mode else image.convert("RGB").convert(mode) if mode != "RGBA" else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"picture.{suffix}"
    image.save(file, **({} if suffix == "gif" else {"exif": exif}))
    expected = read_in_two_passes(file)
    in_memory = read_in_two_passes(image)
    monkeypatch.setenv("CLIPKIT_UNGUARDED", "1")  # what is patched here is not patched in another process
    headers = []
    monkeypatch.setattr("clipkit.images.decode.read_header", lambda *given: headers.append(1) or read_header(*given))
    assert np.array_equal(read_whole(file), expected)
    assert len(headers) == 1
    assert np.array_equal(read_whole(image), in_memory)


def test_a_jpeg_of_too_many_scans_or_pixels_is_refused_whole_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPKIT_UNGUARDED", "1")  # what is patched here is not patched in another process
    Image.new("RGB", (64, 64)).save(tmp_path / "scans.jpg", progressive=True)
    with monkeypatch.context() as patch:
        patch.setattr("clipkit.images.decode.MAX_SCANS", 1)
        with pytest.raises(ImageError, match="scans"):
            read_whole(tmp_path / "scans.jpg")
    monkeypatch.setattr("clipkit.images.decode.MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="64 x 64"):
        read_whole(tmp_path / "scans.jpg")


def test_a_hostile_file_is_refused_by_name(tmp_path: Path, photos: list[str]) -> None:
    classifier = ViTClassifier(make_vit("vit", tmp_path / "vit"))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        classifier.predict([*photos, str(bad)])


def test_one_picture_instead_of_a_list_is_an_error(tmp_path: Path, photos: list[str]) -> None:
    classifier, picture = ViTClassifier(make_vit("vit", tmp_path / "vit")), Image.new("RGB", (4, 4))
    for given in (photos[0], Path(photos[0]), picture, np.asarray(picture), (one for one in photos)):
        for ask in (classifier.predict, classifier.predict_proba, classifier.top_k):
            with pytest.raises(ShapeError, match="takes a list of pictures") as caught:
                ask(given)  # type: ignore[operator]
            assert "list" in str(caught.value.hint)
    assert classifier.predict([picture]).shape == classifier.predict(np.asarray(picture)[None]).shape == (1,)


def test_the_revision_of_a_folder_is_the_digest_of_its_weights(tmp_path: Path) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    classifier = ViTClassifier(folder, revision=digest)
    assert classifier.revision == classifier.fingerprint == digest
    assert classifier.model == "local:vit"
    with pytest.raises(ModelError, match="other weights"):
        ViTClassifier(folder, revision="0" * 64)


def test_a_revision_of_the_hub_is_pinned_to_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--somebody--tiny"
    make_vit("vit", repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    classifier = ViTClassifier("somebody/tiny")
    assert (classifier.model, classifier.revision) == ("somebody/tiny", commit)
    assert ViTClassifier("somebody/tiny", revision=commit).revision == commit


def test_a_model_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(ModelError, match="not on this disk") as caught:
        ViTClassifier("google/vit-base-patch16-224")
    assert "hf download google/vit-base-patch16-224" in str(caught.value.hint)


def test_weights_as_a_pickle_are_refused(tmp_path: Path) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        ViTClassifier(folder)


@pytest.mark.parametrize(
    ("file", "words"), [("config.json", "no config.json"), ("preprocessor_config.json", "no preprocessor_config.json")]
)
def test_a_folder_that_lacks_a_file_says_which(tmp_path: Path, file: str, words: str) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    (folder / file).unlink()
    with pytest.raises(ModelError, match=words):
        ViTClassifier(folder)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_damaged_folder_is_an_error_that_names_it(tmp_path: Path, file: str) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    (folder / file).write_bytes((folder / file).read_bytes()[:40])
    with pytest.raises(ModelError, match="cannot be loaded from"):
        ViTClassifier(folder)


def test_a_processor_of_another_size_is_an_error_unless_positions_may_be_stretched(
    tmp_path: Path, photos: list[str]
) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    make_processor("vit", side=48).save_pretrained(folder)
    with pytest.raises(ModelError, match="makes 48x48 pixels, and the model was built for 32x32") as caught:
        ViTClassifier(folder)
    assert "interpolate_pos_encoding=True" in str(caught.value.hint)
    stretched = ViTClassifier(folder, interpolate_pos_encoding=True, precision="float32")
    pixels = stretched.pixels(photos)
    assert pixels.shape == (3, 3, 48, 48)
    with torch.no_grad():
        expected = stretched.network(pixel_values=pixels, interpolate_pos_encoding=True).logits
    np.testing.assert_allclose(stretched.logits(photos), expected, atol=1e-5)


def test_a_convolutional_model_reads_any_size(tmp_path: Path, photos: list[str]) -> None:
    folder = make_vit("convnext", tmp_path / "convnext")
    make_processor("convnext", side=48).save_pretrained(folder)
    classifier = ViTClassifier(folder)
    assert classifier.image_size == (48, 48)
    assert classifier.towers.channels_last
    assert np.isfinite(classifier.logits(photos)).all()


def test_weights_without_a_head_do_not_answer(tmp_path: Path, photos: list[str]) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_vit("vit", tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    body = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    classifier = ViTClassifier(folder)
    with pytest.raises(NotFittedError, match="no head") as caught:
        classifier.predict(photos)
    assert "clipkit finetune" in str(caught.value.hint)
    save_file(
        {n: v for n, v in body.items() if ".0." not in n}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match="its weights lack"):
        ViTClassifier(folder)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_vit("vit", tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="NaN"):
        ViTClassifier(folder)


def test_weights_in_several_files_are_one_model(tmp_path: Path, photos: list[str]) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    classifier = ViTClassifier(folder, precision="float32")
    classifier.network.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    classifier.processor.save_pretrained(tmp_path / "shards")
    names = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(names.values())) > 1
    sharded = ViTClassifier(tmp_path / "shards", precision="float32")
    np.testing.assert_array_equal(sharded.logits(photos), classifier.logits(photos))
    assert sharded.revision != classifier.revision


def test_a_device_or_precision_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    with pytest.raises(ModelError, match="device"):
        ViTClassifier(folder, device="cuda:99")
    with pytest.raises(ModelError, match="precision"):
        ViTClassifier(folder, device="cpu", precision="float16")


def test_bfloat16_answers_nearly_alike(tmp_path: Path, photos: list[str]) -> None:
    folder = make_vit("vit", tmp_path / "vit")
    exact, rounded = (ViTClassifier(folder, precision=name) for name in ("float32", "bfloat16"))
    assert rounded.network.dtype == torch.bfloat16
    assert np.abs(rounded.predict_proba(photos) - exact.predict_proba(photos)).max() < 0.03


def test_running_out_of_memory_halves_the_batch(tmp_path: Path, photos: list[str], monkeypatch: Any) -> None:
    classifier = ViTClassifier(make_vit("vit", tmp_path / "vit"), precision="float32")
    expected, forward = classifier.logits(photos), classifier.forward

    def tight(pixels: torch.Tensor) -> Any:
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(pixels)

    monkeypatch.setattr(classifier, "forward", tight)
    np.testing.assert_allclose(classifier.logits(photos), expected, atol=1e-6)
    assert classifier.batch_size == 1


def test_what_was_saved_answers_alike(tmp_path: Path, photos: list[str]) -> None:
    classifier = ViTClassifier(make_vit("swin", tmp_path / "swin"), precision="float32")
    classifier.save(tmp_path / "saved")
    again = ViTClassifier(tmp_path / "saved", precision="float32")
    np.testing.assert_array_equal(again.logits(photos), classifier.logits(photos))
    assert again.classes_.tolist() == list(LABELS)
