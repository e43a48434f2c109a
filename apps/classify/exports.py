"""Exports of a sorted library: a table, class folders, or the head that sorted it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from clipkit.classify.collection import NONE, Classified, Column
from clipkit.classify.head import UNKNOWN, Head
from clipkit.classify.labels import LabelledPicture, ScoredLabel
from clipkit.core.arrays import FloatArray
from clipkit.core.text import FORMULA_STARTS, counted, printable
from clipkit.errors import ClipkitError
from clipkit.explore.library import Library
from clipkit.output.copy_files import Transfer, beside, plan_transfers

from ..html import line, render, table
from ..server.routes import Export

FEW = 12  # lines of a plan that are shown


def labelled(
    library: Library, found: Classified, columns: Sequence[Column], names: Sequence[str], by_hand: Mapping[int, str]
) -> list[LabelledPicture]:
    """Every picture with the name of its column, by path; "unknown" where it is set aside. By hand means certain."""
    catalogue = library.catalogue()
    pictures = []
    for column in columns:
        name = UNKNOWN if column.place == NONE else names[column.place]
        for id_ in column.ids.tolist():
            if (fact := catalogue.fact(id_)) is None:
                continue
            sure = float(found.sure[found.row_of[id_]]) if column.place != NONE else None
            answer = ScoredLabel(name, 1.0 if id_ in by_hand and sure is not None else sure)
            pictures.append(LabelledPicture(fact.path, str(library.root / fact.path), (answer,), (name,)))
    return sorted(pictures, key=lambda picture: picture.path)


def as_csv(pictures: Sequence[LabelledPicture], by_hand: set[str]) -> Export:
    """label, probability, path, by_hand; safe for spreadsheets, and `image,label` for `clipkit probe`."""
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(["label", "probability", "image", "by_hand"])
    for picture in pictures:
        label, sure = picture.answers[0]
        probability = "" if sure is None else f"{sure:.4f}"
        is_fixed = "yes" if picture.path in by_hand else ""
        lines.writerow([_cell(label), probability, _cell(picture.path), is_fixed])
    return Export("clipkit-labels.csv", "text/csv; charset=utf-8", stream.getvalue().encode())


def as_head(head: Head, cuts: FloatArray) -> Export:
    """The file that `clipkit classify --head` takes. cuts (c,): below which pictures are set aside, if it can say."""
    if head.rejection is not None:
        several = None if np.ptp(cuts) == 0 else cuts
        head = replace(head, rejection=replace(head.rejection, cut=float(cuts[0]), cuts=several))
    with TemporaryDirectory(prefix="clipkit-") as folder:
        file = Path(folder) / "head.safetensors"
        head.save(file)
        return Export("clipkit-head.safetensors", "application/octet-stream", file.read_bytes())


def plan(library: Library, pictures: Sequence[LabelledPicture], folder: str) -> list[Transfer]:
    """Which picture would be copied where; ClipkitError for a folder that cannot be.

    Pictures that may not be shown (links that lead out of the library) stay where they are.
    """
    if not folder.strip():
        raise ClipkitError("no folder is named", hint="write where the class folders should be: ~/sorted")
    place = Path(folder.strip()).expanduser()
    if not place.is_absolute() or "\0" in folder:
        raise ClipkitError("the folder is not a full path", hint="begin with / or ~")
    real = ((picture, library.place_of(picture.path)) for picture in pictures)
    return plan_transfers([replace(one, file=str(file)) for one, file in real if file is not None], place, how="copy")


def shown_plan(steps: Sequence[Transfer], folder: str, pictures: int) -> str:
    """How many go into which folder, and the first of them."""
    if not steps:
        return line("All pictures are there already: there is nothing to copy.", is_status=True)
    counts = Counter(step.target.parent.name for step in steps)
    top = [(name, f"{count:,}") for name, count in sorted(counts.items())]
    size = sum(Path(file.source).stat().st_size for step in steps for file in step.files)
    kept = pictures - len(steps)
    rest = f" {kept:,} skipped: already there, or not readable." if kept else ""
    what, where = f"{counted(len(steps), 'picture')} ({_bytes(size)})", counted(len(counts), "folder")
    moves = f"{what} into {where} in {folder.strip()}{beside(steps)}."
    first = [(Path(step.source).name, f"{step.target.parent.name}/{step.target.name}") for step in steps[:FEW]]
    folders, becomes = table(top, ("folder", "pictures")), table(first, ("picture", "copied to"))
    return render("plan", text=moves + rest, folders=folders, pictures=becomes)


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _cell(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
