"""`clipkit serve` and `search --keep-warm`: the same answer, sooner, and none the worse when the service is gone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import clipkit
from clipkit.cli import keep_warm, serve
from clipkit.cli.keep_warm import ANSWERED, ELSEWHERE, FLAG, OUTDATED, address, ask
from clipkit.models.load import load_encoder
from tests.support.colours import paint

pytestmark = pytest.mark.skipif(not keep_warm.is_available(), reason="no service on this system")
PATIENCE = 60.0  # seconds; a process starts in one, unless the machine is busy


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short one: the path of a socket has 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="ck") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)
        serve._stop()


@pytest.fixture
def indexed(photos: Path) -> Path:
    clipkit.ImageIndex.create(photos, load_encoder("starter")).update()
    return photos


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "clipkit", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False)


def wait_for(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def answers() -> bool:
    try:
        return ask({"arguments": []})[0]["status"] == ELSEWHERE
    except (OSError, ValueError):
        return False


@pytest.fixture
def service() -> Iterator[subprocess.Popen[bytes]]:
    process = start()
    wait_for(answers)
    yield process
    process.kill()
    process.communicate()


def start(*options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "clipkit", "serve", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def asked(arguments: list[str], cwd: Path) -> tuple[str, list[bytes]]:
    answer, outputs = ask({"arguments": arguments, "cwd": str(cwd), "encoding": ["utf-8", "strict"] * 2})
    return answer["status"], outputs


def test_a_search_starts_the_service_and_the_next_is_answered_by_it(indexed: Path) -> None:
    alone = run("search", "a red square", indexed, "--json")
    first = run("search", "a red square", indexed, "--json", FLAG)
    assert (first.returncode, first.stdout, first.stderr) == (0, alone.stdout, alone.stderr)
    wait_for(answers)
    assert asked(["search", "a red square", str(indexed), "--json"], indexed) == (
        ANSWERED,
        [alone.stdout, alone.stderr],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "a red square"],
        ["search", "./red.png + blue", ".", "-t", "3", "--json"],
        ["search", "-0", "green"],
        ["search", "red", "nowhere"],
        ["search", "red", ".", "-t", "0"],
        ["search", "red.png"],
        ["search", "red", "--in", "nowhere"],
        ["search", "two", "words", "too many"],
        ["search", "--no-such-option"],
        ["search", "--help"],
        ["search", "red", "--engine", "onnx"],
    ],
    ids=" ".join,
)
def test_the_answer_is_that_of_a_search_without_it(
    arguments: list[str], indexed: Path, service: subprocess.Popen[bytes]
) -> None:
    for _ in range(2):
        alone, warm = run(*arguments, cwd=indexed), run(*arguments, FLAG, cwd=indexed)
        assert (warm.returncode, warm.stdout, warm.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert service.poll() is None


def test_it_sees_what_an_index_run_has_changed(indexed: Path, service: subprocess.Popen[bytes]) -> None:
    search = ["search", "-f", "./red.png", ".", "-t", "1"]
    assert asked(search, indexed) == (ANSWERED, [b"red.png\n", b""])
    paint(indexed / "a_red.png", (255, 0, 0))
    (indexed / "red.png").unlink()
    clipkit.ImageIndex.open(indexed).update()
    search[2] = "./a_red.png"
    assert asked(search, indexed) == (ANSWERED, [b"a_red.png\n", b""])
    clipkit.ImageIndex.create(indexed, load_encoder("starter", exact_pixels=True), rebuild=True).update()
    assert asked(search, indexed) == (ANSWERED, [b"a_red.png\n", b""])
    shutil.rmtree(indexed / ".clipkit")
    assert b"has no index" in asked(search, indexed)[1][1]


def test_it_ends_after_quiet_seconds(runtime_folder: Path) -> None:
    process = start("--idle", "0.5")
    assert process.wait(PATIENCE) == 0
    process.communicate()
    assert not address().exists()


def test_only_this_user_may_open_the_socket(
    service: subprocess.Popen[bytes], runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stat.S_IMODE(address().stat().st_mode) == 0o600
    assert stat.S_IMODE(address().parent.stat().st_mode) == 0o700
    monkeypatch.setattr(keep_warm, "peer_id", lambda _: os.getuid() + 1)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        ask({"arguments": []})


def test_another_user_gets_no_answer(runtime_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    served: list[socket.socket] = []
    monkeypatch.setattr(serve.SearchService, "_serve", lambda _, connection: served.append(connection))
    for user, count in ((os.getuid() + 1, 0), (os.getuid(), 1)):
        listener = _OneClient(theirs)
        monkeypatch.setattr(keep_warm, "peer_id", lambda _, user=user: user)
        serve.SearchService().run(listener, 1.0)  # type: ignore[arg-type]
        assert len(served) == count
    ours.close()
    theirs.close()


class _OneClient:
    """A listener to which one client comes."""

    def __init__(self, client: socket.socket) -> None:
        self._clients = [client.dup()]

    def settimeout(self, seconds: float) -> None:
        pass

    def accept(self) -> tuple[socket.socket, None]:
        if not self._clients:
            raise TimeoutError
        return self._clients.pop(), None


def test_two_that_start_at_once_are_one(service: subprocess.Popen[bytes]) -> None:
    others = [start(), start()]
    for other in others:
        _, errors = other.communicate(timeout=PATIENCE)
        assert (other.returncode, errors) == (0, b"a service runs already\n")
    assert answers()


def test_a_killed_service_is_replaced_and_the_search_is_done_without_it(
    indexed: Path, service: subprocess.Popen[bytes]
) -> None:
    os.kill(service.pid, signal.SIGKILL)
    service.wait()
    assert address().exists()  # what it leaves
    found = run("search", "-f", "./red.png", ".", "-t", "1", FLAG, cwd=indexed)
    assert (found.returncode, found.stdout) == (0, b"red.png\n")
    wait_for(answers)


def test_a_service_that_dies_or_hangs_over_an_answer_costs_only_time(
    indexed: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address().parent.mkdir()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address()))
    listener.listen(1)

    def hang_up() -> None:
        for reply in (b"", b'{"status": "answered", "code": 0, "sizes": [10, 0]}\nhalf', None):
            client, _ = listener.accept()
            client.recv(keep_warm.MAX_REQUEST)
            if reply is None:
                time.sleep(0.5)
            else:
                client.sendall(reply)
            client.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    monkeypatch.setattr(keep_warm, "ANSWER_SECONDS", 0.2)
    for _ in range(3):
        assert keep_warm.search(["search", "red", str(indexed), FLAG]) is None
    thread.join()
    listener.close()
    assert capfd.readouterr() == ("", "")


def test_another_version_ends_the_service_and_starts_its_own(
    indexed: Path, service: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    monkeypatch.setattr(keep_warm, "start", lambda: started.append(True))
    monkeypatch.setattr(keep_warm, "stamp", lambda: ["another"])
    assert keep_warm.search(["search", "red", str(indexed), FLAG]) is None
    assert started
    assert service.wait(PATIENCE) == 0
    assert not address().exists()
    assert OUTDATED != ANSWERED


def test_another_environment_is_not_answered_from_this_one(
    indexed: Path, service: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(["search", "red", "."], indexed)[0] == ANSWERED
    monkeypatch.setenv("HF_HUB_CACHE", "/elsewhere")
    assert asked(["search", "red", "."], indexed)[0] == ELSEWHERE


def test_what_writes_files_is_done_where_it_is_asked(indexed: Path, service: subprocess.Popen[bytes]) -> None:
    for option in (["--copy-to", "copies"], ["--html", "sheet.html"], ["-p"]):
        assert asked(["search", "red", ".", *option], indexed)[0] == ELSEWHERE
    assert asked(["info", "."], indexed)[0] == ELSEWHERE
    assert run("search", "red", ".", "-t", "1", "--copy-to", "copies", FLAG, cwd=indexed).returncode == 0
    assert len(list((indexed / "copies").iterdir())) == 1


def test_a_search_that_keeps_warm_loads_no_library() -> None:
    script = "import sys, clipkit.__main__; print([name for name in ('click', 'numpy', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stopping_says_whether_there_was_one(service: subprocess.Popen[bytes]) -> None:
    assert run("serve", "--stop").stderr == b"the service has ended\n"
    assert service.wait(PATIENCE) == 0
    assert run("serve", "--stop").stderr == b"no service runs\n"


def test_a_path_too_long_for_a_socket_is_said(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("long" * 30)))
    assert keep_warm.search(["search", "red", str(indexed), FLAG]) is None
    assert "there is no service on this system" in capfd.readouterr().err
    done = run("serve")
    assert done.returncode == 1
    assert b"too long for a socket" in done.stderr
