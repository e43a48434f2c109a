"""Filters and duplicates: the same answer in Python, on the command line and on the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipkit.cli.main import main
from clipkit.core.arrays import Embeddings
from clipkit.errors import QueryError
from clipkit.explore.duplicates import find_duplicates
from clipkit.explore.library import Library
from clipkit.explore.metadata import Catalogue, Filters, choose_ids, parse_day, parse_kinds
from clipkit.explore.question import Question, ask, search
from clipkit.index.image_index import ImageIndex
from clipkit.index.paths import filter_for, path_filter
from tests.support.colours import COLOURS, ColourEncoder, paint

TAKEN = 36867  # the EXIF tag DateTimeOriginal
EXIF = 34665


class Sentences(ColourEncoder):
    """Reads whole sentences: a colour that is one, or grey."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return super().encode_texts([text if text in COLOURS else "grey" for text in texts])


@pytest.fixture
def encoder() -> ColourEncoder:
    return Sentences()


@pytest.fixture
def album(photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    """The eight colours, and of red: a tall JPEG of 2019, a wide one of 2021 below trip/, a copy of red.png there."""
    for name, size, day in (("tall", (16, 40), "2019:07:31 10:00:00"), ("trip/wide", (40, 16), "2021:01:02 03:04:05")):
        file, exif = photos / f"{name}.jpg", Image.Exif()
        exif.get_ifd(EXIF)[TAKEN] = day
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, COLOURS["red"]).save(file, exif=exif)
    shutil.copyfile(photos / "red.png", photos / "trip" / "again.png")
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: encoder)
    index = ImageIndex.create(photos, encoder)
    index.update()
    return index


