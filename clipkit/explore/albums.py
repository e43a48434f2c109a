"""Albums: pictures that were put together by hand, by name; `album:NAME` in a query finds them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipkit.core.arrays import IntArray
from clipkit.core.files import replacing
from clipkit.core.locks import exclusive_lock
from clipkit.core.text import counted, described, printable
from clipkit.errors import ClipkitError, QueryError
from clipkit.index.image_index import ImageIndex

FILE = "albums.json"
MOST_ALBUMS = 1_000  # of one index
MOST_BYTES = 64 * 2**20  # of the file
LOCK_SECONDS = 10.0  # for another process that writes albums
LIST = "clipkit album PHOTOS"
_NAME = re.compile(r"\w[\w .-]{0,63}")


@dataclass(frozen=True)
class Album:
    """An album of an index.

    Attributes
    ----------
    name : str
        Letters, digits, spaces, dots and dashes.
    contents : frozenset of str
        SHA-256 of each picture's bytes, in hex: a picture that is moved or renamed stays in its albums.

    Examples
    --------
    >>> from clipkit.explore import change_album, read_albums
    >>> index = clipkit.ImageIndex.open("photos")
    >>> change_album(index, "space", add=[index.search("a rocket", k=1)[0].id])
    1
    >>> len(read_albums(index)["space"].contents)
    1
    """

    name: str
    contents: frozenset[str]

    def __repr__(self) -> str:
        return described(self, repr(self.name), counted(len(self.contents), "picture"))


def read_albums(index: ImageIndex) -> dict[str, Album]:
    """The albums of an index, by name.

    Parameters
    ----------
    index : ImageIndex
        Whose pictures they hold.

    Returns
    -------
    dict of str to Album
        Sorted by name.

    Raises
    ------
    ClipkitError
        If the file of the albums is damaged.

    Examples
    --------
    >>> from clipkit.explore import change_album, read_albums
    >>> index = clipkit.ImageIndex.open("photos")
    >>> cat = index.search("a cat", k=1)[0]
    >>> change_album(index, "pets", add=[cat.id])
    1
    >>> "pets" in read_albums(index)
    True
    """
    return _read(index.folder / FILE)


def change_album(index: ImageIndex, name: str, *, add: Iterable[int] = (), remove: Iterable[int] = ()) -> int:
    """Put pictures into an album, which is made if need be, and take others out; an empty one goes.

    Parameters
    ----------
    index : ImageIndex
        Whose pictures they are.
    name : str
        Of the album.
    add, remove : iterable of int
        Ids of pictures.

    Returns
    -------
    int
        Pictures that are in the album now.

    Raises
    ------
    QueryError
        If the name cannot be one.
    ClipkitError
        If the album cannot be written.

    Examples
    --------
    >>> from clipkit.explore import change_album, search
    >>> index = clipkit.ImageIndex.open("photos")
    >>> change_album(index, "drinks", add=[index.search("a cup of coffee", k=1)[0].id])
    1
    >>> [hit.path for hit in search(index, "album:drinks")]
    ['coffee.png']
    """
    own = check_album_name(name)
    added, removed = (frozenset(index.store.contents(ids)) for ids in (add, remove))

    def change(albums: dict[str, Album]) -> dict[str, Album]:
        known = albums[own].contents if own in albums else frozenset[str]()
        return {**albums, own: Album(own, (known | added) - removed)}

    return len(_change(index.folder / FILE, change).get(own, Album(own, frozenset())).contents)


def forget_album(index: ImageIndex, name: str) -> None:
    """Forget an album; its pictures stay where they are.

    Parameters
    ----------
    index : ImageIndex
        That has it.
    name : str
        Of the album.

    Raises
    ------
    QueryError
        If there is none of that name.

    Examples
    --------
    >>> from clipkit.explore import change_album, forget_album, read_albums
    >>> index = clipkit.ImageIndex.open("photos")
    >>> change_album(index, "pets", add=[index.search("a cat", k=1)[0].id])
    1
    >>> forget_album(index, "pets")
    >>> "pets" in read_albums(index)
    False
    """
    _known(read_albums(index), name)
    _change(index.folder / FILE, lambda albums: {key: one for key, one in albums.items() if key != name})


def ids_of_album(index: ImageIndex, name: str) -> IntArray:
    """Ids (n,) of the pictures of an album that answer, ascending; QueryError where there is none of that name."""
    return index.store.ids_with_contents(_known(read_albums(index), name).contents)


def check_album_name(name: str) -> str:
    """The name without spaces around it; QueryError where it cannot be one."""
    own = name.strip()
    if not _NAME.fullmatch(own):
        fact = f"{printable(name[:80])!r} is no name for an album: letters, digits, spaces, dots and dashes are"
        raise QueryError(fact, hint="clipkit album PHOTOS holiday PICTURE")
    return own


def _known(albums: Mapping[str, Album], name: str) -> Album:
    if name not in albums:
        known = ", ".join(printable(one) for one in list(albums)[:5])
        others = f"; there are {known}" if known else ""
        raise QueryError(f"there is no album {printable(name)!r}{others}", hint=LIST)
    return albums[name]


def _change(file: Path, change: Callable[[dict[str, Album]], dict[str, Album]]) -> dict[str, Album]:
    """Write what `change` makes of the albums; they are on the disk when it returns."""
    try:
        with exclusive_lock(file.with_name(f"{FILE}.lock"), seconds=LOCK_SECONDS):
            albums = {name: one for name, one in sorted(change(_read(file)).items()) if one.contents}
            if len(albums) > MOST_ALBUMS:
                raise QueryError(f"there are {MOST_ALBUMS:,} albums already", hint=LIST)
            with replacing(file) as part:
                part.write_text(json.dumps({name: sorted(one.contents) for name, one in albums.items()}))
            return albums
    except OSError as error:
        raise ClipkitError(f"the albums cannot be kept in {file}: {error.strerror or error}") from error


def _read(file: Path) -> dict[str, Album]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        albums = json.loads(file.read_text("utf-8"))
        return {name: Album(name, frozenset(map(_sum, contents))) for name, contents in albums.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        hint = f"remove it, and the albums with it: rm {file}"
        raise ClipkitError(f"the albums in {file} cannot be read: {error}", hint=hint) from error


def _sum(text: str) -> str:
    return bytes.fromhex(text).hex()
