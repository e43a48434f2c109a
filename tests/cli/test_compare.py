"""compare on the command line: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipkit.cli.main import main
from clipkit.evaluate.results import load_comparison
from tests.cli.test_classify_and_evaluate import ColourPhrases
from tests.cli.test_index_and_search import run
from tests.evaluate.test_comparison import make
from tests.support.colours import paint

QUICK = ("--methods", "zeroshot,knn,probe", "--shots", "1,4,all", "--seeds", "2")


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda name, **options: ColourPhrases())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_compare_prints_a_table(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "compare", "set", *QUICK)
    assert code == 0
    measured, seconds = err.splitlines()
    assert measured == "measured on 36 pictures, its own train and test"
    assert seconds.startswith("SECONDS are of learning and answering, without the features of the pictures (projected ")
    head, *lines = [line.split() for line in out.splitlines()]
    assert head == ["METHOD", "SHOTS", "ACC1", "95%", "PER", "CLASS", "SECONDS", "LABELS", "SEEDS"]
    methods = [("zeroshot", "0"), *((name, shots) for name in ("knn", "probe") for shots in ("1", "4", "all"))]
    assert [(line[0], line[1]) for line in lines] == methods
    assert len({len(line) for line in out.splitlines()}) == 1
    low, high = (float(part) for part in lines[0][3].split("-"))
    assert 0 <= low <= float(lines[0][2]) <= high <= 100
    assert [line[6] for line in lines] == ["0", "6", "24", "30", "6", "24", "30"]


def test_compare_prints_a_json_object_a_row(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "compare", "set", *QUICK, "--json", "--out", "report")
    records = [json.loads(line) for line in out.splitlines()]
    rows = load_comparison("report").rows
    assert code == 0
    assert [record["acc1"] for record in records] == [row.acc1 for row in rows]
    assert [record["shots"] for record in records] == ["0", *["1", "4", "all"] * 2]
    assert records[1]["gain_low"] == rows[1].gain_ci95[0]  # type: ignore[index]


def test_compare_writes_a_report(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "compare", "set", *QUICK, "--out", "report")
    names = {"index.html", "results.json", "curves.png", "cost.png"}
    names |= {f"confusion-{name}.png" for name in ("zeroshot", "knn", "probe")}
    assert code == 0
    assert {file.name for file in (here / "report").iterdir()} == names
    assert err.splitlines()[-1] == "report/index.html shows it"
    first = (here / "report" / "results.json").read_bytes()
    assert run(capfd, "compare", "set", *QUICK, "--out", "report")[0] == 0  # over an earlier report
    assert json.loads(first)["rows"] == json.loads((here / "report" / "results.json").read_bytes())["rows"]


def test_a_folder_that_holds_other_things_is_left_as_it_is(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "results.json").write_text('{"mine": 1}')
    code, _, err = run(capfd, "compare", "set", *QUICK, "--out", "notes")
    assert code == 1
    assert "notes holds other things than a report; they were left as they are" in err
    assert (here / "notes" / "results.json").read_text() == '{"mine": 1}'
    (here / "file").write_text("x")
    code, _, err = run(capfd, "compare", "set", *QUICK, "--out", "file")
    assert code == 1
    assert "file cannot be written" in err


def test_what_was_left_out_is_said(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "set" / "test" / "red" / "00.png").write_bytes(b"nothing")
    code, out, err = run(capfd, "compare", "set", "--methods", "knn", "--shots", "1,16", "--seeds", "1")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "not run: 16 shots: 'blue' has 10 pictures" in err
    assert "not counted: test/red/00.png" in err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["set", "--methods", "magic"], 1, "there is no method 'magic'"),
        (["set", "--shots", "few"], 2, "--shots takes numbers and all, not 'few'"),
        (["set", "--methods", "knn", "--shots", "0"], 1, "0 shots are none"),
        (["set", "--methods", "knn", "--shots", ","], 1, "how many shots?"),
        (["set", "--methods", ""], 1, "which methods?"),
        (["set", "--seeds", "0"], 2, "0 is not in the range"),
        (["nowhere", "--methods", "knn"], 1, "nowhere is not there"),
        (["set", "--methods", "knn", "--shots", "99"], 1, "99 shots: 'blue' has 10 pictures"),
    ],
)
def test_wrong_use_is_a_sentence(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    given, out, err = run(capfd, "compare", *arguments)
    assert (given, out) == (code, "")
    assert sentence in err
    assert "Traceback" not in err


def test_an_interrupted_comparison_says_that_it_goes_on(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clipkit.evaluate.comparison.answer", interrupted)
    code, out, err = run(capfd, "compare", "set", *QUICK)
    assert (code, out) == (130, "")
    assert err == "interrupted: what was finished is kept; run the same command to go on\n"


def test_hostile_names_are_printed_safely(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paint(here / "set" / "train" / "red\x1b[2J" / "1.png", (1, 2, 3))
    code, out, err = run(capfd, "compare", "set", "--methods", "zeroshot")
    assert code == 0
    assert "\x1b" not in out + err
    assert "red\\x1b[2J is in train but not in test" in err


def test_help_names_every_method(capfd: pytest.CaptureFixture[str]) -> None:
    from clipkit.cli.evaluate import METHODS_HELP
    from clipkit.learn.methods import METHODS

    assert METHODS_HELP.partition(";")[0].split(", ") == list(METHODS)
    assert main(["compare", "--help"]) == 0
    assert "oxford-iiit-pet" in capfd.readouterr().out
