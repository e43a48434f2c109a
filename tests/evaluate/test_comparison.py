"""Comparing methods: the rows by hand, test labels that nobody reads, interruption, and data that does not fit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipkit.core.progress import Progress
from clipkit.datasets.splits import Answers, read_split
from clipkit.errors import ClipkitError, DatasetError
from clipkit.evaluate.comparison import compare
from clipkit.evaluate.results import Comparison, load_comparison
from clipkit.evaluate.scoring import find_mistakes, score_cells, score_rows, score_runs
from clipkit.evaluate.trials import Trial, TrialCache
from clipkit.learn.methods import METHODS
from clipkit.metrics import bootstrap, wilson
from clipkit.output.comparison_html import write_report
from clipkit.output.figures import by_confusion
from tests.cli.test_classify_and_evaluate import ColourPhrases
from tests.support.colours import ColourEncoder, paint
from tests.support.paths import REPOSITORY

QUICK = ("zeroshot", "probe", "probe-backbone", "text-probe", "knn", "prototypes", "tip-adapter", "blend")
MIXES = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def mix(name: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """The colour, blurred so far that some look like another."""
    red, green, blue = (int(part) for part in np.clip(np.array(MIXES[name]) + rng.normal(0, 70, 3), 0, 255))
    return red, green, blue


def make(root: Path, *, train: int = 10, test: int = 12, names: Sequence[str] = tuple(MIXES)) -> Path:
    """Class folders below train and test."""
    rng = np.random.default_rng(5)
    for part, count in (("train", train), ("test", test)):
        for name in names:
            for i in range(count):
                paint(root / part / name / f"{i:02}.png", mix(name, rng), (8, 8))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "set")


def run(path: Path, **ways: object) -> Comparison:
    options: dict[str, object] = {"methods": QUICK, "shots": (1, 4), "seeds": 2, **ways}
    return compare(path, ColourPhrases(), **options)  # type: ignore[arg-type]


def test_every_method_has_a_row_for_every_number_of_shots(folder: Path) -> None:
    found = run(folder, shots=(4, None, 1, 4))
    learners = [name for name in QUICK if name != "zeroshot"]
    expected = [("zeroshot", 0), *((name, shots) for name in learners for shots in (1, 4, None))]
    assert [(row.method, row.shots) for row in found.rows] == expected
    labels = {row.shots: row.labels for row in found.rows if row.method == "probe"}
    assert labels == {1: 3 * 2, 4: 3 * 8, None: 30}
    assert [row.seeds for row in found.rows] == [1, *[2] * (len(found.rows) - 1)]
    assert found.counts == {"train": 30, "test": 36}
    assert found.classes == ("blue", "green", "red")
    assert all(row.seconds >= 0 for row in found.rows)
    assert found.split == "its own train and test"


def test_zero_shot_in_the_table_is_what_evaluate_says(folder: Path) -> None:
    from clipkit.datasets.load import load_dataset
    from clipkit.evaluate.zeroshot import evaluate_zeroshot

    row = run(folder, methods=["zeroshot"]).rows[0]
    metrics = evaluate_zeroshot(load_dataset(folder, split="test"), ColourPhrases()).metrics
    assert row.acc1 == pytest.approx(metrics["acc1"])
    assert row.acc1_ci95 == pytest.approx(metrics["ci95"]["acc1"])
    assert row.mean_per_class == pytest.approx(metrics["mean_per_class_recall"])
    assert row.mean_per_class_ci95 == pytest.approx(metrics["ci95"]["mean_per_class_recall"])


def test_a_probe_in_the_table_is_the_probe_fitted_by_hand(folder: Path) -> None:
    from clipkit.datasets.sampling import draw_shots
    from clipkit.learn.linear_probe import LinearProbe

    found = run(folder, methods=["probe"], shots=(4,), seeds=2)
    split, encoder = read_split(folder), ColourPhrases()
    train, test = (encoder.encode_images(part.files) for part in (split.train, split.test))
    for run_, seed in zip(found.runs, (0, 1), strict=True):
        drawn = draw_shots(split.train.labels, 4, seed=seed)
        labels = np.array(split.train.labels)
        held = (train[drawn.validation], labels[drawn.validation])
        probe = LinearProbe(seed=seed).fit(train[drawn.train], labels[drawn.train], validation=held)
        assert run_.acc1 == probe.score(test, split.answers.open(split.test.files))
        assert run_.chosen["C"] == probe.C_


def attempts_of(said: list[list[int]], name: str = "probe") -> list[Trial]:
    return [Trial(name, 4, seed, tuple(row), 1.0 + seed, 8, {"C": 1.0}) for seed, row in enumerate(said)]


def test_rows_by_hand() -> None:
    targets = np.array([0, 0, 0, 1])
    attempts = [*attempts_of([[0, 0, 1, 1], [0, 1, 1, 0]]), Trial("zeroshot", 0, 0, (0, 1, 1, 1), 0.5, 0, {})]
    probe, zero = score_rows(attempts, targets, 2)
    assert (probe.acc1, probe.lowest, probe.highest) == (0.5, 0.25, 0.75)
    assert probe.mean_per_class == pytest.approx(np.mean([(2 / 3 + 1) / 2, (1 / 3 + 0) / 2]))
    assert probe.gain == pytest.approx(0.0)
    assert zero.gain == 0
    assert zero.gain_ci95 == (0, 0)
    assert (probe.seconds, probe.labels, probe.seeds) == (1.5, 8, 2)
    assert [single.acc1 for single in score_runs(attempts, targets, 2)] == [0.75, 0.25, 0.5]
    cells = score_cells(attempts, targets)
    assert cells["probe", 4].tolist() == [[0, 0, 3], [0, 1, 3], [1, 0, 1], [1, 1, 1]]
    (first, second) = find_mistakes(attempts, targets, ["cat", "dog"], list("abcd"), [("probe", 4)])
    assert (first.actual, first.predicted, first.n, first.of, first.files) == ("cat", "dog", 3, 6, ("c", "b"))
    assert (second.actual, second.predicted, second.n, second.of, second.files) == ("dog", "cat", 1, 2, ("d",))


def test_with_one_seed_the_interval_is_wilsons() -> None:
    rng = np.random.default_rng(1)
    targets, said = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    hits = said == targets
    (row,) = score_rows(attempts_of([said.tolist()]), targets, 4)
    assert row.acc1_ci95 == pytest.approx(wilson(float(hits.mean()), 60))
    assert row.acc1_ci95 == pytest.approx(bootstrap(lambda rows: float(hits[rows].mean()), 60), abs=0.03)

    def mean_recall(rows: np.ndarray) -> float:
        return float(np.mean([hits[rows][targets[rows] == place].mean() for place in np.unique(targets[rows])]))

    by_class = bootstrap(mean_recall, 60)
    assert row.mean_per_class_ci95 == pytest.approx(by_class, abs=0.03)
    assert row.gain is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_all_right_is_not_certain(seeds: int) -> None:
    targets = np.array([0, 1, 0, 1])
    (row,) = score_rows(attempts_of([targets.tolist()] * seeds), targets, 2)
    assert row.acc1_ci95 == row.mean_per_class_ci95 == pytest.approx(wilson(1.0, 4))
    assert row.acc1_ci95[0] == pytest.approx(0.51, abs=0.01)


def test_seeds_that_disagree_widen_the_interval() -> None:
    targets = np.zeros(400, np.int64)
    even = [[0, 1] * 200] * 6
    apart = [[0] * 400, [1] * 400] * 3
    (steady,), (wild,) = (score_rows(attempts_of(said), targets, 2) for said in (even, apart))
    assert steady.acc1 == wild.acc1 == 0.5
    assert steady.acc1_ci95[1] - steady.acc1_ci95[0] == pytest.approx(2 * 1.96 * 0.025, rel=0.1)
    assert wild.acc1_ci95[1] - wild.acc1_ci95[0] > 0.6


def test_a_gain_is_that_of_a_paired_comparison() -> None:
    rng = np.random.default_rng(2)
    targets = np.zeros(300, np.int64)
    zero = rng.integers(0, 2, 300)
    better = zero.copy()
    better[np.flatnonzero(zero)[:15]] = 0  # fifteen more, none lost
    attempts = [Trial("zeroshot", 0, 0, tuple(zero.tolist()), 1, 0, {}), *attempts_of([better.tolist()])]
    _, row = score_rows(attempts, targets, 2)
    assert row.gain == pytest.approx(15 / 300)
    assert row.gain_ci95 is not None
    assert 0.02 < row.gain_ci95[0] < 0.05 < row.gain_ci95[1] < 0.08  # alone, either is known to +-0.056


def shuffle_test_labels(folder: Path, *, seed: int | None) -> Path:
    """The same pictures in a CSV; with a seed, labels of test are dealt anew."""
    rows = [(file, file.parent.name, file.parts[-3]) for file in sorted(folder.rglob("*.png"))]
    asked = [label for _, label, part in rows if part == "test"]
    if seed is not None:
        asked = np.random.default_rng(seed).permutation(asked).tolist()
    names = iter(asked)
    table = folder / f"labels-{seed}.csv"
    with open(table, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "split"])
        writer.writerows(
            [os.path.relpath(file, folder), next(names) if part == "test" else label, part]
            for file, label, part in rows
        )
    return table


def test_other_test_labels_change_scores_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was chosen and answered must not depend on them; each run has a cache of its own."""
    answers, chosen, scores = [], [], []
    for seed in (None, 1):
        monkeypatch.setenv("CLIPKIT_CACHE", str(tmp_path / f"cache-{seed}"))
        found = run(shuffle_test_labels(folder, seed=seed), shots=(1, 4, None), seeds=3)
        kept = [
            json.loads(file.read_bytes()) for file in sorted((tmp_path / f"cache-{seed}" / "comparisons").iterdir())
        ]
        answers.append({(one["method"], one["shots"], one["seed"]): one["predicted"] for one in kept})
        chosen.append([(one.method, one.shots, one.seed, one.chosen, one.labels) for one in found.runs])
        scores.append([one.acc1 for one in found.runs])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 1 + 3 * 3 * (len(QUICK) - 1)
    assert chosen[0] == chosen[1]
    assert any(values for *_, values, _ in chosen[0])
    assert np.mean(scores[0]) > np.mean(scores[1]) + 0.2


