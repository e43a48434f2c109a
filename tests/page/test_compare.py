"""The Compare tab without a browser: what is asked for, a run that is stopped, results that are not to be believed."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clipkit_apps.compare import runs
from clipkit_apps.compare.matrix import matrix_svg
from clipkit_apps.compare.runs import Arena, Wish, checked, wish_of
from clipkit_apps.compare.tab import NAMES, CompareActions
from clipkit_apps.compare.view import small_picture, view
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.state import Page
from clipkit_apps.server.thumbnails import Thumbnails

from clipkit.errors import ClipkitError
from clipkit.evaluate.comparison import compare
from clipkit.evaluate.results import Comparison, Row
from tests.support import waiting
from tests.support.colours import COLOURS, ColourEncoder, paint

HOSTILE = "<script>alert(1)</script>"
SECONDS = 20.0
until = partial(waiting.until, seconds=SECONDS)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Eight reds, greens and blues; two greens are painted blue, so that something is confused."""
    for name in ("red", "green", "blue"):
        for number in range(8):
            colour = tuple(max(part - 4 * number, 0) for part in COLOURS[name])
            paint(tmp_path / "colours" / name / f"{name} {number}.png", colour)  # type: ignore[arg-type]
    for number in (8, 9):
        paint(tmp_path / "colours" / "green" / f"odd {number}.png", (0, number, 250))
    return tmp_path / "colours"


@pytest.fixture
def found(dataset: Path) -> Comparison:
    ways: dict[str, Any] = {"methods": ("zeroshot", "knn"), "shots": (1, 2), "seeds": 2, "templates": "plain"}
    return compare(dataset, ColourEncoder(), **ways)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    made = Page(Shelf(lambda name, exact: ColourEncoder()), Thumbnails(tmp_path / "thumbs"))
    yield made
    made.end()


@pytest.fixture
def actions(page: Page) -> CompareActions:
    return CompareActions(page, Arena(page), {name: name for name in NAMES})


