"""How labels, explanations and results look, line by line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipkit.cli.output import FORMULA_STARTS, near, printable

if TYPE_CHECKING:
    from clipkit.classify.label_index import Labelled, Step
    from clipkit.classify.spoken import Spoken, Verdict
    from clipkit.evaluate.zeroshot import Result

FEW = 3  # prompts shown for a class, and as many against
HEADLINES = ("acc1", "acc5", "mean_per_class_recall", "ece", "auroc", "f1_known", "f1_unknown")
NONE = "-"


def labels_as_text(labelled: Sequence[Labelled], steps: Sequence[Step] | None) -> Iterator[str]:
    """`label<TAB>probability<TAB>path`, and the place it gets where there is a plan; one line for each answer."""
    for cells in _rows(labelled, steps):
        yield "\t".join(cells)


def labels_as_csv(labelled: Sequence[Labelled], steps: Sequence[Step] | None) -> Iterator[str]:
    """The same as a table with a header."""
    yield "label,probability,path" + (",target" if steps is not None else "")
    for cells in _rows(labelled, steps):
        line = io.StringIO()
        safe = [cell if cell == NONE or not cell.startswith(FORMULA_STARTS) else f"'{cell}" for cell in cells]
        csv.writer(line, lineterminator="").writerow(["" if cell == NONE else cell for cell in safe])
        yield line.getvalue()


def labels_as_json(labelled: Sequence[Labelled], steps: Sequence[Step] | None) -> Iterator[str]:
    """One object a picture."""
    targets = _targets(steps)
    for picture in labelled:
        answers = [{"label": name, "probability": _rounded(sure)} for name, sure in picture.answers]
        record: dict[str, Any] = {"path": picture.path, "file": picture.file, "labels": list(picture.labels)}
        record["answers"] = answers
        if steps is not None:
            record["targets"] = targets.get(picture.file, [])
        yield json.dumps(record)


def verdicts(found: Sequence[Verdict]) -> Iterator[str]:
    """A class a paragraph: its probability, the prompts that spoke for it most, and those that spoke against."""
    for verdict in found:
        yield f"{printable(verdict.label)}  {verdict.probability:.3f}"
        shown = [spoken for spoken in verdict.prompts[:FEW] if spoken.lead > 0]
        against = [spoken for spoken in verdict.prompts[-FEW:] if spoken.lead <= 0]
        yield from (_spoken("for", spoken) for spoken in shown)
        yield from (_spoken("against", spoken) for spoken in against)


def results(result: Result) -> Iterator[str]:
    """What was measured, with n and intervals, and the pairs that were confused most."""
    metrics = result.metrics
    yield f"{printable(result.dataset)}: {result.model}, n = {metrics['n']:,}"
    intervals: Mapping[str, Sequence[float]] = metrics["ci95"]
    for key in [key for key in metrics if key in HEADLINES or "_recall@" in key]:
        if metrics[key] is not None:
            low, high = intervals[key]
            yield f"  {key:<28}{metrics[key]:.3f}  ({low:.3f} to {high:.3f})"
    for template, quality in result.searched.items():
        yield f"  on the validation split, {template:<20}{quality:.3f}"
    for pair in result.confused:
        yield f"  {pair.n:>4} times {printable(pair.actual)} was called {printable(pair.predicted)}"
    for failure in result.failed:
        yield f"  not counted: {printable(failure.path)}: {printable(failure.reason)}"


def _rows(labelled: Sequence[Labelled], steps: Sequence[Step] | None) -> Iterator[list[str]]:
    targets = _targets(steps)
    for picture in labelled:
        places = iter(targets.get(picture.file, []))
        for name, sure in picture.answers or [(NONE, None)]:
            cells = [printable(name), NONE if sure is None else f"{sure:.4f}", printable(near(picture.file))]
            yield cells if steps is None else [*cells, printable(near(next(places, NONE)))]


def _targets(steps: Sequence[Step] | None) -> dict[str, list[str]]:
    targets: dict[str, list[str]] = {}
    for step in steps or []:
        targets.setdefault(step.source, []).append(str(step.target))
    return targets


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)


def _spoken(way: str, spoken: Spoken) -> str:
    return f"  {way:<8}{spoken.lead:+.4f}  {printable(spoken.text)}"