CASES: dict[str, tuple[Filters, list[str], set[str]]] = {
    "after": (Filters(since="2020"), ["--after", "2020"], {"trip/wide.jpg"}),
    "before": (Filters(until=parse_day("2019", is_end=True)), ["--before", "2019"], {"tall.jpg"}),
    "month": (
        Filters(since="2019-07", until="2019-07-99"),
        ["--after", "2019-07", "--before", "2019-07"],
        {"tall.jpg"},
    ),
    "shape": (Filters(shapes=("portrait",)), ["--shape", "portrait"], {"tall.jpg"}),
    "shapes": (
        Filters(shapes=("portrait", "landscape")),
        ["--shape", "portrait", "--shape", "landscape"],
        {"tall.jpg", "trip/wide.jpg"},
    ),
    "type": (Filters(kinds=("JPEG",)), ["--type", "jpg"], {"tall.jpg", "trip/wide.jpg"}),
    "folder": (Filters(folder="trip"), ["--in", "trip"], {"trip/wide.jpg", "trip/again.png"}),
    "both": (Filters(folder="trip", kinds=("PNG",)), ["--in", "trip", "--type", ".PNG"], {"trip/again.png"}),
    "not there": (
        Filters(kinds=("JPEG",), exclude_dirs=("trip",)),
        ["--type", "jpeg", "--exclude-dir", "trip"],
        {"tall.jpg"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_filter_leaves_the_same_everywhere(
    case: str, album: ImageIndex, encoder: ColourEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    filters, options, expected = CASES[case]
    assert {hit.path for hit in search(album, "red", 20, filters=filters, encoder=encoder)} == expected
    library = Library(album.root, lambda *_: encoder)
    assert {one.fact.path for one in ask(library, Question("red", filters=filters), 20).found} == expected
    assert main(["search", "red", str(album.root), "--json", *options]) == 0
    assert {json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()} == expected


@pytest.mark.parametrize("least", ["weak", "likely", "strong"])
def test_relevance_leaves_the_same_everywhere(
    least: Any, album: ImageIndex, encoder: ColourEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    library = Library(album.root, lambda *_: encoder)
    expected = [one.hit.path for one in ask(library, Question("blue", least=least), 20).found]
    found = search(album, "blue", 20, least=least, encoder=encoder)
    assert [hit.path for hit in found] == expected
    assert main(["search", "blue", str(album.root), "-t", "20", "--json", "--min-relevance", least]) == 0
    assert [json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()] == expected
    assert expected[0] == "blue.png"
    assert len(expected) == (11 if least == "weak" else 1)


def test_what_is_left_by_no_filter_is_a_sentence(album: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "red", str(album.root), "--after", "2030"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "left by the filters" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--after", "yesterday"], "is no date"),
        (["--after", "2019-13"], "is no date"),
        (["--before", "2019-00"], "is no date"),
        (["--before", "2019-07-32"], "is no date"),
        (["--type", "docx"], "is no type of picture"),
        (["--type", ""], "no type"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_to_write(
    options: list[str], sentence: str, album: ImageIndex, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "red", str(album.root), *options]) == 1
    err = capfd.readouterr().err
    assert sentence in err
    assert "hint: " in err


def test_a_type_is_read_as_people_write_it() -> None:
    assert [parse_kinds(text) for text in ("jpg", ".JPEG", "Png", "heif")] == [
        ("JPEG",),
        ("JPEG",),
        ("PNG",),
        ("HEIC",),
    ]
    assert parse_kinds("nef") == ("NEF",)
    assert {"NEF", "CR2", "DNG"} < set(parse_kinds("RAW"))
    with pytest.raises(QueryError, match="no type"):
        parse_kinds("exe")


def test_filters_that_need_only_paths_read_no_metadata(album: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.explore.metadata.Catalogue.read", lambda *_: pytest.fail("metadata was read"))
    ids = choose_ids(album, Filters(folder="trip"))
    assert ids is not None
    assert len(ids) == 2
    assert choose_ids(album, Filters()) is None


@pytest.mark.parametrize(
    ("below", "excluded", "path", "is_chosen"),
    [
        ("a", (), "a/b.jpg", True),
        ("a", (), "ab/c.jpg", False),
        ("a/", (), "a/b/c.jpg", True),
        ("", ("b",), "a/b/c.jpg", False),
        ("", ("a/b",), "a/b/c.jpg", False),
        ("", ("a/b",), "x/a/b/c.jpg", True),
        ("", ("c.jpg",), "a/c.jpg", True),
        (".", ("b/",), "b/c.jpg", False),
    ],
)
def test_a_path_is_below_a_folder_by_whole_names(
    below: str, excluded: tuple[str, ...], path: str, is_chosen: bool
) -> None:
    test = path_filter(below, excluded)
    assert test is not None
    assert test(path) == is_chosen
    assert path_filter("", ()) is None


def test_a_folder_that_holds_nothing_is_an_error_in_every_function(album: ImageIndex) -> None:
    nowhere = Filters(folder="tripp", kinds=("JPEG",))
    for ask_for in (
        lambda: choose_ids(album, replace(nowhere, kinds=())),
        lambda: Catalogue.read(album).chosen(nowhere),
        lambda: album.search("red", below="tripp"),
        lambda: find_duplicates(album, below="tripp"),
    ):
        with pytest.raises(QueryError, match="no pictures are indexed in tripp") as caught:
            ask_for()
        assert caught.value.hint == "--in trip"


def test_a_folder_is_a_glob_or_another_spelling_where_none_is_spelled_so() -> None:
    paths = ["caf\u00e9/a.jpg", "trip/sea/b.jpg", "trip/raw/c.jpg"]

    def chosen(below: str, *excluded: str) -> list[str]:
        test = filter_for(paths, below, excluded)
        return [path for path in paths if test is None or test(path)]

    assert chosen("cafe\u0301") == paths[:1]
    assert chosen("tr*") == paths[1:]
    assert chosen("tr*", "raw") == [paths[1]]
    assert chosen("trip/*a") == [paths[1]]
    assert chosen("") == paths
    with pytest.raises(QueryError, match="no pictures are indexed in sea") as caught:
        chosen("sea")
    assert caught.value.hint == "--in trip/sea"
    with pytest.raises(QueryError, match="no pictures are indexed in sea") as caught:
        filter_for(["a.jpg"], "sea")
    assert caught.value.hint == "leave --in out: all pictures of this index lie in its root"


def test_duplicates_are_listed_in_groups(album: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(album.root / "blue.png", album.root / "blue 2.png")
    shutil.copyfile(album.root / "blue.png", album.root / "blue 3.png")
    album.update()
    groups = [[fact.path for fact in group] for group in find_duplicates(album)]
    assert [sorted(group) for group in groups] == [
        ["blue 2.png", "blue 3.png", "blue.png"],
        ["red.png", "trip/again.png"],
    ]
    assert main(["duplicates", str(album.root)]) == 0
    out, err = capfd.readouterr()
    assert out.split("\n\n")[1].splitlines() == [str(album.root / path) for path in groups[1]]
    assert "3 pictures are copies of others" in err
    assert main(["duplicates", str(album.root), "--json"]) == 0
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [len(record["files"]) for record in records] == [3, 2]
    assert main(["duplicates", str(album.root), "--in", "trip"]) == 0
    assert capfd.readouterr() == ("", "no picture is there twice\n")


def test_a_painted_twin_is_no_duplicate(tmp_path: Path, encoder: ColourEncoder) -> None:
    """Equal pixels in other bytes."""
    paint(tmp_path / "a.png", (255, 0, 0))
    paint(tmp_path / "b.bmp", (255, 0, 0))
    index = ImageIndex.create(tmp_path, encoder)
    index.update()
    assert find_duplicates(index) == []
