"""Messages of the command line: hints, counts and reasons, in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit.cli.main import main
from clipkit.core.text import are, counted
from clipkit.errors import ImageError
from clipkit.images.decode import decode_whole
from tests.cli.test_named_folders import here as here
from tests.cli.test_named_folders import run
from tests.support.colours import COLOURS, paint


def test_a_folder_nearly_of_that_name_is_offered(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "three").mkdir()
    said = "error: phots is not a folder\n  hint: did you mean photos"
    assert f"{said}: clipkit search dog photos\n" in run(capfd, "search", "dog", "phots")[2]
    assert run(capfd, "info", "phots")[2] == f"{said}\n"
    assert "three" not in run(capfd, "info", "nothere")[2]
    assert "hint: quote the words: clipkit search 'dog beach'" in run(capfd, "search", "dog", "beach")[2]


def test_an_export_names_the_folder_that_was_mistyped(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "out").mkdir()
    (here / "out" / "full").touch()
    assert run(capfd, "export", "phots", "out")[2] == "error: phots is not a folder\n  hint: did you mean photos\n"
    assert run(capfd, "export", "new", "photos", "--layout", "npy")[0] == 0  # as the arguments used to stand
    assert (here / "new" / "paths.txt").exists()


def test_one_picture_is_one_picture(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paint(here / "one" / "red.png", COLOURS["red"])
    assert run(capfd, "index", "one")[2].startswith("1 picture can be found (1 new)")
    assert "1 picture is in copies\n" in run(capfd, "search", "red", "one", "--copy-to", "copies")[2]
    assert "1 vector is in out\n" in run(capfd, "export", "one", "out")[2]
    (here / "one" / "red.png").unlink()
    assert "and hide 1 picture; 0 are unchanged" in run(capfd, "index", "one", "--dry-run")[1]
    main(["index", "one"])
    assert "1 missing picture is forgotten" in run(capfd, "prune", "one", "--force")[2]
    assert (counted(1, "row"), counted(0, "row"), counted(1234, "row")) == ("1 row", "0 rows", "1,234 rows")
    assert (are(1), are(2)) == ("is", "are")


@pytest.mark.parametrize(
    "words",
    [
        ("search", "red", "photos", "--copy-to", ""),
        ("search", "red", "photos", "--html", ""),
        ("classify", "photos", "--classes", "a,b", "--move-to", ""),
        ("duplicates", "photos", "--move-to", ""),
    ],
)
def test_an_empty_place_is_refused(here: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, _, said = run(capfd, *words)
    assert (code, "it is empty: a path, please" in said) == (2, True)


@pytest.mark.parametrize(
    "content",
    [b"II*\0" + bytes(40), b"RIFF\x20\0\0\0WEBPVP8 " + bytes(30), b"\x89PNG\r\n\x1a\n" + bytes(60), b"BM" + bytes(60)],
)
def test_the_reason_of_a_picture_that_cannot_be_read_names_nothing_of_python(content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode_whole(content, name="odd.jpg")
    words = ("Error", "Exception", "NoneType", "driver", "object", "<_io", "unpack")
    assert not [word for word in words if word in caught.value.message], caught.value.message
