"""Commands `album` and `tag`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipkit.cli import options
from clipkit.cli.output import echo_lines, say
from clipkit.core.text import are, counted, near, printable
from clipkit.errors import QueryError

if TYPE_CHECKING:
    from clipkit.index.image_index import ImageIndex


@dataclass(frozen=True, kw_only=True)
class AlbumOptions:
    """What was asked of `album`."""

    photos: str
    name: str
    pictures: tuple[str, ...]
    remove: bool
    forget: bool
    as_json: bool
    at: str | None


@click.command()
@click.argument("photos", type=click.Path())
@click.argument("name", required=False, default="")
@click.argument("pictures", type=click.Path(), nargs=-1)
@click.option("--remove", is_flag=True, help="Take PICTURES out of the album.")
@click.option("--forget", is_flag=True, help="Forget the album NAME; its pictures stay where they are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@options.at
@options.into(AlbumOptions)
def album(given: AlbumOptions) -> None:
    """List the albums of PHOTOS, list the pictures of the album NAME, or put PICTURES into it.

    \b
      clipkit album ./photos
      clipkit album ./photos favourites ./photos/beach.jpg ./photos/dog.jpg
      clipkit search "a dog album:favourites" ./photos

    An album keeps pictures by their content: one that is moved or renamed stays in it. The page shows the same albums.
    """
    from clipkit.explore.albums import change_album, forget_album
    from clipkit.index.image_index import find

    if given.remove and not given.pictures:
        raise click.UsageError("--remove needs PICTURES: clipkit album PHOTOS NAME PICTURE --remove")
    index = find(given.photos, at=given.at)[0]
    if given.forget:
        forget_album(index, given.name)
    elif given.pictures:
        ids = _ids(index, given.pictures)
        count = change_album(index, given.name, **{"remove" if given.remove else "add": ids})
        say(f"{counted(count, 'picture')} {are(count)} in {printable(given.name)} now")
    else:
        echo_lines(_album_lines(index, given) if given.name else _lines(index, given))


def _lines(index: ImageIndex, given: AlbumOptions) -> list[str]:
    from clipkit.explore.albums import read_albums

    counts = {name: len(one.contents) for name, one in read_albums(index).items()}
    if given.as_json:
        return [json.dumps({"name": name, "pictures": count}) for name, count in counts.items()]
    return [f"{name}\t{counted(count, 'picture')}" for name, count in counts.items()]


def _album_lines(index: ImageIndex, given: AlbumOptions) -> list[str]:
    from clipkit.explore.albums import ids_of_album

    paths = index.store.paths(ids_of_album(index, given.name).tolist())[1]
    files = [str(index.root / path) for path in paths.values()]
    return [json.dumps({"path": file}) if given.as_json else printable(near(file)) for file in files]


def _ids(index: ImageIndex, pictures: Sequence[str]) -> list[int]:
    """Ids of these files; QueryError where one is not in the index."""
    known = {path: id_ for id_, path in index.store.paths()[1].items()}
    root = os.path.realpath(index.root)
    inside = [os.path.relpath(os.path.realpath(file), root).replace(os.sep, "/") for file in pictures]
    for file, path in zip(pictures, inside, strict=True):
        if path not in known:
            raise QueryError(f"{printable(file)} is not in the index", hint="clipkit index first, then its path again")
    return [known[path] for path in inside]


@click.command()
@click.argument("tags")
@click.argument("pictures", type=click.Path(), nargs=-1, required=True)
def tag(tags: str, pictures: tuple[str, ...]) -> None:
    """Add TAGS, between commas, to PICTURES: into a sidecar file (photo.jpg.xmp) beside each, never into the picture.

    \b
      clipkit tag "beach, family" ./photos/a.jpg ./photos/b.jpg
      clipkit index ./photos && clipkit search "tag:beach" ./photos

    Whole or not at all: where one cannot be written, all are as they were. What a sidecar says already stays.
    """
    from clipkit.images.formats import file_of
    from clipkit.output.sidecar_tags import add_tags, read_tag_list

    missing = [file for file in pictures if not os.path.isfile(file_of(file))]
    if missing:
        raise QueryError(f"{printable(missing[0])} is not there", hint='clipkit tag "beach" PICTURE, one that is there')
    written = add_tags([Path(file) for file in pictures], read_tag_list(tags))
    say(f"{counted(len(written), 'sidecar')} {are(len(written))} written; clipkit index finds the tags")
