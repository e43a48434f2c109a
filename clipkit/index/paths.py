"""Folders that a person names: by name or glob wherever they stand, or by a path from here or from the root."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase


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
        added = [_from_root(text, os.fspath(root)) for text in typed]
        self.texts = tuple(dict.fromkeys([*remembered, *added]))
        self.unmatched = set(added)
        self._names = [(text, _same_form(text)) for text in self.texts if "/" not in text]
        self._paths = [(text, _same_form(text)) for text in self.texts if "/" in text]

    def __bool__(self) -> bool:
        return bool(self.texts)

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
