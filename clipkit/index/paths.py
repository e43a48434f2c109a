"""Folders that a person names: by name or glob wherever they stand, or by a path from here or from the root."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from clipkit.core.text import near
from clipkit.errors import QueryError

GLOB = "*?["  # what makes a name a pattern


class FolderPatterns:
    """Which folders below a root are meant by what somebody typed.

    A name or a glob (`raw`, `ra*`) means folders of that name wherever they stand. Anything with a slash is a path:
    from the current folder where it begins with `./ ../ / ~`, else from the root or, if it is not there, from the
    current folder, as Tab completes it. Names are compared in one Unicode form.

    Attributes
    ----------
    texts : tuple of str
        As they are remembered: names, and paths relative to the root, which have a slash: `/raw` stands in the root.
    unmatched : set of str
        Those of `texts` that were typed and that no folder has matched yet.
    """

    def __init__(
        self, typed: Collection[str], root: str | os.PathLike[str] = "", *, remembered: Collection[str] = ()
    ) -> None:
        added = {_from_root(text, os.fspath(root)): text for text in typed}
        self.texts = tuple(dict.fromkeys([*remembered, *added]))
        self.unmatched = set(added)
        self._typed = added
        self._names = [(text, _same_form(text)) for text in self.texts if "/" not in text]
        self._paths = [(text, _same_form(text)) for text in self.texts if "/" in text]

    def __bool__(self) -> bool:
        return bool(self.texts)

    @property
    def slips(self) -> tuple[str, ...]:
        """What no folder has matched yet, as it was typed."""
        return tuple(self._typed[text] for text in self.texts if text in self.unmatched)

    def matches(self, folder: str) -> bool:
        """Whether a folder is meant; folder: its path relative to the root."""
        path = _same_form(folder)
        name = path.rpartition("/")[2]
        found = [text for text, pattern in self._names if fnmatchcase(name, pattern)]
        found += [text for text, pattern in self._paths if fnmatchcase(path, pattern.removeprefix("/"))]
        self.unmatched.difference_update(found)
        return bool(found)

    def contain(self, path: str) -> bool:
        """Whether a picture lies in a folder that is meant, at any depth."""
        return any(self.matches(folder) for folder in _folders(path))


@dataclass(frozen=True)
class Exclusions:
    """The folders that an index leaves out. texts: as `FolderPatterns` remembers them.

    not_excluded: what was to be taken back, and was not left out.
    """

    texts: tuple[str, ...]
    not_excluded: tuple[str, ...] = ()


def take_back(remembered: Collection[str], include_dirs: Collection[str], root: str | os.PathLike[str]) -> Exclusions:
    """What stays left out when the folders that a person names are taken back, by name or by path."""
    texts, wrong = list(remembered), []
    for typed in include_dirs:
        forms = {_same_form(text).lstrip("/") for text in (typed.rstrip("/"), _from_root(typed, os.fspath(root)))}
        left = [text for text in texts if _same_form(text).lstrip("/") not in forms]
        wrong += [typed] if left == texts else []
        texts = left
    return Exclusions(tuple(texts), tuple(wrong))


def unmatched_dirs(
    paths: Iterable[str], exclude_dirs: Collection[str], root: str | os.PathLike[str]
) -> tuple[str, ...]:
    """Those of `exclude_dirs` that no folder of these paths matches, as they were typed."""
    excluded = FolderPatterns(exclude_dirs, root)
    for folder in {folder for path in paths for folder in _folders(path)}:
        excluded.matches(folder)
    return excluded.slips


def path_filter(
    below: str = "", exclude_dirs: Collection[str] = (), root: str | os.PathLike[str] = ""
) -> Callable[[str], bool] | None:
    """Whether a path, relative to the root, lies below a folder and in none of the excluded ones; None for all paths.

    below: relative to the root, "" or "." for the root itself. exclude_dirs: as `FolderPatterns` reads them.
    """
    prefix = "" if below in ("", ".") else below.rstrip("/") + "/"
    excluded = FolderPatterns(exclude_dirs, root)
    if not prefix and not excluded:
        return None
    return lambda path: path.startswith(prefix) and not excluded.contain(path)


def filter_for(
    paths: Collection[str],
    below: str = "",
    exclude_dirs: Collection[str] = (),
    root: str | os.PathLike[str] = "",
) -> Callable[[str], bool] | None:
    """As `path_filter`, for these paths; QueryError where none of them lies below `below`.

    Where no folder is spelled just so, `below` may be a glob or have another Unicode form.
    """
    is_below = path_filter(below)
    if is_below is None or any(map(is_below, paths)):
        return path_filter(below, exclude_dirs, root)
    pattern, excluded = _same_form(below.strip("/")), FolderPatterns(exclude_dirs, root)
    meant = {folder for path in paths for folder in _folders(path) if fnmatchcase(_same_form(folder), pattern)}
    if not meant:
        nearest = nearest_folder(below, {folder for path in paths for folder in _folders(path)})
        hint = (
            f"--in {shlex.quote(nearest)}" if nearest else "leave --in out: all pictures of this index lie in its root"
        )
        raise QueryError(f"no pictures are indexed in {below}", hint=hint)
    return lambda path: any(folder in meant for folder in _folders(path)) and not excluded.contain(path)


def folder_below(typed: str, start: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """The folder or glob that somebody typed, relative to the root: "" for the root itself.

    It is looked for below `start`, then from the current folder, as Tab completes it, then below the root. QueryError
    for a picture, and for what lies elsewhere.
    """
    text = os.path.expanduser(typed)
    places = [os.path.abspath(os.path.join(above, text)) for above in (start, os.getcwd(), root)]
    inside = [place for place in places if _is_inside(place, os.fspath(root))]
    if not inside:
        hint = "a folder of this index, relative to its root, or leave --in out"
        raise QueryError(f"{typed} lies outside of {near(os.fspath(root))}, which is indexed", hint=hint)
    place = next((place for place in inside if os.path.isdir(place)), inside[0])
    if os.path.isfile(place):
        raise QueryError(f"{typed} is a file, not a folder", hint=_folder_of(place, os.fspath(root)))
    relative = os.path.relpath(place, root).replace(os.sep, "/")
    return "" if relative == "." else relative


def near_folder(typed: str | os.PathLike[str]) -> str:
    """The folder beside the one that somebody typed whose name is most like it; "" where none is like it."""
    place = Path(typed)
    with suppress(OSError):
        beside = [entry.name for entry in place.parent.iterdir() if entry.is_dir()]
        names = get_close_matches(place.name, beside, n=1, cutoff=0.7)  # not "three" for "nothere", which is .67
        return str(place.parent / names[0]) if names else ""
    return ""


def nearest_folder(below: str, folders: Collection[str]) -> str:
    """The folder whose name is most like the last part of `below`, else the first one; "" where there is none."""
    names: dict[str, str] = {}
    for folder in sorted(folders):
        names.setdefault(folder.rpartition("/")[2].lower(), folder)
    near = get_close_matches(below.rstrip("/").rpartition("/")[2].lower(), names, n=1, cutoff=0.5)
    return names[near[0]] if near else min(folders, default="")


def _folder_of(file: str, root: str) -> str:
    folder = os.path.relpath(os.path.dirname(file), root).replace(os.sep, "/")
    return "leave --in out: it lies in the root of the index" if folder == "." else f"--in {shlex.quote(folder)}"


def _is_inside(place: str, root: str) -> bool:
    return place == root or place.startswith(root.rstrip(os.sep) + os.sep)


def _from_root(text: str, root: str) -> str:
    """A name as it is; a path relative to the root, with a slash before one that has none."""
    plain = text.rstrip("/")
    if "/" not in plain and not plain.startswith(("~", ".")):
        return plain
    here = os.path.abspath(os.path.expanduser(plain))
    from_here = os.path.relpath(here, root) if root else plain
    is_from_here = plain.startswith(("./", "../", "/", "~")) or plain in (".", "..")
    if not is_from_here and (not root or os.path.isdir(os.path.join(root, plain)) or not os.path.isdir(here)):
        from_here = plain
    from_here = from_here.replace(os.sep, "/")
    return from_here if "/" in from_here else f"/{from_here}"


def _same_form(text: str) -> str:
    """One spelling of names that look alike; bytes that are not UTF-8 stay as they are."""
    return unicodedata.normalize("NFC", text)


def _folders(path: str) -> Iterator[str]:
    """The folders that a path goes through, relative to the root."""
    parts = path.split("/")[:-1]
    yield from ("/".join(parts[: n + 1]) for n in range(len(parts)))
