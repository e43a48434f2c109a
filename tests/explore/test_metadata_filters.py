"""Filters on metadata: against an oracle, the same in Python, on the command line, on the page and in its endpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from clipkit.cli.main import main
from clipkit.errors import QueryError
from clipkit.explore import Library, Question, ask, search
from clipkit.explore.conditions import EXAMPLES, ids_that_meet
from clipkit.index.image_index import ImageIndex
from clipkit.search.query import Condition, parse_query
from tests.images.test_metadata import PACKET
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.downgrade import to_format
from tests.support.faults import rows_of

BERLIN, POTSDAM, SYDNEY, FIJI = (52.52, 13.405), (52.4, 13.066), (-33.868, 151.209), (-17.7, 179.9)


@dataclass(frozen=True)
class Shot:
    """A picture of the oracle."""

    size: tuple[int, int]
    camera: str = ""
    place: tuple[float, float] | None = None
    rating: int | None = None
    tags: tuple[str, ...] = ()
    title: str = ""
    day: str = ""


SHOTS = {
    "a.jpg": Shot((400, 300), "FUJIFILM X100V", BERLIN, 4, ("family", "Sea side"), "Summer holiday", "2019:07:31"),
    "b.jpg": Shot((300, 400), "Canon EOS 5D", POTSDAM, 5, ("Family",), "", "2021:01:02"),
    "c.jpg": Shot((2000, 1000), "Leica Q2", SYDNEY, 0, ("ÖSTERREICH", "familyday"), "Über den Wolken"),
    "trip/d.jpg": Shot((1000, 1000), "FUJIFILM X-T5", FIJI, 2),
    "trip/e.png": Shot((64, 64)),
}
QUERIES: dict[str, Callable[[Shot], bool]] = {
    'camera:"X100V"': lambda shot: "X100V" in shot.camera,
    "camera:fujifilm": lambda shot: "FUJIFILM" in shot.camera,
    "-camera:fujifilm": lambda shot: "FUJIFILM" not in shot.camera,
    'camera:"eos 5d"': lambda shot: "EOS 5D" in shot.camera,
    "place:52.5,13.4,5": lambda shot: shot.place == BERLIN,
    "place:52.5,13.4,50": lambda shot: shot.place in (BERLIN, POTSDAM),
    "-place:52.5,13.4,50": lambda shot: shot.place not in (BERLIN, POTSDAM),
    "place:-17.7,-179.9,50": lambda shot: shot.place == FIJI,
    "place:90,0,21000": lambda shot: shot.place is not None,
    "place:0,0,21000": lambda shot: shot.place is not None,
    "place:-33.9,151.2,10.5": lambda shot: shot.place == SYDNEY,
    "size:>0.5MP": lambda shot: shot.size[0] * shot.size[1] > 500_000,
    "size:>1MP": lambda shot: shot.size[0] * shot.size[1] > 1_000_000,
    "size:<=1MP": lambda shot: shot.size[0] * shot.size[1] <= 1_000_000,
    "width:>=400": lambda shot: shot.size[0] >= 400,
    "-width:>=400": lambda shot: shot.size[0] < 400,
    "width:64": lambda shot: shot.size[0] == 64,
    "height:<400": lambda shot: shot.size[1] < 400,
    "rating:>=4": lambda shot: shot.rating is not None and shot.rating >= 4,
    "rating:0": lambda shot: shot.rating == 0,
    "-rating:>=4": lambda shot: shot.rating is None or shot.rating < 4,
    "tag:family": lambda shot: "family" in [tag.lower() for tag in shot.tags],
    "tag:FAMILY -rating:5": lambda shot: "family" in shot.tags,
    "tag:österreich": lambda shot: "ÖSTERREICH" in shot.tags,
    'tag:"sea side,österreich"': lambda shot: bool({"Sea side", "ÖSTERREICH"} & set(shot.tags)),
    "tag:sea": lambda shot: False,
    "title:HOLIDAY": lambda shot: "holiday" in shot.title,
    "title:über": lambda shot: "Über" in shot.title,
    "-title:holiday": lambda shot: "holiday" not in shot.title,
    "title:%": lambda shot: False,
    "date:2019": lambda shot: shot.day.startswith("2019"),
    "-date:2019": lambda shot: not shot.day.startswith("2019"),
    "date:2019-08..": lambda shot: shot.day.startswith("2021"),
    "date:..2019-07-31": lambda shot: shot.day.startswith("2019"),
    "shape:square": lambda shot: shot.size[0] == shot.size[1],
    "-shape:landscape": lambda shot: shot.size[0] <= shot.size[1],
    "type:png": lambda shot: shot.size == (64, 64),
    "-type:png,jpeg": lambda shot: False,
    "path:trip rating:>1": lambda shot: shot.rating == 2,
    "-path:trip size:<1MP tag:family": lambda shot: shot.rating in (4, 5),
}


@pytest.fixture(scope="module")
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: ColourEncoder) -> ImageIndex:
    root = tmp_path_factory.mktemp("filters") / "photos"
    for name, shot in SHOTS.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", shot.size, COLOURS["red"]).save(root / name, exif=_exif(shot))
        if shot.tags:
            items = "".join(f"<rdf:li>{tag}</rdf:li>" for tag in shot.tags)
            packet = PACKET.replace("<rdf:li>family</rdf:li><rdf:li>Österreich</rdf:li><rdf:li>Family</rdf:li>", items)
            for old in (' xmp:Rating="4"', 'tiff:Make="SONY" tiff:Model="ILCE-7M3" exif:GPSLatitude="52,31.2N"'):
                packet = packet.replace(old, "")
            packet = packet.replace("Holiday &amp; sea", shot.title).replace("2020-02-03T04:05:06+01:00", "none")
            (root / name).with_suffix(".xmp").write_text(packet)
    made = ImageIndex.create(root, encoder)
    made.update()
    return made


def _exif(shot: Shot) -> Image.Exif:
    exif = Image.Exif()
    maker, _, model = shot.camera.partition(" ")
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = maker, model
    if shot.rating is not None:
        exif[0x4746] = shot.rating
    if shot.day:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{shot.day} 10:00:00"
    if shot.place:
        (north, east), angles = shot.place, [(abs(one), 0, 0) for one in shot.place]
        gps = {1: "S" if north < 0 else "N", 2: angles[0], 3: "W" if east < 0 else "E", 4: angles[1]}
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    return exif


@pytest.mark.parametrize("query", QUERIES)
def test_a_filter_leaves_what_an_oracle_leaves_everywhere(
    query: str,
    index: ImageIndex,
    encoder: ColourEncoder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("clipkit.cli.options.ModelOptions.query_encoder", lambda *_: encoder)
    expected = [name for name, shot in SHOTS.items() if QUERIES[query](shot)]
    newest = sorted(expected, key=lambda name: SHOTS[name].day, reverse=True)
    assert sorted(hit.path for hit in search(index, f"red {query}", 20, encoder=encoder)) == expected
    assert [hit.path for hit in search(index, query, 20)] == newest
    library = Library(index.root, lambda *_: encoder)
    assert [one.fact.path for one in ask(library, Question(query), 20).found] == newest
    wheres = [part for one in _conditions(query) for part in ("--where", one)]
    for arguments in (["red", *wheres], [f"red {query}"], ["", *wheres]):
        assert main(["search", *arguments[:1], str(index.root), *arguments[1:], "-t", "20", "--json"]) == 0
        found = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
        assert sorted(found) == expected
    assert main(["search", str(index.root), *wheres, "--json"]) == 0
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == newest


def _conditions(query: str) -> list[str]:
    return [f'{"-" if one.is_excluded else ""}{one.field}:"{one.value}"' for one in parse_query(query).conditions]


@pytest.mark.parametrize(
    "bad",
    [
        *("size:12", "size:12MP", "size:>xMP", "size:>-1MP", "size:big", "width:>=x", "width:", "height:>=1e9"),
        *("rating:6", "rating:>=9", "rating:good", "place:52.5,13.4", "place:91,0,5", "place:0,0,0", "place:a,b,c"),
        *(
            "place:nan,0,5",
            "place:0,inf,5",
            "place:0,181,5",
            "place:1,2,3,4",
            'camera:" "',
            'title:""',
            "tag:,",
            'tag:""',
        ),
    ],
)
def test_a_bad_value_is_a_sentence_whose_hint_works(bad: str, index: ImageIndex) -> None:
    if bad == "width:":
        assert parse_query(bad).conditions == ()  # words
        return
    field = bad.partition(":")[0]
    with pytest.raises(QueryError, match=f"^{field}:.* cannot be read$") as caught:
        search(index, f"red {bad}")
    assert caught.value.hint == f"write {EXAMPLES[field]}"
    search(index, EXAMPLES[field].split(" ")[0], 1)


def test_where_takes_filters_alone(index: ImageIndex, capsys: pytest.CaptureFixture[str]) -> None:
    for bad in ("a dog", "rating:>=4 a dog", "", "rating"):
        with pytest.raises(QueryError, match="is no filter"):
            parse_query("red", where=[bad])
    assert main(["search", "red", str(index.root), "--where", "a dog"]) == 1
    assert "--where 'rating:>=4'" in capsys.readouterr().err
    assert parse_query("16:9", where=["rating:>=4"], literal=True).conditions == (Condition("rating", ">=4"),)
    assert main(["search", "--where", "rating:1", str(index.root)]) == 0
    assert "are left by the filters" in capsys.readouterr().err


def test_a_query_may_begin_with_a_minus_sign(index: ImageIndex, capsys: pytest.CaptureFixture[str]) -> None:
    for query in ("-path:trip", "-Path:trip -type:png", "-type:png -path:./trip"):
        assert main(["search", query, str(index.root), "-t", "9", "-f"]) == 0
        assert sorted(Path(line).name for line in capsys.readouterr().out.splitlines()) == ["a.jpg", "b.jpg", "c.jpg"]
    assert main(["search", "--where", "-path:trip", str(index.root), "-t", "1", "-f"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_path_that_is_none_is_told_with_one_to_type(index: ImageIndex) -> None:
    for text in ("path:Trip", "path:trap", "a dog path:photos/trip"):
        with pytest.raises(QueryError, match="no pictures are indexed in") as caught:
            ids_that_meet(index, parse_query(text).conditions)
        assert caught.value.hint == 'write path:"trip"'
        assert parse_query(caught.value.hint.removeprefix("write ")).conditions == (Condition("path", "trip"),)


def test_where_no_folder_is_a_path_is_told_to_be_left_out(photos: Path, encoder: ColourEncoder) -> None:
    flat = ImageIndex.create(photos, encoder)
    flat.update()
    with pytest.raises(QueryError, match="no pictures are indexed in trip") as caught:
        ids_that_meet(flat, parse_query("path:trip").conditions)
    assert caught.value.hint == "leave path: out: all pictures of this index lie in its root"


def test_dates_that_end_before_they_begin_are_said_to(index: ImageIndex) -> None:
    with pytest.raises(QueryError, match="ends before it begins") as caught:
        search(index, "date:2024-05..2019")
    assert caught.value.hint == "write date:2019..2024-05"
    assert len(search(index, "date:2019..2019-07-31")) == 1
    assert len(search(index, "shape:Square")) == 2


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(0.001, 21_000))
def test_a_circle_is_what_the_haversine_says(index: ImageIndex, latitude: float, longitude: float, km: float) -> None:
    found = ids_that_meet(index, [Condition("place", f"{latitude:.6f},{longitude:.6f},{km:.6f}")])
    assert found is not None
    _, paths = index.store.paths()
    near = {paths[id_] for id_ in found.tolist()}
    for name, shot in SHOTS.items():
        if shot.place is None:
            assert name not in near
            continue
        (a, b), (c, d) = (map(math.radians, place) for place in (shot.place, (latitude, longitude)))
        angle = math.acos(max(-1, min(1, math.sin(a) * math.sin(c) + math.cos(a) * math.cos(c) * math.cos(b - d))))
        if abs(6371.0088 * angle - km) > 1:
            assert (name in near) == (6371.0088 * angle < km)


@given(st.text(max_size=20), st.sampled_from(sorted({*EXAMPLES, "date", "shape", "type"})))
def test_no_value_is_more_than_a_sentence(index: ImageIndex, value: str, field: str) -> None:
    try:
        found = ids_that_meet(index, [Condition(field, value)])
    except QueryError:
        return
    assert found is not None
    assert np.isin(found, index.ids).all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_older_index_is_filtered_by_what_it_has(number: int, tmp_path: Path, encoder: ColourEncoder) -> None:
    Image.new("RGB", (64, 32), COLOURS["red"]).save(tmp_path / "red.jpg")
    index = ImageIndex.create(tmp_path, encoder)
    index.update()
    to_format(index.store.file, number)
    assert len(search(index, "red shape:landscape type:jpeg -camera:x", encoder=encoder)) == 1
    assert len(search(index, "red rating:>=0", encoder=encoder)) == 0


def test_forged_metadata_is_filtered_without_harm(tmp_path: Path, encoder: ColourEncoder) -> None:
    Image.new("RGB", (64, 32), COLOURS["red"]).save(tmp_path / "red.jpg")
    index = ImageIndex.create(tmp_path, encoder)
    index.update()
    forged = (
        "tags = x'ff', camera = 7, title = zeroblob(9), latitude = 'x', longitude = 1e300, rating = 'y', width = 'z'"
    )
    rows_of(index, f"UPDATE images SET {forged}")
    for query in QUERIES:
        search(index, f"red {query.replace('-path:trip', '').replace('path:trip', '')}", encoder=encoder)
