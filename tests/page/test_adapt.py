"""The Adapt section without a browser: what it starts, what it shows, and reports that are not to be believed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clipkit_apps.compare.adapting import OURS, AdaptActions, view
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.state import Page
from clipkit_apps.server.thumbnails import Thumbnails

from clipkit.learn import Adaptation
from clipkit.learn.retrieval_change import Change
from tests.support import waiting
from tests.support.colours import ColourEncoder

POPEN = subprocess.Popen
until = partial(waiting.until, seconds=20.0)
ROW = Change("words to pictures", "mean", before=0.25, after=0.5, low=0.125, high=0.375, n=96)
FOUND = Adaptation(
    folder=Path("mine"),
    is_written=True,
    base="starter",
    recipe={"kind": "words"},
    changes=(ROW, replace(ROW, way="pictures to words")),
    general=replace(ROW, way="general", measure="top-1", before=1.0, after=0.99, low=-0.01, high=0.0, n=998),
    general_name="names",
    share=0.5,
    validation={0.0: 0.2, 0.5: 0.4},
    general_low={0.5: -0.01},
    losses=(2.0, 1.0),
    sizes={"train": 240, "validation": 60, "test": 96, "texts": 1200},
    keeps_indexes=True,
)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    made = Page(Shelf(lambda name, exact: ColourEncoder()), Thumbnails(tmp_path / "thumbs"))
    yield made
    made.end()


@pytest.fixture
def actions(page: Page) -> AdaptActions:
    return AdaptActions(page, {name: name for name in OURS})


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    (tmp_path / "captions.csv").write_text("image,caption\na.png,a cat\n")
    return tmp_path / "captions.csv"


def script(monkeypatch: pytest.MonkeyPatch, code: str) -> list[list[str]]:
    """What runs in place of `clipkit adapt`; OUT is its folder. The commands that were asked for."""
    asked: list[list[str]] = []

    def start(command: list[str], **ways: Any) -> subprocess.Popen[bytes]:
        asked.append(command[command.index("adapt") :])
        out = command[command.index("--out") + 1]
        begin = "import json, os, signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(130))"
        return POPEN([sys.executable, "-c", f"{begin}\nOUT = {out!r}\nos.makedirs(OUT, exist_ok=True)\n{code}"], **ways)

    monkeypatch.setattr("clipkit_apps.server.runs.subprocess.Popen", start)
    return asked


def writes(found: Adaptation) -> str:
    return f"open(OUT + '/adaptation.json', 'w').write({json.dumps(found.to_json())!r})\n"


def test_a_run_ends_with_its_table_and_the_next_command(
    actions: AdaptActions, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = script(monkeypatch, writes(FOUND))
    out = tmp_path / "mine"
    actions.start(str(captions), str(out), "projection")
    shown = until(lambda: actions.tick(0).get("shown"))
    assert asked == [["adapt", "--out", str(out), "--recipe", "projection", "--base", "starter", "--", str(captions)]]
    assert "<b>mine</b> was written: it is proven better" in shown
    assert '<th scope="row">words to pictures</th><td>mean</td><td>0.250</td><td>0.500</td><td>+0.250</td>' in shown
    assert f"clipkit index FOLDER --model {out}" in shown
    assert "shown" not in actions.tick(1)  # a browser that has it is left alone


def test_the_words_are_those_that_the_command_knows(captions: Path, tmp_path: Path) -> None:
    from clipkit.cli.adapt import adapt

    words = ["--out", str(tmp_path / "mine"), "--recipe", "words", "--base", "starter", "--", str(captions)]
    with adapt.make_context("adapt", words) as context:
        assert (context.params["dataset"], context.params["kind"]) == (str(captions), "words")


def test_a_refusal_is_shown_with_its_reasons_and_not_as_an_error(
    actions: AdaptActions, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = replace(FOUND, is_written=False, reasons=("nothing is better",), needed="cannot be told: no")
    script(monkeypatch, f"{writes(refused)}print('error: x got no model: y', file=sys.stderr)\nsys.exit(1)")
    actions.start(str(captions), str(tmp_path / "mine"), "words")
    shown = until(lambda: actions.tick(0).get("shown"))
    assert "<b>Not written</b>" in shown
    assert "Not proven: nothing is better." in shown
    assert "Pictures for a proof: cannot be told: no." in shown
    assert "notice" not in actions.tick(0)


def test_an_error_is_said_with_what_to_do_and_a_second_run_waits(
    actions: AdaptActions, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, "time.sleep(60)")
    actions.start(str(captions), str(tmp_path / "a"), "words")
    assert "being adapted already" in actions.start(str(captions), str(tmp_path / "b"), "words")["notice"]
    until(lambda: (tmp_path / "a").is_dir())
    actions.stop()
    until(lambda: "Stopped." in actions.tick(0)["now"])
    script(monkeypatch, "print('error: too few\\n  try: more <b>', file=sys.stderr)\nsys.exit(1)")
    actions.start(str(captions), str(tmp_path / "b"), "words")
    notice = until(lambda: actions.tick(0).get("notice"))
    assert "too few" in notice
    assert "more &lt;b&gt;" in notice


@pytest.mark.parametrize(
    ("dataset", "out", "words"),
    [("", "/x", "the dataset is not named"), ("/no/such.csv", "/x", "is not there"),
     ("{captions}", "", "the model folder is not named"),
     ("{captions}", "here", "not named by its full path"), ("relative.csv", "/x", "not named by its full path")],
)  # fmt: skip
def test_what_is_missing_is_said(actions: AdaptActions, captions: Path, dataset: str, out: str, words: str) -> None:
    assert words in actions.start(dataset.format(captions=captions), out, "words")["notice"]


def test_an_earlier_report_is_opened_and_one_that_cannot_be_is_refused(actions: AdaptActions, tmp_path: Path) -> None:
    file = tmp_path / "adaptation.json"
    assert "is not there" in actions.open(str(tmp_path))["notice"]
    hostile = replace(FOUND, base="<script>", reasons=("<img src=x>",))
    file.write_text(json.dumps(hostile.to_json()))
    shown = actions.open(str(tmp_path))["shown"]
    assert "<script>" not in shown
    assert "<img" not in shown
    for change in ({"before": 7}, {"low": "x"}, {"after": float("nan")}):
        record = json.loads(json.dumps(FOUND.to_json()))
        record["changes"][0] |= change
        file.write_text(json.dumps(record))
        assert "is no report of an adaptation" in actions.open(str(tmp_path))["notice"]
    for text in ("[]", "null", "{}", "\x00"):
        file.write_text(text)
        assert "is no report of an adaptation" in actions.open(str(tmp_path))["notice"]


def test_a_page_that_others_reach_has_no_such_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipkit_apps.compare import adapting

    page = Page(Shelf(lambda name, exact: ColourEncoder(), is_local=False), Thumbnails(tmp_path))
    monkeypatch.setattr(adapting.gr, "Accordion", lambda *given, **ways: pytest.fail("it was built"))
    adapting.section(page, None)  # type: ignore[arg-type]


def test_the_table_says_that_an_open_tower_wants_a_rebuild() -> None:
    assert "--rebuild" in view(replace(FOUND, keeps_indexes=False))
    assert "--rebuild" not in view(FOUND)
