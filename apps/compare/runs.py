"""Comparisons that the page runs: one at a time, in a process of its own, stopped when asked, taken up again."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from clipkit.core.folders import cache_folder
from clipkit.errors import ClipkitError
from clipkit.evaluate.results import Comparison, load_comparison
from clipkit.learn.methods import METHODS

from ..server.runs import CommandRun, Look
from ..server.state import Page

NAME = "compare"  # among the page's runs; no library has this key
SHOTS = ("1", "2", "4", "8", "16", "all")
MOST_SEEDS = 10
MOST_ROWS, MOST_CLASSES = 2_000, 2_000  # that are shown; what is larger came from somewhere else


@dataclass(frozen=True)
class Wish:
    """What is to be compared. dataset: a folder or table on this machine."""

    dataset: Path
    methods: tuple[str, ...]
    shots: tuple[str, ...]
    seeds: int
    model: str = "auto"

    def words(self, out: Path) -> list[str]:
        """As `clipkit` reads them."""
        ways = ["--methods", ",".join(self.methods), "--shots", ",".join(self.shots), "--seeds", str(self.seeds)]
        return ["compare", *ways, "--model", self.model, "--out", str(out), "--", str(self.dataset)]


class ComparisonRun(CommandRun):
    """`clipkit compare` beside the page."""

    def __init__(self, wish: Wish) -> None:
        place = cache_folder() / "page-comparisons"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.wish = wish
        self.out = Path(mkdtemp(dir=place))
        self._begin(wish.words(self.out))

    def result(self) -> Comparison:
        """What it found, once; ClipkitError where there is nothing to read. Its folder goes."""
        try:
            return load_comparison(self.out)
        finally:
            self.drop()

    def end(self) -> None:
        super().end()
        self.drop()

    def drop(self) -> None:
        """Forget its folder; finished attempts are kept elsewhere."""
        shutil.rmtree(self.out, ignore_errors=True)


class Arena:
    """The one comparison of a page. number: grows with every result, so that a browser knows whether it has the last.

    datasets: folders that were compared here, whose pictures may be shown.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._result: Comparison | None = None
        self._settled: ComparisonRun | None = None
        self.number = 0
        self.trouble: ClipkitError | None = None
        self.datasets: set[Path] = set()

    @property
    def run(self) -> ComparisonRun | None:
        """The last one, running or not."""
        found = self._page.runs.get(NAME)
        return found if isinstance(found, ComparisonRun) else None

    @property
    def is_running(self) -> bool:
        return self.run is not None and self.run.look().is_running

    def start(self, wish: Wish) -> None:
        """Begin; ClipkitError while another one runs."""
        with self._page.lock:
            if self.is_running:
                raise ClipkitError("a comparison is running already", hint="wait for it, or press Stop")
            self._page.runs[NAME] = ComparisonRun(wish)
        self.trouble = None
        self.datasets.add(root_of(wish.dataset))

    def stop(self) -> None:
        if self.run is not None:
            self.run.stop()

    def look(self) -> Look | None:
        """How it stands; a run that has just ended is read."""
        run = self.run
        if run is None:
            return None
        look = run.look()
        with self._lock:
            if not look.is_running and self._settled is not run:
                self._settle(run, look)
        return look

    def latest(self) -> Comparison | None:
        return self._result

    def _settle(self, run: ComparisonRun, look: Look) -> None:
        self._settled = run
        if look.code == 0:
            try:
                self._result = checked(run.result())
                self.number += 1
            except ClipkitError as error:
                self.trouble = error
            return
        run.drop()
        if not look.was_stopped:
            self.trouble = _trouble(look)


def wish_of(dataset: Path, methods: Sequence[str], shots: Sequence[str], seeds: int, model: str | None) -> Wish:
    """What was chosen, checked; ClipkitError says what is missing."""
    chosen = tuple(name for name in METHODS if name in methods)
    numbers = tuple(text for text in SHOTS if text in shots)
    if not chosen:
        raise ClipkitError("no method is chosen", hint="zeroshot and probe are a good start")
    if not numbers and chosen != ("zeroshot",):
        raise ClipkitError("no number of labelled pictures is chosen", hint="1, 4 and all are a good start")
    if not os.path.exists(dataset):
        raise ClipkitError(f"{dataset} is not there", hint="a folder with one folder per class, say")
    return Wish(dataset, chosen, numbers or ("1",), min(max(int(seeds), 1), MOST_SEEDS), model or "auto")


def checked(comparison: Comparison) -> Comparison:
    """The same; ClipkitError where it is larger than any of ours, or its numbers are none."""
    if len(comparison.rows) > MOST_ROWS or len(comparison.classes) > MOST_CLASSES:
        raise ClipkitError(
            f"this comparison has {len(comparison.rows):,} rows and {len(comparison.classes):,} classes, more than "
            "the page shows",
            hint="its report.html shows all of it",
        )
    shares = [share for row in comparison.rows for share in (row.acc1, row.mean_per_class, row.lowest, row.highest)]
    for row in comparison.rows:
        shares += [*row.acc1_ci95, *row.mean_per_class_ci95]
    rest = [value for row in comparison.rows for value in (row.seconds, row.labels, row.seeds)]
    rest += [value for pair in comparison.mistakes for value in (pair.n, pair.of)]
    rest += [value for row in comparison.rows for value in (row.gain or 0, *(row.gain_ci95 or ()))]
    rest += list(comparison.counts.values())
    is_number = all(isinstance(value, int | float) and abs(value) < 1e12 for value in [*shares, *rest])
    if not is_number or not all(0 <= share <= 1 for share in shares):
        raise ClipkitError("the numbers of this comparison are none that it could have found", hint="run it again")
    return comparison


def root_of(path: Path) -> Path:
    """The folder that the files of a comparison are relative to."""
    return path.parent if os.path.isfile(path) else path


def _trouble(look: Look) -> ClipkitError:
    """What the process errors last: its error, and what to do."""
    errors = [line for line in look.lines if line.startswith("error: ")]
    tried = [line.partition(": ")[2] for line in look.lines if line.startswith(("  try: ", "  hint: "))]
    message = errors[-1].removeprefix("error: ") if errors else f"the comparison ended with code {look.code}"
    return ClipkitError(message, hint=tried[-1] if tried else None)
