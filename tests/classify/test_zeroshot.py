"""Classes from words: known probabilities, open_clip's own class matrix, and answers that nothing irrelevant moves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.classify.calibration import best_cut, best_temperature, split
from clipkit.classify.head import UNKNOWN, Head
from clipkit.classify.prompts import NEUTRAL
from clipkit.classify.words import CUT_LOGITS, class_prompts, ensemble
from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.core.arrays import Embeddings
from clipkit.errors import ModelMismatch, NotFittedError, QueryError, ShapeError
from clipkit.metrics import ece
from clipkit.models.encoder import Encoder
from clipkit.models.load import load_encoder
from clipkit.models.openclip import published_templates
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.tiny_models import make_model

ANGLES = {"east": 0.0, "north": 90.0, "west": 180.0, "north-east": 45.0, "a": -60.0, "b": 60.0}


class AngleEncoder(ColourEncoder):
    """A text is a direction on the plane: the right probabilities can be written down."""

    dim = 2
    logit_scale = 3.0

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        self.encoded += len(texts)
        return at(*(ANGLES.get(text, 270.0) for text in texts))


class WordEncoder(ColourEncoder):
    """A text is a random direction of its own; neutral texts lie together, as they do in real models."""

    dim = 64
    logit_scale = 30.0

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        self.encoded += len(texts)
        rows = np.stack([direction(text) for text in texts])
        return unit(direction("all texts") + rows * np.array([0.3 if t in NEUTRAL else 1 for t in texts])[:, None])


def sharper() -> WordEncoder:
    """A model whose scale says little of its cosines, so that the cut it starts with is wrong."""
    encoder = WordEncoder()
    encoder.logit_scale = 100.0  # type: ignore[misc]
    return encoder


def direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=64)
    return row / np.linalg.norm(row)


def at(*degrees: float) -> Embeddings:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def unit(rows: np.ndarray) -> Embeddings:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def scenes(names: Sequence[str], *, noise: float = 0.1, seed: int = 0) -> Embeddings:
    """Pictures of what `names` say, in WordEncoder's space."""
    rng = np.random.default_rng(seed)
    rows = WordEncoder().encode_texts(names)
    return unit(rows + noise * rng.normal(size=rows.shape))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(str(make_model("clip", tmp_path_factory.mktemp("clip"))), precision="float32")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(str(make_model("siglip", tmp_path_factory.mktemp("siglip"))), precision="float32")


def test_probabilities_of_a_hand_made_case() -> None:
    classifier = ZeroShotClassifier(AngleEncoder(), ["east", "north", "west"], templates="plain")
    pictures = at(30, 100)
    logits = 3 * np.cos(np.deg2rad([[30, 60, 150], [100, 10, 80]]))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert classifier.decision_function(pictures) == pytest.approx(logits, abs=1e-5)
    assert classifier.predict_proba(pictures) == pytest.approx(expected, abs=1e-6)
    assert classifier.predict(pictures).tolist() == ["east", "north"]
    assert classifier.classes_.tolist() == ["east", "north", "west"]
    assert classifier.score(pictures, ["east", "west"]) == 0.5


def test_an_ensemble_is_normalised_averaged_normalised() -> None:
    weight, notes = ensemble(AngleEncoder(), [("east", "north"), ("a", "b"), ("west",)])
    assert weight == pytest.approx(at(45, 0, 180), abs=1e-6)
    assert notes == ()


def test_open_clip_makes_the_same_class_matrix_of_the_eighty_templates(tiny: Encoder, tmp_path: Path) -> None:
    import open_clip
    import torch

    names = ["tench", "great white shark", "kite (bird of prey)", "sunglasses"]
    folder = make_model("clip", tmp_path / "clip")
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval()
    with torch.no_grad():
        theirs = open_clip.build_zero_shot_classifier(
            model, open_clip.get_tokenizer(f"local-dir:{folder}"), names, open_clip.OPENAI_IMAGENET_TEMPLATES
        )
    ours = ZeroShotClassifier(tiny, names, templates="imagenet").head.weight
    assert (ours * theirs.T.numpy()).sum(axis=1).min() >= 0.9999
    assert np.abs(ours - theirs.T.numpy()).max() < 1e-4


