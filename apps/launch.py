"""`clipkit ui`: from folders to a running page, until somebody ends it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipkit.core.folders import cache_folder
from clipkit.errors import ClipkitError
from clipkit.index.image_index import Loader

if TYPE_CHECKING:
    from .search.imagination import Imagination

FIRST_PORT, PORTS = 7860, 100  # tried in turn where no port is asked for


@dataclass(frozen=True)
class Running:
    """A page that is being served. stop: end it, and the index runs that it has started."""

    address: str
    stop: Callable[[], None]


def serve(
    photos: Sequence[str],
    load: Loader,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: Sequence[tuple[str, str]] = (),
    model: str | None = None,
    allow_hosts: Sequence[str] = (),
    proxies: Sequence[str] = (),
    root_path: str = "",
    is_watching: bool = False,
    imagination: Imagination | None = None,
    token: str = "",
    say: Callable[[str], None] = print,
) -> Running:
    """The page on `photos`, served in the background; ClipkitError where a folder or the port cannot be had.

    Models are loaded after the page is up. `say` gets a sentence when one fails. auth: users and their passwords, of
    whom a login is asked. allow_hosts: names under which a proxy serves it, below root_path; its visitors are no users
    of this machine. proxies: addresses from which it connects, beside this machine. is_watching: index what changes.
    imagination: what makes pictures of words. token: what whoever asks has to know; it is in the address.
    """
    _settle_gradio()
    # Threads that wait for the next piece of work spin, unless told to sleep: among several searches at once they take
    # the processor from each other. benchmarks/page.py
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .page import build, launch
    from .server.guard import LOOPBACK
    from .server.libraries import Shelf
    from .server.state import Page
    from .server.thumbnails import Thumbnails
    from .server.uploads import keep_swept

    shelf = Shelf(load, is_local=host in LOOPBACK and not allow_hosts, model=model)
    for folder in photos:
        shelf.add(folder)
    page = Page(shelf, Thumbnails(cache_folder() / "thumbs"), imagination=imagination)
    chosen = port if port is not None else _free_port(host)
    if not _is_free(host, chosen):
        raise ClipkitError(f"port {chosen} of {host} is in use", hint=f"clipkit ui --port {chosen + 1}")
    blocks = build(page, has_login=bool(auth))
    try:
        who: dict[str, Any] = {"auth": auth, "allow_hosts": allow_hosts, "root_path": root_path, "token": token}
        who["proxies"] = proxies
        address = launch(blocks, page, host=host, port=chosen, **who)
    except OSError as error:
        raise ClipkitError(
            f"the page cannot be served at {host}, port {chosen}: {error}",
            hint="an address of this machine: --host 127.0.0.1",
        ) from error
    if is_watching:
        page.watch(say)
    threading.Thread(target=shelf.warm, args=(say,), daemon=True, name="clipkit-warm").start()
    keep_swept(cache_folder() / "uploads")

    def stop() -> None:
        page.end()
        blocks.close(verbose=False)

    return Running(f"{address}?token={token}" if token else address, stop)


def wait() -> None:
    """Until Ctrl-C, or until the system asks it to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _settle_gradio() -> None:
    """Gradio reads its environment when it is imported: nothing there may open what this page keeps shut."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    uploads = cache_folder() / "uploads"
    uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def _free_port(host: str) -> int:
    port = next((port for port in range(FIRST_PORT, FIRST_PORT + PORTS) if _is_free(host, port)), None)
    if port is None:
        raise ClipkitError(f"no port from {FIRST_PORT} on is free", hint="clipkit ui --port 9000")
    return port


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
