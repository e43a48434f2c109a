"""Saved searches: `@name` asks the same in Python, on the command line, on the page and in its JSON endpoint."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from clipkit_apps.search.api import Endpoints
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.state import Page
from clipkit_apps.server.thumbnails import Thumbnails

from clipkit.cli.main import main
from clipkit.errors import IndexDamaged, QueryError
from clipkit.explore.library import Library
from clipkit.explore.question import Question, ask, search
from clipkit.index.image_index import ImageIndex
from clipkit.search.saved import MOST_SEARCHES, expand, is_saved_name
from tests.support.colours import ColourEncoder


@pytest.fixture
def album(photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: ColourEncoder())
    index = ImageIndex.create(photos, encoder)
    index.update()
    return index


def test_a_name_stands_for_its_query_everywhere(album: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    album.save_search("warm", "red OR yellow")
    expected = [hit.path for hit in search(album, "red OR yellow", 2)]
    assert [hit.path for hit in search(album, " @warm ", 2)] == expected
    library = Library(album.root, lambda *_: ColourEncoder())
    assert [one.fact.path for one in ask(library, Question(words="@warm"), 2).found] == expected
    shelf = Shelf(lambda *_: ColourEncoder())
    shelf.add(album.root)
    answer = Endpoints(Page(shelf, Thumbnails(album.root.parent / "thumbs"))).search(" @warm ", 2)
    assert [hit["picture"] for hit in answer["hits"]] == expected
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in search(album, "@warm", 2)]
    assert main(["search", "@warm", str(album.root), "-t", "2", "--engine", "torch", "-f"]) == 0
    assert [Path(line).name for line in capfd.readouterr().out.splitlines()] == expected
    album.save_search("one", "red")
    assert album.search("@one", 1)[0].path == "red.png"


def test_filters_may_stand_behind_a_name(album: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    album.save_search("warm", "red OR yellow")
    expected = [hit.path for hit in search(album, "red OR yellow type:png -rating:5", 2)]
    for query in ("@warm type:png -rating:5", " @warm  type:png NOT rating:5 "):
        assert [hit.path for hit in search(album, query, 2)] == expected
        library = Library(album.root, lambda *_: ColourEncoder())
        assert [one.fact.path for one in ask(library, Question(words=query), 2).found] == expected
    assert main(["search", "@warm type:jpeg", str(album.root), "--engine", "torch"]) == 0
    assert "are left by the filters" in capfd.readouterr().err
    for words in ("@warm red", "@warm type:png red", "", " ", "@", "@ type:png"):
        assert not is_saved_name(words)
        assert expand(words, album.saved_searches) == words


def test_the_page_sees_a_search_that_was_saved_meanwhile(album: ImageIndex) -> None:
    library = Library(album.root, lambda *_: ColourEncoder())
    with pytest.raises(QueryError, match="no search is saved as @cold"):
        ask(library, Question(words="@cold"), 1)
    album.save_search("cold", "blue")
    assert ask(library, Question(words="@cold"), 1).found[0].fact.path == "blue.png"


def test_searches_are_saved_listed_and_forgotten(album: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    root = str(album.root)
    assert main(["search", "--save", "warm", "red", root, "-t", "1", "--engine", "torch"]) == 0
    out, err = capfd.readouterr()
    assert "red.png" in out
    assert "saved: clipkit search @warm" in err
    assert main(["search", "--saved", root]) == 0
    assert capfd.readouterr().out == "@warm\tred\n"
    assert main(["search", "--saved", root, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"name": "warm", "query": "red"}
    assert main(["search", "@warm", root, "--explain-query"]) == 0
    assert capfd.readouterr().out == "words: red\n"
    assert main(["search", "--forget", "@warm", root]) == 0
    assert main(["search", "--saved", root]) == 0
    assert capfd.readouterr().out == ""
    assert main(["search", "--forget", "warm", root]) == 1
    assert "try: clipkit search --saved" in capfd.readouterr().err
    assert main(["search", "--saved", "nowhere"]) == 1
    assert main(["search", "--save", "x", "red", root, "-a", "blue"]) == 2


def test_a_saved_search_may_be_made_of_another(album: ImageIndex) -> None:
    album.save_search("first", "red")
    album.save_search("second", "@first")
    album.save_search("first", "blue")
    assert album.saved_searches == {"first": "blue", "second": "red"}


@pytest.mark.parametrize("name", ["", "two words", "-x", "a/b", "x" * 65, "a\nb"])
def test_what_is_no_name_is_refused(album: ImageIndex, name: str) -> None:
    with pytest.raises(QueryError, match="is no name for a search"):
        album.save_search(name, "red")
    assert album.saved_searches == {}


def test_a_query_that_cannot_be_read_is_not_saved(album: ImageIndex) -> None:
    with pytest.raises(QueryError):
        album.save_search("bad", "(red AND")
    assert album.saved_searches == {}


def test_there_is_an_end_to_saved_searches(album: ImageIndex) -> None:
    with album.store.transaction() as writer:
        writer.save_searches({f"n{number}": "red" for number in range(MOST_SEARCHES)})
    with pytest.raises(QueryError, match="searches are saved already"):
        album.save_search("one-more", "red")
    album.save_search("n0", "blue")


def test_a_rebuild_keeps_them(album: ImageIndex, encoder: ColourEncoder) -> None:
    album.save_search("warm", "red")
    ImageIndex.create(album.root, encoder, rebuild=True).update()
    assert album.saved_searches == {"warm": "red"}


def test_words_with_an_at_sign_are_words() -> None:
    assert [is_saved_name(text) for text in ("@a", " @a.b-c ", "@", "@a b", "a@b", "@ a")] == [True, True, *[False] * 4]
    assert expand("me @ the beach", {}) == "me @ the beach"


@pytest.mark.parametrize("value", ["[1]", '{"a": 1}', "no", '{"a": ["b"]}'])
def test_searches_that_are_no_text_are_damage(album: ImageIndex, value: str) -> None:
    with sqlite3.connect(album.store.file) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('searches', ?)", (value,))
    db.close()
    with pytest.raises(IndexDamaged):
        _ = album.info