def test_one_class_may_be_right_of_each_question_where_the_model_has_a_bias(siglip: Encoder) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    classifier = ZeroShotClassifier(siglip, ["dog", "cat"], templates=["a photo of a {}"], multi_label=True)
    texts = siglip.encode_texts(["a photo of a dog", "a photo of a cat"])
    logits = siglip.logit_scale * siglip.encode_images(list(pictures)) @ texts.T + siglip.logit_bias
    assert siglip.logit_bias == -10
    assert classifier.decision_function(pictures) == pytest.approx(logits, abs=1e-4)
    assert classifier.predict_proba(pictures) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)
    assert np.array_equal(classifier.predict(pictures), logits > 0)
    assert classifier.score(pictures, logits > 0) == 1
    one = ZeroShotClassifier(siglip, ["dog", "cat"], templates=["a photo of a {}"])
    assert one.predict_proba(pictures).sum(axis=1) == pytest.approx(1)


def test_without_a_bias_each_class_is_asked_against_neutral_texts() -> None:
    classifier = ZeroShotClassifier(WordEncoder(), ["cat", "dog"], templates="plain", multi_label=True)
    both = unit(scenes(["cat"], noise=0) + scenes(["dog"], noise=0))
    rows = np.concatenate([scenes(["cat"]), both, scenes([NEUTRAL[0]])])
    assert classifier.predict(rows).tolist() == [[True, False], [True, True], [False, False]]


def test_pictures_are_files_images_or_arrays(photos: Path) -> None:
    classifier = ZeroShotClassifier(ColourEncoder(), ["red", "blue", "green"], templates="plain")
    pixels = np.stack([np.full((16, 16, 3), COLOURS[name], np.uint8) for name in ("green", "red")])
    assert classifier.predict([str(photos / "red.png"), photos / "blue.png"]).tolist() == ["red", "blue"]
    assert classifier.predict([Image.new("RGB", (9, 9), (0, 0, 255))]).tolist() == ["blue"]
    assert classifier.predict(pixels).tolist() == ["green", "red"]
    rows = ColourEncoder().encode_images([photos / "red.png", photos / "green.png"])
    assert classifier.predict(rows).tolist() == ["red", "green"]
    assert classifier.predict(list(rows)).tolist() == ["red", "green"]


@pytest.mark.parametrize("one", ["a.png", Path("a.png"), Image.new("RGB", (4, 4)), np.zeros((4, 4, 3), np.uint8)])
def test_a_single_picture_is_not_a_list(one: object) -> None:
    classifier = ZeroShotClassifier(ColourEncoder(), ["red", "blue"], templates="plain")
    with pytest.raises(ShapeError, match="takes a list of pictures"):
        classifier.predict(one)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [np.ones((1, 3), np.float32), np.zeros((1, 4)), np.full((1, 4), np.nan), np.ones(4)])
