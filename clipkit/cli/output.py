"""How results, reports and failures look on a terminal or in a pipe."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.doctor.checks import Finding
    from clipkit.index.image_index import ImageIndex
    from clipkit.index.scan import Changes
    from clipkit.store.records import Failure, Hits, IndexReport, Progress

FEW = 5  # failures named at the end of a run
PROGRESS = "CLIPKIT_PROGRESS"  # "json": one object a line, for the program that started this one
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def say(text: str) -> None:
    """One line that is not a result."""
    print(text, file=sys.stderr)


def say_error(error: ClipkitError) -> None:
    """What happened, and what to type next."""
    say(f"error: {printable(error.message)}")
    if error.hint:
        say(f"  try: {printable(error.hint)}")


def printable(text: str) -> str:
    """The text on one line and safe for a terminal: control characters and undecodable bytes as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


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


def print_plan(changes: Changes) -> None:
    print(
        f"would read {len(changes.read):,}, bring back {len(changes.restored):,} and hide {len(changes.gone):,} "
        f"pictures; {changes.unchanged:,} are unchanged"
    )


def print_report(report: IndexReport, pictures: ImageIndex, photos: str) -> None:
    if not report.found:
        say(f"no pictures in {printable(photos)}; clipkit reads JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF and HEIC")
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
    rate = f", {report.encoded / report.seconds:.0f} pictures/s" if report.encoded else ""
    done = ", ".join(parts) or "nothing to do"
    say(f"{len(pictures):,} pictures can be found ({done}) in {report.seconds:.1f} s{rate}")
    for failures, what in ((report.unreadable, "cannot enter"), (report.failed, "cannot read")):
        for failure in failures[:FEW]:
            say(f"  {what} {printable(failure.path)}: {printable(failure.reason)}")
        if len(failures) > FEW:
            say(f"  and {len(failures) - FEW:,} more")
    if report.failed:
        say(f"  all of them: clipkit info {printable(photos)} --failed")


def print_hits(
    hits: Hits, *, filepath_only: bool = False, null: bool = False, as_json: bool = False, as_csv: bool = False
) -> None:
    """One answer a line, in the form that was asked for."""
    if filepath_only or null:
        end = b"\0" if null else b"\n"
        sys.stdout.buffer.write(b"".join(os.fsencode(near(hit.file)) + end for hit in hits))
    elif as_json:
        for hit in hits:
            print(json.dumps({"score": round(hit.score, 6), "path": hit.path, "file": hit.file}))
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
        "missing": counts["missing"],
        "failed": counts["failed"],
        "model": info.model,
        "weights": info.weights_sha256[:16],
        "width": info.dim,
        "pixels": info.pixel_recipe,
        "revision": info.revision,
        "bytes": index.store.file.stat().st_size,
        "made by": info.created_by,
    }
    if as_json:
        print(json.dumps(facts))
        return
    for name, fact in facts.items():
        print(f"{name:<10}{printable(f'{fact:,}' if isinstance(fact, int) else fact)}")


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
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)).rstrip())
    print("\nIMAGENET: zero-shot top-1, FLICKR: text to image R@1, both in percent, as published.")
    print("SPEED: pictures a second on one core of a CPU with bfloat16, measured; HERE: on this disk.")


def near(file: str) -> str:
    """The path from where the user stands, or the whole one if it lies elsewhere."""
    here = os.getcwd()
    return os.path.relpath(file, here) if file.startswith(here.rstrip("/") + os.sep) else file


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
