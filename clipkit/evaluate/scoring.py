"""Scores of trials: accuracies over seeds, with intervals over test pictures and seeds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import IntArray
from clipkit.evaluate.results import ZERO_SHOT, Interval, Mistake, Predictions, Row, Run, Shots, Which
from clipkit.evaluate.trials import Trial
from clipkit.metrics import DRAWS, SEED, balanced_size, wilson

PAIRS = 12  # confused pairs that are kept for a method
EXAMPLES = 4  # pictures of each

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Tally:
    """Answers of one row. hits: (s, n), whether seed s was right about picture n."""

    which: Which
    attempts: tuple[Trial, ...]
    hits: Values


def score_runs(attempts: Sequence[Trial], targets: IntArray, count: int) -> tuple[Run, ...]:
    """Each attempt with its accuracies; targets (n,) are positions of `count` classes."""
    runs = []
    for attempt in attempts:
        hits = (np.array(attempt.predicted) == targets).astype(np.float64)
        means = _by_class(hits, np.ones(len(targets)), targets, count)
        who = (attempt.method, attempt.shots, attempt.seed)
        runs.append(Run(*who, float(hits.mean()), means, attempt.seconds, attempt.labels, dict(attempt.chosen)))
    return tuple(runs)


def score_rows(attempts: Sequence[Trial], targets: IntArray, count: int, *, draws: int = DRAWS) -> tuple[Row, ...]:
    """One row for each method and number of shots, in order of appearance, with intervals.

    All rows are drawn with the same pictures and the same seeds, so that a gain is that of a paired comparison. With
    one seed the interval of an accuracy is Wilson's, as it is where no picture and no seed makes a difference.
    """
    tallies = [_tally(which, group, targets) for which, group in _grouped(attempts).items()]
    base = next((i for i, tally in enumerate(tallies) if tally.which[0] == ZERO_SHOT), None)
    samples = _samples(tallies, targets, count, draws)  # (draws, rows, 2)
    gains = None if base is None else samples[:, :, 0] - samples[:, base : base + 1, 0]
    rows = []
    for i, tally in enumerate(tallies):
        single = tally.hits.mean(axis=1)
        zero = None if base is None else float(tallies[base].hits.mean())
        by_class = _by_class(tally.hits.mean(axis=0), np.ones(len(targets)), targets, count)
        is_alike = len(single) == 1 or bool(np.ptp(tally.hits) == 0)
        sizes = (len(targets), balanced_size(targets, count))
        rows.append(
            Row(
                *tally.which,
                len(single),
                acc1=float(single.mean()),
                acc1_ci95=wilson(float(single.mean()), sizes[0]) if is_alike else _interval(samples[:, i, 0]),
                mean_per_class=by_class,
                mean_per_class_ci95=wilson(by_class, sizes[1]) if is_alike else _interval(samples[:, i, 1]),
                lowest=float(single.min()),
                highest=float(single.max()),
                gain=None if zero is None else float(single.mean()) - zero,
                gain_ci95=None if gains is None else _interval(gains[:, i]),
                seconds=float(np.mean([attempt.seconds for attempt in tally.attempts])),
                labels=round(float(np.mean([attempt.labels for attempt in tally.attempts]))),
            )
        )
    return tuple(rows)


def score_cells(attempts: Sequence[Trial], targets: IntArray) -> dict[Which, IntArray]:
    """By row the confusions that occur (m, 3): class, what it was called, how often over all seeds."""
    cells = {}
    for which, group in _grouped(attempts).items():
        predicted = np.array([attempt.predicted for attempt in group], np.int64)
        both = np.stack([np.broadcast_to(targets, predicted.shape), predicted], axis=-1).reshape(-1, 2)
        found, times = np.unique(both, axis=0, return_counts=True)
        cells[which] = np.concatenate([found, times[:, None]], axis=1).astype(np.int64)
    return cells


def first_predictions(attempts: Sequence[Trial], targets: IntArray, files: Sequence[str]) -> Predictions:
    """What each row answered in its first draw."""
    predicted = {which: np.array(group[0].predicted, np.int64) for which, group in _grouped(attempts).items()}
    return Predictions(tuple(files), targets, predicted)


def find_mistakes(
    attempts: Sequence[Trial],
    targets: IntArray,
    classes: Sequence[str],
    files: Sequence[str],
    wanted: Sequence[Which],
) -> tuple[Mistake, ...]:
    """The most frequent confusions of each row wanted, with the pictures that were mistaken most often first."""
    grouped, cells = _grouped(attempts), score_cells(attempts, targets)
    pictures = np.bincount(targets, minlength=len(classes))
    found = []
    for which in wanted:
        predicted = np.array([attempt.predicted for attempt in grouped[which]], np.int64)  # (s, n)
        wrong = [tuple(cell) for cell in cells[which].tolist() if cell[0] != cell[1]]
        for actual, called, times in sorted(wrong, key=lambda cell: (-cell[2], cell[0], cell[1]))[:PAIRS]:
            often = (predicted == called).sum(axis=0) * (targets == actual)
            order = np.argsort(-often, kind="stable")[:EXAMPLES]
            examples = tuple(files[i] for i in order if often[i])
            of = int(pictures[actual]) * len(predicted)
            found.append(Mistake(*which, classes[actual], classes[called], times, of, examples))
    return tuple(found)


def _grouped(attempts: Sequence[Trial]) -> Mapping[Which, list[Trial]]:
    grouped: dict[tuple[str, Shots], list[Trial]] = {}
    for attempt in attempts:
        grouped.setdefault((attempt.method, attempt.shots), []).append(attempt)
    return grouped


def _tally(which: Which, attempts: Sequence[Trial], targets: IntArray) -> _Tally:
    predicted = np.array([attempt.predicted for attempt in attempts])
    return _Tally(which, tuple(attempts), (predicted == targets).astype(np.float64))


def _samples(tallies: Sequence[_Tally], targets: IntArray, count: int, draws: int) -> Values:
    """acc1 and mean per class of every row in every draw: (draws, rows, 2)."""
    pictures, seeds = np.random.default_rng(SEED), np.random.default_rng(SEED + 1)
    most = max(len(tally.hits) for tally in tallies)
    samples = np.empty((draws, len(tallies), 2))
    for draw in range(draws):
        weights = np.bincount(pictures.integers(0, len(targets), len(targets)), minlength=len(targets)).astype(float)
        shares = seeds.random(most)
        for i, tally in enumerate(tallies):
            size = len(tally.hits)
            picked = np.bincount((shares[:size] * size).astype(np.int64), minlength=size) / size
            hits = picked @ tally.hits  # (n,): of the seeds drawn, the share that was right
            samples[draw, i] = weights @ hits / len(targets), _by_class(hits, weights, targets, count)
    return samples


def _by_class(hits: Values, weights: Values, targets: IntArray, count: int) -> float:
    """The mean of each class's own accuracy, over the classes that have pictures."""
    pictures = np.bincount(targets, weights=weights, minlength=count)
    right = np.bincount(targets, weights=weights * hits, minlength=count)
    return float((right[pictures > 0] / pictures[pictures > 0]).mean())


def _interval(values: Values) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
