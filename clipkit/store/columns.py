"""Metadata columns of an index in memory: numbers as arrays, texts as codes of the distinct ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import IntArray
from clipkit.images.formats import file_of

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.floating[Any]]
Codes = npt.NDArray[np.unsignedinteger[Any]]  # of as few bytes as the number of distinct texts takes

NUMBERS: Mapping[str, type[np.floating[Any]]] = {
    "width": np.float32,
    "height": np.float32,
    "rating": np.float32,
    "latitude": np.float64,  # in float32 a place moves by a metre
    "longitude": np.float64,
}
TEXTS = ("day", "camera", "tags", "title", "folder", "suffix")
MAX_NUMBER = 1e30  # float32 has it
# What `Columns.of` takes; all of it from the index of the metadata alone.
SELECTED = f"id, {', '.join(NUMBERS)}, substr(taken_at, 1, 10), camera, tags, title, CAST(path AS BLOB)"


@dataclass(frozen=True, eq=False)
class Texts:
    """A column of texts: `values[codes[row]]`, "" where nothing is said."""

    values: tuple[str, ...]
    codes: Codes

    @classmethod
    def of(cls, raw: Sequence[Any], read: Callable[[Any], str]) -> Texts:
        """From values as they lie in the rows; each distinct one is read once."""
        texts = {value: read(value) for value in dict.fromkeys(raw)}
        places = {text: place for place, text in enumerate(dict.fromkeys(texts.values()))}
        codes = {value: places[text] for value, text in texts.items()}
        return cls(tuple(places), np.fromiter(map(codes.__getitem__, raw), np.min_scalar_type(len(places)), len(raw)))

    def where(self, is_wanted: Callable[[str], bool]) -> Mask:
        """Rows (n,) whose text is wanted; each distinct text is asked about once."""
        met: Mask = np.fromiter(map(is_wanted, self.values), np.bool_, len(self.values)).take(self.codes)
        return met

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """The rows of all parts, one behind the other."""
        texts = dict.fromkeys(chain.from_iterable(part.values for part in parts))
        places = {text: place for place, text in enumerate(texts)}
        kind = np.min_scalar_type(len(places))
        moved = [np.fromiter(map(places.__getitem__, part.values), kind, len(part.values)) for part in parts]
        return cls(tuple(places), np.concatenate([new[part.codes] for new, part in zip(moved, parts, strict=True)]))

    def at(self, rows: npt.NDArray[Any]) -> Texts:
        """Some of its rows."""
        return Texts(self.values, self.codes[rows])


@dataclass(frozen=True, eq=False)
class Columns:
    """Metadata of the pictures that answer, at one revision of an index.

    ids (n,) ascending; numbers (n,) each, NaN where nothing is said.
    """

    revision: int
    token: str
    ids: IntArray
    numbers: Mapping[str, Numbers]
    texts: Mapping[str, Texts]

    @classmethod
    def of(cls, revision: int, token: str, blocks: Iterable[Sequence[tuple[Any, ...]]]) -> Columns:
        """From rows of `SELECTED`, in blocks and in any order."""
        nothing = cls(
            revision,
            token,
            np.empty(0, np.int64),
            {name: np.empty(0, kind) for name, kind in NUMBERS.items()},
            {name: Texts((), np.empty(0, np.uint8)) for name in TEXTS},
        )
        return nothing._with([_read_block(revision, token, block) for block in blocks])

    def updated(self, changed: IntArray, fresh: Columns) -> Columns:
        """Without the rows of the ids `changed` (m,), and with those of `fresh`, at its revision."""
        kept = self._at(np.flatnonzero(~np.isin(self.ids, changed)))
        return Columns(fresh.revision, fresh.token, kept.ids, kept.numbers, kept.texts)._with([fresh])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As arrays for a file; the distinct texts are JSON in bytes."""
        codes = {f"{name}.codes": texts.codes for name, texts in self.texts.items()}
        values = {f"{name}.values": _as_bytes(texts.values) for name, texts in self.texts.items()}
        return {"ids": self.ids, **self.numbers, **codes, **values}

    @classmethod
    def from_arrays(cls, revision: int, token: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Columns:
        """What `arrays` made."""
        texts = {
            name: Texts(tuple(json.loads(arrays[f"{name}.values"].tobytes())), arrays[f"{name}.codes"])
            for name in TEXTS
        }
        return cls(revision, token, arrays["ids"], {name: arrays[name] for name in NUMBERS}, texts)

    def _with(self, others: Sequence[Columns]) -> Columns:
        parts = [self, *others]
        ids = np.concatenate([part.ids for part in parts])
        numbers = {name: np.concatenate([part.numbers[name] for part in parts]) for name in NUMBERS}
        texts = {name: Texts.joined([part.texts[name] for part in parts]) for name in TEXTS}
        return Columns(self.revision, self.token, ids, numbers, texts)._at(np.argsort(ids, kind="stable"))

    def _at(self, rows: npt.NDArray[Any]) -> Columns:
        numbers = {name: column[rows] for name, column in self.numbers.items()}
        texts = {name: column.at(rows) for name, column in self.texts.items()}
        return Columns(self.revision, self.token, self.ids[rows], numbers, texts)


def _read_block(revision: int, token: str, rows: Sequence[tuple[Any, ...]]) -> Columns:
    ids, *said, paths = zip(*rows, strict=True)
    count = len(NUMBERS)
    numbers = dict(zip(NUMBERS, map(_numbers, said[:count], NUMBERS.values()), strict=True))
    texts = [Texts.of(column, _text) for column in said[count:]]
    texts.append(Texts.of([path.rpartition(b"/")[0] for path in paths], os.fsdecode))
    texts.append(Texts.of([_file_of(path).rpartition(b".")[2] for path in paths], _suffix))
    return Columns(revision, token, np.array(ids, np.int64), numbers, dict(zip(TEXTS, texts, strict=True)))


def _numbers(values: Sequence[Any], kind: type[np.floating[Any]]) -> Numbers:
    """NaN for what is no number, in an index from anybody."""
    try:
        wide = np.array(values, np.float64)
    except (TypeError, ValueError):
        wide = np.array([value if isinstance(value, int | float) else None for value in values], np.float64)
    wide[~(np.abs(wide) < MAX_NUMBER)] = np.nan
    return wide.astype(kind)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _file_of(path: bytes) -> bytes:
    return os.fsencode(file_of(os.fsdecode(path))) if b"#t=" in path else path


def _suffix(name: bytes) -> str:
    return f".{os.fsdecode(name).lower()}"


def _as_bytes(values: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)
