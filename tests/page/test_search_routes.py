"""The search view's JSON: what it answers, what it refuses in a sentence, what it does to pictures and takes back."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clipkit_apps.classify.session import ClassifySession
from clipkit_apps.library.tab import LibraryActions
from clipkit_apps.search.answers import _headline
from clipkit_apps.search.routes import SearchRoutes
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.routes import Routes
from clipkit_apps.server.runs import CommandRun
from clipkit_apps.server.state import Page
from clipkit_apps.server.thumbnails import Thumbnails
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

import clipkit
from clipkit.classify.head import Head
from clipkit.errors import ClipkitError
from clipkit.explore import metadata
from clipkit.explore import question as asking
from clipkit.explore.albums import change_album, read_albums
from clipkit.explore.library import Library
from clipkit.index.image_index import ImageIndex
from clipkit.index.places import root_of
from clipkit.index.sidecars import read_sidecar
from clipkit.output.sidecar_tags import add_tags
from tests.support.colours import ColourEncoder, paint
from tests.support.films import film
from tests.support.waiting import until


@pytest.fixture
def shelf(photos: Path) -> Shelf:
    """The eight colours, one of them twice, and below them a folder `sub` with a dated picture."""
    (photos / "red again.png").write_bytes((photos / "red.png").read_bytes())
    exif = Image.Exif()
    exif[0x0132], exif[0x010F], exif[0x0110] = "2019:07:31 10:00:00", "Leica", "Leica M6"
    (photos / "sub").mkdir()
    Image.new("RGB", (60, 20), (250, 10, 10)).save(photos / "sub" / "wide.jpg", exif=exif)
    ImageIndex.create(photos, ColourEncoder()).update()
    found = Shelf(lambda *_: ColourEncoder())
    found.add(photos)
    return found


@pytest.fixture
def library(shelf: Shelf) -> Library:
    return shelf.libraries()[0]


@pytest.fixture
def page(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page(shelf, Thumbnails(tmp_path / "thumbs"))
    monkeypatch.setattr(page, "start", lambda library, *_: True)
    return page


class Browser:
    """What the script in the browser sends."""

    def __init__(self, page: Page) -> None:
        routes = [*SearchRoutes(page).all(), *Routes(page.shelf, page.thumbnails, page.outbox).all()]
        self.wire = TestClient(Starlette(routes=routes))

    def post(self, address: str, /, **fields: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.wire.post(f"/clipkit/search/{address}", json=fields).json()
        return found

    def names(self, **fields: Any) -> list[str]:
        return [row["name"] for row in self.post("ask", **fields)["pictures"]]

    def act(self, library: Library, names: list[str], **what: Any) -> dict[str, Any]:
        ids = [id_ for id_, path in library.index.store.paths()[1].items() if path in names]
        return self.post("act", library=library.key, ids=ids, **what)


@pytest.fixture
def browser(page: Page) -> Iterator[Browser]:
    yield Browser(page)
    page.outbox.close()


def test_the_same_question_has_the_same_answer_as_in_python(browser: Browser, library: Library) -> None:
    answer = browser.post("ask", words="red", k=4, stacked=False)
    expected = asking.ask(library, asking.Question("red"), 4)
    assert [row["id"] for row in answer["pictures"]] == [one.fact.id for one in expected.found]
    assert [row["score"] for row in answer["pictures"]] == [round(one.hit.score, 4) for one in expected.found]
    assert [row["label"] for row in answer["pictures"]] == [one.relevance for one in expected.found]


def test_a_longer_answer_goes_on_where_the_shorter_one_ended(browser: Browser) -> None:
    whole = browser.names(words="red", k=20)
    first = browser.post("ask", words="red", k=4)
    rest = browser.post("ask", words="red", k=20, start=first["next"])
    assert [row["name"] for row in (*first["pictures"], *rest["pictures"])] == whole
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_of_equal_bytes_one_is_shown_and_says_how_many_there_are(browser: Browser, library: Library) -> None:
    rows = {row["name"]: row for row in browser.post("ask", words="red", k=20)["pictures"]}
    assert len({"red.png", "red again.png"} & rows.keys()) == 1
    (red,) = (row for name, row in rows.items() if name.startswith("red"))
    assert red["copies"] == 2
    assert {"red.png", "red again.png"} <= set(browser.names(words="red", k=20, stacked=False))
    assert {"red.png", "red again.png"} <= set(browser.names(twins=red["id"]))


def test_without_words_the_library_is_shown_by_month(browser: Browser) -> None:
    answer = browser.post("ask")
    assert answer["is_home"] is True
    assert answer["pictures"][0]["month"] == "2019-07"
    assert answer["months"] == [["2019-07", 1]]
    assert browser.post("ask", words="red")["months"] == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"folder": "sub"}, {"wide.jpg"}),
        ({"since": "2019-07", "until": "2019"}, {"wide.jpg"}),
        ({"shapes": ["landscape"]}, {"wide.jpg"}),
        ({"kinds": ["JPEG"]}, {"wide.jpg"}),
        ({"words": "red type:jpeg"}, {"wide.jpg"}),
        ({"since": "2022"}, set()),
    ],
)
def test_filters_leave_what_they_say(browser: Browser, fields: dict[str, Any], expected: set[str]) -> None:
    assert set(browser.names(**fields)) == expected


def test_a_filter_that_is_none_is_said_and_blocks_no_search(browser: Browser) -> None:
    answer = browser.post("ask", words="blue", since="soon", until="2019-13", folder="gone")
    assert [text.partition(" is ")[0] for text in answer["lost"]][:1] == [
        "no pictures are indexed in gone; this filter"
    ]
    assert any("“soon” is no date" in text for text in answer["lost"])
    assert any("“2019-13” is no date" in text for text in answer["lost"])
    assert answer["pictures"][0]["name"] == "blue.png"


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b'"x"', b'{"words": 3}', b'{"more": "1,2"}', b'{"more": [true]}', b'{"k": -1}', b'{"k": 1e9}',
        b'{"kinds": [3]}', b'{"ids": [0]}', b'{"words": "red AND ("}', b'{"words": "@nix"}', b'{"picture": "nix"}',
        b'{"album": "nix"}', b"[" * 100_000, b'{"shapes": ["' + b"x" * 5000 + b'"]}',
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_sentence(browser: Browser, body: bytes) -> None:
    answer = browser.wire.post("/clipkit/search/ask", content=body)
    said = answer.json()
    assert answer.status_code == 400
    assert said["error"]
    assert said["hint"]
    assert "Traceback" not in said["error"]


@pytest.mark.parametrize(
    ("words", "relevances", "has_more", "sentence"),
    [
        ("a cat", ["strong"], False, "1 picture shows “a cat”"),
        ("a cat", ["strong", "strong", "likely", "weak"], False, "2 pictures show “a cat”; 1 more may"),
        ("a cat", ["strong", "strong"], True, "2 pictures or more show “a cat”"),
        ("a cat", ["likely", "weak"], True, "1 picture may show “a cat”"),
        ("", ["strong", "likely"], False, "1 picture is very like it; 1 more may"),
        ("", ["weak"], False, "These come closest"),
        ("type:jpeg", [], False, "2 pictures"),
    ],
)
def test_what_was_found_is_said_in_a_sentence(words: str, relevances: list[Any], has_more: bool, sentence: str) -> None:
    fact = metadata.Fact(1, "x.jpg", 3, 2, "", "")
    hit = clipkit.Hit(0.5 if relevances else 0.0, "x.jpg", "/x.jpg", 1)
    found = tuple(asking.Found(hit, fact, word) for word in relevances or ["weak", "weak"])
    answer = asking.Answer(found, len(found), 0.1, has_more=has_more)
    picture = None if words else np.eye(1, 4, dtype=np.float32)
    said = _headline(answer, asking.Question(words, picture=picture))
    assert said["sentence"] == sentence
    assert ("strong" in said["numbers"]) is bool(relevances)


# ---- pictures that are dropped ----


def test_a_dropped_picture_finds_its_like_and_shows_itself(browser: Browser, tmp_path: Path) -> None:
    file = paint(tmp_path / "query.png", (0, 0, 255))
    sent = browser.wire.post("/clipkit/search/picture?name=query.png", content=file.read_bytes()).json()
    assert sent["preview"].startswith("data:image/jpeg;base64,")
    answer = browser.post("ask", picture=sent["picture"])
    assert answer["pictures"][0]["name"] == "blue.png"
    assert answer["chips"][0]["name"] == "query.png"


def test_a_heic_that_is_dropped_has_a_preview_that_browsers_can_show(browser: Browser) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), (0, 0, 255))).save(stream, quality=90)
    sent = browser.wire.post("/clipkit/search/picture?name=IMG_1.HEIC", content=stream.getvalue()).json()
    assert sent["preview"].startswith("data:image/jpeg;base64,")
    assert browser.names(picture=sent["picture"])[0] == "blue.png"


def test_an_upload_that_is_no_picture_is_named_without_its_place(browser: Browser, tmp_path: Path) -> None:
    answer = browser.wire.post("/clipkit/search/picture?name=broken.jpg", content=b"\xff\xd8\xff no picture")
    assert answer.status_code == 400
    assert answer.json()["error"] == "broken.jpg cannot be read as a picture"
    assert str(tmp_path) not in answer.text
    assert list((tmp_path / "cache" / "uploads").glob("*")) == []


# ---- what is done to pictures ----


def test_a_copy_is_made_and_taken_back(browser: Browser, library: Library, tmp_path: Path) -> None:
    place = tmp_path / "found"
    done = browser.act(library, ["red.png", "blue.png"], action="copy", folder=str(place))
    assert done["said"] == f"2 pictures copied to {place}."
    assert sorted(file.name for file in place.iterdir()) == ["blue.png", "red.png"]
    again = browser.act(library, ["red.png"], action="copy", folder=str(place))
    assert (again["said"], again["undo"]) == (f"They are in {place} already.", "")
    assert browser.post("undo", undo=done["undo"])["said"] == "The copies are gone."
    assert not place.exists()
    assert "cannot be undone any more" in browser.post("undo", undo=done["undo"])["error"]


def test_a_copy_that_somebody_has_changed_since_stays(browser: Browser, library: Library, tmp_path: Path) -> None:
    done = browser.act(library, ["red.png"], action="copy", folder=str(tmp_path / "found"))
    (tmp_path / "found" / "red.png").write_bytes(b"mine now")
    browser.post("undo", undo=done["undo"])
    assert (tmp_path / "found" / "red.png").read_bytes() == b"mine now"


def test_a_move_keeps_the_folders_and_is_taken_back(browser: Browser, library: Library, tmp_path: Path) -> None:
    place = tmp_path / "moved"
    done = browser.act(library, ["sub/wide.jpg"], action="move", folder=str(place))
    assert done["said"] == f"1 picture moved to {place}."
    assert (place / "sub" / "wide.jpg").exists()
    assert not (library.root / "sub" / "wide.jpg").exists()
    assert browser.post("undo", undo=done["undo"])["said"] == "The pictures are back."
    assert (library.root / "sub" / "wide.jpg").exists()


def test_sidecars_and_raw_files_go_with_a_picture_and_come_back(
    browser: Browser, library: Library, tmp_path: Path
) -> None:
    folder = library.root / "sub"
    for name in ("wide.jpg.xmp", "wide.CR2"):
        (folder / name).write_text(name)
    for action, word in (("copy", "copied"), ("move", "moved")):
        place = tmp_path / action
        done = browser.act(library, ["sub/wide.jpg"], action=action, folder=str(place))
        assert done["said"] == f"1 picture {word} to {place}, with 2 files that belong to it."
        names = sorted(file.name for file in place.rglob("*") if file.is_file())
        assert names == ["wide.CR2", "wide.jpg", "wide.jpg.xmp"]
        assert (folder / "wide.CR2").exists() == (action == "copy")
        browser.post("undo", undo=done["undo"])
        assert not any(file.is_file() for file in place.rglob("*"))
        assert {"wide.CR2", "wide.jpg", "wide.jpg.xmp"} <= set(os.listdir(folder))


def test_an_undo_while_the_library_is_being_indexed_is_followed_by_another_run(
    browser: Browser, page: Page, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    at_work = CommandRun(library.root)
    page.runs[library.key] = at_work
    monkeypatch.setattr(page, "start", lambda one, *_: not at_work.look().is_running and not started.append(one))
    done = browser.act(library, ["sub/wide.jpg"], action="move", folder=str(tmp_path / "moved"))
    assert browser.post("undo", undo=done["undo"])["said"] == "The pictures are back."
    until(lambda: started[-1:] == [library], 60)
    assert not at_work.look().is_running


def test_a_move_to_where_they_are_moves_nothing(browser: Browser, library: Library) -> None:
    done = browser.act(library, ["red.png", "sub/wide.jpg"], action="move", folder=str(library.root))
    assert done == {"said": f"They are in {library.root} already.", "undo": ""}


@pytest.mark.parametrize("folder", ["~nobody-has-this-name/x", "/tmp/a\0b", "/" + "x" * 300, "found", "/dev/null/x"])
@pytest.mark.parametrize("action", ["copy", "move"])
def test_a_place_that_cannot_be_is_refused_in_a_sentence(
    browser: Browser, library: Library, action: str, folder: str
) -> None:
    assert browser.act(library, ["red.png"], action=action, folder=folder)["error"]
    assert (library.root / "red.png").exists()


def test_tags_go_into_a_sidecar_and_are_found_and_taken_back(browser: Browser, library: Library) -> None:
    before = (library.root / "red.png").read_bytes()
    done = browser.act(library, ["red.png"], action="tag", tags="Sunset, family, sunset")
    assert (library.root / "red.png").read_bytes() == before
    assert read_sidecar(str(library.root / "red.png")).tags == ("Sunset", "family")
    library.index.update()
    assert browser.names(words="tag:sunset") == ["red.png"]
    browser.post("undo", undo=done["undo"])
    assert not (library.root / "red.png.xmp").exists()


def test_what_a_sidecar_says_already_stays(tmp_path: Path) -> None:
    picture, sidecar = paint(tmp_path / "a.jpg", (1, 2, 3)), tmp_path / "a.xmp"
    sidecar.write_text(
        '<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:own="http://example.org/" xmp:Rating="4" own:kept="yes">'
        '<dc:subject xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Bag><rdf:li>old</rdf:li></rdf:Bag></dc:subject>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    add_tags([picture], ["new", "OLD"])
    found = read_sidecar(str(picture))
    assert (found.rating, found.tags) == (4, ("old", "new"))
    assert 'own:kept="yes"' in sidecar.read_text()
    assert not (tmp_path / "a.jpg.xmp").exists()


def test_where_one_sidecar_cannot_be_added_to_none_is_changed(browser: Browser, library: Library) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&a;</x:xmpmeta>'
    (library.root / "blue.png.xmp").write_text(bomb)
    said = browser.act(library, ["red.png", "blue.png"], action="tag", tags="x")
    assert "is no XMP that can be added to" in said["error"]
    assert not (library.root / "red.png.xmp").exists()
    assert (library.root / "blue.png.xmp").read_text() == bomb


def test_albums_are_changed_searched_and_taken_back(browser: Browser, library: Library) -> None:
    done = browser.act(library, ["red.png", "blue.png"], action="album", album="favourites")
    assert sorted(browser.names(album="favourites", stacked=False)) == ["blue.png", "red again.png", "red.png"]
    assert browser.names(words="blue album:favourites")[0] == "blue.png"
    listed = browser.wire.get("/clipkit/search/libraries").json()["libraries"][0]["albums"]
    assert listed == [{"name": "favourites", "count": 2}]
    browser.post("undo", undo=done["undo"])
    assert read_albums(library.index) == {}


def test_labels_are_those_of_the_classes_that_the_visitor_has_sorted_by(
    browser: Browser, page: Page, library: Library
) -> None:
    visitor = "v" * 22
    browser.wire.cookies.set("clipkit-visitor", visitor)
    assert "no classes are sorted yet" in browser.act(library, ["red.png"], action="label", label="warm")["error"]
    weight = ColourEncoder().encode_texts(["red", "blue"])
    head = Head(("Warm", "cold"), weight, np.zeros(2, np.float32), 10.0, "colour", "c0" * 32)
    page.memory.keep(ClassifySession(library.key, visitor, head=head))
    assert browser.wire.get("/clipkit/search/libraries").json()["classes"] == ["Warm", "cold"]
    done = browser.act(library, ["red.png"], action="label", label="warm")
    labels = page.memory.labels(visitor, library, head)
    assert list(labels.values()) == ["Warm"]
    assert "there is no class 'hot'" in browser.act(library, ["red.png"], action="label", label="hot")["error"]
    browser.post("undo", undo=done["undo"])
    assert labels == {}


def test_taking_an_album_back_leaves_what_was_in_it_before(browser: Browser, library: Library) -> None:
    browser.act(library, ["green.png"], action="album", album="warm")
    done = browser.act(library, ["green.png", "blue.png"], action="album", album="warm")
    again = browser.act(library, ["green.png"], action="album", album="warm")
    assert (again["said"], again["undo"]) == ("They are in warm already.", "")
    browser.post("undo", undo=done["undo"])
    assert browser.names(album="warm") == ["green.png"]
    gone = browser.act(library, ["green.png", "red.png"], action="unalbum", album="warm")
    browser.post("undo", undo=gone["undo"])
    assert browser.names(album="warm") == ["green.png"]
    assert browser.act(library, ["red.png"], action="unalbum", album="warm")["said"] == "None of them is in warm."


def test_an_album_follows_a_picture_that_is_renamed(library: Library) -> None:
    ids = [id_ for id_, path in library.index.store.paths()[1].items() if path == "blue.png"]
    change_album(library.index, "sea", add=ids)
    (library.root / "blue.png").rename(library.root / "sub" / "azure.png")
    library.index.update()
    found = asking.search(library.index, "album:sea", encoder=ColourEncoder())
    assert [hit.path for hit in found] == ["sub/azure.png"]


def test_chosen_pictures_are_exported_in_their_order_with_their_scores(browser: Browser, library: Library) -> None:
    ids = [row["id"] for row in browser.post("ask", words="blue", k=3)["pictures"]]
    for action, kind in (("csv", "text/csv"), ("sheet", "text/html"), ("zip", "application/zip")):
        address = browser.post("act", library=library.key, ids=ids, action=action, words="blue")["download"]
        answer = browser.wire.get(f"/{address}")
        assert answer.headers["content-type"].startswith(kind)
        if action == "csv":
            lines = answer.text.splitlines()
            assert lines[1].startswith("1.000000,strong,blue.png")
            assert len(lines) == 4
        if action == "zip":
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                assert archive.namelist()[0] == "blue.png"
                assert archive.read("blue.png") == (library.root / "blue.png").read_bytes()


def test_pictures_from_before_1980_fit_into_an_archive(browser: Browser, library: Library) -> None:
    os.utime(library.root / "red.png", (0, 0))
    address = browser.act(library, ["red.png"], action="zip")["download"]
    with zipfile.ZipFile(io.BytesIO(browser.wire.get(f"/{address}").content)) as archive:
        assert archive.namelist() == ["red.png"]


def test_filters_that_leave_nothing_say_so(browser: Browser) -> None:
    assert browser.post("ask", since="2022")["warning"] == "No picture matches the filters. Relax one of them."


def test_why_says_how_well_each_part_of_the_words_fits(browser: Browser, library: Library) -> None:
    (first, *_) = browser.post("ask", words="red - blue", library=library.key)["pictures"]
    terms = browser.post("why", words="red - blue", id=first["id"], library=library.key)["terms"]
    assert [(one["term"], one["weight"] < 0) for one in terms] == [("red", False), ("blue", True)]
    assert terms[0]["score"] == pytest.approx(1, abs=0.01)


def test_a_model_without_attention_says_so(browser: Browser, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise clipkit.ClipkitError("starter: its tower is a convolutional network", hint="a model with a ViT")

    monkeypatch.setattr("clipkit_apps.search.routes.attention_of", refuse)
    answer = browser.wire.get(f"/clipkit/search/attention/{library.key}/1")
    assert answer.status_code == 400
    assert "convolutional" in answer.json()["error"]


def test_searches_are_saved_by_name(browser: Browser, library: Library) -> None:
    assert browser.post("save", library=library.key, name="warm", words="red")["said"] == "Saved: @warm asks it again."
    assert browser.names(words="@warm") == browser.names(words="red")
    assert "error" in browser.post("save", library=library.key, name="a b", words="red")


# ---- who may what ----


def test_from_elsewhere_nothing_on_the_disk_is_changed(
    browser: Browser, shelf: Shelf, library: Library, tmp_path: Path
) -> None:
    shelf.is_local = False
    for action in ("copy", "move", "tag", "reveal"):
        said = browser.act(library, ["red.png"], action=action, folder=str(tmp_path / "x"), tags="x")
        assert "done on the machine itself" in said["error"], action
    assert "done on the machine itself" in browser.post("index", folder=str(tmp_path))["error"]
    assert (library.root / "red.png").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("is_local", [True, False])
def test_no_place_of_the_disk_is_told_to_others(
    is_local: bool, browser: Browser, page: Page, shelf: Shelf, library: Library
) -> None:
    """A damaged index names its file; its owner wants to know where that is, and a visitor from elsewhere does not."""
    shelf.is_local = is_local
    doctor = LibraryActions(page).doctor()
    (library.folder / "index.db").write_bytes(b"no database" * 1000)
    tab = LibraryActions(page)
    answers = [
        json.dumps(browser.post("ask", words="red")),
        json.dumps(browser.wire.get("/clipkit/search/libraries").json()),
        tab.doctor(),
        tab._answer(lambda: tab._check(library))[1],
    ]
    assert all(answers)
    assert any("damaged" in str(answer) or "not a clipkit" in str(answer) for answer in answers)
    place = str(library.root.parent)
    assert (place in "".join(map(str, answers))) is is_local
    everything = "".join(map(str, [*answers, doctor]))
    assert is_local or not any(part in everything for part in (place, str(Path.home()), sys.prefix))


def test_a_folder_that_is_gone_is_said_to_be(browser: Browser, page: Page, library: Library) -> None:
    library.root.rename(library.root.parent / "elsewhere")
    empty = browser.post("ask")["empty"]
    assert "photos is not there" in empty["title"]
    assert "the folder is not there" in LibraryActions(page).shelf()


def test_without_an_index_the_page_offers_to_make_one(browser: Browser, library: Library) -> None:
    (library.folder / "index.db").unlink()
    empty = browser.post("ask")["empty"]
    assert empty["libraries"] == [{"key": library.key, "name": "photos"}]
    assert browser.post("index", library=library.key) == {"said": "Indexing has begun.", "library": library.key}


def test_pictures_that_lie_elsewhere_are_not_indexed_by_the_page(shelf: Shelf, tmp_path: Path) -> None:
    page = Page(shelf, Thumbnails(tmp_path / "thumbs"))
    elsewhere = SimpleNamespace(root=root_of("s3://bucket/photos"), key="x")
    with pytest.raises(ClipkitError, match="lie in s3://bucket/photos, not on this machine"):
        page.start(elsewhere)  # type: ignore[arg-type]
    assert page.runs == {}


def test_a_shot_of_a_video_is_shown_and_its_video_is_taken_along(
    browser: Browser, page: Page, library: Library
) -> None:
    film(library.root / "clip.mp4", [(0, 255, 0), (0, 0, 255)])
    library.index.update(video=True)
    shots = ["clip.mp4#t=1.00", "clip.mp4#t=3.00"]
    row = browser.post("ask", words="type:video", k=1)["pictures"][0]
    place = f"{library.key}/{row['id']}"
    shown = Image.open(io.BytesIO(browser.wire.get(f"/clipkit/thumb/{place}").content))
    assert shown.size == (64, 48)
    about = browser.wire.get(f"/clipkit/about/{place}").json()
    assert (about["kind"], about["bytes"]) == ("MP4", (library.root / "clip.mp4").stat().st_size)
    taken = browser.wire.get(f"/clipkit/file/{place}")
    assert taken.content == (library.root / "clip.mp4").read_bytes()
    assert taken.headers["content-disposition"].endswith("clip.mp4")
    address = browser.act(library, shots, action="zip")["download"]
    with zipfile.ZipFile(io.BytesIO(browser.wire.get(f"/{address}").content)) as archive:
        assert archive.namelist() == ["clip.mp4"]
    assert "is a frame" in json.dumps(browser.act(library, shots, action="move", folder=str(library.root.parent / "x")))
