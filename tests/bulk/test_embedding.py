"""Embedding on a cluster: every picture once, whatever dies, whatever was there before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipkit.bulk import embed
from clipkit.bulk.plan import make_plan
from clipkit.bulk.ray_engine import Layout, connected, embed_shards
from clipkit.bulk.readers import list_source
from clipkit.bulk.shards import Shards
from clipkit.cli.main import main
from clipkit.core.progress import Progress
from clipkit.errors import ClipkitError, ModelMismatch
from clipkit.index.image_index import ImageIndex
from tests.support.bulk_run import DownStorage, OtherEncoder, SlowEncoder, expected, failures_of, make_pictures, rows_of
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.flaky_bucket import FlakyBucket
from tests.support.waiting import until


def names(out: Path) -> list[str]:
    return [file.name for file in sorted(out.iterdir())]


def check_all(source: Path, out: Path | str) -> None:
    """Every picture of a folder is there once, with the embedding that its colours have."""
    found = rows_of(out)
    paths = sorted(file.relative_to(source).as_posix() for file in source.rglob("*.png"))
    assert sorted(found) == paths
    assert np.abs(np.stack([found[path] for path in paths]) - expected(source, paths)).max() < 1e-3


def test_every_picture_is_there_once_with_its_embedding_and_its_facts(cluster: None, tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "photos", 25), tmp_path / "shards"
    paint(source / "trip" / "sea.png", COLOURS["blue"], (20, 10))
    if sys.platform == "linux":
        paint(source / os.fsdecode(b"caf\xe9.png"), COLOURS["red"])
    count = len(list(source.rglob("*.png")))
    seen: list[Progress] = []
    report = embed(source, out, model=ColourEncoder(), shard=10, progress=seen.append)
    check_all(source, out)
    assert (report.found, report.embedded, report.kept, report.failed) == (count, count, 0, 0)
    assert report.written == len(Shards(out).names) >= 3
    assert (seen[-1].done, seen[-1].total) == (count, count)
    entries = [entry for name in Shards(out).names for piece in Shards(out).pieces(name) for entry in piece.entries]
    index = ImageIndex.create(source, ColourEncoder())
    index.update()
    [sea] = [entry for entry in entries if entry.path == "trip/sea.png"]
    assert (sea.width, sea.height) == (20, 10)
    assert sea.sha256 == index.store.known()["trip/sea.png"].sha256


def test_a_second_run_makes_what_is_missing_or_not_whole_and_leaves_the_rest(cluster: None, tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "photos", 30), tmp_path / "shards"
    embed(source, out, model=ColourEncoder(), shard=8)
    first, second, *rest = Shards(out).names
    (out / first).unlink()
    (out / second).write_bytes((out / second).read_bytes()[:-100])
    half = [
        out / ".clipkit-shard-1234.part",
        out / ".clipkit-shard-5678.part",
    ]  # of a driver that was killed; of another
    for file in half:
        file.write_bytes(b"half")
    os.utime(half[0], (0, 0))
    before = {name: (out / name).stat().st_mtime_ns for name in rest}
    report = embed(source, out, model=ColourEncoder())
    assert report.written == 2
    assert [file.exists() for file in half] == [False, True]
    assert {name: (out / name).stat().st_mtime_ns for name in rest} == before
    check_all(source, out)
    assert embed(source, out, model=ColourEncoder()).written == 0


def test_pictures_that_come_and_go_move_few_shards_and_each_is_there_once(cluster: None, tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "photos", 60), tmp_path / "shards"
    embed(source, out, model=ColourEncoder(), shard=8)
    before = set(Shards(out).names)
    paint(source / "0005b.png", COLOURS["red"])
    (source / "0002.png").unlink()
    report = embed(source, out, model=ColourEncoder())
    check_all(source, out)
    kept = before & set(Shards(out).names)
    assert report.removed == len(before - kept)
    assert len(kept) >= len(before) - 4, "the borders move near the change alone"
    assert report.kept == sum(Shards(out).count(name) for name in kept)


def test_what_cannot_be_read_is_a_row_with_its_reason(cluster: None, tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "photos", 12), tmp_path / "shards"
    (source / "0003b.jpg").write_bytes(b"\xff\xd8\xff no picture")
    paint(source / "boom.png", COLOURS["red"])
    paint(source / "doom.png", COLOURS["red"])
    report = embed(source, out, model=ColourEncoder(), shard=100)
    failed = failures_of(out)
    assert sorted(failed) == ["0003b.jpg", "boom.png", "doom.png"]
    assert failed["boom.png"] == "its decoder crashed with SIGSEGV"
    assert failed["doom.png"] == "the process that decoded it died, alone with it"
    assert "cannot be decoded" in failed["0003b.jpg"]
    assert {(one.path, one.reason) for one in report.failures} == set(failed.items())
    assert (report.embedded, report.failed) == (12, 3)
    assert len(rows_of(out)) == 12


def test_a_picture_that_failed_is_tried_again_when_that_is_asked_for(cluster: None, tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "photos", 6), tmp_path / "shards"
    (source / "0002.png").write_bytes(b"")
    assert embed(source, out, model=ColourEncoder(), shard=3).failed == 1
    paint(source / "0002.png", COLOURS["red"])
    assert embed(source, out, model=ColourEncoder()).written == 0
    report = embed(source, out, model=ColourEncoder(), retry_failed=True)
    assert (report.written, report.failed) == (1, 0)
    check_all(source, out)


def test_shards_of_another_model_source_or_size_are_left_alone(cluster: None, tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "photos", 8), tmp_path / "shards"
    embed(source, out, model=ColourEncoder(), shard=4)
    before = {name: (out / name).read_bytes() for name in names(out)}
    paint(source / "new.png", COLOURS["red"])
    with pytest.raises(ModelMismatch, match="was made with other weights of colour"):
        embed(source, out, model=OtherEncoder())
    with pytest.raises(ModelMismatch, match="other pixels"):
        embed(source, out, model=ColourEncoder(exact=True))
    with pytest.raises(ClipkitError, match="has shards of 4 pictures, not of 5"):
        embed(source, out, model=ColourEncoder(), shard=5)
    other = make_pictures(tmp_path / "others", 2)
    with pytest.raises(ClipkitError, match=r"holds the pictures of .*photos, not of .*others"):
        embed(other, out, model=ColourEncoder())
    for file in source.iterdir():
        file.unlink()
    with pytest.raises(ClipkitError, match="no pictures in"):
        embed(source, out, model=ColourEncoder())
    assert {name: (out / name).read_bytes() for name in names(out)} == before


def test_more_encoders_than_cpus_leave_room_for_decoding(cluster: None, tmp_path: Path) -> None:
    """ray#44687: actors that take every CPU of a cluster wait for ever for what would feed them."""
    source, out = make_pictures(tmp_path / "photos", 300), tmp_path / "shards"
    embed(source, out, model=SlowEncoder(seconds=0.001), workers=3)
    check_all(source, out)


