"""Fine-tuning: the tutorial's numbers, the same result for the same seed, and after a kill as without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipkit.classify.head import Head
from clipkit.datasets.load import Dataset, load_dataset
from clipkit.datasets.sampling import split_validation
from clipkit.errors import DatasetError, ImageError, ModelError
from clipkit.images.augment import random_box, random_view, rng_for
from clipkit.learn.fine_tuning import FineTuned, finetune
from clipkit.learn.finetune_data import view_features
from clipkit.learn.trainer import BEST, LAST, Epoch, Recipe, best_epoch, order, schedule, train_mode
from clipkit.models.load import is_transformers, load_encoder, load_model
from clipkit.models.openclip import OpenClipEncoder
from clipkit.models.trainable import TunableClassifier, TunableEncoder, count_parameters, unfreeze
from clipkit.models.vit import ViTClassifier
from tests.support.colours import COLOURS, paint
from tests.support.tiny_models import make_model
from tests.support.tiny_vits import KINDS, make_vit

FAST = Recipe(epochs=3, batch_size=4, lr=0.02, views=2, patience=None)


@pytest.fixture
def colours(tmp_path: Path) -> Dataset:
    """Three classes of six pictures each, of nearly one colour."""
    for name in ("red", "green", "blue"):
        for number in range(6):
            shade = tuple(min(255, value + 9 * number) for value in COLOURS[name])
            paint(tmp_path / "colours" / name / f"{number}.png", shade, (40 + number, 48))
    return load_dataset(tmp_path / "colours")


@pytest.fixture
def encoder(models: Callable[[str], Path]) -> OpenClipEncoder:
    return load_encoder(str(models("clip")), precision="float32")


@pytest.fixture
def cnn(models: Callable[[str], Path]) -> OpenClipEncoder:
    return load_encoder(str(models("cnn")), precision="float32")


def test_a_single_batch_is_learned_from(colours: Dataset, encoder: OpenClipEncoder) -> None:
    """The warm-up of one step counts from 1; from 0 its learning rate would be 0."""
    recipe = replace(FAST, views=0, epochs=1, batch_size=len(colours), lr=0.02)
    tuned = finetune(encoder, colours, recipe=recipe)
    assert tuned.history[0].lr == pytest.approx(0.02)
    assert tuned.head is not None
    assert np.abs(tuned.head.bias).max() > 0  # it begins at 0, and AdamW has moved it


def test_the_schedule_is_that_of_transformers() -> None:
    from transformers import get_cosine_schedule_with_warmup

    for steps, warmup_steps in ((200, 20), (7, 1), (50, 0)):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.AdamW([parameter], lr=3e-4)
        theirs = get_cosine_schedule_with_warmup(optimizer, warmup_steps, steps)
        for step in range(steps):
            assert 3e-4 * schedule(step, steps, warmup_steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            theirs.step()


def test_the_defaults_are_the_tutorials() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == (50, 32, 3e-4, 1e-4)
    assert (recipe.warmup, recipe.unfreeze, recipe.seed) == (0.1, "head", 42)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": float("nan")}, {"views": -1}, {"warmup": 1.0}, {"smallest": 0}]
)
def test_a_recipe_that_cannot_be_followed_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_the_head_of_vit_b_16_for_37_breeds_has_28453_of_85827109_parameters() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    with torch.device("meta"):
        network = ViTForImageClassification(ViTConfig(num_labels=37))
    unfreeze(network.vit, "head")
    counts = count_parameters(network.vit, network.classifier)
    assert (counts.trainable, counts.total) == (28_453, 85_827_109)


def test_the_parts_of_a_tower_are_unfrozen_by_name() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    with torch.device("meta"):
        body = ViTForImageClassification(ViTConfig()).vit

    def learning(what: str) -> list[str]:
        unfreeze(body, what)
        return [name for name, parameter in body.named_parameters() if parameter.requires_grad]

    assert learning("head") == []
    assert learning("patch-embedding") == [f"embeddings.patch_embeddings.projection.{n}" for n in ("weight", "bias")]
    assert {name.split(".")[1] for name in learning("last:2")} == {"10", "11", "weight", "bias"}
    assert "layernorm.weight" in learning("last:1")
    assert len(learning("all")) == len(list(body.parameters()))
    for wrong in ("last:13", "last:0", "last:x", "tail"):
        with pytest.raises(ModelError, match=wrong) as caught:
            unfreeze(body, wrong)
        assert "from 1 to 12" in str(caught.value.hint)


def test_what_is_frozen_keeps_its_statistics_and_drops_nothing() -> None:
    first = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout())
    second = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout())
    body = torch.nn.Sequential(first, second)
    first.requires_grad_(False)
    train_mode(body, is_training=True)
    assert [part.training for part in first] == [False, False, False]
    assert [part.training for part in second] == [True, True, True]
    train_mode(body, is_training=False)
    assert not any(part.training for part in body.modules())


def test_an_epoch_sees_every_picture_once_in_an_order_of_its_own() -> None:
    first, second = order(33, 8, 0, 1), order(33, 8, 0, 2)
    for batches in (first, second):
        assert sorted(np.concatenate(batches).tolist()) == list(range(33))
        assert [len(batch) for batch in batches] == [8, 8, 8, 9]  # the last one does not stand alone
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    np.testing.assert_array_equal(np.concatenate(order(33, 8, 0, 1)), np.concatenate(first))


def test_the_best_epoch_has_the_highest_accuracy_and_of_equal_ones_the_lowest_loss() -> None:
    rows = [(0.5, 1.0), (0.75, 0.9), (0.75, 0.6), (0.75, 0.6), (0.5, 0.1)]
    history = [Epoch(i, 0.0, 0.0, loss, accuracy, 0.0) for i, (accuracy, loss) in enumerate(rows, start=1)]
    assert best_epoch(history) == 3


def test_random_boxes_lie_inside_and_have_the_area_and_proportions_they_should() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(400, 400, rng, smallest=0.25) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 400).all()
    share, ratio = height * width / 160_000, width / height
    assert 0.245 < share.min() < 0.27
    assert 0.9 < share.max() <= 1
    assert 0.55 < share.mean() < 0.625  # large ones fit less often
    assert 0.74 < ratio.min() < 0.78
    assert 1.3 < ratio.max() < 1.345
    assert abs(np.log(ratio).mean()) < 0.02


def test_a_picture_too_long_for_any_box_gives_its_middle() -> None:
    assert random_box(10, 1000, np.random.default_rng(0), smallest=1.0) == (0, 493, 10, 13)


def test_a_view_is_a_resized_part_of_the_picture_mirrored_half_the_time(encoder: OpenClipEncoder) -> None:
    canvas = np.zeros((64, 64, 3), np.uint8)
    canvas[:, :, 0] = np.linspace(0, 255, 64)  # dark left, red right
    views = [random_view(canvas, encoder.recipe, np.random.default_rng(i), smallest=0.5) for i in range(200)]
    mirrored = [view[0, :, 0].mean() > view[0, :, -1].mean() for view in views]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert {view.shape for view in views} == {(3, 64, 64)}
    assert not any(view[1:].any() for view in views)


def test_views_follow_the_content_of_a_picture_and_nothing_else() -> None:
    assert rng_for("a", 1).random() == rng_for("a", 1).random()
    drawn = {rng_for(content, *numbers).random() for content in "ab" for numbers in ((1,), (2,), (1, 1))}
    assert len(drawn) == 6


def test_features_are_computed_once_and_shared_by_other_selections(
    colours: Dataset, encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = TunableEncoder(encoder)
    whole = view_features(colours.files, reader, views=3, smallest=0.5)
    assert whole.rows.shape == (18, 3, 64)
    monkeypatch.setattr(reader, "features", lambda pixels: pytest.fail("computed again"))
    some = view_features(colours.files[4:9][::-1], reader, views=3, smallest=0.5)
    np.testing.assert_array_equal(some.rows, whole.rows[4:9][::-1])
    with pytest.raises(pytest.fail.Exception):
        view_features(colours.files, reader, views=3, smallest=0.6)


def test_a_damaged_cache_is_computed_again(colours: Dataset, encoder: OpenClipEncoder, private_cache: Path) -> None:
    reader = TunableEncoder(encoder)
    whole = view_features(colours.files, reader, views=1, smallest=0.5)
    (file,) = (private_cache / "views").glob("*/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(view_features(colours.files, reader, views=1, smallest=0.5).rows, whole.rows)


def test_a_head_on_a_frozen_tower_learns_and_is_a_head_over_backbone_features(
    tmp_path: Path, colours: Dataset, encoder: OpenClipEncoder
) -> None:
    tuned = finetune(encoder, colours, recipe=replace(FAST, epochs=20), out=tmp_path / "out")
    assert tuned.predict(colours.files).tolist() == list(colours.labels)
    assert tuned.history[-1].loss < 0.5 * tuned.history[0].loss
    assert (tuned.counts.trainable, tuned.counts.frozen) == (3 * 64 + 3, visual_parameters(encoder) - 64 * 32)
    head = Head.load(tmp_path / "out" / "head.safetensors")
    head.check(encoder, space="backbone")
    rows = encoder.encode_images(colours.files, space="backbone")
    np.testing.assert_allclose(head.probabilities(rows), tuned.predict_proba(colours.files), atol=1e-6)
    assert tuned.before.file == tuned.after.file
    assert tuned.after.label == tuned.after.actual
    assert tuned.metrics["n"] == 3


def visual_parameters(encoder: OpenClipEncoder) -> int:
    body = TunableEncoder(encoder).body()
    return sum(parameter.numel() for parameter in body.whole.visual.parameters())


@pytest.mark.parametrize("views", [0, 2, None])
def test_the_same_seed_gives_the_same_weights(colours: Dataset, encoder: OpenClipEncoder, views: int | None) -> None:
    recipe = replace(FAST, views=views)
    first, again = (finetune(encoder, colours, recipe=recipe) for _ in range(2))
    other = finetune(encoder, colours, recipe=replace(recipe, seed=43))
    assert first.head is not None
    assert again.head is not None
    assert other.head is not None
    np.testing.assert_array_equal(first.head.weight, again.head.weight)
    assert not np.array_equal(first.head.weight, other.head.weight)
    assert [e.loss for e in first.history] == [e.loss for e in again.history]


def test_training_leaves_the_random_numbers_of_others_alone(colours: Dataset, encoder: OpenClipEncoder) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    finetune(encoder, colours, recipe=FAST)
    assert torch.rand(1) == expected


def test_without_augmentation_training_is_adamw_on_the_features(colours: Dataset, encoder: OpenClipEncoder) -> None:
    """Written out: batches in order, AdamW, the schedule, cross-entropy; the scale folded into the head."""
    recipe = replace(FAST, views=0, epochs=2)
    train, held_out = split_validation(colours)
    tuned = finetune(encoder, train, recipe=recipe, validation=held_out)
    rows = torch.from_numpy(encoder.encode_images(train.files, space="backbone") * 8).half().float()  # 8 = sqrt(64)
    targets = torch.from_numpy(train.targets(train.classes))
    torch.manual_seed(recipe.seed)
    head = torch.nn.Linear(64, 3)
    torch.nn.init.trunc_normal_(head.weight, std=0.02)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1.0, weight_decay=1e-4)
    step, states = 0, []
    for epoch in (1, 2):
        for places in order(len(train), 4, recipe.seed, epoch):
            optimizer.param_groups[0]["lr"] = 0.02 * schedule(step + 1, 9, 1)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(rows[places]), targets[places]).backward()
            optimizer.step()
            step += 1
        states.append((head.weight.detach().clone() * 8, head.bias.detach().clone()))
    assert step == 8
    assert tuned.head is not None
    weight, bias = states[tuned.best_epoch - 1]
    np.testing.assert_allclose(tuned.head.weight, weight, atol=1e-5)
    np.testing.assert_allclose(tuned.head.bias, bias, atol=1e-6)


@pytest.mark.parametrize("what", ["all", "last:1", "patch-embedding"])
@pytest.mark.parametrize("kind", ["clip", "cnn"])
def test_a_tower_that_learned_is_saved_as_open_clip_has_it(
    tmp_path: Path, colours: Dataset, models: Callable[[str], Path], kind: str, what: str
) -> None:
    encoder = load_encoder(str(models(kind)), precision="float32")
    before = encoder.encode_images(colours.files, space="backbone")
    tuned = finetune(encoder, colours, recipe=replace(FAST, unfreeze=what, lr=0.005), out=tmp_path / "out")
    again, head = load_encoder(str(tmp_path / "out"), precision="float32"), Head.load(tmp_path / "out/head.safetensors")
    head.check(again, space="backbone")
    rows = again.encode_images(colours.files, space="backbone")
    np.testing.assert_allclose(head.probabilities(rows), tuned.predict_proba(colours.files), atol=2e-5)
    assert np.abs(rows - before).max() > 1e-4  # it moved
    np.testing.assert_array_equal(encoder.encode_images(colours.files, space="backbone"), before)  # the model did not
    np.testing.assert_allclose(again.encode_texts(["a dog"]), encoder.encode_texts(["a dog"]), atol=1e-6)
    assert 195 < tuned.counts.trainable <= tuned.counts.total
    assert "texts no longer find" in tuned.notes[-1]


@pytest.mark.parametrize("what", ["head", "last:1", "patch-embedding", "all"])
def test_only_what_was_unfrozen_moves(
    tmp_path: Path, colours: Dataset, models: Callable[[str], Path], cnn: OpenClipEncoder, what: str
) -> None:
    from safetensors.torch import load_file

    tuned = finetune(cnn, colours, recipe=replace(FAST, unfreeze=what), out=tmp_path / "out")
    if what == "head":
        assert not (tmp_path / "out" / "open_clip_model.safetensors").exists()
        return
    old, new = (load_file(folder / "open_clip_model.safetensors") for folder in (models("cnn"), tmp_path / "out"))
    moved = {name for name, value in new.items() if not torch.equal(value, old[name])}
    learning = {f"visual.{n}" for n, p in tuned._body.module.named_parameters() if p.requires_grad}
    statistics = {name for name in moved if "running_" in name or "num_batches" in name}
    assert learning - moved == set() if what != "all" else len(moved) > 10
    assert moved - statistics <= learning
    assert bool(statistics) == (what != "patch-embedding")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["head", "last:1"])
def test_a_classifier_learns_new_classes_and_is_saved_as_transformers_has_it(
    tmp_path: Path, colours: Dataset, kind: str, what: str
) -> None:
    model = ViTClassifier(make_vit(kind, tmp_path / kind), precision="float32")
    before = model.logits(colours.files)
    tuned = finetune(model, colours, recipe=replace(FAST, unfreeze=what), out=tmp_path / "out")
    again = ViTClassifier(tmp_path / "out", precision="float32")
    assert again.classes_.tolist() == ["blue", "green", "red"]
    assert again.network.config.id2label == {0: "blue", 1: "green", 2: "red"}
    np.testing.assert_allclose(again.predict_proba(colours.files), tuned.predict_proba(colours.files), atol=1e-6)
    np.testing.assert_array_equal(model.logits(colours.files), before)
    assert tuned.head is None
    assert tuned.classifier is not None
    assert tuned.counts.total == sum(p.numel() for p in again.network.parameters())


def test_a_classifier_that_squashed_its_pictures_crops_them_after_it_has_learned(
    tmp_path: Path, colours: Dataset
) -> None:
    model = ViTClassifier(make_vit("vit", tmp_path / "vit"), precision="float32")
    source = TunableClassifier(model)
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 16:48] = 255  # white in the middle, as wide as high
    from PIL import Image

    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert source.centre_inputs([str(tmp_path / "wide.png")]).min() == 1  # (255 / 255 - .5) / .5
    assert model.pixels([wide]).min() == -1
    assert source.recipe.mean == tuple(model.processor.image_mean)


def test_it_stops_when_nothing_gets_better(colours: Dataset, encoder: OpenClipEncoder) -> None:
    tuned = finetune(encoder, colours, recipe=replace(FAST, epochs=40, lr=1e-12, patience=3))
    assert len(tuned.history) < 40
    assert len(tuned.history) - tuned.best_epoch == 3


def test_a_part_of_each_class_is_held_back_and_not_learned_from(colours: Dataset, encoder: OpenClipEncoder) -> None:
    train, held_out = split_validation(colours)
    assert sorted(held_out.labels) == ["blue", "green", "red"]
    assert set(train.files) | set(held_out.files) == set(colours.files)
    assert not set(train.files) & set(held_out.files)
    assert split_validation(colours)[1].files == held_out.files
    assert any(split_validation(colours, seed=seed)[1].files != held_out.files for seed in range(5))


def test_one_class_is_an_error(colours: Dataset, encoder: OpenClipEncoder) -> None:
    red = replace(colours, files=colours.files[-6:], labels=colours.labels[-6:])
    with pytest.raises(DatasetError, match="one class only, red"):
        finetune(encoder, red, recipe=FAST)


def test_pictures_without_labels_are_an_error(colours: Dataset, encoder: OpenClipEncoder) -> None:
    with pytest.raises(DatasetError, match="no labels"):
        finetune(encoder, replace(colours, labels=()), recipe=FAST)


def test_a_class_that_validation_lacks_is_said_and_one_that_training_lacks_is_an_error(
    colours: Dataset, encoder: OpenClipEncoder
) -> None:
    train, held_out = split_validation(colours)
    partly = replace(held_out, files=held_out.files[:2], labels=held_out.labels[:2])
    tuned = finetune(encoder, train, recipe=FAST, validation=partly)
    assert "validation has no picture of red" in tuned.notes[0]
    fewer = replace(train, files=train.files[:-5], labels=train.labels[:-5])
    with pytest.raises(DatasetError, match="validation has pictures of red"):
        finetune(encoder, fewer, recipe=FAST, validation=held_out)


@pytest.mark.parametrize(("views", "what"), [(2, "head"), (None, "head"), (0, "patch-embedding")])
def test_unreadable_pictures_are_left_out_and_listed(
    colours: Dataset, encoder: OpenClipEncoder, views: int | None, what: str
) -> None:
    bad = colours.files[1]
    Path(bad).write_bytes(b"nothing")
    tuned = finetune(encoder, colours, recipe=replace(FAST, views=views, unfreeze=what))
    assert [failure.path for failure in tuned.failed] == [bad]
    assert any("1 picture could not be read" in note for note in tuned.notes)


def test_a_class_of_which_nothing_can_be_read_is_an_error(colours: Dataset, encoder: OpenClipEncoder) -> None:
    for file in colours.files[:6]:
        Path(file).write_bytes(b"nothing")
    train, held_out = split_validation(colours)
    good = replace(held_out, files=held_out.files[1:], labels=held_out.labels[1:])
    with pytest.raises(DatasetError, match="no picture of blue can be read"):
        finetune(encoder, train, recipe=FAST, validation=good)
    for file in colours.files:
        Path(file).write_bytes(b"nothing")
    with pytest.raises(ImageError, match="none of"):
        finetune(encoder, train, recipe=FAST, validation=good)


# Imports once and then forks for every run: torch and open_clip take seconds. Nothing is computed before the fork.
TRAINING = """
import json, os, sys, time
import open_clip, torch, transformers
from clipkit.datasets.load import load_dataset
from clipkit.learn.fine_tuning import finetune
from clipkit.learn.trainer import Recipe
from clipkit.models.load import load_model
def report(epoch):
    print(epoch.number, flush=True)
    time.sleep(0.2)
