"""Command `mcp`: libraries of pictures for assistants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from clipkit.cli import options
from clipkit.errors import ClipkitError


@dataclass(frozen=True, kw_only=True)
class McpOptions(options.ModelOptions):
    """What was asked of `mcp`."""

    photos: tuple[str, ...]
    allow_changes: bool


@click.command()
@click.argument("photos", type=click.Path(), nargs=-1, required=True)
@click.option("--allow-changes", is_flag=True, help="Let it change albums, and tag pictures in XMP files beside them.")
@options.engine
@options.device
@options.precision
@options.pickle
@options.into(McpOptions)
def mcp(given: McpOptions) -> None:
    """Let an assistant search folders of pictures, by the Model Context Protocol on stdin and stdout.

    \b
      pip install 'clipkit[mcp]'
      clipkit mcp ./photos

    PHOTOS are folders with an index; nothing else on the disk can be named. The assistant starts the command itself:
    its settings want "command": "clipkit", "args": ["mcp", "/home/ann/photos"]. It can search, ask for similar
    pictures, look at small ones and read what a library holds.
    """
    try:
        from clipkit_apps.mcp_server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ClipkitError("assistants need the package mcp", hint="pip install 'clipkit[mcp]'") from error
    from clipkit_apps.server.libraries import Shelf

    shelf = Shelf(given.load, is_local=False)  # what it says leaves this machine, perhaps
    serve([Path(folder) for folder in given.photos], shelf, allow_changes=given.allow_changes)