def test_a_killed_encoder_costs_no_picture(cluster: None, tmp_path: Path) -> None:
    source, out, started = make_pictures(tmp_path / "photos", 400), tmp_path / "shards", tmp_path / "started"
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if not killed and progress.done < progress.total:
            killed.append(int(next(started.iterdir()).name))
            os.kill(killed[0], signal.SIGKILL)

    embed(source, out, model=SlowEncoder(seconds=0.003, started=started), shard=100, workers=1, progress=kill)
    assert len(list(started.iterdir())) == 2, "another one went on"
    check_all(source, out)


def test_a_killed_driver_leaves_whole_shards_and_the_next_run_makes_the_others(cluster: None, tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "photos", 240), tmp_path / "shards"
    command = [sys.executable, "-m", "tests.support.bulk_run", str(source), str(out), "20", "0.02"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: out.is_dir() and len([n for n in names(out) if n.startswith("part-")]) >= 3, 120)
    driver.kill()
    driver.wait()
    workers = [int(file.name) for file in Path(f"{out}.started").iterdir()]
    there = {name: (out / name).stat().st_mtime_ns for name in Shards(out).names}
    half = len(rows_of(out))
    assert 0 < half < 240, "it was killed in the middle"
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 60)
    report = embed(source, out, model=ColourEncoder())
    assert (report.kept, report.embedded) == (half, 240 - half)
    assert {name: (out / name).stat().st_mtime_ns for name in there} == there
    check_all(source, out)


