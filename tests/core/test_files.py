"""Atomic file writes: the old content or the new one, nothing beside it, and on the disk when it says so."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from clipkit.core.files import check_writable, digest, replace_file, replacing
from clipkit.errors import ClipkitError


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and replaced from now on, in order."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy(handle: int) -> None:
        events.append("folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("replace"), replace(*names))[1])
    return events


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_replaced_in_one_step(tmp_path: Path, sync: bool) -> None:
    file = tmp_path / "index"
    file.write_bytes(b"old")
    with replacing(file, sync=sync) as beside:
        beside.write_bytes(b"new")
        assert file.read_bytes() == b"old"
        assert beside.parent == tmp_path
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc to see what is synced")
@pytest.mark.parametrize(("sync", "expected"), [(True, ["file", "replace", "folder"]), (False, ["replace"])])
def test_content_is_synced_before_the_step_and_the_folder_after_it(
    tmp_path: Path, synced: list[str], sync: bool, expected: list[str]
) -> None:
    with replacing(tmp_path / "file", sync=sync) as beside:
        beside.write_bytes(b"new")
    assert synced == expected


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("no JSON")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, sync: bool, error: BaseException) -> None:
    file = tmp_path / "index"
    file.write_bytes(b"old")

    def write_half() -> None:
        with replacing(file, sync=sync) as beside:
            beside.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["index"]


def test_a_step_that_cannot_be_made_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError), replacing(tmp_path / "folder") as beside:  # noqa: PT011  its number is the system's
        beside.write_bytes(b"new")
    assert os.listdir(tmp_path) == ["folder"]


def test_nothing_written_is_an_error_and_no_empty_file(tmp_path: Path) -> None:
    for sync in (True, False):
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "file", sync=sync):
            pass
    assert os.listdir(tmp_path) == []


def test_the_longest_name_of_a_disk_can_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 255)
    replace_file(file, b"content")
    assert file.read_bytes() == b"content"


def test_the_folder_of_a_new_file_is_made(tmp_path: Path) -> None:
    replace_file(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"


def test_a_digest_is_sha_256_or_none(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert digest(tmp_path / "absent") is None
    assert digest(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert os.listdir(tmp_path / "new" / "folder") == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ClipkitError, match=r"file.* cannot be written") as caught:
        check_writable(tmp_path / "file" / "below")
    assert caught.value.hint == "another place: --out FILE"