def train(cache, model, pictures, out, what):
    os.environ["CLIPKIT_CACHE"] = cache
    torch.set_num_threads(1)
    recipe = Recipe(epochs=6, batch_size=4, lr=0.01, views=2, patience=None, unfreeze=what)
    finetune(load_model(model, precision="float32"), load_dataset(pictures), recipe=recipe, out=out, on_epoch=report)
for line in sys.stdin:
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        train(*json.loads(line))
        os._exit(0)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def training() -> Iterator[subprocess.Popen[str]]:
    """A process that trains as a line on its stdin says, in a child of its own, and prints the child's number."""
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def kill_after_two_epochs(process: subprocess.Popen[str], *job: object) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([str(each) for each in job]) + "\n")
    process.stdin.flush()
    child = int(process.stdout.readline())
    for number in ("1", "2"):
        assert process.stdout.readline().strip() == number
    os.kill(child, signal.SIGKILL)
    while line := process.stdout.readline():  # it may have printed another epoch
        if line == "ended\n":
            return
    raise AssertionError("the process that trains has ended")


@pytest.mark.parametrize(("kind", "what"), [("clip", "head"), ("cnn", "all"), ("vit", "last:1")])
def test_a_run_that_was_killed_goes_on_to_the_weights_of_one_that_was_not(
    tmp_path: Path, colours: Dataset, private_cache: Path, training: subprocess.Popen[str], kind: str, what: str
) -> None:
    folder = (make_vit if kind == "vit" else make_model)(kind, tmp_path / kind)
    out = tmp_path / "out"
    kill_after_two_epochs(training, private_cache, folder, tmp_path / "colours", out, what)
    assert not (out / "finetune.json").exists()
    recipe = Recipe(epochs=6, batch_size=4, lr=0.01, views=2, patience=None, unfreeze=what)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = load_model(str(folder), precision="float32")
        seen: list[Epoch] = []
        resumed = finetune(model, colours, recipe=recipe, out=out, on_epoch=seen.append)
        whole = finetune(model, colours, recipe=recipe)
    finally:
        torch.set_num_threads(threads)
    assert seen[0].number >= 3  # the first epochs were not done again
    assert len(resumed.history) == 6
    for key in ("loss", "val_loss", "lr"):
        assert [getattr(e, key) for e in resumed.history] == [getattr(e, key) for e in whole.history]
    for name, value in whole._learner.state().items():
        np.testing.assert_array_equal(resumed._learner.state()[name], value, err_msg=name)


