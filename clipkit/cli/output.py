"""Terminal output: results, labels, reports and failures, line by line."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from clipkit.core.interrupts import INTERRUPTED, is_interrupt
from clipkit.core.progress import PROGRESS
from clipkit.core.text import FORMULA_STARTS, are, counted, near, printable
from clipkit.errors import ClipkitError
from clipkit.images.formats import file_of
from clipkit.index.places import is_url

if TYPE_CHECKING:
    from clipkit.bulk.lance_index import Built, Recall
    from clipkit.bulk.run import BulkReport
    from clipkit.classify.labels import LabelledPicture
    from clipkit.classify.words import ClassExplanation, PromptScore
    from clipkit.core.progress import Failure, Progress
    from clipkit.doctor.checks import Finding
    from clipkit.evaluate.zeroshot import Result
    from clipkit.index.image_index import ImageIndex
    from clipkit.index.ocr import TextReport
    from clipkit.index.scan import Changes
    from clipkit.index.update import IndexReport
    from clipkit.output.copy_files import Transfer
    from clipkit.search.hits import Hits
    from clipkit.search.inverted_file import Quality


_TYPED = re.compile(r"--[A-Za-z]|(clipkit|pip|rm|ls) ")
FEW = 5  # failures named at the end of a run

PROMPTS_SHOWN = 3  # prompts shown for a class, and as many against
HEADLINES = ("acc1", "acc5", "mean_per_class_recall", "ece", "auroc", "f1_known", "f1_unknown")
NONE = "-"
MODEL_NOTES = (
    "IMAGENET: zero-shot top-1, FLICKR: text to image R@1, both in percent, as published.",
    "SPEED: pictures a second on one core of a CPU with bfloat16, measured; HERE: on this disk.",
)


def say(text: str) -> None:
    """One line that is not a result."""
    print(text, file=sys.stderr)


def say_error(error: ClipkitError) -> None:
    """What happened, and what to type next, or what helps."""
    say(f"error: {printable(error.message)}")
    if error.hint:
        say_hint(error.hint)


def say_hint(hint: str) -> None:
    """A command or an option to try; anything else is advice, and is not printed as if it could be typed."""
    say(f"  {'try' if _TYPED.match(hint) else 'hint'}: {printable(hint)}")


@contextmanager
def progress_bar(unit: str = " pictures") -> Iterator[Callable[[Progress], None] | None]:
    if os.environ.get(PROGRESS) == "json":
        yield lambda progress: say(json.dumps(asdict(progress)))
        return
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=unit, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.total
            bar.update(progress.done - bar.n)

        yield show


@contextmanager
def on_interrupt(outcome: Callable[[], str], advice: str = "; run the same command to go on") -> Iterator[None]:
    """Ctrl-C ends the command with its exit code and a line that says what is kept."""
    try:
        yield
    except (KeyboardInterrupt, ImportError) as error:
        if not is_interrupt(error):
            raise
        say(f"interrupted: {outcome()}{advice}")
        raise click.exceptions.Exit(INTERRUPTED) from None


def print_plan(changes: Changes) -> None:
    moved = f" ({changes.moved:,} of them moved, by size and date)" if changes.moved else ""
    print(
        f"would read {len(changes.read):,}{moved}, bring back {len(changes.restored):,} and hide "
        f"{counted(len(changes.gone) - changes.moved, 'picture')}; "
        f"{changes.unchanged:,} {are(changes.unchanged)} unchanged"
    )
    if changes.videos:
        print(f"would read the frames of {counted(len(changes.videos), 'video')}")
    print_unread_raws(changes.unread_raws)
    if changes.stale:
        print(f"would read the metadata of {counted(len(changes.stale), 'picture')} again")
    print_unmatched(changes.unmatched)


def _skipped_line(skipped: Mapping[str, int]) -> str:
    """How many files are of kinds that are not read, and of which."""
    total, ordered = sum(skipped.values()), sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{count:,} {printable(suffix)}" for suffix, count in ordered[:FEW])
    more = ", ..." if len(ordered) > FEW else ""
    return f"{counted(total, 'file')} {are(total)} of kinds not read: {kinds}{more}"


def print_unread_raws(count: int) -> None:
    """What is missing to read them."""
    if count:
        say(f"{counted(count, 'RAW file')} {'was' if count == 1 else 'were'} left out: pip install 'clipkit[raw]'")


def print_unmatched(unmatched: Sequence[str]) -> None:
    """What was to be left out, and is not there."""
    for text in unmatched:
        say(f"--exclude-dir {printable(text)} matches no folder")


def _print_not_excluded(report: IndexReport, photos: str) -> None:
    for text in report.not_excluded:
        say(f"--include-dir {printable(text)} was not left out; what is: clipkit info {printable(photos)}")


def print_report(report: IndexReport, pictures: ImageIndex, photos: str, *, loading: float = 0.0) -> None:
    """What a run has done. loading: seconds that passed before it began, for the model; the rate is without them."""
    if not report.found:
        say(f"no pictures in {printable(photos)}; JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, RAW and others are read")
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (report.encoded, "new"),
            (report.reused, "known by content"),
            (report.restored, "back"),
            (report.unchanged, "unchanged"),
            (report.missing, "gone"),
            (len(report.failed), "failed"),
        )
        if count
    ]
    rate = f", {_rate(report.encoded / report.seconds)} pictures/s" if report.encoded else ""
    done = ", ".join(parts) or "nothing to do"
    say(f"{counted(len(pictures), 'picture')} can be found ({done}) in {report.seconds + loading:.1f} s{rate}")
    if pictures.former_model:
        say(f"  {printable(pictures.model)} reads queries now, not {printable(pictures.former_model)}: one image tower")
    for failures, what in ((report.unreadable, "cannot enter"), (report.failed, "cannot read")):
        for failure in failures[:FEW]:
            say(f"  {what} {printable(failure.path)}: {printable(failure.reason)}")
        if len(failures) > FEW:
            say(f"  and {len(failures) - FEW:,} more")
    if report.refreshed:
        say(f"  metadata of {counted(report.refreshed, 'picture')} read again")
    _print_left_out(report)
    print_unmatched(report.unmatched)
    _print_not_excluded(report, photos)
    if report.failed:
        say(f"  all of them: clipkit info {printable(photos)} --failed")


def print_bulk_report(report: BulkReport, out: str) -> None:
    """What a run on a cluster has done, or would do."""
    place, done = printable(out), [f"{report.kept:,} there already"] if report.kept else []
    if report.is_planned:
        print(f"would embed {counted(report.embedded, 'picture')} in {counted(report.written, 'shard')} of {place}")
        done += [f"{counted(report.removed, 'shard')} would be removed"] if report.removed else []
    else:
        new = [f"{report.embedded:,} new"] if report.embedded else []
        failed = [f"{report.failed:,} failed"] if report.failed else []
        rate = f", {_rate(report.embedded / report.seconds)} pictures/s with the start" if report.embedded else ""
        facts = ", ".join([*new, *done, *failed]) or "nothing to do"
        say(f"{counted(report.found, 'picture')} in {place} ({facts}) in {report.seconds:.1f} s{rate}")
        done = [f"{counted(report.removed, 'shard')} of another list removed"] if report.removed else []
    if report.left_out:
        done.append(f"{counted(report.left_out, 'file')} of the source {are(report.left_out)} of kinds not read")
    for line in done:
        say(f"  {line}")
    for failure in report.failures[:FEW]:
        say(f"  cannot read {printable(failure.path)}: {printable(failure.reason)}")
    if report.failed > FEW:
        say(f"  and {report.failed - FEW:,} more; their rows have the column error")


def _print_left_out(report: IndexReport) -> None:
    """Which files are no pictures of their own, and which are not read."""
    if report.paired:
        verb = "counts" if report.paired == 1 else "count"
        say(f"  {counted(report.paired, 'file')} beside a picture of the same name {verb} with it: RAW, live photo")
    if report.skipped:
        say(f"  {_skipped_line(report.skipped)}")
    print_unread_raws(report.unread_raws)
    if report.unread_videos:
        verb = "was" if report.unread_videos == 1 else "were"
        say(f"{counted(report.unread_videos, 'video')} {verb} left out: pip install 'clipkit[video]'")


def print_texts(report: TextReport) -> None:
    """What was read in pictures, and what could not be."""
    verb = "has" if report.found == 1 else "have"
    say(f"text read in {counted(report.read, 'picture')}: {report.found:,} {verb} some")
    for failure in report.failed[:FEW]:
        say(f"  cannot read {printable(failure.path)}: {printable(failure.reason)}")
    if len(report.failed) > FEW:
        say(f"  and {len(report.failed) - FEW:,} more")


def _rate(number: float) -> str:
    """Whole where that says something; two digits of what is slow."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def print_hits(
    hits: Hits, *, filepath_only: bool = False, null: bool = False, as_json: bool = False, as_csv: bool = False
) -> None:
    """One answer a line, in the form that was asked for."""
    if filepath_only or null:
        end = b"\0" if null else b"\n"
        sys.stdout.buffer.write(b"".join(os.fsencode(near(hit.file)) + end for hit in hits))
    elif as_json:
        for hit in hits:
            facts = {"score": round(hit.score, 6), "relevance": hit.relevance, "path": hit.path, "file": hit.file}
            frame = {"seconds": hit.seconds} if hit.seconds is not None else {}
            print(json.dumps({**facts, **frame, "partial": True} if hit.is_partial else {**facts, **frame}))
    elif as_csv:
        _print_csv(hits)
    else:
        for hit in hits:
            print(f"{hit.score:.4f}\t{printable(near(hit.file))}")


