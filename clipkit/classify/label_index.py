"""Labels for a whole index, and pictures put into one folder a class: planned first, undone if anything fails."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import numpy as np

from clipkit.classify.head import UNKNOWN, Head
from clipkit.datasets.load import Dataset, embed_pictures
from clipkit.errors import ClipkitError, QueryError
from clipkit.index.image_index import ImageIndex
from clipkit.output.copy_files import MAX_NAME_BYTES, numbered_names
from clipkit.store.records import Embeddings, Failure, IntArray, Progress

HOW = ("copy", "move", "symlink")
_ODD = frozenset('/\\:*?"<>|')  # not in file names somewhere
_TRIES = 3


class Answer(NamedTuple):
    """One class of a picture. probability: None where all classes were rejected."""

    label: str
    probability: float | None


@dataclass(frozen=True)
class Labelled:
    """What a picture was called, best first. path: relative to the root. file: on this disk.

    labels: those it bears: the first answer's, or with `multi_label` all of them.
    """

    path: str
    file: str
    answers: tuple[Answer, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One picture and the place it gets; `how` is one of HOW."""

    how: str
    source: str
    target: Path


def label_index(index: ImageIndex, head: Head, *, top_k: int = 1, below: str = "") -> list[Labelled]:
    """What every picture of the index is called, by path; from stored embeddings, no picture is opened.

    One answer each, `top_k` of them, or where the head is `multi_label` those that are likelier than not, perhaps none.
    A rejected picture is called "unknown" first. ModelMismatch for a head of another model.
    """
    named, answers = _answered(index, head, top_k, below)
    return _labelled(index, head, sorted((named[id_], given) for id_, given in answers.items()))


