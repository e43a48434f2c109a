"""Comparison results as data: rows, runs, confusions, mistakes; written as results.json and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np

from clipkit.core.arrays import IntArray
from clipkit.core.progress import Failure
from clipkit.core.text import counted, described, short_name
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "clipkit comparison 1"
ZERO_SHOT = "zeroshot"
MAKE = "the results.json of a report: clipkit compare DATASET --out FOLDER"
MOST_BYTES = 256_000_000
INTERVALS = (
    "with one seed by Wilson; with several the 95 % percentile bootstrap, 1000 draws: each draws the test pictures "
    "with replacement, and the seeds as well; it is the interval of the mean over seeds"
)


class _Strict:
    """Pydantic's strict mode for one type: "1" and true are no numbers. Written out: it is not imported at the top."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "strict": True}


Count = Annotated[int, _Strict()]
Number = Annotated[float, _Strict()]
Interval = tuple[Number, Number]
Shots = int | None  # labelled pictures a class; 0: none, None: all that there are
Value = int | float | str  # of a hyperparameter
Which = tuple[str, Shots]


@dataclass(frozen=True)
class Run:
    """One method, run once.

    Attributes
    ----------
    method : str
        A key of `METHODS`.
    shots : int or None
        Labelled pictures a class; 0 for none, None for all.
    seed : int
        Of the draw.
    acc1, mean_per_class : float
        Accuracy, and the mean of each class's own, on the test pictures.
    seconds : float
        Of this run, features at hand.
    labels : int
        Labelled pictures that were fitted or chosen on.
    chosen : dict
        Hyperparameters found on validation pictures.
    """

    method: str
    shots: Shots
    seed: Count
    acc1: Number
    mean_per_class: Number
    seconds: Number
    labels: Count
    chosen: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One method at one number of shots: means over seeds, and what they would be on other pictures and draws.

    Attributes
    ----------
    method : str
        A key of `METHODS`.
    shots : int or None
        Labelled pictures a class; 0 for none, None for all.
    seeds : int
        Number of draws.
    acc1, mean_per_class : float
        Accuracy, and the mean of each class's own.
    acc1_ci95, mean_per_class_ci95 : tuple of float
        95 % intervals, over pictures and draws.
    lowest, highest : float
        acc1 of single seeds.
    gain : float or None
        acc1 less that of zero-shot on the same pictures; None without it.
    gain_ci95 : tuple of float or None
        Its 95 % interval.
    seconds, labels : float, int
        Means of one seed.
    """

    method: str
    shots: Shots
    seeds: Count
    acc1: Number
    acc1_ci95: Interval
    mean_per_class: Number
    mean_per_class_ci95: Interval
    lowest: Number
    highest: Number
    gain: Number | None
    gain_ci95: Interval | None
    seconds: Number
    labels: Count


@dataclass(frozen=True)
class Mistake:
    """Two classes that were confused.

    Attributes
    ----------
    method : str
        A key of `METHODS`.
    shots : int or None
        Labelled pictures a class; 0 for none, None for all.
    actual, predicted : str
        The right class, and the one that was given.
    n, of : int
        How many of how many answers, over all seeds.
    files : tuple of str
        Some of the pictures.
    """

    method: str
    shots: Shots
    actual: str
    predicted: str
    n: Count
    of: Count
    files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What each row answered for each test picture, in its first draw.

    Attributes
    ----------
    files : tuple of str
        The n test pictures, relative to the dataset.
    actual : ndarray of shape (n,), int64
        Their right classes, as positions in the comparison's `classes`.
    predicted : dict of (method, shots) to ndarray of shape (n,), int64
        What the row answered, as positions too.
    """

    files: tuple[str, ...]
    actual: IntArray
    predicted: dict[Which, IntArray]

    def __repr__(self) -> str:
        return described(self, counted(len(self.files), "picture"), counted(len(self.predicted), "row"))


