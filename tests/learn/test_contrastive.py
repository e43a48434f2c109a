"""`train_clip`: the losses are open_clip's, gradients in pieces are those of the whole, and a small model learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

import clipkit
from clipkit.errors import ClipkitError, DatasetError, ModelError
from clipkit.learn import ContrastiveRecipe, train_clip
from clipkit.learn.contrastive import Batch, backward, clip_loss, count_cut, siglip_loss
from tests.support.colours import COLOURS, paint

RECIPE = ContrastiveRecipe(epochs=12, batch_size=8, lr=2e-3, warmup=0.1)
WORDS = {"red": "a red boat", "blue": "a blue lake", "green": "the cat", "grey": "two dog"}


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[str, str]]:
    found = []
    for name, words in WORDS.items():
        for number in range(4):
            shade = tuple(min(255, max(0, value + 12 * number)) for value in COLOURS[name])
            file = tmp_path / "pictures" / f"{name}{number}.png"
            paint(file, (shade[0], shade[1], shade[2]), (40, 40))
            found.append((str(file), words))
    return found


def unit_rows(seed: int) -> torch.Tensor:
    rows = torch.randn(12, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def test_the_losses_are_those_of_open_clip() -> None:
    images, texts, scale = unit_rows(0), unit_rows(1), torch.tensor(14.0)
    alone = torch.eye(12, dtype=torch.bool)
    theirs = open_clip.loss.ClipLoss()(images, texts, scale)
    assert torch.allclose(clip_loss(images, texts, scale, alone), theirs, atol=1e-6)
    bias = torch.tensor(-9.0)
    theirs = open_clip.loss.SigLipLoss()(images, texts, scale, bias)
    assert torch.allclose(siglip_loss(images, texts, scale, alone, bias), theirs, atol=1e-5)


def test_equal_texts_are_right_for_each_others_pictures() -> None:
    rows = torch.eye(4)
    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    texts = rows[[1, 0, 2, 3]]  # of two pictures with one caption either text will do
    right = clip_loss(rows, texts, torch.tensor(50.0), same)
    assert right < clip_loss(rows, texts, torch.tensor(50.0), torch.eye(4, dtype=torch.bool))
    blurred = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).float()
    both = torch.nn.functional.normalize(blurred, dim=-1)
    assert clip_loss(both, both, torch.tensor(100.0), same) == pytest.approx(float(np.log(2)) / 2, abs=1e-4)


@pytest.mark.parametrize(("kind", "loss"), [("clip", "clip"), ("siglip", "siglip"), ("cnn", "clip")])
@pytest.mark.parametrize("locked", ["", "image", "text"])
def test_gradients_in_pieces_are_those_of_the_whole(
    models: Callable[[str], Path], kind: str, loss: Any, locked: Any
) -> None:
    encoder = clipkit.load_encoder(str(models(kind)))
    gradients = []
    for piece in (0, 3):
        recipe = ContrastiveRecipe(loss=loss, locked=locked, piece=piece)
        network = network_of(encoder, recipe)
        rng = torch.Generator().manual_seed(0)
        pixels = torch.randn(10, 3, *encoder.recipe.size, generator=rng)
        context = network.context_length
        tokens = torch.randint(1, 20, (10, context), generator=rng)
        value = backward(network, Batch(pixels, tokens, torch.eye(10, dtype=torch.bool)), recipe)
        named = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
        gradients.append((value, named))
    (whole, first), (pieces, second) = gradients
    assert whole == pytest.approx(pieces, rel=1e-5)
    assert set(first) == set(second)
    is_locked = {"image": lambda name: name.startswith("visual."), "text": lambda name: "visual." not in name}
    towers = [name for name in first if not name.startswith("logit_")]
    assert towers
    assert not [name for name in towers if locked and is_locked[locked](name)]
    for name, gradient in first.items():
        assert (gradient - second[name]).norm() <= 1e-5 * max(gradient.norm(), torch.tensor(1.0)), name


def network_of(encoder: Any, recipe: ContrastiveRecipe) -> Any:
    from clipkit.learn.contrastive import _groups
    from clipkit.models.trainable import TunableEncoder

    network, _ = TunableEncoder(encoder).network()
    assert all(group["params"] for group in _groups(network, recipe))
    return network


def test_a_small_model_learns_what_it_is_shown(
    models: Callable[[str], Path], pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    encoder = clipkit.load_encoder(str(models("clip")))
    steps = []
    trained = train_clip(
        pairs, encoder, tmp_path / "trained", recipe=RECIPE, progress=lambda at: steps.append((at.done, at.total))
    )
    assert trained.losses[-1] < 0.6 * trained.losses[0]
    assert steps == [(done, 24) for done in range(1, 25)]
    learned = clipkit.load_encoder(str(trained.folder))
    scores = learned.encode_images([file for file, _ in pairs]) @ learned.encode_texts(list(WORDS.values())).T
    right = [list(WORDS.values())[i] for i in scores.argmax(axis=1)]
    before = encoder.encode_images([file for file, _ in pairs]) @ encoder.encode_texts(list(WORDS.values())).T
    assert np.mean([said == words for said, (_, words) in zip(right, pairs, strict=True)]) >= 0.9
    assert (before.argmax(axis=1) == scores.argmax(axis=1)).mean() < 0.9
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{trained.folder}")
    assert theirs.logit_scale.detach().exp().item() == pytest.approx(trained.logit_scale)
    report = json.loads((trained.folder / "training.json").read_text())
    assert (report["pairs"], report["losses"], report["recipe"]["epochs"]) == (16, list(trained.losses), 12)
    assert repr(trained).startswith("TrainedClip('trained', 16 pairs, loss ")


def test_texts_that_are_longer_than_the_model_reads_are_counted(
    models: Callable[[str], Path], pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    encoder = clipkit.load_encoder(str(models("clip")))
    long = [(file, f"{text} {'beside the lake ' * 40}!") for file, text in pairs[:5]]  # one text for four of them
    recipe = replace(RECIPE, epochs=1)
    trained = train_clip([*long, *pairs[5:]], encoder, tmp_path / "long", recipe=recipe)
    assert (trained.cut, json.loads((tmp_path / "long" / "training.json").read_text())["cut"]) == (2, 2)
    assert repr(trained).startswith("TrainedClip('long', 16 pairs, 2 texts cut, loss ")
    assert train_clip(pairs, encoder, tmp_path / "short", recipe=recipe).cut == 0


def test_cut_texts_are_those_with_more_tokens_than_the_context() -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    words = [
        "a",
        "red",
        "boat,",
        "lies",
        "by",
        "thunderstruck",
        "lakes",
        "&",
        "2",
        "dogs;",
        "café",
        "naïve",
        "😀",
        "rhododendron",
    ]
    rng = np.random.default_rng(0)
    for count in range(1, 40):
        text = " ".join(rng.choice(words, count)) + " tree"
        assert count_cut([text], tokenizer) == (len(tokenizer.encode(text)) > 22), text
    assert count_cut([], tokenizer) == 0


def test_the_seed_decides_and_pieces_change_nothing(
    models: Callable[[str], Path], pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    encoder = clipkit.load_encoder(str(models("clip")))
    short = replace(RECIPE, epochs=2)
    first = train_clip(pairs, encoder, tmp_path / "1", recipe=short).losses
    assert train_clip(pairs, encoder, tmp_path / "2", recipe=short).losses == first
    assert train_clip(pairs, encoder, tmp_path / "3", recipe=replace(short, seed=1)).losses != first
    assert train_clip(pairs, encoder, tmp_path / "4", recipe=replace(short, piece=3)).losses == pytest.approx(
        first, rel=1e-3
    )


@pytest.mark.parametrize(("locked", "kept"), [("image", "images"), ("text", "texts")])
def test_a_locked_tower_stays_as_it_is(
    models: Callable[[str], Path], pairs: list[tuple[str, str]], tmp_path: Path, locked: Any, kept: str
) -> None:
    encoder = clipkit.load_encoder(str(models("clip")))
    trained = train_clip(pairs, encoder, tmp_path / "t", recipe=replace(RECIPE, epochs=2, locked=locked))
    learned = clipkit.load_encoder(str(trained.folder))
    files, words = [file for file, _ in pairs], list(WORDS.values())
    same = {
        "images": np.allclose(encoder.encode_images(files), learned.encode_images(files), atol=1e-5),
        "texts": np.allclose(encoder.encode_texts(words), learned.encode_texts(words), atol=1e-5),
    }
    assert same == {"images": kept == "images", "texts": kept == "texts"}


def test_a_dataset_brings_captions_or_labels(
    models: Callable[[str], Path], pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\n" + "".join(f"{file},{words}\n{file},the boat\n" for file, words in pairs))
    encoder = clipkit.load_encoder(str(models("clip")))
    captioned = clipkit.load_dataset(table)
    assert train_clip(captioned, encoder, tmp_path / "a", recipe=replace(RECIPE, epochs=1)).pairs == 16
    for file, words in pairs:
        place = tmp_path / "classes" / words / Path(file).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(Path(file).read_bytes())
    labelled = clipkit.load_dataset(tmp_path / "classes")
    assert train_clip(labelled, encoder, tmp_path / "b", recipe=replace(RECIPE, epochs=1)).pairs == 16


def test_what_cannot_be_trained_is_said(
    models: Callable[[str], Path], pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    encoder = clipkit.load_encoder(str(models("clip")))
    with pytest.raises(DatasetError, match="1 pair cannot be told apart"):
        train_clip(pairs[:1], encoder, tmp_path / "a")
    with pytest.raises(DatasetError, match="pair 1 has no text"):
        train_clip([pairs[0], (pairs[1][0], "")], encoder, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(ModelError, match="not an empty folder"):
        train_clip(pairs, encoder, tmp_path / "full")
    with pytest.raises(ModelError, match="no bias of its logits"):
        train_clip(pairs, encoder, tmp_path / "b", recipe=replace(RECIPE, loss="siglip"))
    with pytest.raises(ModelError, match="batch_size = 1"):
        ContrastiveRecipe(batch_size=1)
    with pytest.raises(ClipkitError, match="gone"):
        train_clip([*pairs, ("gone.png", "a boat")], encoder, tmp_path / "c", recipe=replace(RECIPE, epochs=1))