def _print_csv(hits: Hits) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["score", "path"])
    for hit in hits:
        path = printable(near(hit.file))
        table.writerow([f"{hit.score:.6f}", f"'{path}" if path.startswith(FORMULA_STARTS) else path])


def print_info(index: ImageIndex, *, as_json: bool) -> None:
    """What an index holds: one fact a line, or one JSON object."""
    info, counts = index.info, index.counts()
    facts: dict[str, str | int] = {
        "photos": str(index.root),
        "index": str(index.store.file),
        "found": counts["ok"],
        "partial": index.partial_count(),
        "missing": counts["missing"],
        "failed": counts["failed"],
        "model": info.model,
        "weights": info.weights_sha256[:16],
        "engine": info.engine,
        "precision": info.precision,
        "width": info.dim,
        "pixels": info.pixel_recipe,
        "revision": info.revision,
        "search": described_ann(info.ann, index.ann_quality),
        "bytes": index.store.file.stat().st_size,
        "made by": info.created_by,
    }
    without_metadata = index.without_metadata_count()
    if as_json:
        print(json.dumps({**facts, "excluded": info.excluded, "without_metadata": without_metadata}))
        return
    if without_metadata and not is_url(str(index.root)):
        command = shlex.join(["clipkit", "index", str(index.root), "--refresh-metadata"])
        facts["metadata"] = f"not read of {without_metadata:,}; to read it: {command}"
    if info.excluded:
        facts["excluded"] = ", ".join(info.excluded)
    for name, fact in facts.items():
        print(f"{name:<10}{printable(f'{fact:,}' if isinstance(fact, int) else fact)}")