def test_a_finished_run_is_read_again_and_not_repeated(
    tmp_path: Path, colours: Dataset, encoder: OpenClipEncoder
) -> None:
    first = finetune(encoder, colours, recipe=FAST, out=tmp_path / "out")
    seen: list[Epoch] = []
    again = finetune(encoder, colours, recipe=FAST, out=tmp_path / "out", on_epoch=seen.append)
    assert seen == []
    assert again.history == first.history
    np.testing.assert_array_equal(again.predict_proba(colours.files), first.predict_proba(colours.files))


@pytest.mark.parametrize("name", [LAST, BEST])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(
    tmp_path: Path, colours: Dataset, encoder: OpenClipEncoder, name: str, damage: str
) -> None:
    finetune(encoder, colours, recipe=FAST, out=tmp_path / "out")
    file = tmp_path / "out" / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-7])
    else:
        content[-1] ^= 1
        file.write_bytes(content)
    if damage == "gone" and name == LAST:
        assert len(finetune(encoder, colours, recipe=FAST, out=tmp_path / "out").history) == 3  # begins again
        return
    with pytest.raises(ModelError, match=name) as caught:
        finetune(encoder, colours, recipe=FAST, out=tmp_path / "out")
    assert "delete" in str(caught.value.hint)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, colours: Dataset, encoder: OpenClipEncoder) -> None:
    out = tmp_path / "out"
    finetune(encoder, colours, recipe=FAST, out=out)
    with pytest.raises(ModelError, match=r"another run: lr 0\.02, not 0\.01"):
        finetune(encoder, colours, recipe=replace(FAST, lr=0.01), out=out)
    fewer = replace(colours, files=colours.files[1:], labels=colours.labels[1:])
    with pytest.raises(ModelError, match="another run: other pictures"):
        finetune(encoder, fewer, recipe=FAST, out=out)
    other = load_encoder(str(make_model("clip", tmp_path / "other", seed=1)), precision="float32")
    with pytest.raises(ModelError, match="another run: model local:clip"):
        finetune(other, colours, recipe=FAST, out=out)


