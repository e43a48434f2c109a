"""`clipkit mcp`: what an assistant can ask, by the protocol's own client; nothing outside the named folders is told."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clipkit_apps.server.libraries import Shelf
from PIL import Image

from clipkit.cli.main import main
from clipkit.explore.albums import read_albums
from clipkit.index.image_index import ImageIndex
from clipkit.index.sidecars import read_sidecar
from clipkit.models.openclip import OpenClipEncoder
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.paths import REPOSITORY

pytest.importorskip("mcp", reason="pip install 'clipkit[mcp]'")
from clipkit_apps.mcp_server import make_server
from mcp import Client, StdioServerParameters, stdio_client


@pytest.fixture
def shelf(photos: Path) -> Shelf:
    (photos / "sub").mkdir()
    (photos / "sub" / "again.png").write_bytes((photos / "red.png").read_bytes())
    ImageIndex.create(photos, ColourEncoder()).update()
    found = Shelf(lambda *_: ColourEncoder(), is_local=False)
    found.add(photos)
    return found


def asked(shelf: Shelf, name: str, *, allow_changes: bool = False, **arguments: Any) -> Any:
    """What a tool gives to an assistant: its structured answer, or its whole one where it has none."""

    async def ask(client: Client) -> Any:
        return await client.call_tool(name, arguments)

    result = with_client(shelf, ask, allow_changes=allow_changes)
    return result if result.structured_content is None else result.structured_content


def apart(work: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own: a browser of another test has an event loop in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


def with_client(shelf: Shelf, use: Callable[[Client], Awaitable[Any]], *, allow_changes: bool = False) -> Any:
    async def run() -> Any:
        async with Client(make_server(shelf, allow_changes=allow_changes)) as client:
            return await use(client)

    return apart(run())


def refused(shelf: Shelf, name: str, **arguments: Any) -> str:
    result = asked(shelf, name, **arguments)
    assert result.is_error, result
    text: str = result.content[0].text
    assert str(shelf.libraries()[0].root) not in text
    return text


def test_words_and_pictures_find_pictures(shelf: Shelf) -> None:
    found = asked(shelf, "search", query="red", k=2)
    assert sorted(one["path"] for one in found["pictures"]) == ["red.png", "sub/again.png"]  # the same bytes
    assert (found["searched"], found["has_more"], found["library"]) == (9, True, "photos")
    assert [one["path"] for one in asked(shelf, "search", query="red path:sub/")["pictures"]] == ["sub/again.png"]
    similar = asked(shelf, "find_similar", path="red.png", k=1)["pictures"]
    assert [one["path"] for one in similar] == ["sub/again.png"]


def test_a_library_is_described(shelf: Shelf) -> None:
    assert asked(shelf, "list_libraries")["result"] == [
        {"name": "photos", "pictures": 9, "model": "colour", "first": "", "last": "", "error": ""}
    ]
    described = asked(shelf, "describe_library", library="photos")
    assert (described["folders"], described["kinds"], described["albums"]) == (["sub"], ["PNG"], {})


def test_libraries_of_one_name_are_told_apart(shelf: Shelf, tmp_path: Path) -> None:
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    (other / "only.png").write_bytes((shelf.libraries()[0].root / "red.png").read_bytes())
    ImageIndex.create(other, ColourEncoder()).update()
    shelf.add(other)
    assert [one["name"] for one in asked(shelf, "list_libraries")["result"]] == ["photos (1)", "photos (2)"]
    found = asked(shelf, "search", query="red", library="photos (2)", k=1)
    assert (found["library"], found["pictures"][0]["path"]) == ("photos (2)", "only.png")
    assert "here; try: photos (1), photos (2)" in refused(shelf, "search", query="red", library="photos")


def test_an_index_that_is_gone_is_said(shelf: Shelf) -> None:
    library = shelf.libraries()[0]
    library.folder.rename(library.folder.with_name("elsewhere"))
    assert "no library has an index any more; try: clipkit index FOLDER" in refused(shelf, "search", query="red")


def test_a_damaged_library_hides_no_other(shelf: Shelf, tmp_path: Path) -> None:
    paint(tmp_path / "other" / "red.png", COLOURS["red"])
    broken = ImageIndex.create(tmp_path / "other", ColourEncoder())
    broken.update()
    shelf.add(tmp_path / "other")
    broken.store.file.write_bytes(b"no database" * 500)
    whole, damaged = asked(shelf, "list_libraries")["result"]
    assert (whole["name"], whole["pictures"], whole["error"]) == ("photos", 9, "")
    assert (damaged["name"], damaged["pictures"]) == ("other", 0)
    assert "try: clipkit index" in damaged["error"]
    assert asked(shelf, "search", query="red", library="photos", k=1)["pictures"]


def test_pictures_are_shown_small(shelf: Shelf) -> None:
    root = shelf.libraries()[0].root
    (root / "blue.png").unlink()
    content = asked(shelf, "show_pictures", paths=["red.png", "blue.png"], size=32).content
    assert [one.type for one in content] == ["text", "image", "text"]
    picture = Image.open(io.BytesIO(base64.b64decode(content[1].data)))
    assert (picture.format, max(picture.size) <= 32) == ("JPEG", True)
    assert "blue.png cannot be shown" in content[2].text


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("show_pictures", {"paths": ["../../etc/passwd"]}, "is no picture of photos"),
        ("show_pictures", {"paths": ["/etc/passwd"]}, "is no picture of photos"),
        ("show_pictures", {"paths": []}, "1 to 12 at once"),
        ("show_pictures", {"paths": ["red.png"], "size": 9000}, "32 to 1024"),
        ("find_similar", {"path": "nothing.png"}, "as search gives it"),
        ("search", {"query": "red", "k": 0}, "k from 1 to 200"),
        ("search", {"query": "red", "k": 10**9}, "k from 1 to 200"),
        ("search", {"query": "red", "library": "secrets"}, "there is no library 'secrets' here; try: photos"),
        ("search", {"query": "red", "min_relevance": "great"}, "weak, likely or strong"),
        ("search", {"query": "red AND"}, "AND"),
        ("search", {"query": "red path:nowhere/"}, "nowhere"),
        ("search", {"query": "x" * 2000}, "1,000 are the most"),
    ],
)
def test_what_cannot_be_asked_is_said(shelf: Shelf, tool: str, arguments: dict[str, Any], said: str) -> None:
    assert said in refused(shelf, tool, **arguments)


def test_a_query_that_names_a_file_finds_none(shelf: Shelf) -> None:
    found = asked(shelf, "search", query="./red.png", k=1)
    assert "file" in " ".join(found["notes"])


def test_it_reads_unless_changes_are_allowed(shelf: Shelf) -> None:
    async def names(client: Client) -> list[tuple[str, bool]]:
        tools = (await client.list_tools()).tools
        return [(tool.name, bool(tool.annotations and tool.annotations.read_only_hint)) for tool in tools]

    reading = with_client(shelf, names)
    assert [name for name, _ in reading] == [
        *("list_libraries", "describe_library", "search", "find_similar", "show_pictures")
    ]
    assert all(is_read_only for _, is_read_only in reading)
    assert "Unknown tool" in refused(shelf, "add_to_album", album="warm", paths=["red.png"])
    changing = with_client(shelf, names, allow_changes=True)
    assert [name for name, is_read_only in changing if not is_read_only] == [
        *("add_to_album", "remove_from_album", "tag_pictures")
    ]


def test_albums_and_tags_where_they_are_allowed(shelf: Shelf) -> None:
    library = shelf.libraries()[0]
    before = (library.root / "red.png").read_bytes()
    added = asked(shelf, "add_to_album", allow_changes=True, album="warm", paths=["red.png", "blue.png"])
    assert added == {"said": "warm has 2 pictures now"}
    asked(shelf, "remove_from_album", allow_changes=True, album="warm", paths=["blue.png"])
    assert len(read_albums(library.index)["warm"].contents) == 1
    asked(shelf, "tag_pictures", allow_changes=True, tags=["sunset", "a, b"], paths=["red.png"])
    assert read_sidecar(str(library.root / "red.png")).tags == ("sunset", "a", "b")
    assert (library.root / "red.png").read_bytes() == before


def test_the_command_answers_over_stdin_and_stdout(
    photos: Path, starter: OpenClipEncoder, private_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ImageIndex.create(photos, starter).update()

    async def run() -> Any:
        environment = {**os.environ, "CLIPKIT_CACHE": str(private_cache)}
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "clipkit", "mcp", str(photos)], env=environment, cwd=REPOSITORY
        )
        async with Client(stdio_client(command)) as client:
            return await client.call_tool("search", {"query": "something red", "k": 3})

    assert len(apart(run()).structured_content["pictures"]) == 3
    capfd.readouterr()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_one_ctrl_c_ends_it(photos: Path, starter: OpenClipEncoder, private_cache: Path) -> None:
    ImageIndex.create(photos, starter).update()
    hello = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    command = [sys.executable, "-m", "clipkit", "mcp", str(photos)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as server:
        assert server.stdin
        assert server.stdout
        server.stdin.write(hello)
        server.stdin.flush()
        assert server.stdout.readline()  # it listens
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(10) == 130
        finally:
            server.kill()


def test_a_folder_without_an_index_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", str(tmp_path)]) == 1
    assert "has no index\n  try: clipkit index" in capfd.readouterr().err
    assert main(["mcp", str(tmp_path / "gone")]) == 1
    assert "is not a folder on this machine\n  try: clipkit mcp FOLDER" in capfd.readouterr().err


def test_without_the_package_it_says_what_to_install(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    for name in [name for name in sys.modules if name in ("clipkit_apps.mcp_server",) or name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["mcp", str(photos)]) == 1
    assert "pip install 'clipkit[mcp]'" in capfd.readouterr().err
