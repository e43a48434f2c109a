"""Spare copies: what is done with the pictures of duplicate groups that are not the one to keep."""

from __future__ import annotations

import csv
import errno
import filecmp
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from clipkit.errors import ClipkitError
from clipkit.explore.metadata import Fact
from clipkit.index.places import FETCH, refuse_url
from clipkit.output.copy_files import Transfer, plan_moves, run_transfers

MOVES = "clipkit-moves.csv"  # in the folder they were moved to: from where, and to where


@dataclass(frozen=True)
class Link:
    """A file that becomes a hard link to another with the same bytes. keep, spare: whole paths."""

    keep: str
    spare: str


def move_spares(root: Path, groups: Iterable[Sequence[Fact]], folder: Path) -> list[Transfer]:
    """Move all but the first of each group into `folder`, where each lies as it lay below `root`.

    A table there says what came from where. Nothing is overwritten, and if anything fails everything is put back;
    ClipkitError, before the first move, where a picture that is to be kept is not there any more.
    """
    steps = plan_spare_moves(root, groups, folder)
    if not steps:
        return []
    with _recorded(folder, steps):
        run_transfers(steps)
    return steps


def plan_spare_moves(root: Path, groups: Iterable[Sequence[Fact]], folder: Path) -> list[Transfer]:
    """What `move_spares` would do; nothing is changed."""
    chosen = [list(group) for group in groups]
    _check_kept(root, [group[0] for group in chosen])
    return plan_moves(root, [fact.path for group in chosen for fact in group[1:]], folder)


def plan_links(root: Path, groups: Iterable[Sequence[Fact]]) -> list[Link]:
    """Which spare copies of equal bytes would become hard links: not those that share a file already, nor links."""
    links = []
    for group in groups:
        first: dict[str, str] = {}
        for fact in group:
            file = os.fspath(root / fact.path)
            if not os.path.isfile(file) or os.path.islink(file):
                continue
            keep = first.setdefault(fact.sha256 or file, file)
            if keep != file and not os.path.samefile(keep, file):
                links.append(Link(keep, file))
    return links


def make_links(links: Sequence[Link]) -> None:
    """Replace each spare file by a hard link; its bytes are compared right before.

    All or none: until the last is done each file also has a second name, by which it is put back if anything fails.
    ClipkitError names the one that failed.
    """
    done: list[tuple[Link, Path]] = []
    subject = ""
    try:
        for link in links:
            subject = link.spare
            backup = _beside(link.spare)
            done.append((link, backup))
            _replace_by_link(link, backup)
    except BaseException as error:
        left = sum(not _put_back(link, backup) for link, backup in reversed(done))
        if not isinstance(error, OSError):
            raise
        kept = f"; {left} could not be put back" if left else "; everything was put back"
        raise ClipkitError(f"{subject}: {_reason(error)}{kept}", hint="clipkit duplicates --move-to FOLDER") from error
    for _, backup in done:
        with suppress(OSError):
            backup.unlink()


def _replace_by_link(link: Link, backup: Path) -> None:
    os.link(link.spare, backup, follow_symlinks=False)
    part = _beside(link.spare)
    os.link(link.keep, part, follow_symlinks=False)
    try:
        if not filecmp.cmp(link.keep, link.spare, shallow=False):
            raise OSError(errno.EINVAL, "it has other bytes by now")
        os.replace(part, link.spare)
    finally:
        part.unlink(missing_ok=True)


def _put_back(link: Link, backup: Path) -> bool:
    try:
        if backup.exists():
            os.replace(backup, link.spare)
            backup.unlink(missing_ok=True)  # two names of one file: then replace does nothing
    except OSError:
        return False
    return True


def _beside(file: str) -> Path:
    return Path(file).parent / f".clipkit-{token_hex(8)}.part"


def _reason(error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return "it lies on another disk, where no hard link can lead"
    if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
        return "this disk has no hard links, or does not allow this one"
    return error.strerror or str(error)


def _check_kept(root: Path, facts: Sequence[Fact]) -> None:
    refuse_url(root, "moving or linking them", hint=FETCH)
    gone = [fact.path for fact in facts if not os.path.isfile(root / fact.path)]
    if gone:
        raise ClipkitError(f"{gone[0]}, which is to be kept, is not there any more", hint="clipkit index first")


@contextmanager
def _recorded(folder: Path, steps: Sequence[Transfer]) -> Iterator[None]:
    """With a table of the moves: written before the first, so that a power cut finds it; gone again if they fail."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _free_name(folder)
        _write_table(file, steps)
    except OSError as error:
        raise ClipkitError(
            f"{folder} cannot be written: {error.strerror}", hint="another folder: --move-to FOLDER"
        ) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.unlink()
            if is_new:
                folder.rmdir()
        raise


def _write_table(file: Path, steps: Sequence[Transfer]) -> None:
    with open(file, "x", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["from", "to"])
        table.writerows(
            [one.source, str(one.target)] for step in steps for one in step.files
        )  # whole paths: none begins a formula
        stream.flush()
        os.fsync(stream.fileno())


def _free_name(folder: Path) -> Path:
    stem, suffix = os.path.splitext(MOVES)
    names = [MOVES, *(f"{stem} ({number}){suffix}" for number in range(2, 10_000))]
    return next(folder / name for name in names if not os.path.lexists(folder / name))