def test_a_loss_that_is_not_a_number_stops_with_a_hint(
    colours: Dataset, encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda *rows: torch.tensor(float("nan")))
    with pytest.raises(ModelError, match="the loss became nan at step 1") as caught:
        finetune(encoder, colours, recipe=FAST)
    assert caught.value.hint == "--lr 0.002"


def test_a_name_or_folder_tells_which_library_it_is_for(tmp_path: Path, models: Callable[[str], Path]) -> None:
    assert is_transformers(str(make_vit("vit", tmp_path / "vit")))
    assert not is_transformers(str(models("clip")))
    for name in ("google/vit-base-patch16-224", "microsoft/swin-tiny-patch4-window7-224"):
        assert is_transformers(name)
    for name in (
        "starter",
        "auto",
        "balanced",
        "ViT-B-32/openai",
        "ViT-B/32",
        "hf-hub:timm/x",
        "openai/clip-vit-base-patch32",
    ):
        assert not is_transformers(name)


@pytest.mark.real
@pytest.mark.slow
def test_the_starter_learns_six_breeds_from_real_photographs(real_data: Path, starter: OpenClipEncoder) -> None:
    train, test = (load_dataset(real_data, split=split) for split in ("trainval", "test"))
    names = sorted(set(train.labels))[:6]

    def only(dataset: Dataset) -> Dataset:
        pairs = [pair for pair in zip(dataset.files, dataset.labels, strict=True) if pair[1] in names]
        return replace(
            dataset, files=tuple(p[0] for p in pairs), labels=tuple(p[1] for p in pairs), classes=tuple(names)
        )

    tuned: FineTuned = finetune(starter, only(train), recipe=Recipe(views=0, lr=3e-3))
    asked = only(test)
    assert (tuned.predict(asked.files) == np.array(asked.labels)).mean() > 0.85
