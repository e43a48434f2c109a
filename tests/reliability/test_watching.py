"""A decoder that crashes, eats the memory or hangs costs one picture, not the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.core.progress import Failure
from clipkit.errors import ClipkitError
from clipkit.index.crash_recovery import TEXTS, Journal, blame, in_flight, watch
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder, paint, shade
from tests.support.paths import REPOSITORY

REASONS = {
    "abort": "crashed with SIGABRT",
    "memory": "was killed, as by a lack of memory",
    "hang": "took longer than 2 s",
}
COUNT = 20


def run(how: str, folder: Path, *options: str) -> int:
    program = (sys.executable, "-m", "tests.support.boom", how)
    seconds = 2 if how == "hang" else 60
    return watch(["index", str(folder), *options], folder / ".clipkit", hang_seconds=seconds, program=program)


def fill(folder: Path, *booms: int) -> None:
    for number in range(COUNT):
        paint(folder / f"{number:02}{'-boom' if number in booms else ''}.png", shade(number))


def check_others(folder: Path, booms: list[str]) -> None:
    encoder = ColourEncoder()
    index = ImageIndex.open(folder, encoder=encoder)
    assert sorted(index.paths) == sorted(
        path for path in os.listdir(folder) if path.endswith(".png") and path not in booms
    )
    made = encoder.encode_images([folder / path for path in index.paths])
    assert abs((index.embeddings * made).sum(axis=1) - 1).max() < 1e-3
    assert not in_flight(folder / ".clipkit")


@pytest.mark.parametrize(("how", "position"), [("abort", 0), ("abort", COUNT - 1), ("memory", 7), ("hang", 7)])
def test_a_picture_that_kills_its_decoder_is_named_and_the_others_are_found(
    tmp_path: Path, how: str, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    fill(tmp_path, position)
    assert run(how, tmp_path) == 0
    name = f"{position:02}-boom.png"
    check_others(tmp_path, [name])
    failures = ImageIndex.open(tmp_path).failures()
    assert failures == [Failure(name, f"its decoder {REASONS[how]}")]
    assert run(how, tmp_path) == 0  # not tried again


def test_a_picture_of_which_the_ocr_engine_dies_is_named_and_stays_in_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    for number, grey in enumerate((200, 10, 100, 20)):
        paint(tmp_path / f"{number}.png", (grey, grey, grey))
    assert run("ocr", tmp_path, "--ocr") == 0
    err = capfd.readouterr().err
    assert "cannot read 3.png: its text reader crashed with SIGABRT" in err
    index = ImageIndex.open(tmp_path)
    assert (len(index), sorted(index.store.texts().values())) == (4, ["", "", "grey 100", "grey 200"])
    assert not in_flight(tmp_path / ".clipkit", TEXTS)
    assert run("ocr", tmp_path, "--ocr") == 0  # not tried again
    assert "cannot read" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("CLIPKIT_FAULTS") != "full", reason="four minutes: make faults")
@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("position", range(1, COUNT, 2))
def test_at_any_position(tmp_path: Path, how: str, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    fill(tmp_path, position)
    assert run(how, tmp_path, "--workers", "4") == 0
    check_others(tmp_path, [f"{position:02}-boom.png"])


def test_a_run_that_is_slow_to_start_again_is_not_taken_for_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    fill(tmp_path, 7)
    late = (
        "import runpy, sys, time; time.sleep(1.5); sys.argv[0] = ''; "
        "runpy.run_module('tests.support.boom', run_name='__main__')"
    )
    program = (sys.executable, "-c", late, "hang")  # as one that has a model to load
    assert watch(["index", str(tmp_path)], tmp_path / ".clipkit", hang_seconds=2, program=program) == 0
    check_others(tmp_path, ["07-boom.png"])


def test_two_neighbours_that_crash_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    fill(tmp_path, 5, 6)
    assert run("abort", tmp_path, "--workers", "4") == 0
    check_others(tmp_path, ["05-boom.png", "06-boom.png"])
    assert [failure.path for failure in ImageIndex.open(tmp_path).failures()] == ["05-boom.png", "06-boom.png"]


def test_without_a_parent_the_third_run_leaves_the_culprit_out(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for _ in range(3):
        command = [sys.executable, "-m", "tests.support.boom", "abort", "index", str(tmp_path)]
        place = {"cwd": REPOSITORY, "env": {**os.environ, "CLIPKIT_WATCHED": "1"}}
        with subprocess.Popen(command, **place, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.wait() == -signal.SIGABRT
    ImageIndex.open(tmp_path, encoder=ColourEncoder()).update()
    check_others(tmp_path, ["03-boom.png"])


def test_a_run_that_dies_of_something_else_is_not_started_for_ever(tmp_path: Path) -> None:
    program = (sys.executable, "-c", "import os; os.abort()")
    with pytest.raises(ClipkitError, match="crashed with SIGABRT, and no picture can be blamed"):
        watch([], tmp_path, program=program)


def test_c_libraries_of_the_child_print_nothing_and_python_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import os, sys; from clipkit.index.crash_recovery import is_watched; is_watched();"
        "os.write(2, b'TIFFFillStrip: Read error\\n'); print('6 pictures', file=sys.stderr); 1 / 0"
    )
    assert watch([], tmp_path, program=(sys.executable, "-c", code)) == 1
    printed = capfd.readouterr().err
    assert "6 pictures" in printed
    assert "ZeroDivisionError" in printed
    assert "TIFF" not in printed


def test_an_index_of_hostile_tiffs_prints_its_own_lines_alone(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "TIFF", compression="tiff_lzw")
    content = file.getvalue()
    for start in range(1000, 9000, 1000):
        (tmp_path / f"{start}.tif").write_bytes(content[:start] + bytes(500) + content[start + 500 :])
    command = [sys.executable, "-m", "clipkit", "index", str(tmp_path), "--model", "starter"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "pictures can be found" in done.stderr
    assert not [line for line in done.stderr.splitlines() if "TIFF" in line or "LZW" in line]


def test_the_exit_code_is_that_of_the_child(tmp_path: Path) -> None:
    assert watch([], tmp_path, program=(sys.executable, "-c", "raise SystemExit(11)")) == 11


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from clipkit.index.crash_recovery import watch;"
        "code = 'import os, time; from clipkit.index.crash_recovery import is_watched; is_watched();"
        " print(os.getpid(), flush=True); time.sleep(60)';"
        "watch([], pathlib.Path('.'), program=(sys.executable, '-c', code))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
        for _ in range(100):
            if not _is_alive(child):
                break
            time.sleep(0.1)
    assert not _is_alive(child)


def test_ctrl_c_reaches_the_child_once(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from clipkit.index.crash_recovery import watch;"
        "code = '''import signal, sys, time; from clipkit.core.interrupts import remember_interrupts\nseen = []\n"
        "signal.signal(signal.SIGINT, lambda *_: seen.append(1)); remember_interrupts()\nprint('ready', flush=True)\n"
        "end = time.monotonic() + 2\nwhile time.monotonic() < end: time.sleep(.05)\nsys.exit(100 + len(seen))''';"
        "sys.exit(watch([], pathlib.Path('.'), program=(sys.executable, '-c', code)))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
    ) as parent:
        assert parent.stdout
        parent.stdout.readline()
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        assert parent.wait(timeout=20) == 101


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of a Unix system")
def test_a_child_that_ctrl_c_has_ended_is_no_crash(tmp_path: Path) -> None:
    code = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT});"
        "signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"
    )
    assert watch([], tmp_path, program=(sys.executable, "-c", code)) == 130


def test_the_journal_says_what_is_in_flight(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    odd = os.fsdecode(b"caf\xe9\n" + b"x" * 200)
    with journal.entry("a.jpg"), journal.entry(odd, tries=1):
        assert [(file.path, file.tries) for file in in_flight(tmp_path)] == [("a.jpg", 0), (odd, 1)]
        assert not any(file.is_culprit for file in in_flight(tmp_path))
        blame(tmp_path, "crashed")
        assert [(file.reason, file.is_culprit) for file in in_flight(tmp_path)] == [
            ("crashed", False),
            ("crashed", True),
        ]
    assert in_flight(tmp_path) == []
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_of_rubbish_is_no_obstacle(tmp_path: Path) -> None:
    for rubbish in (b"", b"x", os.urandom(5000), bytes(20_000)):
        (tmp_path / "inflight").write_bytes(rubbish)
        in_flight(tmp_path)


def _is_alive(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_what_an_earlier_child_left_in_the_journal_is_not_blamed_for_ever(tmp_path: Path) -> None:
    blamed = pytest.raises(ClipkitError, match="no picture can be blamed")
    with closing(Journal(tmp_path)) as journal, journal.entry("a.jpg", tries=1), blamed:
        watch([], tmp_path, program=(sys.executable, "-c", "import os; os.abort()"))


@pytest.mark.parametrize(("watched", "expected"), [({"CLIPKIT_WATCHED": "1"}, []), ({}, ["finalised"])])
def test_the_child_ends_without_the_farewell_of_its_libraries(watched: dict[str, str], expected: list[str]) -> None:
    script = (
        "import atexit, runpy, sys\nclass Loud:\n    def __del__(self): print('finalised', flush=True)\n"
        "atexit.register(print, 'at exit')\nloud = Loud()\nsys.argv = ['clipkit', '--version']\n"
        "runpy.run_module('clipkit', run_name='__main__')"
    )
    environment = {**os.environ, **watched}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    version, *rest = done.stdout.splitlines()
    assert version.startswith("clipkit")
    assert rest == ["at exit", *expected]
    assert (done.returncode, done.stderr) == (0, "")