def test_the_answers_are_opened_once_and_after_the_last_one_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    honest = Answers.open
    monkeypatch.setattr(Answers, "open", lambda self, files: (events.append("open"), honest(self, files))[1])
    run(folder, progress=lambda now: events.append(now.path))
    assert events.count("open") == 1
    assert events[-2:] == ["", "open"]  # the last progress, then the scoring


def test_the_test_part_that_methods_get_has_no_labels(folder: Path) -> None:
    split = read_split(folder)
    assert split.test.labels == ()
    assert len(split.test) == 36
    assert not any("label" in name.lower() for name in vars(split.answers) if not name.startswith("_"))


class Stop(Exception):
    """What a page raises when its button is pressed."""


def stopping_at(count: int) -> Callable[[Progress], None]:
    def show(now: Progress) -> None:
        if now.path.startswith("probe") and now.done == count:
            raise Stop

    return show


def test_a_stopped_comparison_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipkit.evaluate import comparison as module

    asked: list[tuple[str, object, int]] = []
    honest = module.answer

    def counted(name: str, material: object, shots: int | None, seed: int, tick: object) -> Trial:
        asked.append((name, shots, seed))
        return honest(name, material, shots, seed, tick)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "answer", counted)
    with pytest.raises(Stop):
        run(folder, methods=["zeroshot", "probe"], progress=stopping_at(3))
    assert len(asked) == 3
    whole = run(folder, methods=["zeroshot", "probe"])
    assert len(asked) == len(set(asked)) == 5
    again = run(folder, methods=["zeroshot", "probe", "knn"])
    assert len(asked) == 5 + 4
    assert again.rows[:3] == whole.rows


