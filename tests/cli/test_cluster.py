"""`clipkit index --engine ray`: what is refused, what is said, and what is missing without the extra."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clipkit.bulk import embed
from clipkit.cli.main import main
from clipkit.cli.output import print_bulk_report
from tests.support.colours import COLOURS, paint


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine", "ray"], "--out FOLDER"),
        (["--out", "x"], "--out is of a cluster: add --engine ray"),
        (["--address", "auto"], "--address is of a cluster: add --engine ray"),
        (["--shard", "5"], "--shard is of a cluster: add --engine ray"),
        (["--gpus-per-worker", "1"], "--gpus-per-worker is of a cluster: add --engine ray"),
        (["--engine", "ray", "--out", "x", "--watch"], "--watch does not go with --engine ray"),
        (["--engine", "ray", "--out", "x", "--ann", "off"], "--ann does not go with --engine ray"),
        (["--engine", "ray", "--out", "x", "--video"], "--video does not go with --engine ray"),
        (["--engine", "ray", "--out", "x", "--exclude-dir", "a"], "--exclude-dir does not go with --engine ray"),
        (["--engine", "ray", "--out", ""], "it is empty: a path, please"),
        (["--engine", "ray", "--out", "x", "--shard", "0"], "0 is not in the range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], sentence: str, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(photos), *options]) == 2
    assert sentence in " ".join(capfd.readouterr().err.split())
    assert not (photos / ".clipkit").exists()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    assert main(["index", str(photos), "--engine", "ray", "--out", str(out), "--shard", "4", "--dry-run"]) == 0
    said = capfd.readouterr().out
    planned = embed(photos, out, shard=4, dry_run=True)
    assert said == f"would embed 8 pictures in {planned.written} shards of {out}\n"
    assert not out.exists()


def test_no_cluster_and_no_pictures_are_said(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["index", str(tmp_path / "empty"), "--engine", "ray", "--out", "x"]) == 1
    assert f"error: no pictures in {tmp_path / 'empty'}" in capfd.readouterr().err


def test_a_bucket_without_the_engine_is_told_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "s3://bucket/photos"]) == 1
    said = capfd.readouterr().err
    assert "error: s3://bucket/photos is a URL" in said
    assert "  try: clipkit index s3://bucket/photos --engine ray --out FOLDER\n" in said


def test_a_bucket_without_credentials_is_one_sentence_and_what_helps(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs = pytest.importorskip("s3fs", reason="pip install s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "x")}
    for name, value in {**nothing, "AWS_CONFIG_FILE": str(tmp_path / "y"), "AWS_DEFAULT_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    for words in (
        ["info", "s3://bucket/x"],
        ["index", "s3://bucket/x", "--engine", "ray", "--out", str(tmp_path / "z")],
    ):
        s3fs.S3FileSystem.clear_instance_cache()
        assert main(words) == 1
        error, hint = capfd.readouterr().err.splitlines()
        assert error == "error: s3://bucket/x: there are no credentials for it"
        assert "AWS_ACCESS_KEY_ID" in hint
    s3fs.S3FileSystem.clear_instance_cache()


def test_without_the_extra_one_line_says_what_to_install(photos: Path, tmp_path: Path) -> None:
    """Neither ray nor fsspec can be imported there; every other command does without."""
    script = (
        "import sys; sys.modules['ray'] = sys.modules['fsspec'] = None\n"
        "from clipkit.cli.main import main\n"
        f"print(main(['index', {str(photos)!r}, '--engine', 'ray', '--out', {str(tmp_path / 'x')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1"
    assert done.stderr.splitlines()[-1] == "  try: pip install 'clipkit[ray]'"
    assert len(done.stderr.splitlines()) == 2


def test_failures_are_counted_and_the_first_are_named(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from clipkit.core.progress import Failure

    report = embed(photos, tmp_path / "x", dry_run=True)
    failures = tuple(Failure(f"{i}.jpg", "its content is damaged") for i in range(7))
    paint(photos / "more.png", COLOURS["red"])
    print_bulk_report(replace(report, failed=7, failures=failures, embedded=1, seconds=1, is_planned=False), "x")
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"8 pictures in x \(1 new, 7 failed\) in 1\.0 s, .*", lines[0])
    assert lines[1:] == [
        *(f"  cannot read {i}.jpg: its content is damaged" for i in range(5)),
        "  and 2 more; their rows have the column error",
    ]