def described_ann(mode: str, quality: Quality | None) -> str:
    """How an index is searched: exactly, or approximately with what was measured."""
    if mode == "off" or quality is None:
        return "exact"
    recall = f"recall@10 {quality.recall:.3f} for {quality.queries} texts over {quality.rows:,} pictures"
    if not quality.nprobe:
        return f"exact ({quality.nlist:,} lists: {recall} at a quarter of them)"
    return f"approximate: {quality.nprobe:,} of {quality.nlist:,} lists, {recall}"


def described_built(built: Built) -> str:
    """What an index beside shards is, in a line."""
    recall = built.recall.recall if built.recall else built.expected
    return (
        f"{built.kind} of {built.rows:,} pictures: {built.nprobes:,} of {built.nlist:,} lists, "
        f"{built.refine} candidates an answer scored in float16, recall@10 {recall:.3f}"
    )


def recall_lines(found: Recall) -> Iterator[str]:
    """How good an index beside shards is, with what it was measured on."""
    yield f"recall@10  {found.recall:.3f}  (95% {found.low:.3f} to {found.high:.3f}, {found.queries:,} texts)"
    yield f"pictures   {found.rows:,}"
    yield f"effort     {found.nprobes:,} lists, {found.refine} candidates an answer scored in float16"
    ways = f"{_milliseconds(found.index_seconds)} by the index, {_milliseconds(found.exact_seconds)} by a scan"
    yield f"a query    {ways}"


def _milliseconds(seconds: float) -> str:
    return f"{_rate(1000 * seconds)} ms"


def print_failure(failure: Failure, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": failure.path, "reason": failure.reason}))
    else:
        print(f"{printable(failure.path)}\t{printable(failure.reason)}")


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """What `clipkit doctor` found, one a line, with what to do below it."""
    for finding in findings:
        if as_json:
            print(json.dumps(asdict(finding)))
            continue
        print(f"{finding.state:<5}{finding.name:<22}{printable(finding.fact)}")
        if finding.advice:
            print(f"{'':<27}-> {printable(finding.advice)}")


def print_models(rows: list[dict[str, Any]]) -> None:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:g}"

    table = [("NAME", "MODEL", "IMAGENET", "FLICKR", "MB", "SPEED", "HERE", "FOR")]
    for row in rows:
        here = "yes" if row["is_on_this_disk"] else "no"
        numbers = [number(row[key]) for key in ("imagenet", "flickr", "size_mb", "pictures_per_second")]
        table.append((row["name"], row["model"], *numbers, here, row["purpose"]))
    widths = [max(len(line[column]) for line in table) for column in range(7)]
    lines = ["  ".join(cell.ljust(n) for cell, n in zip(line, [*widths, 0], strict=True)).rstrip() for line in table]
    columns = shutil.get_terminal_size((max(map(len, lines)), 24)).columns  # of a terminal; a file is wide enough
    if max(map(len, lines)) > columns:
        lines = [line for cells in table[1:] for line in _as_paragraph(table[0], cells)]
    print("\n".join(lines), end="\n\n")
    for note in MODEL_NOTES:
        print(textwrap.fill(note, max(columns, 20)))


