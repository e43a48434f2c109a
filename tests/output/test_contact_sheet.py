"""Contact sheets: read again by an HTML parser; nothing that a name says becomes HTML, nothing is fetched."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ClipkitError
from clipkit.output import contact_sheet
from clipkit.output.contact_sheet import write_sheet
from clipkit.search.hits import Hit, Hits
from tests.support.colours import COLOURS, paint

TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "p", "ol", "li", "div", "span", "img", "wbr"}


class Reader(HTMLParser):
    """What a browser would see of a sheet: pictures, words by class, tags and attributes."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(file.read_bytes().decode("utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "wbr"):
            self._open.append(dict(attributes).get("class") or tag)
            self.words.setdefault(self._open[-1], []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.words[self._open[-1]][-1] += data

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def decoded(source: str | None) -> np.ndarray:
    assert source is not None
    assert source.startswith("data:image/jpeg;base64,")
    with Image.open(BytesIO(b64decode(source.partition(",")[2]))) as image:
        return np.asarray(image).astype(int)


def found(*files: str | Path) -> Hits:
    return Hits(Hit(0.5 - 0.1 * n, os.path.basename(file), os.fspath(file), n) for n, file in enumerate(files))


def test_a_sheet_shows_each_picture_with_its_rank_score_and_path(photos: Path, tmp_path: Path) -> None:
    hits = Hits(
        Hit(0.9 - number / 10, f"a/b/{name}.png", str(photos / f"{name}.png"), number)
        for number, name in enumerate(COLOURS)
    )
    write_sheet(hits, tmp_path / "sheet.html", title="a red thing")
    page = Reader(tmp_path / "sheet.html")
    assert page.words["h1"] == page.words["title"] == ["a red thing"]
    assert page.words["p"] == ["8 pictures, best first"]
    assert page.words["path"] == [f"a/b/{name}.png" for name in COLOURS]
    scores = ["0.9000", "0.8000", "0.7000", "0.6000", "0.5000", "0.4000", "0.3000", "0.2000"]
    assert page.words["span"] == [word for rank, score in enumerate(scores, 1) for word in (str(rank), score)]
    assert [image["alt"] for image in page.images] == [f"a/b/{name}.png" for name in COLOURS]
    for image, colour in zip(page.images, COLOURS.values(), strict=True):
        assert image["title"] == "16 x 16 pixels"
        assert np.abs(decoded(image["src"]) - colour).max() <= 4


def test_pictures_are_small_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (1600, 800), "blue")
    image.paste("red", (0, 0, 800, 800))  # stored left; upright it is on top
    image.save(tmp_path / "turned.jpg", exif=exif)
    write_sheet(found(tmp_path / "turned.jpg"), tmp_path / "sheet.html", title="one")
    page = Reader(tmp_path / "sheet.html")
    pixels = decoded(page.images[0]["src"])
    assert pixels.shape == (320, 160, 3)
    assert np.abs(pixels[:150] - (255, 0, 0)).max() <= 8
    assert np.abs(pixels[170:] - (0, 0, 255)).max() <= 8
    assert page.images[0]["title"] == "800 x 1,600 pixels"
    assert page.words["p"] == ["1 picture, best first"]


HOSTILE = [
    b"<script>alert(1)</script>.png".replace(b"/", b"\\"),
    b'" onerror="alert(1)" x=".png',
    b"' onload='alert(1).png",
    b"&lt;b&gt; &amp; &#x3c;.png",
    b"--><!-- ]]> .png",
    b"caf\xe9 \xff.png",
    b"new\nline\r\t\x00.png".replace(b"\x00", b"\x1b[31m"),
    "\u202egnp.exe \u2028 \u200d.png".encode(),
    "日本語 😀 café.png".encode(),
    b"n" * 251 + b".png",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_text_and_nothing_else(tmp_path: Path, name: bytes) -> None:
    file = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    os.rename(tmp_path / "red.png", file)
    write_sheet(found(file, file + ".gone"), tmp_path / "sheet.html", title=os.fsdecode(name))
    page = Reader(tmp_path / "sheet.html")
    assert {tag for tag, _ in page.tags} <= TAGS
    assert set(page.images[0]) == {"alt", "title", "src"}
    escapes = {0x1B: "\\x1b", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x202E: "\\u202e", 0x2028: "\\u2028"}
    seen = os.fsdecode(name).translate({**escapes, 0x200D: "\\u200d", 0xDCE9: "\\xe9", 0xDCFF: "\\xff"})
    assert page.words["path"] == [seen, f"{seen}.gone"]
    assert page.words["title"] == page.words["h1"] == [page.images[0]["alt"]] == [seen]
    assert len(page.words["broken"]) == 1


def test_a_sheet_asks_nobody_for_anything(photos: Path, tmp_path: Path) -> None:
    write_sheet(found(*sorted(photos.iterdir())), tmp_path / "sheet.html", title="offline")
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    page = Reader(tmp_path / "sheet.html")
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    links = {name for _, attributes in page.tags for name in attributes} & {"href", "src", "srcset", "style", "onload"}
    assert links == {"src"}
    assert all(re.match("data:image/jpeg;base64,", image["src"] or "") for image in page.images)
    metas = [attributes for tag, attributes in page.tags if tag == "meta"]
    assert metas[0] == {"charset": "utf-8"}
    assert metas[1] == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }
    assert str(photos) not in text  # where the pictures lie on this disk is nobody's business


