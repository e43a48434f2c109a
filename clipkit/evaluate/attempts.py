"""One method, once: what it answered, and the file that keeps it so that an interrupted comparison goes on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from clipkit.core.files import replace_file

Shots = int | None  # labelled pictures a class; 0: none, None: all that there are
Value = int | float | str

FORMAT = "clipkit attempt 1"


@dataclass(frozen=True)
class Attempt:
    """What a method answered for every test picture, after it had seen some labels; how good that is, nobody knows yet.

    shots: labelled pictures a class, 0 for none, None for all. seed: of the draw. predicted: positions of classes, one
    a test picture. seconds: choosing, fitting and answering. labels: how many were used, to fit or to choose.
    chosen: hyperparameters that were not given but found.
    """

    method: str
    shots: Shots
    seed: int
    predicted: tuple[int, ...]
    seconds: float
    labels: int
    chosen: Mapping[str, Value]


class Kept:
    """Attempts of one task in a folder; `key` says the task: pictures, labels, model, settings and versions.

    A file that is absent, damaged or of another task is no attempt: it is made again. All may be deleted at any moment.
    """

    def __init__(self, folder: Path, key: str, *, count: int, classes: int) -> None:
        self._folder, self._key = folder, key
        self._count, self._classes = count, classes

    def get(self, method: str, shots: Shots, seed: int) -> Attempt | None:
        """The attempt that was kept, or None."""
        try:
            said = json.loads(self._file(method, shots, seed).read_bytes())
            seal = said.pop("sha256")
            if said.pop("format") != FORMAT or seal != _seal(said) or said.pop("key") != self._key:
                return None
            attempt = Attempt(**{**said, "predicted": tuple(said["predicted"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        is_whole = len(attempt.predicted) == self._count and all(0 <= i < self._classes for i in attempt.predicted)
        is_asked = (attempt.method, attempt.shots, attempt.seed) == (method, shots, seed)
        return attempt if is_whole and is_asked and math.isfinite(attempt.seconds) else None

    def put(self, attempt: Attempt) -> None:
        """Keep it; where the folder cannot be written, an interrupted comparison only starts from the beginning."""
        said = {"key": self._key, **asdict(attempt)}
        content = json.dumps({"format": FORMAT, **said, "sha256": _seal(said)})
        with suppress(OSError):
            replace_file(self._file(attempt.method, attempt.shots, attempt.seed), content.encode())

    def _file(self, method: str, shots: Shots, seed: int) -> Path:
        name = hashlib.sha256(json.dumps([self._key, method, shots, seed]).encode()).hexdigest()
        return self._folder / f"{name[:40]}.json"


def _seal(said: Mapping[str, object]) -> str:
    plain = {name: value for name, value in said.items() if name not in ("format", "sha256")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
