"""Client of the service that keeps searches warm, and what the two say to each other; loads no library.

A request is one line of JSON, an answer another, with the bytes of both outputs behind it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipkit.core.folders import socket_file
from clipkit.core.version import __version__

FLAG = "--keep-warm"
ANSWERED, ELSEWHERE, OUTDATED = "answered", "elsewhere", "outdated"
CONNECT_SECONDS, ANSWER_SECONDS = 1.0, 20.0  # then the search is done here; torch, where it is needed, loads in 15
MAX_PATH = 100  # bytes in the address of a socket; systems have 104 or 108
MAX_REQUEST = 2**20
_ENVIRONMENT = ("CLIPKIT_", "HF_")


def is_available() -> bool:
    """Whether this system has sockets that are files and say who asks."""
    return hasattr(socket, "AF_UNIX") and (hasattr(socket, "SO_PEERCRED") or sys.platform == "darwin")


def address() -> Path:
    """The socket of the service for this cache folder."""
    return socket_file("serve.sock")


def stamp() -> list[str]:
    """What client and service must share, or another answer could come: version, code and Python."""
    return [__version__, str(Path(__file__).parent), sys.executable]


def environment() -> dict[str, str]:
    """What of the environment decides an answer."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_ENVIRONMENT)}


def peer_id(connection: socket.socket) -> int:
    """The user at the other end."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])
    xucred = connection.getsockopt(0, 1, 76)  # LOCAL_PEERCRED of macOS: version, uid, groups
    return int(struct.unpack_from("2I", xucred)[1])


def search(arguments: Sequence[str]) -> int | None:
    """The exit code of a search that the service has done, its output printed; None where it is to be done here.

    Where no service answers, one is started for the next time.
    """
    if not is_available() or len(os.fsencode(address())) > MAX_PATH:
        print("--keep-warm: there is no service on this system", file=sys.stderr)
        return None
    try:
        answer, outputs = ask({"arguments": list(arguments), "cwd": os.getcwd(), "encoding": _encoding()})
    except (ConnectionError, FileNotFoundError):
        start()
        return None
    except (OSError, ValueError):
        return None  # it hangs, or died over the answer
    if answer["status"] == OUTDATED:
        start()
    if answer["status"] != ANSWERED:
        return None
    for stream, output in zip((sys.stdout, sys.stderr), outputs, strict=True):
        stream.flush()
        stream.buffer.write(output)
        stream.flush()
    return int(answer["code"])


def ask(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """The answer to one request, and the outputs; OSError or ValueError where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(os.fspath(address()))
        if peer_id(connection) != os.getuid():
            raise PermissionError(f"{address()} belongs to somebody else")
        connection.settimeout(ANSWER_SECONDS)
        connection.sendall(json.dumps({**request, "stamp": stamp(), "environment": environment()}).encode() + b"\n")
        with connection.makefile("rb") as stream:
            answer: dict[str, Any] = json.loads(stream.readline())
            outputs = [stream.read(size) for size in answer.get("sizes", ())]
    if [len(output) for output in outputs] != answer.get("sizes", []):
        raise ValueError("the service ended before its answer did")
    return answer, outputs


def start() -> None:
    """A service in the background; it does nothing where there is one."""
    import subprocess

    nowhere: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    command = [sys.executable, "-P", "-m", "clipkit", "serve"]  # -P: no module from among the photos
    child = subprocess.Popen(command, cwd="/", start_new_session=True, **nowhere)
    child.returncode = 0  # it outlives this process, which nobody needs to be warned of


def _encoding() -> list[str]:
    return [sys.stdout.encoding, sys.stdout.errors or "strict", sys.stderr.encoding, sys.stderr.errors or "strict"]