CHILD = """
import sys, time
from pathlib import Path
from clipkit.evaluate.comparison import compare
from clipkit.learn.neighbors import NearestNeighbours
from tests.cli.test_classify_and_evaluate import ColourPhrases
honest = NearestNeighbours.__init__
def slow(self, *, seed):
    Path(sys.argv[2]).write_text(str(seed))
    time.sleep(60 if seed == 2 else 0)
    honest(self, seed=seed)
NearestNeighbours.__init__ = slow
compare(sys.argv[1], ColourPhrases(), methods=["zeroshot", "knn"], shots=(4,), seeds=3)
"""


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was(
    folder: Path, tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = tmp_path / "sign"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(sign)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while not (sign.exists() and sign.read_text() == "2"):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    from clipkit.evaluate import comparison as module

    asked: list[int] = []
    honest = module.answer
    monkeypatch.setattr(module, "answer", lambda *given: (asked.append(given[3]), honest(*given))[1])
    found = run(folder, methods=["zeroshot", "knn"], shots=(4,), seeds=3)
    assert asked == [2]
    monkeypatch.setenv("CLIPKIT_CACHE", str(tmp_path / "fresh"))
    fresh = run(folder, methods=["zeroshot", "knn"], shots=(4,), seeds=3)
    assert [row.acc1 for row in found.rows] == [row.acc1 for row in fresh.rows]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "list"])
