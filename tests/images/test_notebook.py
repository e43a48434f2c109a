"""Notebook output: every repr is one line, and HTML shows no place on the disk and no more than it may."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import clipkit
from clipkit.classify.head import Head, Hidden, Rejection
from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import Dataset
from clipkit.datasets.splits import read_split
from clipkit.evaluate.comparison import compare
from clipkit.evaluate.zeroshot import evaluate_zeroshot
from clipkit.explore.albums import Album
from clipkit.explore.library import Library
from clipkit.explore.mapping import map_collection
from clipkit.explore.metadata import Catalogue
from clipkit.explore.question import Question
from clipkit.images.notebook import MOST, Captioned, notebook_html
from clipkit.index.check import check
from clipkit.index.image_index import ImageIndex
from clipkit.learn.fitting import fit_head
from clipkit.learn.trainer import Recipe
from clipkit.models.vit import ViTClassifier
from clipkit.search.hits import Hit, Hits
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.tiny_vits import make_vit


@pytest.fixture
def index(photos: Path, encoder: ColourEncoder) -> ImageIndex:
    made = ImageIndex.create(photos, encoder)
    made.update()
    return made


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    for name in ("red", "blue"):
        for number in range(6):
            paint(tmp_path / "colours" / name / f"{number}.png", COLOURS[name], (40 + number, 48))
    return tmp_path / "colours"


def test_every_repr_is_one_line_that_says_something(index: ImageIndex, colours: Path, encoder: ColourEncoder) -> None:
    dataset = clipkit.load_dataset(colours)
    embedded = embed_once(dataset, encoder)
    zeroshot = ZeroShotClassifier(encoder, ["red", "blue"])
    comparison = compare(colours, encoder, methods=["zeroshot", "prototypes"], shots=[1], seeds=1)
    said = {
        repr(index): ("'photos'", "8 pictures", "colour"),
        repr(index.search("red")): ("Hits(8 pictures", "red.png"),
        repr(index.search("red")[0]): ("Hit(1.0000", "'red.png'"),
        repr(Hits()): ("Hits(0 pictures)",),
        repr(dataset): ("'colours'", "12 pictures", "2 classes: blue, red"),
        repr(embedded): ("12 pictures", "(12, "),
        repr(read_split(colours)): ("train ", "test "),
        repr(zeroshot.head): ("2 classes: red, blue", "projected"),
        repr(zeroshot.prompts): ("2 classes", "prompts"),
        repr(clipkit.LinearProbe(seed=3)): ("LinearProbe(seed=3)",),  # as scikit-learn's estimators say it
        repr(fit_head(colours, encoder)): ("colours", "accuracy"),
        repr(comparison): ("Comparison('colours', colour, 2 rows", "acc1"),
        repr(comparison.predictions): ("pictures",),
        repr(evaluate_zeroshot(clipkit.load_dataset(colours), encoder, templates="plain")): ("acc1 1.000", "n=12"),
        repr(index.update()): ("found=8", "unchanged=8"),
        repr(Question("a cat", np.ones((1, 3), np.float32), more=(1,))): ("'a cat', more=(1,), with a picture",),
        repr(Question()): ("Question('')",),
        repr(check(index)): ("rows=8", "damaged=0"),
        repr(map_collection(index)): ("8 pictures",),
        repr(Catalogue.read(index)): ("8 pictures",),
        repr(Library(index.root, lambda name, exact: encoder)): ("'photos'", "indexed"),
        repr(Album("cats", frozenset({"aa"}))): ("1 picture",),
        repr(Rejection(np.zeros(3, np.float32), np.zeros(2, np.float32), 0.5)): ("cut=0.5",),
        repr(Hidden(np.ones((4, 3), np.float32), np.ones(4, np.float32))): ("3 -> 4",),
    }
    for text, words in said.items():
        assert "\n" not in text
        assert " at 0x" not in text
        assert len(text) < 300, text
        assert all(word in text for word in words), text


def test_names_with_line_breaks_and_escapes_stay_on_one_line() -> None:
    assert repr(Dataset("a\nb\x1b[31m", ("x",))).isprintable()
    assert repr(Hits([Hit(0.5, "a\nb.png", "/a", 1)])).isprintable()
    assert repr(Dataset("many", (), classes=tuple(f"{i}" * 200 for i in range(9)))).count("…") == 3


def test_an_index_that_is_gone_still_has_a_repr(index: ImageIndex) -> None:
    index.store.file.write_bytes(b"no database" * 500)
    assert repr(index) == "ImageIndex('photos', cannot be read: IndexDamaged)"


def test_a_slice_of_hits_is_hits_and_a_path_is_in_them(index: ImageIndex) -> None:
    hits = Hits(index.search("red"), verdict="fits")
    first = hits[:3]
    assert isinstance(first, Hits)
    assert (len(first), first.verdict, list(first)) == (3, "fits", list(hits)[:3])
    assert "red.png" in first
    assert hits[0] in first
    assert "nothing.png" not in first
    assert [hit.path for hit in hits[::-1]] == [hit.path for hit in reversed(hits)]


def test_an_index_is_gone_through_by_path_and_a_dataset_by_picture(index: ImageIndex, colours: Path) -> None:
    assert list(index) == index.paths
    assert "red.png" in index
    assert "no.png" not in index
    dataset = clipkit.load_dataset(colours)
    part = dataset[2:8]
    assert isinstance(part, Dataset)
    assert (part.files, part.labels, part.classes) == (dataset.files[2:8], dataset.labels[2:8], dataset.classes)
    assert [target for _, target in dataset] == [dataset.classes.index(label) for label in dataset.labels]
    head = ZeroShotClassifier(ColourEncoder(), ["red", "blue"]).head
    assert (list(head), len(head), "red" in head, "x" in head) == (["red", "blue"], 2, True, False)


def test_tables_have_a_line_for_each(index: ImageIndex, colours: Path, encoder: ColourEncoder) -> None:
    table = index.to_frame()
    assert table.path.tolist() == index.paths
    assert table.index.tolist() == index.ids.tolist()
    assert (table.width > 0).all()
    frame = clipkit.load_dataset(colours).to_frame()
    assert (list(frame), len(frame)) == (["file", "label"], 12)
    scores = evaluate_zeroshot(clipkit.load_dataset(colours), encoder, templates="plain").to_frame()
    assert scores[["name", "recall"]].values.tolist() == [["blue", 1.0], ["red", 1.0]]
    assert ZeroShotClassifier(encoder, ["red", "blue"]).head.to_frame()["class"].tolist() == ["red", "blue"]


def test_html_shows_pictures_inside_itself_and_no_place_on_the_disk(
    index: ImageIndex, colours: Path, encoder: ColourEncoder, tmp_path: Path
) -> None:
    comparison = compare(colours, encoder, methods=["zeroshot", "prototypes"], shots=[1], seeds=1)
    head = ZeroShotClassifier(encoder, ["red", "blue"]).head
    result = evaluate_zeroshot(clipkit.load_dataset(colours), encoder, templates="plain")
    dataset = clipkit.load_dataset(colours)
    tuned = clipkit.finetune(
        ViTClassifier(make_vit("vit", tmp_path / "vit")), dataset, recipe=Recipe(epochs=1, views=0)
    )
    assert dataset._repr_html_().count("<img") == 12
    assert tuned._repr_html_().count("<img") == len(tuned.validation) == 2
    assert repr(tuned).startswith("FineTuned('local:vit', 2 classes: blue, red")
    assert repr(tuned.classifier).startswith("ViTClassifier(")
    for shown in (index, index.search("red"), dataset, tuned, comparison, head, result):
        html = shown._repr_html_()
        assert str(index.root.parent) not in unescape(html)
        assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', html))
    assert index._repr_html_().count("<img") == index.search("red")._repr_html_().count("<img") == 8
    assert "prototypes" in comparison._repr_html_()
    assert "<td>blue</td>" in head._repr_html_()


def test_html_of_many_hits_is_bounded_and_a_bad_picture_costs_a_placeholder(tmp_path: Path) -> None:
    good, bad = paint(tmp_path / "good.png", (9, 9, 9)), tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    hits = Hits(Hit(0.5, f"{i}.png", str(bad if i == 1 else good), i) for i in range(500))
    html = hits._repr_html_()
    assert (html.count("<img"), html.count("cannot be read")) == (MOST - 1, 1)
    assert "and 488 more pictures" in html
    assert len(html) < 100_000
    assert str(tmp_path) not in html


def test_names_cannot_become_html() -> None:
    hostile = "<img src=x onerror=alert(1)>\"'&\u202e"
    html = notebook_html(hostile, [hostile], pictures=[Captioned("/no/such/file", hostile)], rows=[[hostile]])
    assert "<img" not in html
    assert "\u202e" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 4


def test_a_head_of_many_classes_shows_the_first(encoder: ColourEncoder) -> None:
    names = tuple(f"class {i}" for i in range(500))
    head = Head(names, np.ones((500, 3), np.float32), np.zeros(500, np.float32), 1.0, "m", "f")
    html = head._repr_html_()
    assert html.count("<tr>") == 61
    assert "and 440 more classes" in html
