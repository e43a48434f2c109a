"""Command `ui`: opens the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from clipkit.cli import options
from clipkit.cli.output import say
from clipkit.errors import ClipkitError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEAST_PASSWORD = 8  # characters


@dataclass(frozen=True, kw_only=True)
class PageOptions(options.ModelOptions):
    """What was asked of `ui`."""

    photos: tuple[str, ...]
    port: int | None
    host: str
    auth: str | None
    model: str | None


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the first free one from 7860 on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve at; others need --auth.")
@click.option("--auth", metavar="USER:PASSWORD", help="Ask for a login; or a file that has it in its first line.")
@click.option("--model", metavar="NAME", help="For folders that have no index yet. See `clipkit models`.")
@options.engine
@options.device
@options.precision
@options.pickle
@options.into(PageOptions)
def ui(given: PageOptions) -> None:
    """Open the page: search, and look after folders of pictures, in a browser.

    PHOTOS are folders, with an index or without; default: the one that the current folder has or lies under. The page
    is served on this machine alone, unless --host says otherwise. Ctrl-C ends it.
    """
    from clipkit_apps.launch import serve, wait

    login = _login(given.auth) if given.auth else None
    if given.host not in LOOPBACK and login is None:
        raise click.UsageError(f"--host {given.host} lets other machines in, so it needs --auth USER:PASSWORD")
    place: dict[str, Any] = {"host": given.host, "port": given.port, "auth": login, "model": given.model, "say": say}
    running = serve(given.photos or _here(), given.load, **place)
    say(f"clipkit is at {running.address}  (Ctrl-C ends it)")
    try:
        wait()
    finally:
        running.stop()
    say("the page is closed")


def _here() -> tuple[str, ...]:
    from clipkit.index.image_index import find

    try:
        return (str(find(".")[0].root),)
    except ClipkitError:
        return ()


def _login(text: str) -> tuple[str, str]:
    """USER and PASSWORD; from the first line of a file, where there is one of that name."""
    file = Path(text)
    if file.is_file():
        text = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    user, _, password = text.partition(":")
    if not user or len(password) < LEAST_PASSWORD:
        raise click.UsageError(f"--auth wants USER:PASSWORD, or a file with it; {LEAST_PASSWORD} characters at least")
    return user, password