def test_a_damaged_attempt_is_made_again(tmp_path: Path, damage: str) -> None:
    kept = TrialCache(tmp_path, "key", count=3, classes=2)
    attempt = Trial("knn", None, 1, (0, 1, 1), 0.25, 9, {"k": 3})
    kept.put(attempt)
    assert kept.get("knn", None, 1) == attempt
    assert kept.get("knn", 4, 1) is None
    assert TrialCache(tmp_path, "another", count=3, classes=2).get("knn", None, 1) is None
    assert TrialCache(tmp_path, "key", count=4, classes=2).get("knn", None, 1) is None
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    broken = {
        "cut": text[: len(text) // 2],
        "flipped": text.replace("[0, 1, 1]", "[1, 1, 1]"),
        "empty": "",
        "other": json.dumps({"format": "something"}),
        "list": "[1, 2]",
    }
    file.write_text(broken[damage])
    assert kept.get("knn", None, 1) is None


def test_other_pictures_labels_or_weights_are_another_task(folder: Path, private_cache: Path) -> None:
    def count() -> int:
        return len(list((private_cache / "comparisons").iterdir()))

    run(folder, methods=["knn"], shots=(1,), seeds=1)
    run(folder, methods=["knn"], shots=(1,), seeds=1)
    assert count() == 1
    paint(folder / "test" / "red" / "00.png", (1, 2, 3))
    run(folder, methods=["knn"], shots=(1,), seeds=1)
    assert count() == 2
    (folder / "train" / "red" / "00.png").rename(folder / "train" / "blue" / "zz.png")
    run(folder, methods=["knn"], shots=(1,), seeds=1)
    assert count() == 3
    compare(folder, ColourPhrases(fingerprint="aa" * 32), methods=["knn"], shots=(1,), seeds=1)
    assert count() == 4


def test_other_words_are_another_task_for_methods_that_read_them(folder: Path, private_cache: Path) -> None:
    """A file of templates keeps its name when its content changes."""
    file, known = folder.parent / "templates.txt", []
    for template in ("a {}", "the {}", "the {}"):
        file.write_text(template)
        run(folder, methods=["zeroshot", "knn"], shots=(1,), seeds=1, templates=file)
        known.append(len(list((private_cache / "comparisons").iterdir())))
    assert known == [2, 3, 3]


def test_what_was_found_is_written_and_read_again(folder: Path, tmp_path: Path) -> None:
    found = run(folder)
    write_report(found, tmp_path / "report")
    for place in (tmp_path / "report", tmp_path / "report" / "results.json"):
        read = load_comparison(place)
        assert read.to_json() == found.to_json()
        assert read.rows == found.rows
        assert read.runs == found.runs
        assert read.pairs == found.pairs
        for row in read.rows:
            assert np.array_equal(read.confusion(row.method, row.shots), found.confusion(row.method, row.shots))
    matrix = found.confusion("probe", 4)
    right = [one.acc1 for one in found.runs if (one.method, one.shots) == ("probe", 4)]
    assert matrix.sum() == 2 * 36
    assert matrix.trace() / matrix.sum() == pytest.approx(np.mean(right))
    frame = found.to_frame()
    assert frame["acc1"].tolist() == [row.acc1 for row in found.rows]
    assert frame["acc1_low"].tolist() == [row.acc1_ci95[0] for row in found.rows]
    with pytest.raises(ClipkitError, match="no probe at 7 shots"):
        found.confusion("probe", 7)


DAMAGE: dict[str, Callable[[dict[str, object]], object]] = {
    "no rows": lambda said: said.update(rows=[]),
    "no classes": lambda said: said.pop("classes"),
    "a text for a number": lambda said: said["rows"][0].update(acc1="<script>"),  # type: ignore[index]
    "a number as a text": lambda said: said["rows"][0].update(acc1="0.5"),  # type: ignore[index]
    "half an interval": lambda said: said["rows"][0].update(acc1_ci95=[0.5]),  # type: ignore[index]
    "counts that are none": lambda said: said.update(counts={"test": "many"}),
    "a number for a name": lambda said: said["rows"][0].update(method=3),  # type: ignore[index]
    "another class": lambda said: said["confusion"][0].update(cells=[[0, 99, 1]]),  # type: ignore[index]
    "no confusions": lambda said: said.update(confusion=[]),
    "more classes": lambda said: said["classes"].append("more"),  # type: ignore[attr-defined]
    "strange shots": lambda said: said["rows"][0].update(shots="many"),  # type: ignore[index]
    "nan": lambda said: said["rows"][0].update(acc1=float("nan")),  # type: ignore[index]
    "unknown field": lambda said: said["rows"][0].update(more=1),  # type: ignore[index]
    "true for a number": lambda said: said["rows"][0].update(labels=True),  # type: ignore[index]
    "a share for a count": lambda said: said["rows"][0].update(labels=0.5),  # type: ignore[index]
    "a place between two classes": lambda said: said["confusion"][0].update(cells=[[0, 0.5, 1]]),  # type: ignore[index]
    "a list for a setting": lambda said: said["runs"][0].update(chosen={"C": [1]}),  # type: ignore[index]
    "a failure with more": lambda said: said.update(failed=[{"path": "a", "reason": "b", "more": 1}]),
    "a reference that is none": lambda said: said["references"].update(red=None),  # type: ignore[attr-defined]
    "a text for a list": lambda said: said.update(notes="words"),
    "a list for a table": lambda said: said.update(rows=[[]]),
    "files that are none": lambda said: said["mistakes"][0].update(files=[3]),  # type: ignore[index]
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_results_that_are_damaged_are_refused_in_a_sentence(folder: Path, tmp_path: Path, damage: str) -> None:
    said = json.loads(run(folder, methods=["zeroshot"]).to_json())
    DAMAGE[damage](said)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(said))
    with pytest.raises(ClipkitError, match=r"is damaged|is not the result"):
        load_comparison(file)


def test_a_refusal_is_one_line_that_names_the_place(folder: Path, tmp_path: Path) -> None:
    said = json.loads(run(folder, methods=["zeroshot"]).to_json())
    said["rows"][0]["acc1"] = "0.5"
    (tmp_path / "results.json").write_text(json.dumps(said))
    with pytest.raises(ClipkitError) as caught:
        load_comparison(tmp_path)
    place = tmp_path / "results.json"
    assert caught.value.message == f"{place} is damaged: rows.0.acc1: Input should be a valid number"
    said["rows"][0] = {"x" * 10_000: 1, "shots": "1"}
    (tmp_path / "results.json").write_text(json.dumps(said))
    with pytest.raises(ClipkitError) as caught:
        load_comparison(tmp_path)
    assert len(caught.value.message) < len(str(place)) + 250


def test_a_result_of_an_earlier_version_is_read_as_it_was_written() -> None:
    file = REPOSITORY / "benchmarks" / "results" / "pets_compare" / "results.json"
    assert load_comparison(file).to_json() == file.read_text()


def test_the_first_draws_predictions_are_those_that_were_scored_and_are_read_again(
    folder: Path, tmp_path: Path
) -> None:
    made = run(folder, methods=("zeroshot", "knn"), shots=(1, 2), seeds=2)
    (tmp_path / "results.json").write_text(made.to_json())
    found = load_comparison(tmp_path).predictions
    assert found is not None
    for one in (run_ for run_ in made.runs if run_.seed == 0):
        places = found.predicted[one.method, one.shots]
        assert (places == found.actual).mean() == pytest.approx(one.acc1)
    names = [made.classes[place] for place in found.actual]
    assert [file.split("/")[-2] for file in found.files] == names
    payload = json.loads(made.to_json())
    del payload["predictions"]  # as earlier versions wrote it
    (tmp_path / "results.json").write_text(json.dumps(payload))
    assert load_comparison(tmp_path).predictions is None


@pytest.mark.parametrize(
    "change",
    [
        {"actual": [0]},
        {"actual": ["x"]},
        {"files": ["a"]},
        {"files": 3},
        {"rows": 3},
        {"rows": [{"method": "zeroshot", "shots": "q", "places": []}]},
        {"files": [], "actual": [], "rows": [{"method": "other", "shots": "1", "places": []}]},
    ],
)
def test_predictions_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    payload = json.loads(run(folder, methods=("zeroshot",), shots=(1,), seeds=1).to_json())
    payload["predictions"] |= change
    (tmp_path / "results.json").write_text(json.dumps(payload))
    with pytest.raises(ClipkitError, match=r"damaged: .*predictions are (of|not as)"):
        load_comparison(tmp_path)


def test_names_that_are_not_utf_8_are_read_again(folder: Path, tmp_path: Path) -> None:
    found = run(folder, methods=["zeroshot"])
    odd = replace(found, mistakes=tuple(replace(one, files=("caf\udce9.png",)) for one in found.mistakes))
    (tmp_path / "results.json").write_text(odd.to_json())
    assert load_comparison(tmp_path).mistakes == odd.mistakes


def test_what_is_no_comparison_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with pytest.raises(ClipkitError, match="cannot be read"):
        load_comparison(tmp_path)
    for text in ("", "[]", "{}", '{"format": "clipkit comparison 99"}', "\x00", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(ClipkitError, match="is not the result of a comparison"):
            load_comparison(file)


def test_a_hold_out_is_of_every_class_fixed_and_said(tmp_path: Path) -> None:
    flat = make(tmp_path / "set") / "train"
    first, again = read_split(flat), read_split(flat)
    assert first.test.files == again.test.files
    assert first.description == "a hold-out of 30% of each class, seed 0"
    assert not set(first.train.files) & set(first.test.files)
    labels = first.answers.open(first.test.files)
    assert {name: labels.count(name) for name in MIXES} == dict.fromkeys(MIXES, 3)
    assert len(first.train) == 21


def test_copies_of_a_picture_stay_on_one_side_of_a_hold_out(tmp_path: Path) -> None:
    flat = make(tmp_path / "set") / "train"
    for file in sorted((flat / "red").iterdir()):
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    split = read_split(flat)
    content = {part: {Path(file).read_bytes() for file in getattr(split, part).files} for part in ("train", "test")}
    assert not content["train"] & content["test"]
    assert split.notes == ()


def test_test_pictures_that_are_in_train_too_are_told(folder: Path) -> None:
    (folder / "test" / "red" / "copy.png").write_bytes((folder / "train" / "red" / "03.png").read_bytes())
    found = run(folder, methods=["zeroshot"])
    assert found.notes == ("1 test picture is also learned from, byte by byte",)


def test_a_validation_part_of_its_own_is_what_is_chosen_on(folder: Path) -> None:
    rng = np.random.default_rng(8)
    for name in MIXES:
        for i in range(6):
            paint(folder / "val" / name / f"{i}.png", mix(name, rng), (8, 8))
    found = run(folder, methods=["probe"], shots=(1, 10, None))
    assert found.split == "its own train, val and test"
    assert {row.shots: row.labels for row in found.rows} == {1: 3 * 2, 10: 3 * (10 + 4), None: 30 + 18}


def test_without_test_validation_is_measured_on(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    assert run(folder, methods=["zeroshot"]).split == "its own train and val"


def test_the_table_is_read_with_its_column_split(folder: Path) -> None:
    by_table = run(shuffle_test_labels(folder, seed=None))
    by_folder = run(folder)
    assert [row.acc1 for row in by_table.rows] == [row.acc1 for row in by_folder.rows]
    assert by_table.pairs[0].files == by_folder.pairs[0].files


def test_too_many_shots_are_left_out_with_the_reason(folder: Path) -> None:
    found = run(folder, methods=["zeroshot", "knn"], shots=(1, 7, 16))
    assert [row.shots for row in found.rows] == [0, 1]
    assert [reason.partition(":")[0] for reason in found.left_out] == ["7 shots", "16 shots"]
    assert "'blue' has 10 pictures" in found.left_out[0]
    with pytest.raises(DatasetError, match="16 shots: 'blue' has 10 pictures"):
        run(folder, methods=["zeroshot", "knn"], shots=(16,))
    assert len(run(folder, methods=["zeroshot"], shots=(16,)).rows) == 1


def test_datasets_that_do_not_fit_are_refused_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    paint(folder / "test" / "violet" / "1.png", (90, 0, 90))
    with pytest.raises(DatasetError, match="violet is in test but not in train"):
        run(folder)
    (folder / "test" / "violet" / "1.png").unlink()
    paint(folder / "train" / "violet" / "1.png", (90, 0, 90))
    assert "violet is in train but not in test: learned, not measured" in read_split(folder).notes
    single = make(tmp_path / "single", names=["red"])
    with pytest.raises(DatasetError, match="one class only, red"):
        run(single)
    with pytest.raises(DatasetError, match="one class only, red"):
        run(single / "train")
    paint(tmp_path / "few" / "red" / "1.png", (200, 0, 0))
    paint(tmp_path / "few" / "blue" / "1.png", (0, 0, 200))
    with pytest.raises(DatasetError, match="1 picture, and none would be left"):
        run(tmp_path / "few")
    with pytest.raises(DatasetError, match="is not there"):
        run(tmp_path / "nowhere")
    (tmp_path / "words.csv").write_text("image,caption\na.png,words\n")
    with pytest.raises(DatasetError):
        run(tmp_path / "words.csv")


def test_pictures_that_cannot_be_read_are_listed_and_left_out(folder: Path) -> None:
    (folder / "train" / "red" / "00.png").write_bytes(b"nothing")
    (folder / "test" / "blue" / "00.png").write_bytes(b"nothing")
    found = run(folder)
    assert [failure.path for failure in found.failed] == ["train/red/00.png", "test/blue/00.png"]
    assert not [failure.reason for failure in found.failed if str(folder) in failure.reason]  # nor in the report
    assert found.counts == {"train": 29, "test": 35}
    for file in (folder / "train" / "red").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="red is in test but not in train"):
        run(folder)
    for file in (folder / "test" / "red").iterdir():
        file.write_bytes(b"nothing")
    assert "red is without a picture that can be read: neither learned nor measured" in run(folder).notes


def test_methods_that_are_none_or_cannot_be_had_are_refused(folder: Path) -> None:
    with pytest.raises(ClipkitError, match="no method 'magic'") as refused:
        run(folder, methods=["magic"])
    assert refused.value.hint == f"--methods {','.join(METHODS)}"
    with pytest.raises(ClipkitError, match="which methods"):
        run(folder, methods=[])
    with pytest.raises(ClipkitError, match="finetune needs a model of open_clip"):
        run(folder, methods=["finetune"])
    for shots in ((), (0,), (-1, 4)):
        with pytest.raises(ClipkitError, match="shots"):
            run(folder, shots=shots)
    with pytest.raises(ClipkitError, match="0 seeds"):
        run(folder, seeds=0)


class NoWords(ColourEncoder):
    """An encoder of pictures alone."""

    encode_texts = property()  # type: ignore[assignment]


def test_a_model_without_words_compares_what_needs_none(folder: Path) -> None:
    with pytest.raises(ClipkitError, match="tip-adapter needs a model that reads words"):
        compare(folder, NoWords(), methods=["knn", "tip-adapter"], shots=(1,), seeds=1)
    found = compare(folder, NoWords(), methods=["knn", "probe"], shots=(1,), seeds=1)
    assert [row.gain for row in found.rows] == [None, None]
    assert found.zero_shot is None


def test_classes_that_are_confused_stand_side_by_side() -> None:
    matrix = np.diag([8] * 6)
    for one, other in ((0, 3), (1, 5), (2, 4)):
        matrix[one, other] = matrix[other, one] = 4
    order = by_confusion(matrix).tolist()
    assert sorted(order) == list(range(6))
    for one, other in ((0, 3), (1, 5), (2, 4)):
        assert abs(order.index(one) - order.index(other)) == 1
    grouped = by_confusion(matrix, ["cats", "dogs", "cats", "cats", "dogs", "dogs"]).tolist()
    assert set(grouped[:3]) == {0, 2, 3}
    assert by_confusion(np.diag([3, 4])).tolist() == [0, 1]


@pytest.mark.slow
def test_finetune_takes_part(folder: Path, tmp_path: Path) -> None:
    from clipkit.learn.trainer import Recipe
    from clipkit.models.load import load_encoder
    from tests.support.tiny_models import make_model

    encoder = load_encoder(str(make_model("clip", tmp_path / "model")))
    recipe = Recipe(epochs=3, views=2)
    found = compare(folder, encoder, methods=["finetune", "probe-backbone"], shots=(4,), seeds=2, recipe=recipe)
    assert [(row.method, row.seeds) for row in found.rows] == [("finetune", 1), ("probe-backbone", 2)]
    assert found.runs[0].chosen["epoch"] in (1, 2, 3)
    assert found.rows[0].labels == 24
    other = compare(folder, encoder, methods=["finetune"], shots=(4,), recipe=replace(recipe, epochs=1))
    assert other.runs[0].chosen["epoch"] == 1


@pytest.mark.real
def test_breeds_are_cats_and_dogs(real_data: Path) -> None:
    split = read_split(real_data)
    groups = dict(zip(split.classes, split.groups, strict=True))
    assert (split.groups.count("cats"), split.groups.count("dogs")) == (12, 25)
    assert (groups["Sphynx"], groups["Pug"]) == ("cats", "dogs")
    assert read_split(real_data / "oxford-iiit-pet").test.files == split.test.files