def script(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """What runs in place of `clipkit compare`; OUT is the folder for its results."""
    popen = subprocess.Popen

    def start(command: list[str], **ways: Any) -> subprocess.Popen[bytes]:
        if "--out" not in command:  # a decoder
            return popen(command, **ways)
        out = command[command.index("--out") + 1]
        return popen([sys.executable, "-c", f"{BEGINNING}\nOUT = {out!r}\n{code}"], **ways)

    monkeypatch.setattr("clipkit_apps.server.runs.subprocess.Popen", start)


STEP = 'print(json.dumps({"done": 3, "total": 12, "path": "knn, 4 shots, seed 1"}), file=sys.stderr, flush=True)\n'
FOREVER = "time.sleep(60)\n"
# As clipkit ends when it is stopped, from its first word on: on a busy machine the stop comes right after that.
BEGINNING = "import json, signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(130))"


def said_of(actions: CompareActions, words: str) -> str:
    """What the tab says of its run, once it says these words."""

    def look() -> str:
        said = str(actions.tick(0)["now"])
        return said if words in said else ""

    return str(until(look))


def begin(actions: CompareActions, dataset: Path, **other: Any) -> dict[Any, Any]:
    ways = {"methods": ["knn", "zeroshot"], "shots": ["4", "1"], "seeds": 2, **other}
    return actions.start(str(dataset), **ways)


def test_a_wish_is_in_order_and_becomes_the_words_of_a_command(dataset: Path) -> None:
    wish = wish_of(dataset, ["knn", "zeroshot", "no such"], ["all", "1", "3"], 99, None)
    assert wish == Wish(dataset, ("zeroshot", "knn"), ("1", "all"), runs.MOST_SEEDS, "auto")
    words = wish.words(Path("out"))
    assert words[0] == "compare"
    assert words[-2:] == ["--", str(dataset)]
    assert words[words.index("--methods") + 1] == "zeroshot,knn"


def test_the_words_are_those_that_the_command_knows(dataset: Path, tmp_path: Path) -> None:
    from clipkit.cli.evaluate import compare as command

    words = wish_of(dataset, ["knn"], ["1"], 1, None).words(tmp_path / "out")
    with command.make_context("compare", words[1:]) as context:
        assert context.params["dataset"] == str(dataset)
        assert context.params["seeds"] == 1


@pytest.mark.parametrize(
    ("methods", "shots", "said"), [([], ["1"], "no method"), (["knn"], [], "no number of labelled pictures")]
)
def test_a_wish_without_methods_or_labels_is_refused(
    dataset: Path, methods: list[str], shots: list[str], said: str
) -> None:
    with pytest.raises(ClipkitError, match=said):
        wish_of(dataset, methods, shots, 1, None)


def test_zero_shot_alone_needs_no_labels(dataset: Path) -> None:
    assert wish_of(dataset, ["zeroshot"], [], 1, None).methods == ("zeroshot",)


@pytest.mark.parametrize(
    ("place", "said"), [("", "no pictures are named"), ("x", "not a full path"), ("/no/", "not there")]
)
def test_a_dataset_that_cannot_be_is_a_sentence(actions: CompareActions, place: str, said: str) -> None:
    assert said in actions.start(place, ["knn"], ["1"], 1)["notice"]


def test_a_page_for_other_machines_compares_libraries_and_opens_no_path(
    page: Page, actions: CompareActions, dataset: Path
) -> None:
    page.shelf.is_local = False
    assert "no such library" in begin(actions, dataset)["notice"]
    assert "on the machine itself" in actions.named(str(dataset))["notice"]


def test_a_run_shows_its_steps_and_is_stopped(
    actions: CompareActions, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, STEP + FOREVER)
    assert begin(actions, dataset)["notice"] == ""
    now = said_of(actions, "3 of 12")
    assert "knn, 4 shots, seed 1" in now
    assert 'aria-valuenow="25"' in now
    assert "running already" in begin(actions, dataset)["notice"]
    actions.stop()
    done = said_of(actions, "Stopped")
    assert "3 of 12 steps" in done
    assert "continue from there" in done


def test_a_stopped_run_leaves_no_folder_and_another_may_begin(
    page: Page, actions: CompareActions, dataset: Path, monkeypatch: pytest.MonkeyPatch, private_cache: Path
) -> None:
    script(monkeypatch, STEP + FOREVER)
    begin(actions, dataset)
    page.end()
    assert list((private_cache / "page-comparisons").iterdir()) == []
    assert begin(actions, dataset)["notice"] == ""
    assert actions.tick(0)["stop"].visible


def test_a_result_is_shown_once_to_each_browser(
    actions: CompareActions, dataset: Path, found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made.json").write_text(found.to_json())
    made = str(tmp_path / "made.json")
    script(monkeypatch, f"{STEP}import shutil\nshutil.copy({made!r}, OUT + '/results.json')\n")
    begin(actions, dataset)
    first = until(lambda: changed if "shown" in (changed := actions.tick(0)) else None)
    assert first["seen"] == 1
    assert first["mine"].rows == found.rows
    assert "shown" in actions.tick(0)  # another browser
    assert "shown" not in actions.tick(1)
    assert "Finished" in actions.tick(1)["now"]


def test_an_error_of_the_run_is_a_sentence_with_what_to_do(
    actions: CompareActions, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = 'print("error: <b>none</b> is there\\n  try: clipkit index", file=sys.stderr)\nsys.exit(1)\n'
    script(monkeypatch, code)
    begin(actions, dataset)
    said = until(lambda: actions.tick(0).get("notice"))
    assert "&lt;b&gt;none&lt;/b&gt; is there" in said
    assert "clipkit index" in said


def test_the_view_has_every_row_and_the_pairs_with_their_pictures(found: Comparison, dataset: Path) -> None:
    html = view(found, {dataset})
    for row in found.rows:
        assert f"<td>{row.labels:,}</td>" in html
    assert html.count("<tr>") == len(found.rows) + 1
    pairs = found.pairs_of(found.best) + found.pairs_of(found.zero_shot or found.best)
    assert pairs
    assert f"<b>{pairs[0].actual}</b> called <b>{pairs[0].predicted}</b>" in html
    (first, *_) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert base64.b64decode(first)[:2] == b"\xff\xd8"
    assert html.count('class="ck-matrix" role="img"') == 1


def test_a_confusion_matrix_has_a_cell_for_each_confusion_with_its_numbers(found: Comparison) -> None:
    html = matrix_svg(found, found.best, "best")
    matrix = found.confusion(found.best.method, found.best.shots)
    said = {
        (actual, called): (int(n), int(of))
        for actual, called, n, of in re.findall(r"<title>([^<]*) called ([^<]*): (\d+) of (\d+)</title>", html)
    }
    names = found.classes
    assert said == {(names[y], names[x]): (matrix[y, x], matrix[y].sum()) for y, x in np.argwhere(matrix).tolist()}
    assert len(said) >= 3


def test_a_matrix_of_many_classes_has_no_names_and_keeps_its_size() -> None:
    count = 300
    cells = {("knn", 1): np.array([(i, (7 * i) % count, 3) for i in range(count)])}
    many = SimpleNamespace(
        classes=tuple(f"class {i}" for i in range(count)),
        groups=("",) * count,
        confusion=lambda *_: dense(cells, count),
    )
    html = matrix_svg(many, SimpleNamespace(method="knn", shots=1), "many")  # type: ignore[arg-type]
    assert "<text" not in html
    assert 'width="660.0"' in html
    assert html.count("<title>") == count


def dense(cells: dict[Any, np.ndarray], count: int) -> np.ndarray:
    table = np.zeros((count, count), np.int64)
    for y, x, n in cells["knn", 1].tolist():
        table[y, x] = n
    return table


def test_figures_have_words_for_those_who_do_not_see_them(found: Comparison, dataset: Path) -> None:
    images = re.findall(r"<img [^>]*>", view(found, {dataset}))
    assert images
    assert [image for image in images if 'alt=""' in image or "alt=" not in image] == []


def test_no_picture_is_shown_of_a_dataset_that_the_page_has_not_open(found: Comparison, tmp_path: Path) -> None:
    html = view(found, {tmp_path / "another"})
    assert "data:image/jpeg" not in html
    assert "only for datasets that are open on this page" in html


def groups_of(html: str) -> dict[str, set[str]]:
    """Names of the pictures below each heading."""
    parts = re.split(r"<h3>(.*?): \d+.*?</h3>", html)[1:]
    return {
        title: set(re.findall(r'<img alt="([^"]*)"', part)) for title, part in zip(parts[::2], parts[1::2], strict=True)
    }


def test_two_rows_side_by_side_show_where_one_is_right_and_the_other_is_not(
    actions: CompareActions, page: Page, found: Comparison, dataset: Path, tmp_path: Path
) -> None:
    page.shelf.add(dataset)
    (tmp_path / "results.json").write_text(found.to_json())
    opened = actions.named(str(tmp_path))
    mine, said = opened["mine"], found.predictions
    assert said is not None
    (knn, words) = ("0 1 knn", "0 0 zeroshot")
    assert {value for _, value in opened["first"].choices} == {knn, words, "0 2 knn"}
    html = actions.beside(mine, None, knn, words)
    right = {name: said.predicted[which] == said.actual for name, which in (("A", ("knn", 1)), ("B", ("zeroshot", 0)))}
    expected = {
        "A right, B wrong": right["A"] & ~right["B"],
        "B right, A wrong": right["B"] & ~right["A"],
        "Both wrong": ~right["A"] & ~right["B"],
    }
    assert groups_of(html) == {
        title: {file for file, is_one in zip(said.files, ones, strict=True) if is_one}
        for title, ones in expected.items()
    }
    assert any(ones.any() for ones in expected.values())
    assert html.count("data:image/jpeg") == sum(ones.sum() for ones in expected.values())
    assert "<b>green</b><span>B: blue</span>" in html.replace("<span>A: blue</span>", "")
    for odd in ("", "0 9 knn", "7 1 knn", None):
        assert actions.beside(mine, None, odd, words) == ""  # type: ignore[arg-type]
    page.shelf.is_local = False
    assert "data:image/jpeg" not in actions.beside(mine, None, knn, words)


def test_another_model_on_the_same_pictures_stays_beside_the_one_that_is_opened(
    actions: CompareActions, found: Comparison, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(found.to_json())
    other = replace(found, model={**found.model, "name": "other"})
    opened = actions.named(str(tmp_path), other)
    assert opened["other"] is other
    assert ("zeroshot (other)", "1 0 zeroshot") in opened["first"].choices
    assert "both are right on" in actions.beside(opened["mine"], other, "0 0 zeroshot", "1 0 zeroshot")
    again = actions.named(str(tmp_path), opened["mine"])
    assert again["other"] is None  # the same model
    elsewhere = replace(other, predictions=None)
    assert actions.named(str(tmp_path), elsewhere)["other"] is None


def test_rows_without_predictions_are_not_offered(actions: CompareActions, found: Comparison, tmp_path: Path) -> None:
    assert found.predictions is not None
    some = {which: places for which, places in found.predictions.predicted.items() if which[0] == "knn"}
    part = replace(found, predictions=replace(found.predictions, predicted=some))
    assert found.best.method == "zeroshot"
    (tmp_path / "results.json").write_text(part.to_json())
    opened = actions.named(str(tmp_path))
    values = [value for _, value in opened["first"].choices]
    assert values == ["0 1 knn", "0 2 knn"]
    assert (opened["first"].value, opened["second"].value) == ("0 1 knn", "0 2 knn")


def test_each_method_is_explained_where_it_is_named(found: Comparison, dataset: Path) -> None:
    html = view(found, {dataset})
    assert "<b>knn</b>: the nearest training pictures vote" in html
    assert "<b>zeroshot</b>: the classes&#39; names alone" in html


def test_a_path_that_was_typed_before_the_tab_has_looked_stays(
    actions: CompareActions, page: Page, dataset: Path
) -> None:
    page.shelf.add(dataset)
    (choice,) = actions.arrive(0)["dataset"].choices
    assert choice[0] == "colours"
    assert "value" not in actions.arrive(0)["dataset"].constructor_args


def test_libraries_of_one_name_are_told_apart(actions: CompareActions, page: Page, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "pics").mkdir(parents=True)
        page.shelf.add(tmp_path / parent / "pics")
    page.shelf.add(tmp_path)
    names = [name for name, _ in actions.arrive(0)["dataset"].choices]
    assert names == [f"pics ({tmp_path / 'a'})", f"pics ({tmp_path / 'b'})", tmp_path.name]
    page.shelf.is_local = False
    assert [name for name, _ in actions.arrive(0)["dataset"].choices] == ["pics (1)", "pics (2)", tmp_path.name]


@pytest.mark.parametrize("trick", ["../secret.png", "/{outside}", "link.png", "pipe.png", "..\x00", "folder.png"])
def test_a_result_that_names_other_files_shows_nothing_of_them(
    found: Comparison, dataset: Path, tmp_path: Path, trick: str
) -> None:
    secret = paint(tmp_path / "secret.png", (9, 9, 9))
    (dataset / "link.png").symlink_to(secret)
    (dataset / "folder.png").mkdir()
    os.mkfifo(dataset / "pipe.png")
    name = str(secret) if "outside" in trick else trick
    mistakes = tuple(replace(mistake, files=(name,)) for mistake in found.mistakes)
    references = dict.fromkeys(found.references, name)
    assert small_picture(dataset, name, "") is None  # as the side by side asks
    assert "data:image/jpeg" not in view(replace(found, mistakes=mistakes, references=references), {dataset})


def test_everything_that_a_file_says_is_text(found: Comparison, dataset: Path) -> None:
    mean = replace(
        found,
        dataset=HOSTILE,
        split=HOSTILE,
        classes=(HOSTILE, *found.classes[1:]),
        model={"name": HOSTILE},
        notes=(HOSTILE,),
        left_out=(HOSTILE,),
        rows=tuple(replace(row, method=HOSTILE) if row.method == "knn" else row for row in found.rows),
        mistakes=tuple(replace(one, actual=HOSTILE, predicted=HOSTILE) for one in found.mistakes),
        cells={(HOSTILE if name == "knn" else name, shots): cells for (name, shots), cells in found.cells.items()},
        counts={HOSTILE: 3, **found.counts},
    )
    assert "<script" not in view(mean, {dataset})


@pytest.mark.parametrize(
    "change",
    [{"acc1": "0.5"}, {"acc1": 7.0}, {"acc1": -0.1}, {"seconds": "x"}, {"seeds": None}, {"acc1_ci95": (0.1, 9.0)}],
)
def test_numbers_that_no_comparison_finds_are_refused(found: Comparison, change: dict[str, Any]) -> None:
    rows: tuple[Row, ...] = (replace(found.rows[0], **change), *found.rows[1:])
    with pytest.raises(ClipkitError, match="numbers"):
        checked(replace(found, rows=rows))


def test_a_comparison_of_too_many_classes_is_not_drawn(found: Comparison) -> None:
    many = tuple(str(number) for number in range(runs.MOST_CLASSES + 1))
    with pytest.raises(ClipkitError, match="more than"):
        checked(replace(found, classes=many))


def test_an_earlier_result_is_opened_by_path_and_by_upload(
    page: Page, actions: CompareActions, found: Comparison, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(found.to_json())
    by_path = actions.named(str(tmp_path))
    by_upload = actions.sent(str(tmp_path / "results.json"))
    assert by_path["mine"].rows == by_upload["mine"].rows == found.rows
    assert "data:image/jpeg" not in by_path["shown"]
    page.shelf.add(dataset)
    assert "data:image/jpeg" in actions.named(str(tmp_path))["shown"]
    page.shelf.is_local = False
    assert "data:image/jpeg" not in actions.sent(str(tmp_path / "results.json"))["shown"]


@pytest.mark.parametrize("content", ["", "{", '{"format": "x"}', "[" * 100_000])
def test_a_file_that_is_no_result_is_a_sentence_without_its_place(
    actions: CompareActions, tmp_path: Path, content: str
) -> None:
    (tmp_path / "results.json").write_text(content)
    said = actions.sent(str(tmp_path / "results.json"))["notice"]
    assert "results.json is not the result" in said
    assert str(tmp_path) not in said


def test_what_is_taken_away_can_be_opened_again(
    page: Page, actions: CompareActions, found: Comparison, tmp_path: Path
) -> None:
    for make, name in ((actions.json, "results.json"), (actions.html, "comparison.html")):
        export = page.outbox.get(json.loads(make(found))["download"].rpartition("/")[2])
        assert export is not None
        assert export.name == name
        (tmp_path / name).write_bytes(export.data)
    assert actions.named(str(tmp_path / "results.json"))["mine"].rows == found.rows
    assert "data:image/jpeg" not in (tmp_path / "comparison.html").read_text()  # it was not made here
    assert "no comparison" in json.loads(actions.json(None))["say"]


def test_other_machines_do_not_learn_where_a_dataset_lies(
    page: Page, actions: CompareActions, found: Comparison, dataset: Path
) -> None:
    page.shelf.is_local = False
    for make in (actions.json, actions.html):
        export = page.outbox.get(json.loads(make(found))["download"].rpartition("/")[2])
        assert export is not None
        assert str(dataset) not in export.data.decode()


def test_the_arena_and_the_index_runs_share_one_list(
    page: Page, actions: CompareActions, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, STEP + FOREVER)
    begin(actions, dataset)
    assert page.is_running()
    page.end()
    assert not page.is_running()
    assert page.runs.keys() == {runs.NAME}