def label_pictures(
    index: ImageIndex,
    head: Head,
    *,
    top_k: int = 1,
    below: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> tuple[list[Labelled], tuple[Failure, ...]]:
    """As `label_index`, for a head of backbone features: every picture is read again; also those that cannot be."""
    encoder = index.encoder
    head.check(encoder, space=head.space)
    prefix = f"{below}/" if below else ""
    paths = {str(index.root / path): path for path in index.paths if path.startswith(prefix)}
    pictures = Dataset(str(index.root), tuple(sorted(paths)))
    embedded = embed_pictures(pictures, encoder, space=head.space, progress=progress)
    answers = label(head, embedded.embeddings, top_k)
    named = [(paths[file], given) for file, given in zip(embedded.dataset.files, answers, strict=True)]
    return _labelled(index, head, sorted(named)), embedded.dataset.failed


def ids_of_class(
    index: ImageIndex,
    head: Head,
    classes: Collection[str],
    *,
    below: str = "",
    exclude_dirs: Collection[str] = (),
) -> IntArray:
    """Ids of the pictures that `head` puts into one of `classes`, for a search among them.

    QueryError for a class that the head does not know, ModelMismatch for a head that cannot read the index.
    """
    known = {*head.classes, *([UNKNOWN] if head.rejection else [])}
    strange = [name for name in classes if name not in known]
    if strange:
        raise QueryError(f"the head has no class {strange[0]!r}", hint=f"its classes are {', '.join(head.classes)}")
    _, answers = _answered(index, head, len(head.classes) if head.multi_label else 1, "")
    wanted = set(classes)
    chosen = [id_ for id_, given in answers.items() if wanted & {answer.label for answer in given}]
    allowed = index.ids_in(below, exclude_dirs)
    ids = np.array(chosen, dtype=np.int64)
    return ids if allowed is None else np.intersect1d(ids, allowed)


def _answered(
    index: ImageIndex, head: Head, top_k: int, below: str
) -> tuple[Mapping[int, str], dict[int, tuple[Answer, ...]]]:
    """Paths by id, and answers by id."""
    info = index.info
    head.check_model(info.model, info.weights_sha256, space="projected")
    prefix = f"{below}/" if below else ""
    for _ in range(_TRIES):  # an index run may commit between the names and the vectors
        revision, paths = index.store.paths()
        answers: dict[int, tuple[Answer, ...]] = {}
        is_same = True
        for now, ids, rows in index.store.blocks():
            is_same &= now.revision == revision
            mine = np.array([paths.get(id_, "\0").startswith(prefix) for id_ in ids.tolist()], dtype=bool)
            if mine.any():
                answers.update(zip(ids[mine].tolist(), label(head, rows[mine].astype(np.float32), top_k), strict=True))
        if is_same:
            break
    return paths, answers


def _labelled(index: ImageIndex, head: Head, named: Iterable[tuple[str, tuple[Answer, ...]]]) -> list[Labelled]:
    borne = None if head.multi_label else 1
    return [
        Labelled(path, str(index.root / path), given, tuple(answer.label for answer in given[:borne]))
        for path, given in named
    ]


def label(head: Head, embeddings: Embeddings, top_k: int = 1) -> list[tuple[Answer, ...]]:
    """The answers for each row, as in `label_index`."""
    if top_k < 1:
        raise QueryError(f"{top_k} answers were asked for", hint="--top-k 1")
    if head.multi_label:
        return [_likely(head, row, top_k) for row in head.probabilities(embeddings)]
    places, sure = head.ranked(embeddings, top_k)
    lines = zip(places.tolist(), sure.tolist(), strict=True)
    named = [tuple(Answer(head.classes[c], p) for c, p in zip(*line, strict=True)) for line in lines]
    if head.rejection is None:
        return named
    is_rejected = head.known(embeddings) < head.rejection.cut
    first = Answer(UNKNOWN, None)
    return [(first, *given)[:top_k] if out else given for given, out in zip(named, is_rejected, strict=True)]


def plan_sorting(labelled: Iterable[Labelled], folder: str | os.PathLike[str], *, how: str) -> list[Step]:
    """Which picture goes where: into `folder`/CLASS under its own name, or `name (2).jpg` where that is another's.

    What lies there already has no step. Nothing is changed. QueryError where two classes would share a folder, or a
    picture would be moved to two places; ClipkitError where a picture is no longer where the index says.
    """
    chosen = list(labelled)
    top = Path(os.path.abspath(folder))
    if how == "move" and any(len(picture.labels) > 1 for picture in chosen):
        raise QueryError("a picture with several labels cannot be moved to all of them", hint="--copy-to, --symlink-to")
    _check_sources([picture.file for picture in chosen], how)
    names = _folder_names({name for picture in chosen for name in picture.labels})
    taken: set[str] = set()
    steps = []
    for picture in chosen:
        for name in picture.labels:
            target = _place(picture.file, top / names[name], how, taken)
            if target is not None:
                taken.add(_key(target))
                steps.append(Step(how, picture.file, target))
    return steps


def carry_out(steps: Sequence[Step]) -> None:
    """Do what was planned, whole or not at all: at the first failure, or Ctrl-C, everything is put back.

    Nothing is ever overwritten. ClipkitError names the picture that failed, and what could not be put back, if any.
    """
    done: list[Callable[[], None]] = []
    subject = ""
    try:
        for step in steps:
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


def _likely(head: Head, row: Embeddings, top_k: int) -> tuple[Answer, ...]:
    places = np.flatnonzero(row > 0.5)
    best = places[np.argsort(-row[places], kind="stable")][:top_k]
    return tuple(Answer(head.classes[place], float(row[place])) for place in best)


def _check_sources(files: Sequence[str], how: str) -> None:
    gone = [file for file in files if not os.path.isfile(file)]
    if gone:
        raise ClipkitError(f"{len(gone):,} pictures are not there any more: {gone[0]}", hint="clipkit index first")
    links = [file for file in files if how == "move" and os.path.islink(file)]
    if links:
        raise ClipkitError(f"{links[0]} is a link, which may break when it is moved", hint="--copy-to, --symlink-to")


def _folder_names(labels: Iterable[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in sorted(labels):
        clean = "".join("_" if char in _ODD or not char.isprintable() else char for char in name).strip(" .") or "_"
        names[name] = os.fsencode(clean)[:MAX_NAME_BYTES].decode(errors="ignore")
        other = owners.setdefault(names[name].casefold(), name)
        if other != name:
            raise QueryError(f"the classes {other!r} and {name!r} would share a folder")
    return names


def _place(source: str, folder: Path, how: str, taken: set[str]) -> Path | None:
    for target in numbered_names(source, folder):
        if _key(target) in taken:
            continue
        if not os.path.lexists(target):
            return target
        if _is_there(source, target, how):
            return None
    raise AssertionError("the numbers do not end")


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


def _copy(source: str, target: Path) -> None:
    part = target.parent / f".clipkit-{token_hex(8)}.part"
    try:
        shutil.copyfile(source, part)
        with suppress(OSError):  # a share that keeps no dates or modes still takes pictures
            shutil.copystat(source, part)
        _replace(part, target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _move(source: str, target: Path) -> None:
    try:
        _replace(Path(source), target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)  # to another disk
        try:
            with open(target, "rb") as stream:
                os.fsync(stream.fileno())
            os.unlink(source)
        except BaseException:
            target.unlink()
            raise


def _link(source: str, target: Path) -> None:
    os.symlink(source, target)


def _replace(source: Path, target: Path) -> None:
    target.open("xb").close()  # ours from here on; os.replace alone would overwrite what came meanwhile
    try:
        os.replace(source, target)
    except BaseException:
        target.unlink()
        raise


def _put_back(step: Step) -> None:
    """Undo a step that was done, perhaps; what is not ours stays."""
    target = step.target
    if step.how == "move" and not os.path.lexists(step.source):
        _move(os.fspath(target), Path(step.source))
    if step.how == "symlink" and target.is_symlink() and os.readlink(target) == step.source:
        target.unlink()
    if step.how == "copy" and target.is_file() and filecmp.cmp(step.source, target, shallow=False):
        target.unlink()


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


_DO: dict[str, Callable[[str, Path], None]] = {"copy": _copy, "move": _move, "symlink": _link}
