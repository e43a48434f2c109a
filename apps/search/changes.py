"""Changes that the page makes to chosen pictures, and how each is undone."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_urlsafe

from clipkit.core.text import are, counted, printable
from clipkit.errors import ClipkitError
from clipkit.explore.albums import change_album, read_albums
from clipkit.explore.library import Library
from clipkit.output.copy_files import Transfer, beside, plan_copies, plan_moves, run_transfers, undo_transfers
from clipkit.output.sidecar_tags import add_tags, put_back, read_tag_list

from ..classify.session import ClassifySession, Memory

MOST_UNDOS = 200  # that are remembered, of all visitors
GONE = "do it by hand: only the last changes are remembered, and only while the page runs"


@dataclass(frozen=True)
class Change:
    """What was done, in a sentence. undo: takes it back, and says so; None where nothing changed."""

    said: str
    undo: Callable[[], str] | None = None
    touches_files: bool = False


class Undos:
    """The last changes of a page, each under a token that cannot be guessed."""

    def __init__(self) -> None:
        self._undos: OrderedDict[str, Callable[[], str]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, change: Change) -> str:
        """The token by which it can be undone; "" where it cannot."""
        if change.undo is None:
            return ""
        token = token_urlsafe(16)
        with self._lock:
            self._undos[token] = change.undo
            while len(self._undos) > MOST_UNDOS:
                self._undos.popitem(last=False)
        return token

    def undo(self, token: str) -> str:
        """Take it back, once; what happened, in a sentence."""
        with self._lock:
            undo = self._undos.pop(token, None)
        if undo is None:
            raise ClipkitError("this cannot be undone any more", hint=GONE)
        return undo()


def copy(library: Library, ids: Sequence[int], folder: str) -> Change:
    """Copy the pictures into a folder of this machine."""
    place = _folder(folder)
    steps = plan_copies(_files(library, ids), place)
    if not steps:
        return Change(f"They are in {printable(str(place))} already.")
    run_transfers(steps)
    said = f"{counted(len(steps), 'picture')} copied to {printable(str(place))}{beside(steps)}."
    return Change(said, partial(_undo_transfers, steps, "The copies are gone."))


def move(library: Library, ids: Sequence[int], folder: str) -> Change:
    """Move the pictures into a folder of this machine, as they lie below the library."""
    place = _folder(folder)
    catalogue = library.catalogue()
    paths = [fact.path for id_ in ids if (fact := catalogue.fact(id_)) is not None]
    if not paths:
        raise ClipkitError("none of these pictures is in the library any more", hint="ask again")
    steps = plan_moves(library.root, paths, place)
    if not steps:
        return Change(f"They are in {printable(str(place))} already.")
    run_transfers(steps)
    back = partial(_undo_transfers, steps, "The pictures are back.")
    said = f"{counted(len(steps), 'picture')} moved to {printable(str(place))}{beside(steps)}."
    return Change(said, back, touches_files=True)


def tag(library: Library, ids: Sequence[int], text: str) -> Change:
    """Write tags into an XMP sidecar beside each picture; no picture is changed."""
    tags = read_tag_list(text)
    files = [Path(file) for file in _files(library, ids)]
    written = add_tags(files, tags)
    said = f"{counted(len(written), 'picture')} {are(len(written))} tagged {printable(', '.join(tags))}."

    def undo() -> str:
        put_back(written)
        return "The tags are as they were."

    return Change(said, undo, touches_files=True)


def album(library: Library, ids: Sequence[int], name: str, *, is_removed: bool = False) -> Change:
    """Put the pictures into an album of the library, or take them out."""
    index, own = library.index, name.strip()
    here, there = ("remove", "add") if is_removed else ("add", "remove")
    known = albums[own].contents if own in (albums := read_albums(index)) else frozenset[str]()
    chosen = index.store.contents(ids)
    changed = index.store.ids_with_contents(chosen & known if is_removed else chosen - known).tolist()
    change_album(index, own, **{here: ids})
    if not changed:
        return Change(
            f"None of them is in {printable(own)}." if is_removed else f"They are in {printable(own)} already."
        )
    said = f"{counted(len(ids), 'picture')} {'taken out of' if is_removed else 'put into'} {printable(own)}."

    def undo() -> str:
        change_album(index, own, **{there: changed})
        return f"{printable(own)} is as it was."

    return Change(said, undo)


def label(library: Library, ids: Sequence[int], name: str, sorted_: ClassifySession, memory: Memory) -> Change:
    """Say of pictures which class they are, of those that the visitor has sorted by last."""
    head = sorted_.head
    if head is None or sorted_.library != library.key:
        raise ClipkitError("no classes are sorted yet", hint="type some in the Classify tab first: cat, dog")
    own = next((one for one in head.classes if one.casefold() == name.strip().casefold()), None)
    if own is None:
        known = ", ".join(printable(one) for one in head.classes[:5])
        raise ClipkitError(f"there is no class {printable(name[:80])!r}; there are {known}", hint=f"one of {known}")
    labels = memory.labels(sorted_.visitor, library, head)
    before = {id_: labels.get(id_) for id_ in ids}
    labels.update(dict.fromkeys(ids, own))

    def undo() -> str:
        for id_, old in before.items():
            labels.pop(id_, None)
            if old is not None:
                labels[id_] = old
        return "The labels are as they were."

    return Change(f"{counted(len(ids), 'picture')} labelled {printable(own)}: press Learn in the Classify tab.", undo)


def _undo_transfers(steps: Sequence[Transfer], said: str) -> str:
    remaining = undo_transfers(steps)
    return said if not remaining else f"{counted(remaining, 'file')} could not be put back: changed meanwhile."


def _files(library: Library, ids: Sequence[int]) -> list[str]:
    """The files of these pictures that may leave the library."""
    files = [str(file) for id_ in ids if (file := library.file_of(id_)) is not None]
    if not files:
        raise ClipkitError("none of these pictures can be read", hint="choose others")
    return files


def _folder(text: str) -> Path:
    """A folder of this machine, as somebody types it."""
    if not text.strip():
        raise ClipkitError("no folder is named", hint="write where they should go: ~/found")
    place = os.path.expanduser(text.strip())  # pathlib's own raises where there is no such user
    if not os.path.isabs(place) or "\0" in place:
        raise ClipkitError("the folder is not a full path", hint="begin with / or ~")
    return Path(place)
