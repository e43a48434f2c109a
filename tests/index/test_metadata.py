"""Metadata in an index: read with the pictures, again where a sidecar changed, never at the cost of a vector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.cli.main import main
from clipkit.images.decode import decode
from clipkit.index.image_index import ImageIndex
from tests.images.test_metadata import PACKET, exif_of
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.faults import indexed, rows_of, run_cli

COLUMNS = "taken_at, camera, latitude, longitude, rating, tags, title"
PLAIN = (None,) * 7
FROM_EXIF = ("2019-07-31T10:00:00", "FUJIFILM X100V", 52.52, 13.41, 3, None, None)
FROM_SIDECAR = ("SONY ILCE-7M3", 52.52, -13.41, 4, '["family", "Österreich"]', "Holiday & sea")


@pytest.fixture
def album(tmp_path: Path) -> ImageIndex:
    root = tmp_path / "photos"
    root.mkdir()
    for name, colour in (("red", "red"), ("blue", "blue")):
        Image.new("RGB", (64, 48), COLOURS[colour]).save(root / f"{name}.jpg", exif=exif_of())
    Image.new("RGB", (64, 48), COLOURS["green"]).save(root / "green.png")
    (root / "blue.jpg.xmp").write_text(PACKET)
    return indexed(root)


def described(index: ImageIndex) -> dict[str, tuple[object, ...]]:
    query = f"SELECT path, {COLUMNS} FROM images WHERE state = 'ok' ORDER BY path"
    return {bytes(path).decode(): tuple(rest) for path, *rest in rows_of(index, query)}  # type: ignore[arg-type]


def hashes(index: ImageIndex) -> dict[str, bytes]:
    return {bytes(path).decode(): value for path, value in rows_of(index, "SELECT path, phash FROM images")}  # type: ignore[arg-type,misc]


def test_metadata_and_hashes_are_read_with_the_pictures(album: ImageIndex) -> None:
    taken = "2019-07-31T10:00:00"
    assert described(album) == {"blue.jpg": (taken, *FROM_SIDECAR), "green.png": PLAIN, "red.jpg": FROM_EXIF}
    for name, value in hashes(album).items():
        data = (album.root / name).read_bytes()
        assert decode(data, ColourEncoder().recipe, name=name, is_hashed=True).phash == value
    assert album.without_metadata_count() == 0
    assert album.update().refreshed == 0


def test_a_sidecar_that_comes_changes_or_goes_is_noticed_and_nothing_is_encoded(album: ImageIndex) -> None:
    before = album.embeddings
    (album.root / "red.xmp").write_text(PACKET.replace("Holiday", "Feast"))
    (album.root / "blue.jpg.xmp").write_text(PACKET.replace('Rating="4"', 'Rating="1" '))
    report = album.update()
    assert (report.refreshed, report.encoded, report.unchanged) == (2, 0, 3)
    assert described(album)["red.jpg"][6] == "Feast & sea"
    assert described(album)["blue.jpg"][4] == 1
    (album.root / "red.xmp").unlink()
    assert album.update().refreshed == 1
    assert described(album)["red.jpg"] == FROM_EXIF
    np.testing.assert_array_equal(album.embeddings, before)
    assert album.update().refreshed == 0


def test_a_copy_has_the_sidecar_that_lies_beside_it(album: ImageIndex) -> None:
    (album.root / "trip").mkdir()
    shutil.copy2(album.root / "blue.jpg", album.root / "trip" / "copy.jpg")
    report = album.update()
    assert (report.reused, report.encoded) == (1, 0)
    assert described(album)["trip/copy.jpg"] == FROM_EXIF


def test_a_moved_picture_takes_its_sidecar_along(album: ImageIndex) -> None:
    (album.root / "trip").mkdir()
    for name in ("blue.jpg", "blue.jpg.xmp"):
        (album.root / name).rename(album.root / "trip" / name)
    report = album.update()
    assert (report.reused, report.refreshed, report.encoded) == (1, 0, 0)
    assert described(album)["trip/blue.jpg"][1:] == FROM_SIDECAR


def test_what_was_changed_behind_clipkits_back_is_read_again_when_asked(album: ImageIndex) -> None:
    before, perceptual = described(album), hashes(album)
    rows_of(album, "UPDATE images SET camera = 'x', rating = 9, sidecar = NULL, phash = NULL WHERE path != x'00'")
    assert album.update().refreshed == 0
    assert album.without_metadata_count() == 3
    report = album.update(refresh_metadata=True)
    assert (report.refreshed, report.encoded) == (3, 0)
    assert described(album) == before
    assert hashes(album) == perceptual


def test_a_file_that_holds_another_picture_by_now_is_left_alone(album: ImageIndex) -> None:
    rows_of(album, "UPDATE images SET sha256 = zeroblob(32), title = 'old' WHERE path = CAST('red.jpg' AS BLOB)")
    assert album.update(refresh_metadata=True).refreshed == 2
    assert described(album)["red.jpg"][6] == "old"


def test_odd_sidecars_do_no_harm(album: ImageIndex) -> None:
    (album.root / "green.xmp").mkdir()
    (album.root / "red.xmp").symlink_to("nowhere")
    (album.root / "red.jpg.XMP").write_bytes(b"\0" * 10_000)
    (album.root / "lonely.xmp").write_text(PACKET)
    assert album.update().refreshed == 1
    assert described(album)["red.jpg"] == FROM_EXIF
    assert album.update().refreshed == 0


def test_the_command_reads_metadata_again_and_says_how_many_lack_it(
    album: ImageIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_of(album, "UPDATE images SET sidecar = NULL")
    root = str(album.root)
    main(["info", root])
    assert f"metadata  not read of 3; to read it: clipkit index {root} --refresh-metadata" in capsys.readouterr().out
    main(["index", root, "--refresh-metadata", "--dry-run"])
    assert "would read the metadata of 3 pictures again" in capsys.readouterr().out
    assert run_cli(monkeypatch, f"clipkit index {root} --refresh-metadata", ColourEncoder()) == 0
    assert "metadata of 3 pictures read again" in capsys.readouterr().err
    main(["info", root, "--json"])
    assert json.loads(capsys.readouterr().out)["without_metadata"] == 0
