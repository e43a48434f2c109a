"""Text in pictures: read once for each content, kept in the index, found by a filter; the reader is a fake but once."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from clipkit.cli.main import main
from clipkit.core.progress import Failure
from clipkit.errors import ModelError, QueryError
from clipkit.explore import search
from clipkit.index.check import prune
from clipkit.index.crash_recovery import TEXTS, Journal
from clipkit.index.image_index import ImageIndex
from clipkit.index.ocr import SIDE, read_texts
from clipkit.store.schema import FORMAT
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.downgrade import to_format
from tests.support.faults import rows_of

WORDS = {"red": "Invoice  2023\nTotal: 42 EUROS", "green": "", "blue": "STRASSE 7 & More"}


class FakeReader:
    """Reads what WORDS says of a colour."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def read(self, canvas: np.ndarray) -> str:
        assert max(canvas.shape) <= SIDE
        colour = tuple(canvas.reshape(-1, 3).mean(0).round().astype(int))
        self.seen.append(next(name for name, value in COLOURS.items() if value == colour))
        return WORDS[self.seen[-1]]


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    for name in WORDS:
        paint(tmp_path / "photos" / f"{name}.png", COLOURS[name])
    paint(tmp_path / "photos" / "copy.png", COLOURS["red"])
    index = ImageIndex.create(tmp_path / "photos", ColourEncoder())
    index.update()
    return index


def found(index: ImageIndex, query: str) -> list[str]:
    return sorted(hit.path for hit in search(index, query, encoder=ColourEncoder()))


def test_each_content_is_read_once_and_found(index: ImageIndex, reader: FakeReader) -> None:
    report = read_texts(index, reader.read)
    assert (report.read, report.found, report.failed) == (3, 2, ())
    assert sorted(reader.seen) == ["blue", "green", "red"]
    assert found(index, "red text:invoice") == found(index, 'text:"INVOICE 2023 total"') == ["copy.png", "red.png"]
    assert found(index, "text:straße") == ["blue.png"]
    assert found(index, "-text:invoice") == ["blue.png", "green.png"]
    assert found(index, "text:nothing") == []
    assert read_texts(index, reader.read).read == 0


def test_only_what_is_new_is_read_and_what_moves_keeps_its_text(index: ImageIndex, reader: FakeReader) -> None:
    read_texts(index, reader.read)
    os.rename(index.root / "blue.png", index.root / "elsewhere.png")
    Image.new("RGB", (3000, 10), COLOURS["green"]).save(index.root / "wide.png")
    index.update()
    reader.seen.clear()
    assert (read_texts(index, reader.read).read, reader.seen) == (1, ["green"])
    assert found(index, "text:strasse") == ["elsewhere.png"]


def test_an_interrupted_run_keeps_what_it_has(index: ImageIndex, reader: FakeReader) -> None:
    def interrupted(canvas: np.ndarray) -> str:
        if len(reader.seen) == 2:
            raise KeyboardInterrupt
        return reader.read(canvas)

    with pytest.raises(KeyboardInterrupt):
        read_texts(index, interrupted)
    assert read_texts(index, reader.read).read == 1
    assert len(reader.seen) == 3


@pytest.mark.parametrize("tries", [1, 2])
def test_a_picture_of_which_the_engine_died_twice_is_given_up(
    index: ImageIndex, reader: FakeReader, tries: int
) -> None:
    journal = Journal(index.folder, TEXTS)
    with journal.entry("blue.png", tries=tries):
        left = (index.folder / TEXTS).read_bytes()  # as a process that dies leaves it, with nobody who watches
    journal.close()
    (index.folder / TEXTS).write_bytes(left)
    report = read_texts(index, reader.read)
    given_up = (Failure("blue.png", "its text reader took clipkit down"),) if tries == 2 else ()
    assert (report.failed, report.read) == (given_up, 3 - len(given_up))
    assert read_texts(index, reader.read).read == 0
    assert not (index.folder / TEXTS).exists()


def test_what_cannot_be_read_now_is_read_later(index: ImageIndex, reader: FakeReader) -> None:
    (index.root / "blue.png").unlink()
    paint(index.root / "green.png", COLOURS["blue"])
    report = read_texts(index, reader.read)
    assert {failure.path: failure.reason for failure in report.failed} == {
        "blue.png": "No such file or directory",
        "green.png": "it has changed; clipkit index first",
    }
    assert report.read == 1


