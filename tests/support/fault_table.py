"""`make faults`: every case of a fault, with how often it was run, as one table."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.support.paths import REPOSITORY

FOLDERS = ("reliability", "index/test_names.py", "index/test_moves.py", "index/test_check.py")
FULL = {"CLIPKIT_FAULTS": "full", "CLIPKIT_STATEFUL_RUNS": "200"}
WIDTH = 104  # of a sentence


@dataclass
class Case:
    """A sentence about behaviour, and how its runs ended."""

    runs: int = 0
    passed: int = 0
    skipped: int = 0
    why: set[str] = field(default_factory=set)


class Table:
    """A pytest plugin that counts."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, Case]] = {}
        self._places: dict[str, tuple[str, str, int]] = {}

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            assert isinstance(item, pytest.Function)
            group = (item.module.__doc__ or item.module.__name__).strip()
            settings = getattr(item.cls, "settings", None)  # hypothesis: many runs in one
            name = "any order of what people do to a folder" if settings else item.originalname.removeprefix("test_")
            runs = settings.max_examples if settings else 1
            self._places[item.nodeid] = (group, name.replace("_", " "), runs)
            self.groups.setdefault(group, {}).setdefault(self._places[item.nodeid][1], Case())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        group, name, runs = self._places[report.nodeid]
        case = self.groups[group][name]
        if report.when == "setup":
            case.runs += runs
        if report.skipped:
            case.skipped += runs
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            case.why.add(str(reason).removeprefix("Skipped: "))
        elif report.when == "call" and report.passed:
            case.passed += runs

    def lines(self) -> list[str]:
        """The table."""
        lines = [f"{'case':<{WIDTH}} {'runs':>5} {'passed':>6} {'skipped':>7}"]
        for group, cases in self.groups.items():
            lines += ["", group]
            for name, case in cases.items():
                lines.append(f"  {_cut(name):<{WIDTH - 2}} {case.runs:>5} {case.passed:>6} {case.skipped or '':>7}")
                lines += [f"    skipped: {why}" for why in sorted(case.why)]
        every = [case for cases in self.groups.values() for case in cases.values()]
        runs, passed, skipped = (sum(getattr(case, what) for case in every) for what in ("runs", "passed", "skipped"))
        total = f"{len(every)} cases, {runs - passed - skipped} runs failed"
        return [*lines, "", f"{total:<{WIDTH}} {runs:>5} {passed:>6} {skipped or '':>7}"]


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH - 2 else f"{text[: WIDTH - 3]}…"


def main(arguments: Sequence[str]) -> int:
    """Run them all, or `arguments` for pytest instead; its exit code."""
    for name, value in FULL.items():
        os.environ.setdefault(name, value)
    files = [str(REPOSITORY / "tests" / name) for name in FOLDERS]
    table, started = Table(), time.monotonic()
    code = pytest.main([*(arguments or files), "-q", "-p", "no:cacheprovider", "--no-header", "-r", "fE"], [table])
    print("\n".join(table.lines()))
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"{minutes} min {seconds} s, exit code {int(code)}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