def _as_paragraph(heads: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    """One model on a narrow terminal: its name, then a line for each thing that is known."""
    yield cells[0]
    for head, cell in zip(heads[1:], cells[1:], strict=True):
        yield from textwrap.wrap(f"{head.lower()} {cell}", 48, initial_indent="  ", subsequent_indent="    ")


def echo_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def labels_as_text(labelled: Sequence[LabelledPicture], steps: Sequence[Transfer] | None) -> Iterator[str]:
    """`label<TAB>probability<TAB>path`, and the place it gets where there is a plan; one line for each answer."""
    for cells in _rows(labelled, steps):
        yield "\t".join(cells)


def labels_as_csv(labelled: Sequence[LabelledPicture], steps: Sequence[Transfer] | None) -> Iterator[str]:
    """The same as a table with a header."""
    yield "label,probability,path" + (",target" if steps is not None else "")
    for cells in _rows(labelled, steps):
        line = io.StringIO()
        safe = [cell if cell == NONE or not cell.startswith(FORMULA_STARTS) else f"'{cell}" for cell in cells]
        csv.writer(line, lineterminator="").writerow(["" if cell == NONE else cell for cell in safe])
        yield line.getvalue()


def labels_as_json(labelled: Sequence[LabelledPicture], steps: Sequence[Transfer] | None) -> Iterator[str]:
    """One object a picture."""
    targets = _targets(steps)
    for picture in labelled:
        answers = [{"label": name, "probability": _rounded(sure)} for name, sure in picture.answers]
        record: dict[str, Any] = {"path": picture.path, "file": picture.file, "labels": list(picture.labels)}
        record["answers"] = answers
        if steps is not None:
            record["targets"] = targets.get(file_of(picture.file), [])
        yield json.dumps(record)


def verdicts(found: Sequence[ClassExplanation]) -> Iterator[str]:
    """A class a paragraph: its probability, the prompts that spoke for it most, and those that spoke against."""
    for verdict in found:
        yield f"{printable(verdict.label)}  {verdict.probability:.3f}"
        shown = [prompt for prompt in verdict.prompts[:PROMPTS_SHOWN] if prompt.lead > 0]
        against = [prompt for prompt in verdict.prompts[-PROMPTS_SHOWN:] if prompt.lead <= 0]
        yield from (_prompt_line("for", prompt) for prompt in shown)
        yield from (_prompt_line("against", prompt) for prompt in against)


def results(result: Result) -> Iterator[str]:
    """What was measured, with n and intervals, and the pairs that were confused most."""
    metrics = result.metrics
    yield f"{printable(result.dataset)}: {result.model}, n = {metrics['n']:,}"
    intervals: Mapping[str, Sequence[float]] = metrics["ci95"]
    for key in [key for key in metrics if key in HEADLINES or "_recall@" in key]:
        if metrics[key] is not None:
            low, high = intervals[key]
            yield f"  {key:<28}{metrics[key]:.3f}  ({low:.3f} to {high:.3f})"
    for key in [key for key in metrics if "_minus_" in key]:
        low, high = intervals[key]
        yield f"  {key:<28}{metrics[key]:+.3f}  ({low:+.3f} to {high:+.3f}, paired)"
    for template, quality in result.searched.items():
        yield f"  on the validation split, {template:<20}{quality:.3f}"
    for pair in result.confused:
        yield f"  {pair.n:>4} times {printable(pair.actual)} was called {printable(pair.predicted)}"
    for failure in result.failed:
        yield f"  not counted: {printable(failure.path)}: {printable(failure.reason)}"


def _rows(labelled: Sequence[LabelledPicture], steps: Sequence[Transfer] | None) -> Iterator[list[str]]:
    targets = _targets(steps)
    for picture in labelled:
        places = iter(targets.get(file_of(picture.file), []))
        for name, sure in picture.answers or [(NONE, None)]:
            cells = [printable(name), NONE if sure is None else f"{sure:.4f}", printable(near(picture.file))]
            yield cells if steps is None else [*cells, printable(near(next(places, NONE)))]


def _targets(steps: Sequence[Transfer] | None) -> dict[str, list[str]]:
    targets: dict[str, list[str]] = {}
    for step in steps or []:
        targets.setdefault(step.source, []).append(str(step.target))
    return targets


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)


def _prompt_line(way: str, prompt: PromptScore) -> str:
    return f"  {way:<8}{prompt.lead:+.4f}  {printable(prompt.text)}"