def test_a_rebuild_keeps_texts_and_prune_forgets_them(index: ImageIndex, reader: FakeReader) -> None:
    read_texts(index, reader.read)
    rebuilt = ImageIndex.create(index.root, ColourEncoder(), rebuild=True)
    rebuilt.update()
    assert found(rebuilt, "text:strasse") == ["blue.png"]
    (index.root / "blue.png").unlink()
    rebuilt.update()
    assert len(rebuilt.store.texts()) == 3
    prune(rebuilt)
    assert sorted(rebuilt.store.texts().values()) == ["", "Invoice 2023 Total: 42 EUROS"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_older_format_has_no_texts_until_they_are_read(index: ImageIndex, reader: FakeReader, number: int) -> None:
    to_format(index.store.file, number)
    before = index.store.file.read_bytes()
    with pytest.raises(QueryError, match="never read") as caught:
        found(index, "text:invoice")
    assert caught.value.hint == "clipkit index --ocr"
    assert index.store.file.read_bytes() == before
    assert read_texts(index, reader.read).read == 3
    assert rows_of(index, "PRAGMA user_version") == [(FORMAT,)]
    assert found(index, "text:invoice") == ["copy.png", "red.png"]


@pytest.mark.parametrize("query", ['text:""', 'text:"  "'])
def test_a_text_without_words_is_refused(index: ImageIndex, query: str) -> None:
    with pytest.raises(QueryError, match=r"text: *cannot be read"):
        found(index, query)


def test_forged_texts_do_no_harm(index: ImageIndex) -> None:
    rows_of(index, "INSERT INTO texts VALUES (x'00', x'ff'), ('a', 'b'), (x'01', 'c')")
    assert index.store.texts() == {b"\1": "c"}
    assert found(index, "text:c") == []


def test_the_command_reads_and_says_so(
    index: ImageIndex, reader: FakeReader, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: ColourEncoder())
    monkeypatch.setattr("clipkit.index.image_index.load_encoder", lambda *_, **__: ColourEncoder())
    monkeypatch.setattr("clipkit.models.ocr.TextReader", lambda: reader)
    assert main(["index", str(index.root), "--ocr"]) == 0
    assert "text read in 3 pictures: 2 have some\n" in capfd.readouterr().err
    assert main(["search", "text:invoice", str(index.root), "-f"]) == 0
    assert capfd.readouterr().out.count("\n") == 2
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    assert main(["index", str(index.root), "--ocr"]) == 1
    assert "try: pip install 'clipkit[ocr]'" in capfd.readouterr().err


def test_rapidocr_reads_a_picture_offline(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr", reason="pip install 'clipkit[ocr]'")
    from clipkit.models.ocr import TextReader

    image = Image.new("RGB", (800, 300), "white")
    font = ImageFont.load_default(60)
    ImageDraw.Draw(image).text((60, 40), "INVOICE 2023\nTotal: 42 euros", fill="black", font=font)
    reader = TextReader()
    assert reader.read(np.asarray(image)) == "INVOICE 2023 Total: 42 euros"
    assert reader.read(np.full((200, 300, 3), 128, np.uint8)) == ""


@pytest.mark.parametrize("shape", [(1, 2000, 3), (2000, 1, 3), (60, 2000, 3)])
def test_a_strip_is_widened_before_it_is_read(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    from clipkit.models.ocr import TextReader

    seen = []
    fake = types.SimpleNamespace(RapidOCR=lambda **_: lambda rows: seen.append(rows))
    monkeypatch.setitem(sys.modules, "rapidocr", fake)
    canvas = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert TextReader().read(canvas) == ""
    sides = sorted(seen[0].shape[:2])
    assert sides == [250, 2000]
    top, left = (full - side for full, side in zip(seen[0].shape[:2], shape[:2], strict=True))
    assert np.array_equal(seen[0][top // 2 :, left // 2 :, ::-1][: shape[0], : shape[1]], canvas)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipkit.models.ocr import TextReader

    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ModelError) as caught:
        TextReader()
    assert caught.value.hint == "pip install 'clipkit[ocr]'"
