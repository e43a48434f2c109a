"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from clipkit.cli.main import app, main
from clipkit.errors import ModelError
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every model is the ColourEncoder; the list says which were asked for."""
    asked: list[str] = []

    def load(name: str, *, exact_pixels: bool = False, **options: object) -> ColourEncoder:
        asked.append(name)
        if name == "no such model":
            raise ModelError("no model is called that", hint="clipkit models")
        return ColourEncoder(exact=exact_pixels, fingerprint="aa" * 32 if name == "other" else "c0" * 32)

    monkeypatch.setattr("clipkit.models.load.load_encoder", load)
    monkeypatch.setattr("clipkit.index.image_index.load_encoder", load)
    return asked


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds `photos`, as the current one; `photos` is indexed."""
    monkeypatch.chdir(photos.parent)
    assert main(["index", "photos"]) == 0
    return photos.parent


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(list(arguments))
    out, err = capfd.readouterr()
    return code, out, err


def test_index_reports_on_stderr_alone(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "index", str(photos))
    assert (code, out) == (0, "")
    assert err.startswith("8 pictures can be found (8 new) in ")
    _, _, err = run(capfd, "index", str(photos))
    assert err.startswith("8 pictures can be found (8 unchanged) in ")


def test_index_names_what_failed(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (photos / "bad\n.jpg").write_bytes(b"nothing")
    code, _, err = run(capfd, "index", str(photos))
    assert code == 0
    assert "8 new, 1 failed" in err
    assert "  cannot read bad\\n.jpg: not JPEG" in err
    code, out, _ = run(capfd, "info", str(photos), "--failed")
    assert out.startswith("bad\\n.jpg\tnot JPEG")
    code, out, _ = run(capfd, "info", str(photos), "--failed", "--json")
    assert json.loads(out)["path"] == "bad\n.jpg"


def test_an_empty_folder_is_no_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    code, _, err = run(capfd, "index", str(tmp_path))
    assert code == 0
    assert "no pictures in" in err


def test_search_prints_scores_and_paths(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "search", "red", "photos", "-t", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"1.0000\tphotos{os.sep}red.png"
    assert len(out.splitlines()) == 2


def test_search_finds_the_index_by_walking_up(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(here / "photos" / "trip" / "sea.png", COLOURS["blue"])
    main(["index", "photos"])
    monkeypatch.chdir(here / "photos" / "trip")
    code, out, _ = run(capfd, "search", "blue", "-f")
    assert (code, out) == (0, "sea.png\n")  # only what lies where the user stands
    code, out, _ = run(capfd, "search", "blue", "..", "-f", "-t", "2")
    assert out == f"{here}/photos/blue.png\nsea.png\n"
    code, out, _ = run(capfd, "search", "blue", "..", "--in", "trip", "-f")
    assert out == "sea.png\n"


@pytest.mark.parametrize("typed", ["trip/sea", "./trip/sea/", "photos/trip/sea", "trip/s*", "{photos}/trip/sea"])
def test_a_folder_is_named_as_people_do(here: Path, capfd: pytest.CaptureFixture[str], typed: str) -> None:
    paint(here / "photos" / "trip" / "sea" / "deep.png", COLOURS["blue"])
    main(["index", "photos"])
    where = typed.format(photos=here / "photos")
    assert run(capfd, "search", "blue", "photos", "--in", where, "-f")[:2] == (0, "photos/trip/sea/deep.png\n")


@pytest.mark.parametrize(
    "command",
    [
        ["search", "red", "photos"],
        ["duplicates", "photos"],
        ["classify", "photos", "--classes", "red,blue", "--templates", "{}"],
    ],
)
@pytest.mark.parametrize(
    ("typed", "name", "hint"),
    [("sea", "sea", "--in trip/sea"), ("trip/seaa", "trip/seaa", "--in trip/sea"), ("zzz", "zzz", "--in odd")],
)
def test_a_folder_without_pictures_is_said_with_one_that_has_some(
    here: Path, capfd: pytest.CaptureFixture[str], command: list[str], typed: str, name: str, hint: str
) -> None:
    for folder in ("trip/sea", "odd"):
        paint(here / "photos" / folder / "deep.png", COLOURS["blue"])
    main(["index", "photos"])
    code, out, err = run(capfd, *command, "--in", typed)
    assert (code, out, err) == (1, "", f"error: no pictures are indexed in {name}\n  try: {hint}\n")
    assert run(capfd, *command, *hint.split())[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "a", "red", "photos"], 2, "quote the words: clipkit search 'a red' photos"),
        (["search", "red", "bicycle"], 1, "hint: quote the words: clipkit search 'red bicycle'"),
        (["search", "red", "photos", "-f", "--json"], 2, "--filepath-only and --json: one of them, please"),
        (["search", "red", "photos", "--json", "--csv"], 2, "--json and --csv: one of them, please"),
        (["classify", "photos", "--classes", "red", "--json", "--csv"], 2, "--json and --csv: one of them, please"),
        (["prune", "photoz"], 1, "photoz is not a folder\n  hint: did you mean photos"),
        (["prune", "photos/red.png"], 1, "is a file, not a folder\n  hint: the folder it lies in: photos"),
        (["search", "./bad.jpg", "photos"], 1, "not JPEG"),
        (["search", "./bad.jpg", "photos"], 1, 'hint: another picture, or words: clipkit search "a dog"'),
        (["classify", "photos", "--classes", "nix.txt"], 1, "hint: a text file, one a line"),
        (["classify", "photos", "--classes", "red,red"], 1, "hint: name each class once"),
        (["ui", "nowhere"], 1, "try: clipkit ui FOLDER"),
        (["finetune", "photos", "--out", "x", "--lr", "-1"], 1, "try: --lr 0.0003"),
    ],
)
def test_a_hint_says_what_to_type_here(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (here / "bad.jpg").write_bytes(b"nothing")
    got, out, err = run(capfd, *arguments)
    assert (got, out) == (code, "")
    assert message in err


def test_a_folder_is_no_word_where_terms_are_given_beside(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "search", "-a", "red", "photos", "-t1", "-f")[:2] == (0, "photos/red.png\n")


def test_the_name_of_a_picture_is_said_to_be_read_as_words(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COLOURS, "x.png", COLOURS["red"])
    assert "x.png is read as words; there is no such file here" in run(capfd, "search", "x.png", "photos")[2]
    paint(here / "x.png", COLOURS["red"])
    said = run(capfd, "search", "x.png", "photos")[2]
    assert said == "x.png is read as words; for the picture: clipkit search ./x.png photos\n"


def test_search_has_other_forms(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "search", "red", "photos", "-t1", "-f")[1] == "photos/red.png\n"
    assert run(capfd, "search", "red", "photos", "-t1", "-0")[1] == "photos/red.png\0"
    hit = json.loads(run(capfd, "search", "red", "photos", "-t1", "--json")[1])
    assert hit == {"score": 1.0, "relevance": "strong", "path": "red.png", "file": f"{here}/photos/red.png"}
    assert run(capfd, "search", "red", "photos", "-t1", "--csv")[1] == "score,path\n1.000000,photos/red.png\n"
    assert run(capfd, "search", "red", "photos", "-t1", "-n")[0] == 0


def test_terms_are_added_and_subtracted(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "search", "red", "photos", "-a", "blue", "-t1", "-f")[1] == "photos/magenta.png\n"
    assert run(capfd, "search", "white", "photos", "-s", "blue", "-t1", "-f")[1] == "photos/yellow.png\n"
    assert run(capfd, "search", "", "photos", "-a", "2:red", "-t1", "-f")[1] == "photos/red.png\n"
    assert run(capfd, "search", "./photos/red.png + blue", "photos", "-t1", "-f")[1] == "photos/magenta.png\n"


def test_odd_names_are_escaped_for_people_and_raw_for_programs(
    here: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    name = b"caf\xe9\n\x1b[31m.png"
    paint(here / "photos" / os.fsdecode(name), (200, 0, 60))
    main(["index", "photos"])
    capfdbinary.readouterr()
    main(["search", "red + 0.3:blue", "photos", "-t1"])
    assert capfdbinary.readouterr().out.endswith(b"photos/caf\\xe9\\n\\x1b[31m.png\n")
    main(["search", "red + 0.3:blue", "photos", "-t1", "-0"])
    assert capfdbinary.readouterr().out == b"photos/" + name + b"\0"
    main(["search", "red + 0.3:blue", "photos", "-t1", "--json"])
    assert json.loads(capfdbinary.readouterr().out)["path"] == os.fsdecode(name)


def test_a_csv_cell_never_starts_a_formula(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(here / "photos" / "=1+1.png", (200, 0, 60))
    main(["index", "photos"])
    monkeypatch.chdir(here / "photos")
    assert run(capfd, "search", "red + 0.3:blue", "-t1", "--csv")[1].splitlines()[1].endswith(",'=1+1.png")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "red", "nowhere"], 1, "error: nowhere is not a folder"),
        (["search", "red", "empty"], 1, "has no index\n  try: clipkit index"),
        (["search", "", "photos"], 1, "error: the query is empty"),
        (["search", "./no.jpg", "photos"], 1, "error: ./no.jpg is not a file here"),
        (["search", "red", "photos", "-t", "0"], 1, "error: 0 answers were asked for"),
        (["search", "red", "photos", "--in", "nowhere"], 1, "error: no pictures are indexed in nowhere"),
        (["index", "nowhere"], 1, "error: nowhere is not there"),
        (["index", "photos/red.png"], 1, "is a file, not a folder\n  try: clipkit index"),
        (["index", "empty", "--model", "no such model"], 1, "no model is called that\n  try: clipkit models"),
        (["index", "photos", "--model", "other"], 1, "was indexed with colour, not other weights"),
        (["index", "photos", "--exact-pixels"], 1, "--rebuild --exact-pixels"),
        (["index", "--no-such-option"], 2, "No such option"),
        (["serach", "red"], 2, "No such command 'serach'"),
        (["search", "a", "photos", "red", "bicycle"], 2, "unexpected extra arguments"),
    ],
)
def test_a_mistake_gets_a_sentence_and_its_code(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (here / "empty").mkdir()
    got, out, err = run(capfd, *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_a_damaged_index_ends_with_3(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "photos" / ".clipkit" / "index.db").write_bytes(b"this is no database" * 100)
    code, _, err = run(capfd, "search", "red", "photos")
    assert code == 3
    assert "--rebuild" in err
    assert run(capfd, "index", "photos", "--rebuild")[0] == 0
    assert run(capfd, "search", "red", "photos", "-t1", "-f")[1] == "photos/red.png\n"


def test_an_index_in_use_ends_with_11(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from clipkit.store.database import writing

    with writing(here / "photos" / ".clipkit"):
        code, _, err = run(capfd, "index", "photos")
    assert code == 11
    assert "another clipkit is writing" in err


def pressed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def pressed_while_a_library_loads(*_: object, **__: object) -> None:
    """As pybind11 has it, by which onnxruntime is bound to Python."""
    raise ImportError("initialization failed") from KeyboardInterrupt()


@pytest.mark.parametrize("interrupt", [pressed, pressed_while_a_library_loads])
def test_interrupting_says_what_is_kept(
    here: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable[..., None],
) -> None:
    monkeypatch.setattr("clipkit.index.update.apply_changes", interrupt)
    code, _, err = run(capfd, "index", "photos")
    assert code == 130
    assert err == "interrupted: 8 pictures are in the index; run the same command to go on\n"


def test_a_dry_run_changes_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paint(here / "photos" / "new.png", (1, 2, 3))
    (here / "photos" / "red.png").unlink()
    before = (here / "photos" / ".clipkit" / "index.db").read_bytes()
    code, out, _ = run(capfd, "index", "photos", "--dry-run")
    assert (code, out) == (0, "would read 1, bring back 0 and hide 1 picture; 7 are unchanged\n")
    assert (here / "photos" / ".clipkit" / "index.db").read_bytes() == before
    (here / "fresh").mkdir()
    paint(here / "fresh" / "a.png", (1, 2, 3))
    assert run(capfd, "index", "fresh", "--dry-run")[1].startswith("would read 1,")
    assert os.listdir(here / "fresh") == ["a.png"]


def test_a_new_index_asks_for_auto_and_an_old_one_for_its_own(
    here: Path, capfd: pytest.CaptureFixture[str], colours: list[str]
) -> None:
    assert colours == ["auto"]
    run(capfd, "index", "photos")
    assert colours == ["auto"]  # nothing to encode: no model is loaded
    run(capfd, "search", "red", "photos")
    run(capfd, "index", "photos", "--rebuild")
    run(capfd, "index", "photos", "--rebuild", "--model", "other")
    assert colours == ["auto", "colour", "colour", "other"]


def test_an_index_may_lie_elsewhere(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "index", "photos", "--index", "kept")[0] == 0
    assert run(capfd, "search", "red", "--index", "kept", "-t1", "-f")[1] == "photos/red.png\n"
    os.rename("photos", "moved")
    assert run(capfd, "search", "red", "moved", "--index", "kept", "-t1", "-f")[1] == "moved/red.png\n"


def test_info_says_what_an_index_holds(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "photos" / "red.png").unlink()
    main(["index", "photos"])
    _, out, _ = run(capfd, "info", "photos")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (facts["found"], facts["missing"], facts["failed"], facts["model"]) == ("7", "1", "0", "colour")
    facts = json.loads(run(capfd, "info", "photos", "--json")[1])
    assert (facts["found"], facts["width"]) == (7, 4)


def test_a_jpeg_that_was_cut_off_is_partial_in_info_and_in_search(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = BytesIO()
    Image.new("RGB", (640, 480), (200, 120, 40)).effect_spread(9).save(stream, "JPEG")
    (here / "photos" / "cut.jpg").write_bytes(stream.getvalue()[: stream.tell() * 8 // 10])
    (here / "photos" / "no end.jpg").write_bytes(stream.getvalue()[:-2])
    (here / "photos" / "twin.jpg").write_bytes((here / "photos" / "cut.jpg").read_bytes())
    main(["index", "photos"])
    assert json.loads(run(capfd, "info", "photos", "--json")[1])["partial"] == 2
    assert "partial   2\n" in run(capfd, "info", "photos")[1]
    hits = [json.loads(line) for line in run(capfd, "search", "red", "photos", "-t", "99", "--json")[1].splitlines()]
    assert {hit["path"] for hit in hits if hit.get("partial")} == {"cut.jpg", "twin.jpg"}
    assert len(hits) == len(COLOURS) + 3
    (here / "photos" / "cut.jpg").write_bytes(stream.getvalue())
    main(["index", "photos"])
    assert json.loads(run(capfd, "info", "photos", "--json")[1])["partial"] == 1


def test_what_was_left_out_stays_out_until_it_is_taken_back(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("raw/a.png", "2020/raw/b.png", "2021/c.png"):
        paint(here / "photos" / path, (9, 9, 9))
    _, _, err = run(capfd, "index", "photos", "--exclude-dir", "photos/raw", "--exclude-dir", "20?1")
    assert "9 pictures can be found" in err
    assert json.loads(run(capfd, "info", "photos", "--json")[1])["excluded"] == ["/raw", "20?1"]
    assert "excluded  /raw, 20?1\n" in run(capfd, "info", "photos")[1]
    _, _, err = run(capfd, "index", "photos")
    assert err.splitlines()[0].startswith("9 pictures can be found (9 unchanged)")
    assert len(err.splitlines()) == 1
    assert "would read 0" in run(capfd, "index", "photos", "--dry-run")[1]
    assert "would read 1" in run(capfd, "index", "photos", "--dry-run", "--include-dir", "raw")[1]
    assert "9 pictures can be found (9 new)" in run(capfd, "index", "photos", "--rebuild")[2]
    _, _, err = run(capfd, "index", "photos", "--include-dir", "./photos/raw", "--include-dir", "rwa")
    assert "10 pictures can be found" in err
    assert "--include-dir rwa was not left out; what is: clipkit info photos" in err
    run(capfd, "index", "photos", "--include-dir", "20?1")
    assert json.loads(run(capfd, "info", "photos", "--json")[1])["excluded"] == []
    assert json.loads(run(capfd, "info", "photos", "--json")[1])["found"] == len(COLOURS) + 3
    assert "excluded" not in run(capfd, "info", "photos")[1]


def test_a_folder_elsewhere_is_not_remembered(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "matches no folder" in run(capfd, "index", "photos", "--exclude-dir", "/elsewhere")[2]
    assert json.loads(run(capfd, "info", "photos", "--json")[1])["excluded"] == []


def test_a_folder_that_is_left_out_leaves_the_results_and_costs_nothing_when_it_is_back(here: Path) -> None:
    paint(here / "photos" / "raw" / "a.png", (9, 9, 9))
    index = ImageIndex.open("photos", encoder=ColourEncoder())
    assert index.update().encoded == 1
    assert index.update(exclude_dirs=["raw"]).missing == 1
    assert index.info.excluded == ("raw",)
    report = index.update(include_dirs=["raw"])
    assert (report.restored, report.encoded) == (1, 0)


def test_models_lists_every_alias(capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capfd, "models")
    assert [line.split()[0] for line in out.splitlines()[1:6]] == [
        "fast",
        "balanced",
        "best",
        "multilingual",
        "starter",
    ]
    rows = [json.loads(line) for line in run(capfd, "models", "--json")[1].splitlines()]
    assert {row["name"]: row["imagenet"] for row in rows}["balanced"] == 76.5


def test_every_option_has_a_help_text() -> None:
    for command in app.commands.values():
        assert command.help
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{command.name} {parameter.name}"  # type: ignore[attr-defined]


def test_help_is_short_enough_for_one_screen(capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("--help", "index --help", "search --help", "info --help", "models --help"):
        code, out, _ = run(capfd, *command.split())
        assert code == 0
        assert len(out.splitlines()) <= 50


@pytest.mark.parametrize("places", [["photos", "out"], ["out", "photos"], ["photos", "empty"], ["empty", "photos"]])
def test_export_takes_photos_first_and_the_old_order_too(
    here: Path, capfd: pytest.CaptureFixture[str], places: list[str]
) -> None:
    (here / "empty").mkdir()
    code, _, err = run(capfd, "export", *places, "--layout", "npy")
    target = next(place for place in places if place != "photos")
    assert (code, err) == (0, f"8 vectors are in {target}\n")
    assert (here / target / "embeddings.npy").is_file()


def test_export_with_one_place_is_of_the_current_folder(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here / "photos")
    assert run(capfd, "export", "../out", "--layout", "npy")[0] == 0
    assert run(capfd, "export", "a", "b", "c")[0] == 2
    assert run(capfd, "export")[0] == 2


def test_a_dry_run_tells_moved_pictures_from_hidden_ones(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "photos" / "sub").mkdir()
    for name in ("red", "blue"):
        (here / "photos" / f"{name}.png").rename(here / "photos" / "sub" / f"{name}.png")
    (here / "photos" / "grey.png").unlink()
    out = run(capfd, "index", "photos", "--dry-run")[1]
    assert out == (
        "would read 2 (2 of them moved, by size and date), bring back 0 and hide 1 picture; 5 are unchanged\n"
    )


@pytest.mark.parametrize(("speed", "said"), [(0.24, "0.24"), (3.4, "3.4"), (9.96, "10"), (47.4, "47"), (115.0, "115")])
def test_a_slow_run_is_not_said_to_stand_still(speed: float, said: str) -> None:
    from clipkit.cli.output import _rate

    assert _rate(speed) == said


@pytest.mark.parametrize("columns", [50, 60, 80])
def test_models_fit_a_narrow_terminal(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    wide = run(capfd, "models")[1]
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = run(capfd, "models")[1]
    assert max(map(len, narrow.splitlines())) <= columns
    assert max(map(len, wide.splitlines())) > 80
    for word in ("balanced", "ViT-B-16-SigLIP-256/webli", "76.5", "813", "words in many languages"):
        assert word in wide
        assert word in narrow


def test_an_interrupted_import_is_an_interruption_anywhere(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.cli.main.app.main", pressed_while_a_library_loads)
    assert run(capfd, "info", "photos") == (130, "", "")


def test_an_import_that_fails_is_not_hidden(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("clipkit.index.update.apply_changes", broken)
    with pytest.raises(ImportError, match=r"libgomp\.so\.1"):
        main(["index", "photos"])


def test_ctrl_c_ends_a_program_at_once(here: Path) -> None:
    """With torch loaded the interpreter's own end took seconds; it would wait for this thread, too."""
    code = (
        "import sys, threading, time; from clipkit.cli import main as cli\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "def interrupt(*_, **__): raise KeyboardInterrupt\n"
        "cli.app.main = interrupt; sys.exit(cli.main())"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], timeout=50, check=False)
    assert done.returncode == 130
    assert time.monotonic() - started < 30


def test_approximate_search_is_said_and_can_be_left_out(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.index.approximate.LEAST_ROWS", 8)
    monkeypatch.setattr("clipkit.search.inverted_file.RECALL", 0.0)
    code, _, err = run(capfd, "index", "photos", "--ann", "ivf")
    assert code == 0
    assert "sorting the vectors into lists" in err
    assert "approximate: 1 of 4 lists, recall@10 " in err
    _, out, _ = run(capfd, "info", "photos")
    assert "approximate: 1 of 4 lists, recall@10 " in out
    assert json.loads(run(capfd, "info", "photos", "--json")[1])["search"].startswith("approximate")
    assert run(capfd, "search", "--exact", "red", "photos", "-t", "8", "-f")[1].count("\n") == 8
    assert run(capfd, "search", "red", "photos", "-t", "1", "-f")[1].endswith("red.png\n")
    assert run(capfd, "index", "photos", "--ann", "off")[0] == 0
    assert "exact" in run(capfd, "info", "photos")[1]
    assert run(capfd, "index", "photos", "--ann", "hnsw")[0] == 2


def test_without_the_extra_raw_files_are_one_line(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.nef", "b.NEF", "red.dng"):
        (here / "photos" / name).write_bytes(b"")
    paint(here / "photos" / "pair.jpg", COLOURS["red"])
    (here / "photos" / "pair.cr2").write_bytes(b"")
    monkeypatch.setattr("clipkit.index.scan.can_read_raw", lambda: False)
    _, _, err = run(capfd, "index", "photos", "--dry-run")
    assert "3 RAW files were left out: pip install 'clipkit[raw]'\n" in err
    code, _, err = run(capfd, "index", "photos")
    assert code == 0
    assert "  1 file beside a picture of the same name counts with it: RAW, live photo\n" in err
    assert "3 RAW files were left out: pip install 'clipkit[raw]'\n" in err
    assert "kinds not read" not in err
