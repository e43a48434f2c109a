"""Comparison on Oxford-IIIT Pet: every method from no label to all, five draws each, with the starter."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from typing import Any

from common import RESULTS, Target, photographs, print_table, private_cache, read_arguments, work_folder, write

from clipkit.core.progress import Progress
from clipkit.evaluate.comparison import SEEDS, SHOTS, compare
from clipkit.evaluate.results import Comparison, Row, format_shots
from clipkit.learn.methods import METHODS
from clipkit.learn.trainer import Recipe
from clipkit.models.load import load_encoder
from clipkit.output.comparison_html import write_report

LEARNED_BY_FEW = ("knn", "prototypes", "tip-adapter", "tip-adapter-f", "blend", "text-probe", "probe", "probe-backbone")
NAME = "pets_compare"


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    folder = photographs()
    if folder is None:
        return
    private_cache(f"{NAME}-cache")  # empty, so that every second is measured
    started = time.perf_counter()
    comparison = measure(str(folder), quick=arguments.quick)
    comparison = replace(comparison, path="data")  # not where it lies on this disk
    taken = time.perf_counter() - started
    place = work_folder() / f"{NAME}.quick" if arguments.quick else RESULTS / NAME
    write_report(comparison, place, thumbnails=False)
    print_table([("method", "shots", "acc1", "from", "to", "seconds"), *map(line, comparison.rows)])
    results = {"seconds": round(taken, 1), "feature_seconds": comparison.feature_seconds, **summary(comparison)}
    write(NAME, results, [] if arguments.quick else targets(comparison, taken), arguments)


def measure(folder: str, *, quick: bool) -> Comparison:
    """Everything; for a trial few draws, few shots and few epochs."""
    ways: dict[str, Any] = {"shots": SHOTS, "seeds": SEEDS}
    if quick:
        ways = {"shots": (1, 4), "seeds": 2, "recipe": Recipe(epochs=2, views=0)}
    return compare(folder, load_encoder("starter"), methods=tuple(METHODS), progress=show, **ways)


def show(now: Progress) -> None:
    if now.path.endswith("seed 0"):
        print(f"{now.done} of {now.total}: {now.path}", flush=True)


def line(row: Row) -> tuple[object, ...]:
    """One row of the table that is printed."""
    return (row.method, format_shots(row.shots), row.acc1, *row.acc1_ci95, row.seconds)


def summary(comparison: Comparison) -> dict[str, Any]:
    """What the report's results.json says at length, without runs and confusions."""
    return {
        "model": comparison.model,
        "counts": comparison.counts,
        "settings": comparison.settings,
        "rows": [{**asdict(row), "shots": format_shots(row.shots)} for row in comparison.rows],
        "left_out": comparison.left_out,
        "report": f"benchmarks/results/{NAME}/index.html",
    }


def targets(comparison: Comparison, taken: float) -> list[Target]:
    """A probe of all labels, few shots that are worth their labels, and the time of the whole."""
    probes = [row.acc1 for row in comparison.rows if row.shots is None and row.method.startswith("probe")]
    few = [row.gain for row in comparison.rows if row.shots == 16 and row.method in LEARNED_BY_FEW]
    return [
        Target("acc1 of the best probe with all labels", max(probes), 0.90, is_floor=True),
        Target("the least gain over zero-shot at 16 shots", min(gain for gain in few if gain is not None), 0, True),
        Target("seconds of the whole run", taken, 1200),
    ]


if __name__ == "__main__":
    sys.exit(main())
