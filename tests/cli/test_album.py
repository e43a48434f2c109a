"""Commands `album` and `tag`: put in, listed, searched, taken out, forgotten; what makes no sense is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clipkit.cli.main import main
from clipkit.errors import ClipkitError
from clipkit.explore.albums import FILE, MOST_ALBUMS, change_album, read_albums
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder


@pytest.fixture
def index(photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: ColourEncoder())
    found = ImageIndex.create(photos, encoder)
    found.update()
    return found


def said(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["album", *arguments]) == code
    return capfd.readouterr()


def test_pictures_are_put_in_listed_searched_and_taken_out(
    index: ImageIndex, capfd: pytest.CaptureFixture[str]
) -> None:
    root = str(index.root)
    red, blue = str(index.root / "red.png"), str(index.root / "blue.png")
    assert said(capfd, root, "warm ones", red, blue)[1].endswith("2 pictures are in warm ones now\n")
    assert said(capfd, root)[0] == "warm ones\t2 pictures\n"
    assert json.loads(said(capfd, root, "--json")[0]) == {"name": "warm ones", "pictures": 2}
    listed = [Path(line).name for line in said(capfd, root, "warm ones")[0].splitlines()]
    assert sorted(listed) == ["blue.png", "red.png"]
    assert main(["search", 'red album:"warm ones"', root, "-f", "--engine", "torch"]) == 0
    assert [Path(line).name for line in capfd.readouterr().out.splitlines()] == ["red.png", "blue.png"]
    said(capfd, root, "warm ones", blue, "--remove")
    assert said(capfd, root)[0] == "warm ones\t1 picture\n"
    said(capfd, root, "warm ones", "--forget")
    assert said(capfd, root)[0] == ""
    assert (index.root / "red.png").exists()


def test_what_makes_no_sense_is_said(index: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    root = str(index.root)
    assert "is not in the index" in said(capfd, root, "warm", "nix.png", code=1)[1]
    assert "there is no album 'warm'" in said(capfd, root, "warm", code=1)[1]
    assert "is no name for an album" in said(capfd, root, "../x", str(index.root / "red.png"), code=1)[1]
    assert "--remove needs PICTURES" in said(capfd, root, "warm", "--remove", code=2)[1]


def test_a_rebuilt_index_keeps_its_albums(index: ImageIndex) -> None:
    ids = [id_ for id_, path in index.store.paths()[1].items() if path == "red.png"]
    change_album(index, "warm", add=ids)
    before = read_albums(index)
    assert main(["index", str(index.root), "--rebuild", "--model", "starter", "--engine", "torch"]) == 0
    assert read_albums(ImageIndex.open(index.root)) == before


@pytest.mark.parametrize("content", ["", "[]", '{"a": 3}', '{"a": ["zz"]}', '{"a": [3]}', "[" * 100_000])
def test_a_damaged_file_of_albums_is_said_and_kept(index: ImageIndex, content: str) -> None:
    file = index.folder / FILE
    file.write_text(content)
    with pytest.raises(ClipkitError, match="cannot be read"):
        read_albums(index)
    with pytest.raises(ClipkitError, match="cannot be read"):
        change_album(index, "new", add=[1])
    assert file.read_text() == content


def test_there_is_an_end_to_albums(index: ImageIndex) -> None:
    file = index.folder / FILE
    file.write_text(json.dumps({f"a{number}": ["ab" * 32] for number in range(MOST_ALBUMS)}))
    with pytest.raises(ClipkitError, match="albums already"):
        change_album(index, "one more", add=[1])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="to root nothing is read-only")
def test_albums_of_a_read_only_folder_are_refused_in_a_sentence(index: ImageIndex) -> None:
    index.folder.chmod(0o500)
    try:
        with pytest.raises(ClipkitError, match="cannot be kept"):
            change_album(index, "x", add=[1])
    finally:
        index.folder.chmod(0o700)


def test_tags_are_written_beside_pictures_and_found(index: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    red, root = index.root / "red.png", str(index.root)
    before = red.read_bytes()
    assert main(["tag", "Warm, family", str(red)]) == 0
    assert "1 sidecar is written" in capfd.readouterr().err
    index.update()
    assert main(["search", "tag:warm", root, "-f", "--engine", "torch"]) == 0
    assert Path(capfd.readouterr().out.strip()).name == "red.png"
    assert red.read_bytes() == before
    assert main(["tag", "x", str(red), str(index.root / "nix.png")]) == 1
    assert "nix.png is not there" in capfd.readouterr().err
    assert main(["tag", " , ", str(red)]) == 1
    assert "no tag is named" in capfd.readouterr().err
