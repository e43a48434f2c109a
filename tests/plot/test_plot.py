"""Plots hold what they were given: values, order, titles and colours, on axes of ours or of the caller."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import clipkit
from clipkit import plot
from clipkit.errors import ModelError, ShapeError
from clipkit.index.image_index import ImageIndex
from clipkit.learn.trainer import Epoch
from clipkit.metrics import ece
from clipkit.models.attention import AttentionMaps, Grid
from clipkit.plot.pictures import RIGHT, WRONG
from tests.support.colours import COLOURS, ColourEncoder, paint


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def maps() -> AttentionMaps:
    """Two layers of two heads over 2 x 2 patches; each head looks at a patch of its own."""
    heads = np.eye(4, dtype=np.float32).reshape(2, 2, 2, 2)
    seen = np.full((32, 32, 3), 128, np.uint8)
    grid = Grid((32, 32), (16, 16), 2, 2, ("class",), 5)
    rolled = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)
    layers = (heads[0], heads[1])
    return AttentionMaps("a ViT", grid, seen, heads[1].mean(axis=0), rolled, "class token", layers=layers)


def test_every_plot_draws_on_the_axes_that_it_is_given(photos: Path, maps: AttentionMaps) -> None:
    history = [Epoch(1, 0.1, 2.0, 1.5, 0.5, 0.1)]
    draw = (
        lambda ax: plot.sample_grid(sorted(photos.iterdir()), ax=ax),
        lambda ax: plot.confusion_matrix(["a", "b"], ["a", "a"], ax=ax),
        lambda ax: plot.learning_curves(history, ax=ax),
        lambda ax: plot.reliability_diagram([0.5], [True], ax=ax),
        lambda ax: plot.embedding_map(np.eye(6, dtype=np.float32), ax=ax),
        lambda ax: plot.patch_grid(maps, ax=ax),
        lambda ax: plot.attention(maps, ax=ax),
    )
    assert len(draw) == len(plot.__all__)
    for one in draw:
        mine, other = plt.figure().subplots(), one(None)
        assert one(mine) is mine
        assert other is not mine
        mine.figure.canvas.draw()
        assert np.ptp(np.asarray(mine.figure.canvas.buffer_rgba())[..., :3]) > 100  # there is something on it


def test_a_grid_shows_labels_and_marks_what_is_wrong(tmp_path: Path) -> None:
    files = [str(paint(tmp_path / f"{name}.png", COLOURS[name])) for name in ("red", "blue", "green")]
    (tmp_path / "bad.png").write_bytes(b"nothing")
    pictures = [*files, str(tmp_path / "bad.png"), Image.new("RGB", (900, 30)), np.zeros((8, 8, 3), np.uint8)]
    labels = ["red", "blue", "green", "bad", "x", "y"]
    axes = plot.sample_grid(pictures, labels=labels, predicted=["red", "green", "green", "bad", "x", "y"], columns=3)
    assert [text.get_text() for text in axes.texts] == [
        "red",
        "green\nis blue",
        "green",
        "cannot be read",
        "bad",
        "x",
        "y",
    ]
    colours = [text.get_color() for text in axes.texts]
    assert colours[:3] == [RIGHT, WRONG, RIGHT]
    assert len(axes.images) == 5
    assert tuple(axes.images[0].get_array()[0, 0]) == COLOURS["red"]
    assert axes.get_xlim() == (0, 3)


def test_a_grid_of_an_index_and_of_hits_opens_no_more_than_it_shows(photos: Path, encoder: ColourEncoder) -> None:
    index = ImageIndex.create(photos, encoder)
    index.update()
    assert [text.get_text() for text in plot.sample_grid(index, most=2).texts] == index.paths[:2]
    assert plot.sample_grid(index.search("red", k=1)).texts[0].get_text() == "1.000 red.png"


def test_a_confusion_matrix_counts_in_the_order_of_its_classes() -> None:
    axes = plot.confusion_matrix(["a", "a", "b", "c"], ["a", "b", "b", "a"], classes=["c", "b", "a"])
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, [[0, 0, 1], [0, 1, 0], [0, 0.5, 0.5]])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["c", "b", "a"]
    assert axes.get_title(loc="left") == "50.0 % of 4 right"


def test_curves_of_epochs_are_those_of_the_history() -> None:
    history = [
        Epoch(1, 0.1, 2.0, 1.5, 0.5, 0.1),
        Epoch(2, 0.1, 1.0, 1.2, 0.75, 0.1),
        Epoch(3, 0.1, 0.5, 1.4, 0.75, 0.1),
    ]
    axes = plot.learning_curves(history)
    (right,) = [one for one in axes.figure.axes if one is not axes]
    assert axes.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.5]
    assert axes.lines[1].get_ydata().tolist() == [1.5, 1.2, 1.4]
    assert right.lines[0].get_ydata().tolist() == [50, 75, 75]
    assert axes.get_title(loc="left") == "best epoch 2: 75.0 % on validation"


def test_a_reliability_diagram_has_the_bins_of_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    sure, right = rng.uniform(size=200), rng.uniform(size=200) < 0.5
    axes = plot.reliability_diagram(sure, right, bins=10)
    for bar in axes.patches:
        place = round((bar.get_x() + bar.get_width() / 2) * 10 - 0.5)
        inside = (sure > place / 10) & (sure <= (place + 1) / 10)
        assert bar.get_height() == pytest.approx(right[inside].mean())
    assert len(axes.patches) == 10
    assert axes.get_title(loc="left") == f"ECE {ece(sure, right, bins=10):.3f}, n = 200"


def test_a_map_brings_alike_embeddings_together_and_names_the_commonest_labels(colours: Path) -> None:
    from clipkit.datasets.embed import embed_once

    axes = plot.embedding_map(embed_once(clipkit.load_dataset(colours), ColourEncoder()))
    red, blue = (points.get_offsets() for points in axes.collections)
    apart = np.linalg.norm(red.mean(axis=0) - blue.mean(axis=0))
    assert apart > max(np.ptp(red, axis=0).max(), np.ptp(blue, axis=0).max())
    many = plot.embedding_map(np.eye(30, dtype=np.float32), labels=[f"{i:02}" for i in range(28)] + ["00"] * 2)
    words = [text.get_text() for text in many.get_legend().get_texts()]
    assert words[:2] == ["16 others", "00"]
    odd = plot.embedding_map(np.eye(3, dtype=np.float32), labels=["_a", "$b", "c"])
    assert [text.get_text() for text in odd.get_legend().get_texts()] == ["\\$b", " _a", "c"]
    assert len(words) == 13


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    for name in ("red", "blue"):
        for number in range(8):
            red, green, blue = COLOURS[name]
            paint(
                tmp_path / "colours" / name / f"{number}.png",
                (abs(red - number), green + number, abs(blue - 2 * number)),
            )
    return tmp_path / "colours"


def test_attention_is_that_of_the_layer_and_the_head(maps: AttentionMaps) -> None:
    axes = plot.attention(maps, layer=1, head=2)
    np.testing.assert_array_equal(axes.images[1].get_array(), maps.layers[0][1])
    assert axes.get_title(loc="left") == "attention: layer 1 of 2, head 2"
    np.testing.assert_array_equal(plot.attention(maps).images[1].get_array(), maps.rollout)
    np.testing.assert_array_equal(plot.attention(maps, layer=2).images[1].get_array(), maps.last)
    assert plot.patch_grid(maps).get_title(loc="left") == "2 x 2 patches of 16 x 16 pixels"
    assert len(plot.attention(maps).figure.axes) == 2  # a colour scale


def test_relevance_is_called_so_and_has_no_layers(maps: AttentionMaps) -> None:
    values = np.eye(2, dtype=np.float32)
    other = AttentionMaps(
        "a net", maps.grid, maps.seen, reason="no attention here", relevance=values, target="the class cat"
    )
    axes = plot.attention(other)
    assert axes.get_title(loc="left") == "relevance (Grad-CAM) for the class cat"
    np.testing.assert_array_equal(axes.images[1].get_array(), values)
    with pytest.raises(ModelError, match="no attention here"):
        plot.attention(other, layer=1)


def test_what_cannot_be_drawn_is_said(maps: AttentionMaps) -> None:
    wrong = {
        "2 predictions for 1 labels": lambda: plot.confusion_matrix(["a"], ["a", "b"]),
        "'b' is not among the classes": lambda: plot.confusion_matrix(["a"], ["b"], classes=["a"]),
        "no picture to show": lambda: plot.sample_grid([]),
        "takes a list": lambda: plot.sample_grid("cat.jpg"),
        "1 labels for 2 pictures": lambda: plot.sample_grid(["a.jpg", "b.jpg"], labels=["a"]),
        "there is no epoch": lambda: plot.learning_curves([]),
        "are not both": lambda: plot.reliability_diagram([0.5, 0.5], [True]),
        "between 0 and 1": lambda: plot.reliability_diagram([1.5], [True]),
        "0 bins": lambda: plot.reliability_diagram([0.5], [True], bins=0),
        "no embedding to lay out": lambda: plot.embedding_map(np.empty((0, 4), np.float32)),
        "3 labels for 2 embeddings": lambda: plot.embedding_map(np.eye(2, dtype=np.float32), labels=["a"] * 3),
    }
    for words, draw in wrong.items():
        with pytest.raises(ShapeError, match=words):
            draw()
    for choice in ({"layer": 3}, {"head": 3}):
        with pytest.raises(ModelError, match=r"no (layer|head) 3"):
            plot.attention(maps, **choice)


def test_matplotlib_is_not_loaded_before_something_is_drawn() -> None:
    script = "import sys, clipkit; clipkit.plot.sample_grid, clipkit.plot.learning_curves; "
    script += "print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plot.confusion_matrix(["a"], ["a"], classes=["a", "a"]), "named twice"),
        (lambda: plot.learning_curves(None), "no epoch"),  # type: ignore[arg-type]
        (lambda: plot.learning_curves([{"loss": 1}]), "no epoch"),  # type: ignore[list-item]
        (lambda: plot.reliability_diagram([0.5, 0.5], ["cat", "dog"]), "is_right is not True or False"),
        (lambda: plot.reliability_diagram([0.5, 0.5], [2, 7]), "is_right is not True or False"),
        (lambda: plot.reliability_diagram([0.5], [True], bins=2.5), "2.5 bins"),  # type: ignore[arg-type]
        (lambda: plot.embedding_map(["cat.jpg"]), "no embeddings"),  # type: ignore[arg-type]
        (lambda: plot.embedding_map(np.float32(3)), "no"),  # type: ignore[arg-type]
        (lambda: plot.embedding_map(clipkit.datasets.Dataset("none", ("a.jpg",))), "no embeddings"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_drawn_gets_a_sentence(draw: Callable[[], object], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        draw()


def test_classes_of_numbers_are_named_as_their_labels_are() -> None:
    assert plot.confusion_matrix([0, 1, 1], [0, 1, 0], classes=[1, 0]).get_title(loc="left") == "66.7 % of 3 right"  # type: ignore[list-item]


def test_tensors_are_shown_as_the_pictures_that_they_are() -> None:
    import torch

    red = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)
    red[:, 0] = 255
    axes = plot.sample_grid(red)  # type: ignore[arg-type]
    assert np.asarray(axes.images[0].get_array())[0, 0].tolist() == [255, 0, 0]
    assert len(axes.images) == 2
    with pytest.raises(ShapeError, match="cannot be shown"):
        plot.sample_grid([torch.zeros(3, 8, 8)])  # type: ignore[list-item]