def test_what_is_no_embedding_is_refused(rows: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        ZeroShotClassifier(ColourEncoder(), ["red", "blue"], templates="plain").predict(rows)


def test_neither_the_order_of_classes_nor_a_batch_changes_an_answer() -> None:
    names = [f"class {i}" for i in range(50)]
    rows = scenes([names[i % 50] for i in range(400)], noise=0.4)
    whole = ZeroShotClassifier(WordEncoder(), names, unknown=True)
    answers = whole.predict(rows)
    assert {UNKNOWN} < set(answers)
    assert np.array_equal(ZeroShotClassifier(WordEncoder(), names[::-1], unknown=True).predict(rows), answers)
    assert np.array_equal(np.concatenate([whole.predict(rows[i : i + 3]) for i in range(0, 400, 3)]), answers)
    assert np.array_equal(ZeroShotClassifier(WordEncoder(), names, unknown=True).predict(rows), answers)


def test_the_second_time_costs_no_encoding(private_cache: Path) -> None:
    first, second = WordEncoder(), WordEncoder()
    made = ZeroShotClassifier(first, ["cat", "dog"], unknown=True)
    assert first.encoded == 2 * 7 + len(NEUTRAL)
    again = ZeroShotClassifier(second, ["cat", "dog"], unknown=True)
    assert second.encoded == 0
    assert np.array_equal(again.head.weight, made.head.weight)
    for other in (WordEncoder(fingerprint="dd" * 32), WordEncoder()):
        other.model = "other" if other.fingerprint == first.fingerprint else other.model
        ZeroShotClassifier(other, ["cat", "dog"])
        assert other.encoded == 14
    for file in (private_cache / "classes").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    repaired = ZeroShotClassifier(second, ["cat", "dog"], unknown=True)
    assert second.encoded == first.encoded
    assert np.array_equal(repaired.head.weight, made.head.weight)


def test_a_cache_that_cannot_be_written_is_only_slower(private_cache: Path) -> None:
    (private_cache / "classes").write_text("a file where a folder should be")
    assert ZeroShotClassifier(WordEncoder(), ["cat", "dog"], templates="plain").score(scenes(["dog"]), ["dog"]) == 1


def test_none_of_these_is_said_of_what_is_far_from_every_class() -> None:
    names = ["cat", "dog", "hen"]
    classifier = ZeroShotClassifier(WordEncoder(), names, templates="plain", unknown=True)
    rows = scenes([*names, "bicycle", "a photo."], noise=0.05)
    assert classifier.predict(rows).tolist() == [*names, UNKNOWN, UNKNOWN]
    assert classifier.classes_.tolist() == names
    assert classifier.score(rows, [*names, None, "unknown"]) == 1
    known = classifier.known_score(rows) * WordEncoder.logit_scale >= CUT_LOGITS
    assert known.tolist() == [True, True, True, False, False]
    assert classifier.predict_proba(rows).shape == (5, 3)
    plain = ZeroShotClassifier(WordEncoder(), names, templates="plain")
    assert set(plain.predict(rows)) <= set(names)
    with pytest.raises(NotFittedError):
        plain.known_score(rows)


def test_a_collection_says_where_unknown_begins() -> None:
    names = ["cat", "dog", "hen"]
    other = [f"thing {i}" for i in range(40)]
    labels = [*(names * 20), *other]
    rows = scenes(labels, noise=0.12)
    truth = [label if label in names else None for label in labels]
    classifier = ZeroShotClassifier(sharper(), names, templates="plain", unknown=True)
    before = classifier.score(rows, truth)
    assert classifier.adapt(rows) is classifier
    assert classifier.score(rows, truth) == 1 > before
    with pytest.raises(ShapeError, match="says nothing of what is ordinary"):
        classifier.adapt(rows[:1])
    with pytest.raises(NotFittedError, match="always names a class"):
        ZeroShotClassifier(WordEncoder(), names).adapt(rows)


def test_calibration_finds_the_temperature_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    rows = at(*rng.uniform(-180, 180, 20000))
    classifier = ZeroShotClassifier(AngleEncoder(), ["east", "north", "west"], templates="plain")
    truth = classifier.predict_proba(rows)
    targets = (truth.cumsum(axis=1) < rng.random((len(rows), 1))).sum(axis=1).clip(max=2)
    classifier.encoder.logit_scale = 100.0  # type: ignore[misc]
    unsure = ZeroShotClassifier(classifier.encoder, ["east", "north", "west"], templates="plain")
    before = unsure.predict_proba(rows)
    unsure.calibrate(rows, unsure.classes_[targets])
    after = unsure.predict_proba(rows)
    assert unsure.head.temperature == pytest.approx(3, rel=0.05)
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert ece(after.max(axis=1), after.argmax(axis=1) == targets) < 0.02
    assert ece(before.max(axis=1), before.argmax(axis=1) == targets) > 0.1


def test_the_best_temperature_is_that_of_a_search_over_all() -> None:
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    logits[np.arange(60), targets] += 0.7

    def loss(scale: float) -> float:
        table = scale * logits
        own = table[np.arange(60), targets]
        return float((np.log(np.exp(table).sum(axis=1)) - own).mean())

    found = best_temperature(logits, targets)
    assert loss(found) <= min(loss(scale) for scale in np.geomspace(0.01, 50, 2000)) + 1e-9


def test_labelled_unknowns_move_the_cut() -> None:
    names = ["cat", "dog"]
    labels = ["cat", "dog"] * 20 + [f"thing {i}" for i in range(20)]
    rows = scenes(labels, noise=0.12)
    truth = [label if label in names else None for label in labels]
    classifier = ZeroShotClassifier(sharper(), names, templates="plain", unknown=True)
    assert classifier.score(rows, truth) < 1
    assert classifier.calibrate(rows, truth).score(rows, truth) == 1
    cut = classifier.head.rejection.cut if classifier.head.rejection else None
    classifier.calibrate(rows[:40], truth[:40])
    assert classifier.head.rejection is not None
    assert classifier.head.rejection.cut == cut  # without unknowns it stays
    with pytest.raises(NotFittedError):
        ZeroShotClassifier(WordEncoder(), names).calibrate(rows, truth)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["cat", "cow"], "1 labels are no class: cow"), ([None, None], "needs labelled pictures")],
)
def test_labels_that_calibrate_nothing(labels: list[str | None], message: str) -> None:
    classifier = ZeroShotClassifier(WordEncoder(), ["cat", "dog"], unknown=True)
    with pytest.raises(QueryError, match=message):
        classifier.calibrate(scenes(["cat", "dog"]), labels)
    with pytest.raises(ShapeError, match="2 pictures and 1 labels"):
        classifier.calibrate(scenes(["cat", "dog"]), ["cat"])


