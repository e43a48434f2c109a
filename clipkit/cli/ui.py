"""Command `ui`: opens the page."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from clipkit.cli import options
from clipkit.cli.output import say
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit_apps.search.imagination import Imagination

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEAST_PASSWORD = 8  # characters


@dataclass(frozen=True, kw_only=True)
class PageOptions(options.ModelOptions):
    """What was asked of `ui`."""

    photos: tuple[str, ...]
    port: int | None
    host: str
    auth: str | None
    auth_file: str | None
    model: str | None
    allow_hosts: tuple[str, ...]
    proxies: tuple[str, ...]
    root_path: str
    is_watching: bool
    imagine: str | None
    no_token: bool


@click.command()
@click.argument("photos", type=click.Path(), nargs=-1)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the first free one from 7860 on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve at; others need --auth.")
@click.option(
    *("--auth", "auth"),
    metavar="USER:PASSWORD",
    envvar="CLIPKIT_AUTH",
    show_envvar=True,
    help="Ask for a login. Other accounts of this machine read it in the list of processes, unlike the variable.",
)
@click.option(
    "--auth-file", type=click.Path(), metavar="FILE", help="Ask for a login of one of these: USER:PASSWORD, one a line."
)
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="A proxy serves the page under this name."
)
@click.option(
    "--trusted-proxy", "proxies", multiple=True, metavar="ADDRESS", help="Where it connects from, if not this machine."
)
@click.option("--root-path", default="", metavar="/PATH", help="The proxy serves the page below this path.")
@click.option("--no-token", is_flag=True, help="Let every account of this machine in, without the token.")
@click.option("--model", metavar="NAME", help="For folders that have no index yet. See `clipkit models`.")
@click.option("--watch", "is_watching", is_flag=True, help="Index what changes in the folders while the page is open.")
@click.option("--imagine", metavar="NAME|FOLDER", help="A diffusion pipeline: a card that makes pictures of words.")
@options.engine
@options.device
@options.precision
@options.pickle
@options.into(PageOptions)
def ui(given: PageOptions) -> None:
    """Open the page: search, and look after folders of pictures, in a browser.

    PHOTOS are folders, with an index or without; default: the one that the current folder has or lies under. The page
    is served on this machine alone, unless --host or --allow-host says otherwise, and opens by the token in the address
    that is printed. Ctrl-C ends it.
    """
    from clipkit_apps.launch import serve, wait

    logins = _logins(given)
    opened = f"--host {given.host}" if given.host not in LOOPBACK else "--allow-host" if given.allow_hosts else ""
    if opened and not logins:
        raise click.UsageError(f"{opened} lets other machines in, so it needs --auth-file FILE or --auth USER:PASSWORD")
    place: dict[str, Any] = {"host": given.host, "port": given.port, "auth": logins, "model": given.model, "say": say}
    place |= {"allow_hosts": _names(given.allow_hosts), "root_path": _root_path(given)}
    place["proxies"] = _proxies(given)
    place["is_watching"] = given.is_watching
    place["imagination"] = _imagination(given)
    place["token"] = "" if logins or given.no_token else secrets.token_urlsafe(24)
    running = serve(given.photos or _here(), given.load, **place)
    say(f"clipkit is at {running.address}  (Ctrl-C ends it)")
    try:
        wait()
    finally:
        running.stop()
    say("the page is closed")


def _imagination(given: PageOptions) -> Imagination | None:
    """What makes pictures of words; a model that is not there is an error now, not when a visitor asks."""
    if given.imagine is None:
        return None
    from clipkit_apps.search.imagination import Imagination

    from clipkit.generate.diffusion import DiffusionGenerator, check_installed
    from clipkit.generate.pipeline_files import pipeline_folder

    check_installed()
    pipeline_folder(model := given.imagine, notify=say)
    return Imagination(model, lambda: DiffusionGenerator(model, device=given.device))


def _names(allow_hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Names of hosts; UsageError for an address or a pattern."""
    for name in allow_hosts:
        is_name = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", name, re.ASCII | re.IGNORECASE)
        if not is_name or name.rpartition(".")[2].isdigit():
            raise click.UsageError(f"--allow-host takes a name such as photos.example.org, not {name}")
    return allow_hosts


def _proxies(given: PageOptions) -> tuple[str, ...]:
    """Addresses or networks; UsageError for anything else."""
    if given.proxies and not given.allow_hosts:
        raise click.UsageError("--trusted-proxy needs --allow-host NAME, under which the proxy serves the page")
    for address in given.proxies:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            raise click.UsageError(f"--trusted-proxy takes an address such as 10.0.0.7, not {address}") from None
    return given.proxies


def _root_path(given: PageOptions) -> str:
    path = given.root_path.rstrip("/")
    if path and not given.allow_hosts:
        raise click.UsageError("--root-path is of a proxy: --allow-host NAME says under which name it serves the page")
    if path and not re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII):
        raise click.UsageError(f"--root-path begins with a slash, as /photos does, not {given.root_path}")
    return path


def _here() -> tuple[str, ...]:
    from clipkit.index.image_index import find

    try:
        return (str(find(".")[0].root),)
    except ClipkitError:
        return ()


def _logins(given: PageOptions) -> list[tuple[str, str]]:
    """Users and passwords; a file is meant rather than the environment."""
    if given.auth_file is None:
        return [_login(given.auth, "--auth")] if given.auth else []
    source = click.get_current_context().get_parameter_source("auth")
    if source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--auth or --auth-file, not both")
    file = Path(given.auth_file)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--auth-file {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    found = [_login(line, f"{file}, line {number},") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise click.UsageError(f"{file} is empty; it wants USER:PASSWORD, one a line")
    if os.name == "posix" and file.is_file() and file.stat().st_mode & 0o077:
        say(f"other accounts of this machine may read {file}; chmod 600 {file}")
    return found


def _login(text: str, where: str) -> tuple[str, str]:
    """USER and PASSWORD. where: they were found, as the error says it."""
    user, _, password = text.partition(":")
    if not user.strip() or len(password) < LEAST_PASSWORD:
        hint = "; --auth-file FILE reads a file" if os.path.isfile(text) else ""
        reason = f"{where} wants USER:PASSWORD, the password of {LEAST_PASSWORD} characters at least{hint}"
        raise click.UsageError(reason)
    return user.strip(), password
