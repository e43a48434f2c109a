"""A comparison that version 0.1 wrote: its rows are what they were."""

from __future__ import annotations

import json

from clipkit.evaluate.results import as_record, load_comparison
from tests.support.old_files import OLD_FILES

RECORD = json.loads((OLD_FILES / "rows.json").read_text())


def test_the_rows_and_the_confusions_are_what_they_were() -> None:
    comparison = load_comparison(OLD_FILES / "results.json")
    assert [as_record(row) for row in comparison.rows] == RECORD["rows"]
    assert [[pair.actual, pair.predicted, pair.n, pair.of] for pair in comparison.pairs] == RECORD["pairs"]
    best = comparison.best
    assert comparison.confusion(best.method, best.shots).tolist() == RECORD["confusion"]