@dataclass(frozen=True)
class Comparison:
    """Comparison of methods on one dataset, best read through `rows`, which iteration gives.

    Attributes
    ----------
    dataset : str
        Name of the dataset.
    path : str
        The dataset as it was given; files are relative to it.
    split : str
        Where train and test come from, in a sentence.
    counts : dict of str to int
        Pictures of train, validation and test.
    classes, groups : tuple of str
        Names, and for each the group it belongs to, or "".
    model : dict of str to str
        `name`, `fingerprint` (SHA-256 of the weights), `pixels` and `precision`.
    settings : dict
        Methods, shots, seeds, templates, and what the intervals are.
    rows : tuple of Row
        One method at one number of shots, means over seeds: `method`, `shots`, `acc1`, `acc1_ci95`, `mean_per_class`,
        `gain` over zero-shot, `seconds`, `labels` and more.
    runs : tuple of Run
        One method, once: `method`, `shots`, `seed`, `acc1`, `chosen` and more.
    mistakes : tuple of Mistake
        Pairs of classes that were confused, with some of the pictures.
    references : dict of str to str
        A training picture of each class.
    notes, left_out : tuple of str
        What a reader should know; what was not run, and why.
    failed : tuple of Failure
        Pictures that could not be read.
    feature_seconds : dict of str to float
        Time to encode, by space; next to nothing where embeddings were cached.
    machine, versions : dict
        Where it ran, and with which packages.
    date : str
        In UTC.
    cells : dict of (method, shots) to ndarray of shape (m, 3), int64
        Confusions: row, column, count over all seeds.
    predictions : Predictions or None
        What each row answered for each test picture; None in a file of an earlier version.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> comparison = clipkit.compare("animals", encoder, methods=["zeroshot", "prototypes"], shots=[1], seeds=2)
    >>> comparison.best.acc1 >= comparison.zero_shot.acc1
    True
    >>> comparison.confusion("prototypes", 1).sum()
    np.int64(8)
    >>> comparison.to_frame().shape[0]
    2
    """

    # How a file is read: of this class and of those of its rows no other fields are known, and NaN is no number.
    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False, "arbitrary_types_allowed": True}  # noqa: RUF012

    dataset: str
    path: str
    split: str
    counts: dict[str, Count]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    model: dict[str, str]
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    runs: tuple[Run, ...]
    mistakes: tuple[Mistake, ...]
    references: dict[str, str]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    failed: tuple[Failure, ...]
    feature_seconds: dict[str, Number]
    machine: dict[str, Any]
    versions: dict[str, str]
    date: str
    cells: dict[Which, IntArray]
    predictions: Predictions | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        best = self.best
        said = f"best {best.method} at {format_shots(best.shots)} shots: acc1 {best.acc1:.3f}"
        return described(
            self, repr(short_name(self.dataset)), self.model.get("name", ""), counted(len(self), "row"), said
        )

    def _repr_html_(self) -> str:
        """The table of rows, and pictures that the best row got wrong, as notebooks show them."""
        from clipkit.images.notebook import MOST_ROWS, Captioned, notebook_html, rest

        root = Path(self.path)
        folder = root.parent if root.is_file() else root
        wrong = (
            Captioned(str(folder / file), f"{pair.actual}, called {pair.predicted}")
            for pair in self.pairs
            for file in pair.files
        )
        columns = ["method", "shots", "acc1 %", "95 % interval", "mean per class %", "labels", "seconds"]
        facts = [self.model.get("name", ""), counted(len(self.classes), "class"), f"wrong by {self.best.method}:"]
        more = rest(len(self), "rows", "to_frame()", most=MOST_ROWS)
        rows = map(_cells, self.rows)
        return notebook_html(short_name(self.dataset), facts, pictures=wrong, columns=columns, rows=rows, more=more)

    @property
    def best(self) -> Row:
        """The row with the highest acc1; of equal ones the first."""
        return max(self.rows, key=lambda row: row.acc1)

    @property
    def zero_shot(self) -> Row | None:
        """The row that needed no label; None if it was not asked for."""
        return next((row for row in self.rows if row.method == ZERO_SHOT), None)

    @property
    def fullest(self) -> tuple[Row, ...]:
        """Each method's row at its largest number of shots."""
        return tuple({row.method: row for row in self.rows}.values())  # rows of a method are in order of shots

    @property
    def pairs(self) -> tuple[Mistake, ...]:
        """Pairs of classes that the best row confused, most frequent first."""
        return self.pairs_of(self.best)

    def pairs_of(self, row: Row) -> tuple[Mistake, ...]:
        """Pairs of classes that one row confused, most frequent first.

        Parameters
        ----------
        row : Row
            There are pairs for the best row and for each method at its largest number of shots.

        Returns
        -------
        tuple of Mistake
            Empty for other rows.
        """
        return tuple(pair for pair in self.mistakes if (pair.method, pair.shots) == (row.method, row.shots))

    def confusion(self, method: str, shots: Shots) -> IntArray:
        """Confusion matrix of one method at one number of shots, over all seeds.

        Parameters
        ----------
        method : str
            A method of `rows`.
        shots : int or None
            None for all; 0 for zero-shot.

        Returns
        -------
        ndarray of shape (c, c), int64
            Rows are the right classes, columns those that were given.

        Raises
        ------
        ClipkitError
            If it was not run.
        """
        cells = self.cells.get((method, shots))
        if cells is None:
            raise ClipkitError(
                f"this comparison has no {method} at {format_shots(shots)} shots",
                hint="one that the report lists: its methods and shots",
            )
        matrix = np.zeros((len(self.classes), len(self.classes)), np.int64)
        matrix[cells[:, 0], cells[:, 1]] = cells[:, 2]
        return matrix

    def to_frame(self) -> pd.DataFrame:
        """The rows as a pandas table; "all" for all shots, intervals in two columns each.

        Returns
        -------
        pandas.DataFrame
            One line a row.
        """
        import pandas as pd

        return pd.DataFrame([as_record(row) for row in self.rows])

    def to_json(self) -> str:
        """Everything, as results.json has it: one row of a table a line.

        Returns
        -------
        str
            What `load_comparison` reads from a file.
        """
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in (*_TABLES, *_ARRAYS)}
        parts = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in {"format": FORMAT, **plain}.items()]
        tables = {name: [_as_json(item) for item in getattr(self, name)] for name in _TABLES}
        tables["confusion"] = [
            {"method": method, "shots": format_shots(shots), "cells": cells.tolist()}
            for (method, shots), cells in self.cells.items()
        ]
        for name, items in tables.items():
            lines = ",\n  ".join(json.dumps(item) for item in items)
            parts.append(f' "{name}": [\n  {lines}\n ]' if items else f' "{name}": []')
        if self.predictions is not None:
            parts.append(f' "predictions": {json.dumps(_plain(self.predictions))}')
        return "{\n" + ",\n".join(parts) + "\n}\n"


