"""Merging of shards into ordinary indexes, of pictures that lie here and of pictures that do not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clipkit.bulk import Shards, merge
from clipkit.bulk.shards import Row
from clipkit.bulk.storage import Storage
from clipkit.cli.main import main
from clipkit.errors import ClipkitError, IndexDamaged, ModelMismatch
from clipkit.index.check import check
from clipkit.index.image_index import ImageIndex, find
from clipkit.index.import_export import export
from tests.bulk.test_shards import ODD, unit
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.shards import failed, write_shard, write_shards, write_vectors

URL = "s3://bucket/photos"


@pytest.fixture
def shards(tmp_path: Path, photos: Path, encoder: ColourEncoder) -> Shards:
    return write_shards(tmp_path / "out", photos, encoder)


def test_after_a_merge_nothing_is_encoded_anew(shards: Shards, photos: Path, encoder: ColourEncoder) -> None:
    report = merge(shards, photos, encoder=encoder)
    assert (report.imported, report.unchanged, report.missing) == (8, 0, ())
    before = encoder.encoded
    index = ImageIndex.open(photos, encoder=encoder)
    update = index.update()
    assert (update.unchanged, update.encoded, encoder.encoded - before) == (8, 0, 0)
    assert index.search("red", k=1)[0].path == "red.png"
    assert index.to_frame()["taken"].tolist() == ["2023-05-06T07:08:09"] * 8


def test_a_picture_that_has_changed_since_is_left_to_the_index(
    shards: Shards, photos: Path, encoder: ColourEncoder
) -> None:
    paint(photos / "red.png", (9, 9, 9))
    (photos / "blue.png").unlink()
    report = merge(shards, photos, encoder=encoder)
    assert (report.imported, report.changed, report.missing) == (6, ("red.png",), ("blue.png",))
    assert ImageIndex.open(photos, encoder=encoder).update().encoded == 1


def test_merging_again_takes_what_is_new(tmp_path: Path, photos: Path, encoder: ColourEncoder) -> None:
    names = sorted(f"{name}.png" for name in COLOURS)
    for root, at, source in ((photos, None, ""), (None, tmp_path / "index", URL)):
        out = tmp_path / f"out-{at is None}"
        shards = write_shards(out, photos, encoder, names=names[:3], source=source)
        assert merge(shards, root, at=at, encoder=encoder).imported == 3
        write_shards(out, photos, encoder, names=names[3:], source=source, first=1)
        report = merge(shards, root, at=at, encoder=encoder)
        assert (report.imported, report.unchanged) == (5, 3)
        index = ImageIndex.open(root or URL, at=at, encoder=encoder)
        assert sorted(index.paths) == names
        assert index.search("red", k=1)[0].path == "red.png"
        assert not check(index).damage


def test_pictures_elsewhere_are_an_ordinary_index(tmp_path: Path, photos: Path, encoder: ColourEncoder) -> None:
    odd = paint(photos / ODD, COLOURS["red"])
    write_shards(tmp_path / "out", photos, encoder, source=URL)
    write_shard(Storage(tmp_path / "out"), 9, [failed("bad.jpg", "no picture")], 4)
    report = merge(tmp_path / "out", at=tmp_path / "index")
    assert (report.imported, [failure.path for failure in report.failed]) == (9, ["bad.jpg"])
    index, below = find(".", at=tmp_path / "index")
    assert (str(index.root), below) == (URL, "")
    hits = index.search_embeddings(encoder.encode_texts(["red"]), k=2)[0]
    assert {hit.file for hit in hits} == {f"{URL}/red.png", f"{URL}/{odd.name}"}
    assert [failure.reason for failure in index.failures()] == ["no picture"]
    assert index.info.model == "colour"
    assert export(index, tmp_path / "vectors", layout="parquet") == 9
    assert str(ImageIndex.open(URL, at=tmp_path / "index").root) == URL
    assert not check(index).damage


def test_an_index_of_pictures_elsewhere_refuses_what_needs_them(
    tmp_path: Path, photos: Path, encoder: ColourEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos / "copy.png").write_bytes((photos / "red.png").read_bytes())
    write_shards(tmp_path / "out", photos, encoder, source=URL)
    merge(tmp_path / "out", at=tmp_path / "index")
    at = ["--index", str(tmp_path / "index")]
    for command in (
        ["index", str(photos), *at],
        ["index", str(photos), "--dry-run", *at],
        ["check", *at, "--full"],
        ["check", *at, "--repair"],
        ["merge", str(tmp_path / "out"), str(photos), *at],
    ):
        index = ImageIndex.open(URL, at=tmp_path / "index", encoder=encoder)
        assert _run(command, encoder) == 1, command
        assert f"which lie in {URL}, not on this machine" in capfd.readouterr().err
        assert index.counts() == {"ok": 9, "missing": 0, "failed": 0}
    for command in (
        ["search", "red", *at, "--copy-to", str(tmp_path / "copies")],
        ["duplicates", *at, "--move-to", str(tmp_path / "copies")],
    ):
        assert _run(command, encoder) == 1, command
        assert "not on this machine\n  hint: the bucket's own tool" in capfd.readouterr().err
    assert not (tmp_path / "copies").exists()
    assert _run(["prune", *at], encoder) == 0
    assert _run(["info", *at], encoder) == 0
    assert f"photos    {URL}\n" in capfd.readouterr().out


def test_a_folder_of_another_machine_is_told_from_one_here(
    tmp_path: Path, photos: Path, encoder: ColourEncoder
) -> None:
    write_shards(tmp_path / "far", photos, encoder, source="/mnt/far/photos")
    merge(tmp_path / "far", at=tmp_path / "index")
    assert str(find(".", at=tmp_path / "index")[0].root) == "file:///mnt/far/photos"
    write_shards(tmp_path / "near", photos, encoder)
    report = merge(tmp_path / "near", at=tmp_path / "other", encoder=encoder)
    assert report.checked == 8  # they were looked at
    assert find(".", at=tmp_path / "other")[0].root == photos


def test_pictures_in_tars_of_this_machine_have_no_file_and_are_merged(
    tmp_path: Path, photos: Path, encoder: ColourEncoder
) -> None:
    source = tmp_path / "tars"
    source.mkdir()
    write_shards(tmp_path / "out", photos, encoder, source=str(source))
    assert merge(tmp_path / "out", at=tmp_path / "index").imported == 8
    [hit] = ImageIndex.open(".", at=tmp_path / "index", encoder=encoder).search("red", k=1)
    assert hit.file == f"file://{source}/red.png"


def test_an_index_folder_in_the_place_of_photos_is_told_how_to_ask_it(
    tmp_path: Path, photos: Path, encoder: ColourEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "out", photos, encoder)
    merge(tmp_path / "out", at=tmp_path / "index", encoder=encoder)
    assert main(["info", str(tmp_path / "index")]) == 1
    assert f"  try: --index {tmp_path / 'index'}\n" in capfd.readouterr().err
    assert main(["info", "--index", str(tmp_path / "index")]) == 0


def test_another_model_is_a_mismatch(tmp_path: Path, photos: Path, encoder: ColourEncoder) -> None:
    other = ColourEncoder(fingerprint="aa" * 32)
    here = write_shards(tmp_path / "here", photos, encoder)
    merge(here, photos, encoder=encoder)
    far = write_shards(tmp_path / "far", photos, encoder, source=URL)
    merge(far, at=tmp_path / "index")
    with pytest.raises(ModelMismatch):
        merge(here, photos, encoder=other)
    with pytest.raises(ModelMismatch):
        merge(write_shards(tmp_path / "x", photos, other), photos, encoder=other)
    with pytest.raises(ModelMismatch, match="made with colour"):
        merge(write_shards(tmp_path / "y", photos, other, source=URL), at=tmp_path / "index")
    with pytest.raises(ClipkitError, match=f"of {URL}, not of s3://another"):
        merge(write_shards(tmp_path / "z", photos, encoder, source="s3://another"), at=tmp_path / "index")


def test_a_damaged_shard_leaves_the_index_that_was_there(tmp_path: Path, photos: Path, encoder: ColourEncoder) -> None:
    write_shards(tmp_path / "out", photos, encoder, names=["red.png"], source=URL)
    merge(tmp_path / "out", at=tmp_path / "index")
    write_shards(tmp_path / "out", photos, encoder, names=["blue.png"], source=URL, first=1)
    bad = Row("a.png", None, 1, 1, None, None, np.full(4, np.nan, np.float32))
    write_shard(Storage(tmp_path / "out"), 2, [bad], 4)
    with pytest.raises(IndexDamaged, match=r"'a.png' has length nan"):
        merge(tmp_path / "out", at=tmp_path / "index")
    assert ImageIndex.open(URL, at=tmp_path / "index").paths == ["red.png"]
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == ["index.db", "lock"]


def test_a_path_that_leads_out_is_refused(tmp_path: Path, encoder: ColourEncoder) -> None:
    write_vectors(tmp_path / "out", unit(1), encoder)
    write_shard(Storage(tmp_path / "out"), 1, [Row("../x.jpg", None, 1, 1, None, None, unit(1)[0])], 4)
    with pytest.raises(ClipkitError, match=r"outside of its source: '\.\./x\.jpg'"):
        merge(tmp_path / "out", at=tmp_path / "index")
    assert not (tmp_path / "index" / "index.db").exists()


def test_a_merge_that_is_killed_leaves_the_old_index_and_can_be_run_again(
    tmp_path: Path, encoder: ColourEncoder
) -> None:
    out, at = tmp_path / "out", tmp_path / "index"
    write_vectors(out, unit(10), encoder, shard_rows=10)
    merge(out, at=at)
    write_vectors(out, unit(40_000, seed=1), encoder, shard_rows=1000, first=1)
    script = f"from clipkit.bulk import merge; merge({str(out)!r}, at={str(at)!r})"
    process = subprocess.Popen([sys.executable, "-c", script])
    new = at / "index.db.new"
    while process.poll() is None and not (new.exists() and new.stat().st_size > 500_000):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9, "it was over too soon"
    index = ImageIndex.open("s3://bucket/photos", at=at)
    assert len(index) == 10
    assert merge(out, at=at).imported == 40_000
    assert len(index) == 40_010
    assert not new.exists()


def test_the_command_needs_a_place(tmp_path: Path, shards: Shards, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", shards.storage.url]) == 2
    assert "--index FOLDER where they lie elsewhere" in capfd.readouterr().err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "clipkit.json").write_text(json.dumps(vars(shards.manifest)))
    assert main(["merge", str(tmp_path / "empty"), "--index", str(tmp_path / "index")]) == 1
    assert "has no shards yet" in capfd.readouterr().err
    assert main(["merge", str(tmp_path / "nowhere"), "--index", str(tmp_path / "index")]) == 1
    assert "holds no shards of clipkit" in capfd.readouterr().err


def _run(command: list[str], encoder: ColourEncoder) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipkit.models.load.load_encoder", lambda name, **options: encoder)
        patch.setattr("clipkit.index.image_index.load_encoder", lambda name, **options: encoder)
        return main(command)
