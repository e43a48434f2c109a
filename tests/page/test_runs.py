"""Runs that the page has started end with it, also where it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clipkit_apps.compare.runs import ComparisonRun, wish_of
from clipkit_apps.server.runs import CommandRun

from clipkit.index.image_index import ImageIndex
from clipkit.store.database import writing
from tests.support.colours import paint, shade
from tests.support.waiting import until

SECONDS = 60.0  # a busy machine
MANY = 3_000
PAGE = """
import sys, time
from pathlib import Path
from clipkit_apps.server.runs import CommandRun
run = CommandRun(Path(sys.argv[1]), options=("--model", "starter"))
print(run._process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Many pictures in two folders."""
    for number in range(MANY):
        paint(tmp_path / "photos" / ("light", "dark")[number % 2] / f"{number}.png", shade(number))
    return tmp_path / "photos"


def index_run(folder: Path) -> CommandRun:
    return CommandRun(folder, options=("--model", "starter", "--batch-size", "4"))


def comparison_run(folder: Path) -> CommandRun:
    return ComparisonRun(wish_of(folder, ["zeroshot", "probe"], ["1", "2", "4", "8", "16"], 10, "starter"))


@pytest.mark.usefixtures("starter")
@pytest.mark.parametrize("start", [index_run, comparison_run])
def test_a_run_is_interrupted_where_nobody_holds_its_input_any_more(
    start: Callable[[Path], CommandRun], folder: Path
) -> None:
    run = start(folder)
    until(lambda: run.look().done, SECONDS)
    assert run._process.stdin is not None
    run._process.stdin.close()  # as the system does when the page's process is gone
    until(lambda: not run.look().is_running, SECONDS)
    assert run.look().was_stopped
    run.end()


def is_alive(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


@pytest.mark.usefixtures("starter")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
def test_nothing_is_left_of_a_run_whose_page_is_killed(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PAGE, str(folder)], stdout=subprocess.PIPE) as page:
        assert page.stdout is not None
        run = int(page.stdout.readline())
        until(lambda: (folder / ".clipkit").exists(), SECONDS)
        os.kill(page.pid, signal.SIGKILL)
    until(lambda: not is_alive(run), SECONDS)
    with writing(folder / ".clipkit"):  # nor does its child hold the index
        pass
    assert not (folder / ".clipkit" / "index.db").exists() or ImageIndex.open(folder).counts()["ok"] < MANY