_TABLES = ("rows", "runs", "mistakes", "failed")
_ARRAYS = ("cells", "predictions")


def format_shots(shots: Shots) -> str:
    """As a person reads it: 0, 4, all."""
    return "all" if shots is None else str(shots)


def parse_shots(text: str) -> Shots:
    """The number of shots that `format_shots` wrote; ValueError."""
    return None if text == "all" else int(text)


def _cells(row: Row) -> tuple[str, ...]:
    """A row as a notebook shows it."""
    low, high = row.acc1_ci95
    numbers = f"{100 * row.acc1:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", f"{100 * row.mean_per_class:.1f}"
    return (row.method, format_shots(row.shots), *numbers, f"{row.labels:,}", f"{row.seconds:.2f}")


def as_record(row: Row) -> dict[str, Any]:
    """A row with one value a name."""
    record: dict[str, Any] = {}
    for name, value in vars(row).items():
        if name.endswith("_ci95"):
            low, high = value or (None, None)
            record |= {f"{name.removesuffix('_ci95')}_low": low, f"{name.removesuffix('_ci95')}_high": high}
        else:
            record[name] = format_shots(value) if name == "shots" else value
    return record


def load_comparison(file: str | os.PathLike[str]) -> Comparison:
    """The comparison in a results.json.

    Parameters
    ----------
    file : str or path
        The file, or the folder that holds it, as `write_report` made it.

    Returns
    -------
    Comparison
        As it was.

    Raises
    ------
    ClipkitError
        If there is none, or it is damaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.evaluate import load_comparison
    >>> encoder = clipkit.load_encoder("starter")
    >>> comparison = clipkit.compare("animals", encoder, methods=["zeroshot", "prototypes"], shots=[1], seeds=2)
    >>> _ = Path("results.json").write_text(comparison.to_json())
    >>> load_comparison("results.json").rows == comparison.rows
    True
    """
    place = Path(file)
    place = place / "results.json" if os.path.isdir(place) else place
    try:
        if place.stat().st_size > MOST_BYTES:
            raise ClipkitError(
                f"{place} is larger than any comparison: {place.stat().st_size:,} bytes",
                hint="the results.json that this writes: clipkit compare DATASET --out FOLDER",
            )
        payload = json.loads(place.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        raise ClipkitError(
            f"{place} cannot be read: {error.strerror or error}", hint="clipkit compare DATASET --out FOLDER"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ClipkitError(f"{place} is not the result of a comparison: {error}", hint=MAKE) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ClipkitError(f"{place} is not the result of a comparison that this clipkit knows", hint=MAKE)
    try:
        return _checked(_from(payload))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ClipkitError(f"{place} is damaged: {error}", hint="run the comparison again") from error


def _from(payload: Mapping[str, Any]) -> Comparison:
    """What a file says, where each value has the type that it has here; ValueError, KeyError, TypeError."""
    from pydantic import TypeAdapter, ValidationError

    values = {f.name: payload[f.name] for f in fields(Comparison) if f.name not in _ARRAYS}
    for name in ("rows", "runs", "mistakes"):
        values[name] = [{**item, "shots": parse_shots(item["shots"])} for item in values[name]]
    triples = TypeAdapter(list[tuple[Count, Count, Count]])
    try:
        values["cells"] = {
            (table["method"], parse_shots(table["shots"])): _matrix(triples.validate_python(table["cells"]))
            for table in payload["confusion"]
        }
        if (said := payload.get("predictions")) is not None:
            values["predictions"] = _predictions(said)
        return TypeAdapter(Comparison).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]) from error


