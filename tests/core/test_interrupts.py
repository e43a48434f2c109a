"""Ctrl-C at every moment of a start: while libraries are imported, and before the child of `index` can answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipkit.core.interrupts import is_interrupt
from tests.support.colours import paint

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of a Unix system")


def test_what_a_library_makes_of_ctrl_c_is_known_by_its_cause() -> None:
    hidden = ImportError("initialization failed")
    hidden.__cause__ = KeyboardInterrupt()
    assert is_interrupt(hidden)
    assert is_interrupt(KeyboardInterrupt())
    assert not is_interrupt(ImportError("libgomp.so.1: cannot open shared object file"))
    assert not is_interrupt(None)


def test_a_library_that_hides_ctrl_c_hides_nothing() -> None:
    """As numpy's import does, which says "import numpy failed" of whatever went wrong."""
    code = (
        "import os, signal; from clipkit.core.interrupts import *; remember_interrupts()\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt: pass\n"
        "raise SystemExit(0 if is_interrupt(ImportError('import numpy failed')) else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], preexec_fn=as_in_a_terminal, check=False).returncode == 0


def test_what_came_before_it_could_be_answered_waits(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; from clipkit.core.interrupts import interrupts_held\n"
        "with interrupts_held(): raise SystemExit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    )
    child = (
        "import os, pathlib, signal; os.kill(os.getpid(), signal.SIGINT); pathlib.Path('alive').touch()\n"
        "from clipkit.core.interrupts import remember_interrupts\n"
        "try: remember_interrupts()\n"
        "except KeyboardInterrupt: raise SystemExit(7)"
    )
    command = [sys.executable, "-c", code, child]
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=as_in_a_terminal, check=False)
    assert (done.returncode, (tmp_path / "alive").exists()) == (7, True)


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.4, 0.6])
def test_ctrl_c_ends_index_with_130_at_any_moment(tmp_path: Path, seconds: float) -> None:
    for number in range(4):
        paint(tmp_path / "photos" / f"{number}.png", (number, 0, 0))
    command = [sys.executable, "-m", "clipkit", "index", "photos", "--model", "starter"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal
    ) as process:
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 0)  # 0: it was ready by then
    assert "Traceback" not in err
    assert "error:" not in err


def as_in_a_terminal() -> None:
    """A test that runs in the background of a shell would hand down that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