def test_a_broken_picture_gets_a_place_with_its_reason(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"words <b>")
    hits = found(photos / "red.png", photos / "bad.png", photos / "gone.png", photos / "blue.png")
    write_sheet(hits, tmp_path / "sheet.html", title="some")
    page = Reader(tmp_path / "sheet.html")
    assert page.words["broken"] == [
        "not JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC or JPEG 2000",
        "No such file or directory",
    ]
    assert [image["alt"] for image in page.images] == ["red.png", "blue.png"]
    assert page.words["path"] == ["red.png", "bad.png", "gone.png", "blue.png"]


def test_a_sheet_is_written_while_its_pictures_are_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, read = contact_sheet.thumbnail, 0

    def counted(file: str, size: int) -> object:
        nonlocal read
        read += 1
        return make(file, size)

    monkeypatch.setattr(contact_sheet, "thumbnail", counted)
    written = []
    for piece in contact_sheet._pieces(found(*[photos / "red.png"] * 50), "many"):
        written.append(piece.count("data:image/jpeg"))
        assert read <= sum(written) + 2  # the loop of a template looks one item ahead
    assert sum(written) == read == 50


def test_an_earlier_sheet_is_replaced_also_through_a_link(photos: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "sheet.html", tmp_path / "link.html"
    write_sheet(Hits(), file, title="first")
    link.symlink_to(file)
    write_sheet(found(photos / "red.png"), link, title="second")
    assert link.is_symlink()
    assert Reader(file).words["title"] == ["second"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "photos", "sheet.html"]


def test_nothing_but_a_sheet_is_ever_overwritten(photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html>\n<title>my own page</title>")
    for file in (page, photos / "red.png"):
        before = file.read_bytes()
        with pytest.raises(ClipkitError, match="is there already, and no contact sheet; it was left as it is"):
            write_sheet(found(photos / "red.png"), file, title="no")
        assert file.read_bytes() == before
    for file in (photos, Path("/dev/null")):
        with pytest.raises(ClipkitError, match="is there already, and no contact sheet"):
            write_sheet(Hits(), file, title="no")
    assert len(list(photos.iterdir())) == len(COLOURS)


def test_what_comes_while_the_pictures_are_read_is_not_overwritten(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = contact_sheet.thumbnail

    def slowly(file: str, size: int) -> object:
        (tmp_path / "sheet.html").write_text("theirs")
        return make(file, size)

    monkeypatch.setattr(contact_sheet, "thumbnail", slowly)
    with pytest.raises(ClipkitError, match="is there already"):
        write_sheet(found(photos / "red.png"), tmp_path / "sheet.html", title="late")
    assert (tmp_path / "sheet.html").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "sheet.html"]


def test_an_interrupted_sheet_leaves_the_earlier_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sheet(Hits(), tmp_path / "sheet.html", title="first")

    def interrupt(file: str, size: int) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(contact_sheet, "thumbnail", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_sheet(found(photos / "red.png"), tmp_path / "sheet.html", title="second")
    assert Reader(tmp_path / "sheet.html").words["title"] == ["first"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "sheet.html"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", (255, 0, 0))
    for file, reason in (("no/sheet.html", "No such file or directory"), ("red.png/sheet.html", "Not a directory")):
        with pytest.raises(ClipkitError) as caught:
            write_sheet(Hits(), tmp_path / file, title="x")
        assert caught.value.message == f"{tmp_path / file} cannot be written: {reason}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["red.png"]