def _predictions(said: Mapping[str, Any]) -> Predictions:
    from pydantic import TypeAdapter

    places, files = TypeAdapter(list[Count]), TypeAdapter(tuple[str, ...])
    try:
        rows = {
            (str(row["method"]), parse_shots(row["shots"])): np.array(places.validate_python(row["places"]), np.int64)
            for row in said["rows"]
        }
        actual = np.array(places.validate_python(said["actual"]), np.int64)
        return Predictions(files.validate_python(said["files"]), actual, rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its predictions are not as clipkit writes them") from error


def _plain(predictions: Predictions) -> dict[str, Any]:
    rows = [
        {"method": method, "shots": format_shots(shots), "places": places.tolist()}
        for (method, shots), places in predictions.predicted.items()
    ]
    return {"files": predictions.files, "actual": predictions.actual.tolist(), "rows": rows}


def _matrix(triples: list[tuple[int, int, int]]) -> IntArray:
    return np.array(triples, np.int64).reshape(-1, 3)


def _checked(comparison: Comparison) -> Comparison:
    count = len(comparison.classes)
    if not comparison.rows or len(set(comparison.classes)) < count or len(comparison.groups) != count:
        raise ValueError("rows, classes and groups do not fit together")
    for which, cells in comparison.cells.items():
        if len(cells) and (cells.min() < 0 or cells[:, :2].max() >= count):
            raise ValueError(f"the confusions of {which[0]} are of other classes")
    missing = [row.method for row in comparison.rows if (row.method, row.shots) not in comparison.cells]
    if missing:
        raise ValueError(f"{missing[0]} has no confusions")
    if (said := comparison.predictions) is not None:
        if not said.predicted.keys() <= comparison.cells.keys():
            raise ValueError("the predictions are of rows that it has not")
        for places in (said.actual, *said.predicted.values()):
            if len(places) != len(said.files) or (len(places) and not 0 <= places.min() <= places.max() < count):
                raise ValueError("the predictions are of other pictures or classes")
    return comparison


def _as_json(item: Any) -> dict[str, Any]:
    record = asdict(item)
    return {**record, "shots": format_shots(record["shots"])} if "shots" in record else record


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