def test_a_full_disk_is_said_and_what_is_there_is_whole(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    source, out = make_pictures(tmp_path / "photos", 60), tmp_path / "shards"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the manifest fits, and no shard does
    try:
        with pytest.raises(ClipkitError, match=r"cannot write to .*shards: File too large"):
            embed(source, out, model=ColourEncoder(), shard=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert names(out) == ["clipkit.json"], "nothing is left of what did not fit"
    embed(source, out, model=ColourEncoder())
    check_all(source, out)


def test_a_bucket_that_answers_503_now_and_then_loses_nothing(
    cluster: None, bucket: FlakyBucket, tmp_path: Path
) -> None:
    import s3fs

    source = make_pictures(tmp_path / "photos", 60)
    s3 = s3fs.S3FileSystem(skip_instance_cache=True)
    s3.mkdir("somewhere")
    s3.put(f"{source}/", "somewhere/photos/", recursive=True)
    bucket.every, bucket.refused = 5, 0
    try:
        report = embed("s3://somewhere/photos", "s3://somewhere/shards", model=ColourEncoder(), shard=20)
        assert bucket.refused > 10
        assert (report.embedded, report.failed) == (60, 0)
        assert embed("s3://somewhere/photos", "s3://somewhere/shards", model=ColourEncoder()).embedded == 0
    finally:
        bucket.every = 0
    check_all(source, "s3://somewhere/shards")
    assert json.loads(s3.cat_file("somewhere/shards/clipkit.json"))["source"] == "s3://somewhere/photos"


def test_a_bucket_that_stays_down_ends_the_run_and_is_no_row(cluster: None, tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "photos", 5)
    plan = make_plan(list_source(str(source)).items, 10, None)
    published: list[str] = []
    with connected(None) as found, pytest.raises(ClipkitError, match="failed 5 times: SlowDown"):
        embed_shards(
            found,
            DownStorage(source),
            plan.todo,
            load=lambda _: ColourEncoder(),
            model="colour",
            layout=Layout(),
            check=lambda _: None,
            publish=lambda shard, _: published.append(shard.name),
        )
    assert published == []


@pytest.mark.real
def test_embeddings_are_those_of_an_index(cluster: None, real_data: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in sorted((real_data / "captions" / "images").iterdir())[: 300 if os.environ.get("CLIPKIT_SCALE") else 40]:
        (photos / file.name).write_bytes(file.read_bytes())
    assert main(["index", str(photos), "--engine", "ray", "--out", str(tmp_path / "shards"), "--model", "starter"]) == 0
    # In a process of its own: where torch is loaded, as perhaps here, torch resizes, and 1 of 300 values is another.
    command = [sys.executable, "-m", "clipkit", "index", str(photos), "--model", "starter", "--device", "cpu"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    index = ImageIndex.open(photos)
    found = rows_of(tmp_path / "shards")
    assert sorted(found) == sorted(index.paths)
    rows, right = np.stack([found[path] for path in index.paths]), index.embeddings
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(right, axis=1)  # not quite 1: both are float16
    assert ((rows * right).sum(axis=1) / lengths).min() >= 0.9999
