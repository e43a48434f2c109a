"""Copies of pictures in folders: planned first, nothing overwritten, undone if anything fails."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex

from clipkit.classify.labels import LabelledPicture
from clipkit.core.text import are, counted
from clipkit.errors import ClipkitError, QueryError
from clipkit.images.formats import file_of, split_frame
from clipkit.index.places import FETCH, is_url, refuse_url
from clipkit.output.travel import MAX_NAME_BYTES, Travel, free_names, place_beside
from clipkit.search.hits import Hits

HOW = ("copy", "move", "symlink")
_ODD = frozenset('/\\:*?"<>|')  # not in file names somewhere


def copy_hits(hits: Hits, folder: Path) -> list[Path]:
    """Copy the pictures of hits into a folder.

    Where another file has the name already, a copy becomes `name (2).jpg`; a picture that lies there already, byte for
    byte under that name, is not copied again. Of frames of a video the video is copied, once. Links are followed. Files
    that belong to a picture (XMP sidecars, the RAW of a JPEG, the video of a live photo) are copied with it, under its
    new name.

    Parameters
    ----------
    hits : Hits
        What a search gave.
    folder : Path
        Made if need be.

    Returns
    -------
    list of Path
        Where each picture now lies, in the order of `hits`.

    Raises
    ------
    ClipkitError
        At the first failure, with how many were copied; where the disk is too small for all, before the first.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.output import copy_hits
    >>> hits = clipkit.ImageIndex.open("photos").search("a cat", k=1)
    >>> [file.name for file in copy_hits(hits, Path("cats"))]
    ['chelsea.png']
    """
    if os.path.exists(folder) and not os.path.isdir(folder):  # pathlib's own raise for a name that is too long
        raise ClipkitError(
            f"{folder} is not a folder; nothing was copied", hint="a folder, new or there: --copy-to FOLDER"
        )
    refuse_url(next((hit.file for hit in hits if is_url(hit.file)), None), "a copy", hint=FETCH)
    made: dict[str, Path] = {}
    subject = os.fspath(folder)
    try:
        if hits:
            folder.mkdir(parents=True, exist_ok=True)
        needed_bytes, travel = 0, Travel()
        files = [file_of(hit.file) for hit in hits]
        for subject in dict.fromkeys(files):
            needed_bytes += _size_to_copy(subject, folder, travel.companions(subject))
        _check_space(folder, needed_bytes)
        for subject in dict.fromkeys(files):
            made[subject] = _copy_with(subject, folder, travel.companions(subject))
    except OSError as error:
        reason = f"{subject}: {error.strerror or error}"
        hint = _hint(error, is_folder=subject == os.fspath(folder))
        raise ClipkitError(f"{len(made):,} of {len(hits):,} pictures were copied, then: {reason}", hint=hint) from error
    return [made[file] for file in files]


def _hint(error: OSError, *, is_folder: bool) -> str | None:
    """What helps when a copy has failed: at its folder, or at a picture that is gone; None where nothing is known."""
    if is_folder:
        return "another folder: --copy-to FOLDER"
    return "clipkit index first" if error.errno == errno.ENOENT else None


def _size_to_copy(file: str, folder: Path, companions: list[str]) -> int:
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    there = already_there(file, folder, companions)
    new = [one for one in companions if there is None or not os.path.lexists(place_beside(one, file, there))]
    return sum(os.stat(one).st_size for one in new) + (status.st_size if there is None else 0)


def _check_space(folder: Path, needed_bytes: int) -> None:
    if needed_bytes and needed_bytes > (free_bytes := shutil.disk_usage(folder).free):
        raise ClipkitError(
            f"the pictures take {needed_bytes:,} bytes, and {folder} has {free_bytes:,} free; nothing was copied",
            hint="copy to another disk, or fewer pictures: -t 10",
        )


def already_there(file: str, folder: Path, companions: list[str]) -> Path | None:
    """The copy of `file` in `folder`, under one of its names and with the same bytes; None if there is none."""
    for target in free_names(file, folder, companions, how="copy"):
        if not os.path.lexists(target):
            return None
        if os.path.samestat(os.lstat(file), os.lstat(target)):  # the folder is where the picture comes from
            return target
        if not target.is_symlink() and filecmp.cmp(file, target, shallow=False):
            return target
    raise AssertionError("the numbers do not end")


def _copy_with(file: str, folder: Path, companions: list[str]) -> Path:
    """Copy a picture and what belongs to it, all or none. What lies beside a copy already stays as it is."""
    made: list[Path] = []
    there = already_there(file, folder, companions)
    try:
        target = there or _copy(file, folder, companions)
        made += [target] if there is None else []
        for one in companions:
            place = place_beside(one, file, target)
            if not os.path.lexists(place):
                _copy_step(one, place)
                made.append(place)
    except BaseException:
        for place in made:
            with suppress(OSError):
                place.unlink()
        raise
    return target


def _copy(file: str, folder: Path, companions: list[str]) -> Path:
    part = folder / f".clipkit-{token_hex(8)}.part"
    try:
        shutil.copyfile(file, part)
        target = _move_to_free_name(part, free_names(file, folder, companions, how="copy"))
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    with suppress(OSError):  # a share that keeps no dates or modes still takes pictures
        shutil.copystat(file, target)
    return target


def _move_to_free_name(part: Path, targets: Iterator[Path]) -> Path:
    for target in targets:
        try:
            target.open("xb").close()  # ours from here on; os.replace alone would overwrite what came meanwhile
        except FileExistsError:
            continue
        try:
            os.replace(part, target)
        except BaseException:
            target.unlink()
            raise
        return target
    raise AssertionError("the numbers do not end")


@dataclass(frozen=True)
class Transfer:
    """One picture and the place it gets; `how` is one of HOW. companions: what travels with it."""

    how: str
    source: str
    target: Path
    companions: tuple[Transfer, ...] = ()

    @property
    def files(self) -> tuple[Transfer, ...]:
        """The picture, and what travels with it."""
        return (self, *self.companions)


class _Plan:
    """Steps as they come together: each picture with the files that belong to it, at places that nobody has yet."""

    def __init__(self, how: str) -> None:
        self.steps: list[Transfer] = []
        self._how, self._travel = how, Travel()
        self._taken: dict[str, str] = {}  # key of a place -> the file that gets it
        self._moved: set[str] = set()
        self._beside: set[str] = set()  # what travels with others

    def add(self, source: str, folder: Path) -> None:
        """A step for a picture, if it is not in the folder already."""
        if source in self._moved:  # with the picture that it belongs to
            return
        found = [] if self._how == "symlink" else self._travel.companions(source)
        companions = [one for one in found if one not in self._moved]
        target = self._place(source, folder, companions)
        if target is None:
            return
        places = [(one, place_beside(one, source, target)) for one in companions]
        beside = [step for one, place in places if (step := self._companion(one, place, source)) is not None]
        self.steps.append(Transfer(self._how, source, target, tuple(beside)))
        self._beside |= {step.source for step in beside}
        for step in self.steps[-1].files:
            self._taken[_key(step.target)] = step.source
            if step.how == "move":
                self._moved.add(step.source)

    def _place(self, source: str, folder: Path, companions: list[str]) -> Path | None:
        for target in free_names(source, folder, companions, how=self._how):
            if _key(target) in self._taken:
                if source in self._beside and self._taken[_key(target)] == source:  # it travels with another
                    return None
                continue
            if os.path.lexists(target):
                if _is_there(source, target, self._how):
                    return None
                continue
            places = [(one, place_beside(one, source, target)) for one in companions]
            if all(self._taken.get(_key(place), one) == one for one, place in places):
                return target
        raise AssertionError("the numbers do not end")

    def _companion(self, file: str, place: Path, source: str) -> Transfer | None:
        """One that belongs to other pictures too is copied until the last of them moves, which takes it along."""
        if self._how == "copy":
            return None if _key(place) in self._taken or os.path.lexists(place) else Transfer("copy", file, place)
        staying = [one for one in self._travel.others(source, file) if one not in self._moved]
        if staying:
            return None if _key(place) in self._taken else Transfer("copy", file, place)
        if _key(place) in self._taken:  # by an earlier copy of it
            self.steps = [_without(step, file, place) for step in self.steps]
        return Transfer("move", file, place)


def _without(step: Transfer, file: str, place: Path) -> Transfer:
    kept = tuple(one for one in step.companions if (one.source, one.target) != (file, place))
    return replace(step, companions=kept)


def plan_transfers(labelled: Iterable[LabelledPicture], folder: str | os.PathLike[str], *, how: str) -> list[Transfer]:
    """Which picture goes where: into `folder`/CLASS under its own name, or `name (2).jpg` where that is another's.

    What lies there already has no step; files that belong to a picture travel with it, but not by a symlink. A frame of
    a video stands for the video, and is not moved. Nothing is changed. QueryError where two classes would share a
    folder, or a picture would be moved to two places; ClipkitError where a picture is no longer where the index says.
    """
    chosen = list(labelled)
    top = Path(os.path.abspath(folder))
    if how == "move" and any(len(picture.labels) > 1 for picture in chosen):
        raise QueryError(
            "a picture with several labels cannot be moved to all of them", hint="--copy-to DIR, or --symlink-to DIR"
        )
    _check_sources([picture.file for picture in chosen], how)
    names = _folder_names({name for picture in chosen for name in picture.labels})
    plan = _Plan(how)
    for file, name in dict.fromkeys((file_of(picture.file), name) for picture in chosen for name in picture.labels):
        plan.add(file, top / names[name])
    return plan.steps


def plan_moves(root: Path, paths: Sequence[str], folder: str | os.PathLike[str]) -> list[Transfer]:
    """Which of these pictures, relative to `root`, goes where in `folder`: as it lies below `root`.

    `name (2).jpg` where a name is another's; files that belong to a picture travel with it. Nothing is changed.
    ClipkitError where one is not there any more, or is a link.
    """
    top, plan = Path(os.path.abspath(folder)), _Plan("move")
    _check_sources([os.fspath(root / path) for path in paths], "move")
    for path in paths:
        plan.add(os.fspath(root / path), (top / path).parent)
    return plan.steps


def plan_copies(files: Sequence[str], folder: str | os.PathLike[str]) -> list[Transfer]:
    """Which of these files gets which name in `folder`; what lies there already, byte for byte, has no step.

    Files that belong to a picture travel with it; a frame of a video stands for the video. Nothing is changed.
    ClipkitError where one is not there any more, or the disk is too small for all.
    """
    top, plan = Path(os.path.abspath(folder)), _Plan("copy")
    _check_sources(files, "copy")
    for file in _videos_once(files):
        plan.add(file, top)
    above = next(place for place in (top, *top.parents) if os.path.isdir(place))  # a name may be too long
    _check_space(above, sum(os.stat(file.source).st_size for step in plan.steps for file in step.files))
    return plan.steps


def beside(steps: Sequence[Transfer]) -> str:
    """ ", with 3 files that belong to them": what travels with the pictures of these steps; "" where nothing does."""
    return _with_files(sum(len(step.companions) for step in steps), len(steps))


def beside_hits(hits: Hits, copies: Sequence[Path]) -> str:
    """`beside` of the pictures that `copy_hits` has put at `copies`: what lies beside them there."""
    travel, places = Travel(), dict(zip((file_of(hit.file) for hit in hits), copies, strict=True))
    found = {place_beside(one, file, place) for file, place in places.items() for one in travel.companions(file)}
    return _with_files(len(found), len(places))


def undo_transfers(steps: Sequence[Transfer]) -> int:
    """Put back what `run_transfers` did, the latest first; how many files could not be, because of changes since."""
    remaining = _undo([partial(_take_back, file) for step in steps for file in step.files])
    for folder in sorted({step.target.parent for step in steps}, key=lambda place: len(place.parts), reverse=True):
        with suppress(OSError):
            folder.rmdir()  # an empty one
    return remaining


def run_transfers(steps: Sequence[Transfer]) -> None:
    """Do what was planned, whole or not at all: at the first failure, or Ctrl-C, everything is put back.

    Nothing is ever overwritten. ClipkitError names the picture that failed, and what could not be put back, if any.
    """
    done: list[Callable[[], None]] = []
    subject = ""
    try:
        for step in (file for picture in steps for file in picture.files):
            subject = step.source
            _make_folder(step.target.parent, done)
            done.append(partial(_put_back, step))  # before, so that Ctrl-C finds it; it looks before it acts
            _DO[step.how](step.source, step.target)
    except BaseException as error:
        left = _undo(done)
        if not isinstance(error, OSError):
            raise
        kept = f"; {left} could not be put back" if left else "; everything was put back"
        raise ClipkitError(f"{subject}: {error.strerror or error}{kept}") from error


def _with_files(count: int, pictures: int) -> str:
    verb, whom = "belongs" if count == 1 else "belong", "it" if pictures == 1 else "them"
    return f", with {counted(count, 'file')} that {verb} to {whom}" if count else ""


def _videos_once(files: Sequence[str]) -> Iterator[str]:
    """The files; in place of the frames of a video the video, once."""
    videos = set[str]()
    for file in files:
        whole = file_of(file)
        if whole == file or whole not in videos:
            yield whole
        videos.add(whole)


def _check_sources(files: Sequence[str], how: str) -> None:
    frames = [file for file in files if how == "move" and split_frame(file)]
    if frames:
        fact = f"{frames[0]} is a frame: a video is not moved for one of its shots"
        raise ClipkitError(fact, hint="--copy-to DIR, or --symlink-to DIR")
    gone = [file for file in files if not os.path.isfile(file_of(file))]
    if gone:
        fact = f"{counted(len(gone), 'picture')} {are(len(gone))} not there any more: {gone[0]}"
        raise ClipkitError(fact, hint="clipkit index first")
    links = [file for file in files if how == "move" and os.path.islink(file)]
    if links:
        raise ClipkitError(
            f"{links[0]} is a link, which may break when it is moved", hint="--copy-to DIR, or --symlink-to DIR"
        )


def _folder_names(labels: Iterable[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in sorted(labels):
        clean = "".join("_" if char in _ODD or not char.isprintable() else char for char in name).strip(" .") or "_"
        names[name] = os.fsencode(clean)[:MAX_NAME_BYTES].decode(errors="ignore")
        other = owners.setdefault(names[name].casefold(), name)
        if other != name:
            raise QueryError(
                f"the classes {other!r} and {name!r} would share a folder",
                hint="call one of the classes something else",
            )
    return names


def _is_there(source: str, target: Path, how: str) -> bool:
    if os.path.samestat(os.lstat(source), os.lstat(target)):  # sorted already, or the folder it comes from
        return True
    if target.is_symlink():
        return how == "symlink" and os.readlink(target) == source
    return how == "copy" and target.is_file() and filecmp.cmp(source, target, shallow=False)


def _key(target: Path) -> str:
    return os.fspath(target).casefold()  # some disks take A.jpg and a.jpg for one


def _make_folder(folder: Path, done: list[Callable[[], None]]) -> None:
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    for place in reversed(missing):
        place.mkdir()
        done.append(partial(_remove_empty, place))


def _copy_step(source: str, target: Path) -> None:
    part = target.parent / f".clipkit-{token_hex(8)}.part"
    try:
        shutil.copyfile(source, part)
        with suppress(OSError):  # a share that keeps no dates or modes still takes pictures
            shutil.copystat(source, part)
        _rename_new(part, target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _move_step(source: str, target: Path) -> None:
    try:
        _rename_new(Path(source), target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_step(source, target)  # to another disk
        try:
            with open(target, "rb") as stream:
                os.fsync(stream.fileno())
            os.unlink(source)
        except BaseException:
            target.unlink()
            raise


def _link_step(source: str, target: Path) -> None:
    os.symlink(source, target)


def _rename_new(source: Path, target: Path) -> None:
    target.open("xb").close()  # ours from here on; os.replace alone would overwrite what came meanwhile
    try:
        os.replace(source, target)
    except BaseException:
        target.unlink()
        raise


def _put_back(step: Transfer) -> None:
    """Undo a step that was done, perhaps; what is not ours stays."""
    target = step.target
    if step.how == "move" and not os.path.lexists(step.source):
        _move_step(os.fspath(target), Path(step.source))
    if step.how == "symlink" and target.is_symlink() and os.readlink(target) == step.source:
        target.unlink()
    if step.how == "copy" and target.is_file() and filecmp.cmp(step.source, target, shallow=False):
        target.unlink()


def _take_back(step: Transfer) -> None:
    """Undo a step that was done; FileExistsError where its file has to stay."""
    _put_back(step)
    if os.path.lexists(step.target):
        raise FileExistsError(errno.EEXIST, "it was changed, or its old name is another file's", os.fspath(step.target))


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # somebody else has put something into it
            raise


def _undo(done: Sequence[Callable[[], None]]) -> int:
    """Latest first; how many did not work."""
    left = 0
    for action in reversed(done):
        try:
            action()
        except OSError:
            left += 1
    return left


_DO: dict[str, Callable[[str, Path], None]] = {"copy": _copy_step, "move": _move_step, "symlink": _link_step}
