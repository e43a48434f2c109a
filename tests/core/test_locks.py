"""File locks between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipkit.core.locks import exclusive_lock, is_in_use, mark_in_use


def test_a_second_one_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with exclusive_lock(lock, seconds=0), pytest.raises(TimeoutError), exclusive_lock(lock, seconds=0):
        pass
    with exclusive_lock(lock, seconds=0):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_file_is_in_use_until_each_handle_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "record"
    file.touch()
    first, second = mark_in_use(file), mark_in_use(file)
    assert first
    assert second
    first.close()
    assert is_in_use(file)
    second.close()
    assert not is_in_use(file)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_file_is_not_in_use_by_a_process_that_died(tmp_path: Path) -> None:
    file = tmp_path / "record"
    file.touch()
    code = f"import os, pathlib as p, clipkit.core.locks as l; h = l.mark_in_use(p.Path({str(file)!r})); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert not is_in_use(file)


def test_what_is_not_there_is_not_in_use(tmp_path: Path) -> None:
    assert mark_in_use(tmp_path / "none") is None
    assert not is_in_use(tmp_path / "none")