def test_the_best_cut_is_that_of_a_search_over_all() -> None:
    rng = np.random.default_rng(0)
    known = rng.random(200) < 0.4
    scores = np.round(rng.normal(size=200) + known, 1)  # with ties

    def quality(cut: float) -> float:
        accepted = scores >= cut
        return 2 * (accepted & known).sum() / (accepted.sum() + known.sum())

    assert quality(best_cut(scores, known)) == max(quality(cut) for cut in np.unique(scores))
    assert best_cut([0.2, 0.8, 0.4], [False, True, False]) == pytest.approx(0.6)
    assert best_cut([0.2, 0.8], [True, True]) == pytest.approx(0.2)


def test_the_split_lies_between_two_groups() -> None:
    scores = np.concatenate([np.random.default_rng(0).normal(0, 0.1, 300), np.random.default_rng(1).normal(1, 0.1, 30)])
    assert 0.3 < split(scores) < 0.75
    assert split([1.0, 0.0]) == 0.5
    assert split([0.5, 0.5, 0.5]) == 0.5


def test_a_prompt_longer_than_the_model_reads_is_named_with_the_lost_words(siglip: Encoder, tiny: Encoder) -> None:
    notes: list[str] = []
    phrase = "a photo of a dog on the lake at dawn and a cat on a red boat by two small boats of the lake"
    for _ in range(2):  # the second time from the cache
        ZeroShotClassifier(siglip, {"dog": [phrase], "cat": ["a photo of a cat"]}, notify=notes.append)
    assert len(notes) == 2
    # The model reads 15 words and the end.
    assert notes[0] == notes[1]
    assert f"1 prompt is longer than {siglip.model} reads: 'red boat by two small boats of the lake'" in notes[0]
    assert not class_note(tiny, phrase)
    assert "'kangaroo'" in class_note(tiny, " ".join(["dog"] * 75) + " kangaroo")
    assert not class_note(tiny, " ".join(["dog"] * 75))


def class_note(encoder: Encoder, phrase: str) -> str:
    return " ".join(ZeroShotClassifier(encoder, {"dog": [phrase], "cat": ["cat"]}).head.notes)


def test_a_saved_head_classifies_under_its_own_model_only(tmp_path: Path) -> None:
    classifier = ZeroShotClassifier(WordEncoder(), ["cat", "dog"], unknown=True)
    rows = scenes(["cat", "dog", "bicycle"])
    classifier.adapt(rows).head.save(tmp_path / "pets.safetensors")
    again = ZeroShotClassifier.from_head(WordEncoder(), Head.load(tmp_path / "pets.safetensors"))
    assert np.array_equal(again.predict(rows), classifier.predict(rows))
    assert again.classes_.tolist() == ["cat", "dog"]
    with pytest.raises(ModelMismatch):
        ZeroShotClassifier.from_head(WordEncoder(fingerprint="dd" * 32), classifier.head)


def test_questions_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(QueryError, match="unknown adds nothing"):
        ZeroShotClassifier(WordEncoder(), ["cat"], unknown=True, multi_label=True)
    with pytest.raises(QueryError, match="is a class already"):
        ZeroShotClassifier(WordEncoder(), ["cat", "unknown"], unknown=True)
    with pytest.raises(QueryError, match="one is right"):
        ZeroShotClassifier(WordEncoder(), ["cat"], multi_label=True).calibrate(scenes(["cat"]), ["cat"])


def test_published_words_are_found_by_name() -> None:
    prompts = class_prompts("imagenet", "imagenet")
    assert len(prompts.classes) == len(set(prompts.classes)) == 1000
    assert prompts.prompts[0][0] == published_templates()[0].replace("{}", "tench") == "a bad photo of a tench."
    assert class_prompts("pets", "pets").prompts[0] == ("a photo of a Abyssinian, a type of pet.",)


def test_real_pictures_of_one_colour_are_named_after_it(tmp_path: Path) -> None:
    files = [paint(tmp_path / f"{name}.png", colour) for name, colour in COLOURS.items()]
    classifier = ZeroShotClassifier(ColourEncoder(), list(COLOURS), templates="{}")
    assert classifier.predict(files).tolist() == list(COLOURS)
    assert classifier.score(files, list(COLOURS)) == 1
