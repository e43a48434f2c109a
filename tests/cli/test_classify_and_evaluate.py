"""classify and evaluate on the command line: what they print, what they refuse, what they leave on the disk."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.classify.head import Head
from clipkit.cli.main import app, main
from clipkit.core.arrays import Embeddings
from tests.cli.test_index_and_search import run
from tests.support.colours import COLOURS, ColourEncoder, paint

PRIMARY = "red,green,blue"


class ColourPhrases(ColourEncoder):
    """A text that names a colour is that colour; one that names none is grey, as what everything has in common."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        named = [next((name for name in COLOURS if name in re.findall("[a-z]+", text)), "grey") for text in texts]
        return super().encode_texts(named)


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def load(name: str, *, exact_pixels: bool = False, **options: object) -> ColourPhrases:
        asked.append(name)
        return ColourPhrases(exact=exact_pixels)

    monkeypatch.setattr("clipkit.models.load.load_encoder", load)
    return asked


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(photos.parent)
    assert main(["index", "photos"]) == 0
    return photos.parent


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A dataset of class folders: red and blue, three shades of each, one of the reds far too blue."""
    for split, shift in (("train", 0), ("test", 5)):
        for i in range(3):
            paint(tmp_path / "shades" / split / "red" / f"{i}.png", (200 + shift + i, 0, 0))
            paint(tmp_path / "shades" / split / "blue" / f"{i}.png", (0, 0, 200 + shift + i))
        paint(tmp_path / "shades" / split / "red" / "odd.png", (10 + shift, 0, 250))
    return tmp_path / "shades"


def test_classify_prints_label_probability_and_path(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "classify", "photos", "--classes", PRIMARY, "--templates", "plain")
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[2] for line in lines] == [f"photos/{name}.png" for name in sorted(COLOURS)]
    assert {line[2]: line[:2] for line in lines}["photos/red.png"] == ["red", "1.0000"]
    assert all(line[0] in PRIMARY.split(",") for line in lines)


def test_classify_loads_no_picture_and_no_model_for_a_saved_head(
    here: Path, capfd: pytest.CaptureFixture[str], colours: list[str]
) -> None:
    _, first, _ = run(capfd, "classify", "photos", "--classes", PRIMARY, "--save-head", "h.safetensors")
    asked = list(colours)
    for file in (here / "photos").glob("*.png"):
        file.unlink()
    code, second, _ = run(capfd, "classify", "photos", "--head", "h.safetensors")
    assert (code, second) == (0, first)
    assert colours == asked
    assert Head.load("h.safetensors").classes == ("red", "green", "blue")


def test_classify_has_other_forms(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "colours.txt").write_text("red\ngreen\n")
    arguments = ["classify", "photos", "--classes", "colours.txt", "--templates", "{}", "--top-k", "2"]
    text = run(capfd, *arguments)[1].splitlines()
    table = list(csv.DictReader(run(capfd, *arguments, "--csv")[1].splitlines()))
    records = [json.loads(line) for line in run(capfd, *arguments, "--json")[1].splitlines()]
    assert len(text) == len(table) == 2 * len(records) == 16
    assert ["\t".join(row.values()) for row in table] == text
    red = next(record for record in records if record["path"] == "red.png")
    assert red["labels"] == ["red"]
    assert red["answers"][0] == {"label": "red", "probability": 1.0}
    assert set(red) == {"path", "file", "labels", "answers"}


def test_unknown_is_said_and_has_no_probability(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["classify", "photos", "--classes", "red,blue", "--unknown", "--templates", "plain"]
    lines = dict(tuple(reversed(line.split("\t", 1))) for line in run(capfd, *arguments)[1].splitlines())
    assert lines["-\tphotos/grey.png"] == "unknown"
    assert lines["1.0000\tphotos/red.png"] == "red"
    table = list(csv.DictReader(run(capfd, *arguments, "--csv")[1].splitlines()))
    assert {row["path"]: row["probability"] for row in table}["photos/grey.png"] == ""
    records = [json.loads(line) for line in run(capfd, *arguments, "--json")[1].splitlines()]
    assert {r["path"]: r["answers"][0]["probability"] for r in records}["grey.png"] is None


def test_a_picture_may_have_several_labels_or_none(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "classify",
        "photos",
        "--classes",
        "red,yellow,blue",
        "--multi-label",
        "--templates",
        "plain",
        "--top-k",
        "3",
    ]
    found: dict[str, set[str]] = {}
    for line in run(capfd, *arguments)[1].splitlines():
        name, _, path = line.split("\t")
        found.setdefault(path, set()).add(name)
    assert found["photos/red.png"] == {"red", "yellow"}  # nearer to both than to what all texts share
    assert found["photos/blue.png"] == {"blue"}
    assert found["photos/grey.png"] == {"-"}


def test_a_dry_run_shows_the_plan_and_moves_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["classify", "photos", "--classes", PRIMARY, "--move-to", "sorted"]
    before = sorted((here / "photos").iterdir())
    code, plan, err = run(capfd, *arguments, "--dry-run")
    assert (code, err) == (0, "8 would be moved into sorted\n")
    assert "red\t1.0000\tphotos/red.png\tsorted/red/red.png\n" in plan
    assert sorted((here / "photos").iterdir()) == before
    assert not (here / "sorted").exists()
    code, done, err = run(capfd, *arguments)
    assert (code, done, err) == (0, plan, "8 moved into sorted\n")
    assert (here / "sorted" / "red" / "red.png").exists()
    assert not (here / "photos" / "red.png").exists()


def test_what_belongs_to_a_picture_goes_with_it(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("red.xmp", "red.png.xmp", "blue.txt"):
        (here / "photos" / name).write_text(name)
    arguments = ["classify", "photos", "--classes", PRIMARY, "--move-to", "sorted"]
    said = "into sorted, with 2 files that belong to them\n"
    assert run(capfd, *arguments, "--dry-run")[2] == f"8 would be moved {said}"
    for _ in range(2):  # the second time they are there already
        copied = run(capfd, "search", "red", "photos", "-t", "1", "--copy-to", "hits")
        assert "1 picture is in hits, with 2 files that belong to it\n" in copied[2]
    assert sorted(os.listdir("hits")) == ["red.png", "red.png.xmp", "red.xmp"]
    assert run(capfd, *arguments)[2] == f"8 moved {said}"
    assert {"red.png", "red.png.xmp", "red.xmp"} <= set(os.listdir("sorted/red"))
    assert sorted(name for name in os.listdir("photos") if not name.startswith(".")) == ["blue.txt"]
    (here / "one").mkdir()
    os.rename("sorted/red/red.png", "one/red.png")
    os.rename("sorted/red/red.xmp", "one/red.xmp")
    os.chdir("one")
    assert run(capfd, "classify", "red.png", "--classes", PRIMARY, "--move-to", "out")[0] == 0
    assert sorted(os.listdir("out/red")) == ["red.png", "red.xmp"]


def test_copies_and_links_are_made_once(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for option, word in (("--copy-to", "copied"), ("--symlink-to", "linked")):
        arguments = ["classify", "photos", "--classes", PRIMARY, option, word]
        assert run(capfd, *arguments)[2] == f"8 {word} into {word}\n"
        assert run(capfd, *arguments)[2] == f"0 {word} into {word}, 8 lie there already\n"
        assert len(list((here / word).rglob("*.png"))) == 8
    (target,) = json.loads(run(capfd, *arguments[:4], "--copy-to", "b", "--json")[1].splitlines()[0])["targets"]
    assert target.endswith("b/blue/blue.png")


def test_explain_shows_what_spoke_for_and_against(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "c.json").write_text(json.dumps({"warm": ["red", "yellow"], "cold": ["blue", "cyan"]}))
    code, out, _ = run(capfd, "classify", "photos", "--classes", "c.json", "--explain", "photos/red.png")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert (lines[0][0], lines[3][0]) == ("warm", "cold")
    assert [(line[0], line[2]) for line in lines[1:3]] == [("for", "red"), ("for", "yellow")]
    assert {(line[0], line[2]) for line in lines[4:]} == {("against", "blue"), ("against", "cyan")}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["photos"], 2, "which classes?"),
        (["photos", "--classes", "red", "--adapt"], 2, "needs --unknown"),
        (["photos", "--classes", "red", "--head", "h"], 2, "--head brings its own"),
        (["photos", "--classes", "red", "--dry-run"], 2, "--dry-run shows where"),
        (["photos", "--classes", "red", "--copy-to", "a", "--move-to", "b"], 2, "one of --copy-to"),
        (["photos", "--head", "h.safetensors"], 1, "error: h.safetensors is not there"),
        (["empty", "--classes", "red"], 1, "has no index\n  try: clipkit index"),
        (["photos", "--classes", "red,red"], 1, "'red' is named twice"),
        (["photos", "--classes", "none.txt"], 1, "none.txt cannot be read"),
        (["photos", "--classes", "red", "--templates", "no slot"], 1, "no set of templates"),
        (["photos", "--classes", "red,blue", "--multi-label", "--unknown"], 1, "unknown adds nothing"),
        (["photos", "--classes", "red", "--explain", "none.png"], 1, "none.png"),
        (["photos", "--classes", "red", "--in", "nowhere"], 1, "no pictures are indexed in nowhere"),
    ],
)
def test_a_mistake_gets_a_sentence_and_its_code(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (here / "empty").mkdir()
    got, out, err = run(capfd, "classify", *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_evaluate_zeroshot_counts_by_hand(shades: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, png = shades.parent / "r.json", shades.parent / "c.png"
    arguments = ["evaluate", "zeroshot", str(shades), "--split", "test", "--templates", "plain"]
    code, printed, _ = run(capfd, *arguments, "--out", str(out), "--confusion", str(png))
    assert code == 0
    record = json.loads(out.read_text())
    metrics = record["metrics"]
    assert (metrics["n"], metrics["acc1"], metrics["acc5"]) == (7, 6 / 7, None)
    assert metrics["mean_per_class_recall"] == (1 + 3 / 4) / 2
    assert metrics["confusion"] == [[3, 0], [1, 3]]
    assert metrics["ci95"]["acc1"][0] < 6 / 7 <= metrics["ci95"]["acc1"][1]
    assert record["confused"] == [{"actual": "red", "predicted": "blue", "n": 1}]
    assert "n = 7" in printed
    assert f"  acc1                        {6 / 7:.3f}" in printed
    assert "     1 times red was called blue" in printed
    with Image.open(png) as picture:
        assert picture.format == "PNG"
    assert run(capfd, *arguments, "--out", str(out))[1] == printed


def test_templates_are_chosen_on_one_split_and_measured_on_another(
    shades: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.evaluate.zeroshot.CANDIDATES", ("a red thing or a {}", "plain", "a photo of a {}."))
    out = shades.parent / "r.json"
    code, printed, _ = run(capfd, "evaluate", "zeroshot", str(shades), "--search-templates", "--out", str(out))
    assert code == 0
    record = json.loads(out.read_text())
    assert record["dataset"].endswith("test")
    assert record["searched"] == {"plain": 6 / 7, "a photo of a {}.": 6 / 7, "a red thing or a {}": 3 / 7}
    assert record["templates"] == next(iter(record["searched"])) == "plain"
    assert "on the validation split, plain" in printed
    code, _, err = run(capfd, "evaluate", "zeroshot", str(shades), "--search-templates", "--split", "train")
    assert code == 1
    assert "would be chosen on train, which is what is measured" in err


def test_labels_that_are_no_class_are_to_be_rejected(shades: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        paint(shades / "test" / "green" / f"{i}.png", (0, 200 + i, 0))
    arguments = ["evaluate", "zeroshot", str(shades), "--split", "test", "--classes", "red,blue"]
    assert "1 labels that are no class: green" in run(capfd, *arguments)[2]
    out = shades.parent / "r.json"
    assert run(capfd, *arguments, "--unknown", "--templates", "plain", "--out", str(out))[0] == 0
    metrics = json.loads(out.read_text())["metrics"]
    assert (metrics["n"], metrics["n_unknown"], metrics["auroc"]) == (7, 4, 1.0)
    assert (metrics["f1_known"], metrics["f1_unknown"]) == (1.0, 1.0)


def test_evaluate_retrieval_counts_by_hand(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [(f"{name}.png", name) for name in COLOURS] + [("red.png", "blue")]
    table = photos / "captions.csv"
    table.write_text("image,caption\n" + "".join(f"{image},{text}\n" for image, text in rows))
    out = photos / "r.json"
    code, printed, _ = run(capfd, "evaluate", "retrieval", str(table), "--out", str(out))
    assert code == 0
    record = json.loads(out.read_text())
    assert (record["task"], record["metrics"]["n"], record["metrics"]["n_texts"]) == ("zeroshot_retrieval", 8, 9)
    assert record["metrics"]["image_retrieval_recall@1"] == 8 / 9
    assert record["metrics"]["text_retrieval_recall@1"] == 7 / 8  # "blue" was said of red.png first
    assert "image_retrieval_recall@1    0.889" in printed


def test_a_picture_that_cannot_be_read_is_named(shades: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (shades / "test" / "red" / "bad.png").write_bytes(b"nothing")
    for _ in range(2):  # from the cache too
        out = run(capfd, "evaluate", "zeroshot", str(shades), "--split", "test")[1]
        assert "n = 7" in out
        assert "not counted:" in out
        assert "bad.png: " in out


def test_every_command_explains_itself(capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["classify"], ["evaluate"], ["evaluate", "zeroshot"], ["evaluate", "retrieval"]):
        code, out, _ = run(capfd, *command, "--help")
        assert code == 0
        assert out.startswith(f"Usage: clipkit {' '.join(command)}")
    assert {"classify", "evaluate"} <= set(app.commands)


def test_explanations_stay_with_the_probabilities(here: Path) -> None:
    from clipkit.classify.words import explain_prediction
    from clipkit.classify.zeroshot import ZeroShotClassifier

    classifier = ZeroShotClassifier(ColourPhrases(), ["red", "blue", "green"], templates=["{}", "a {} thing"])
    verdicts = explain_prediction(classifier, here / "photos" / "red.png", k=2)
    row = ColourPhrases().encode_images([here / "photos" / "red.png"])
    assert verdicts[0].label == "red"
    assert verdicts[0].probability == pytest.approx(float(classifier.predict_proba(row).max()))
    red, other = (ColourPhrases().encode_texts([name])[0] @ row[0] for name in ("red", verdicts[1].label))
    assert [spoken.score for spoken in verdicts[0].prompts] == pytest.approx([red, red])
    assert [spoken.lead for spoken in verdicts[0].prompts] == pytest.approx([red - other] * 2)
    assert [spoken.lead for spoken in verdicts[1].prompts] == pytest.approx([other - red] * 2)
    assert np.isclose(sum(verdict.prompts[0].lead for verdict in verdicts), 0)


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"], ["--top-k", "2"]])
def test_a_picture_needs_no_index(here: Path, capfd: pytest.CaptureFixture[str], form: list[str]) -> None:
    paint(here / "loose" / "red.png", COLOURS["red"])
    of_index = run(capfd, "classify", "photos", "--classes", "red,blue", *form)[1].splitlines()
    wanted = [line.replace("photos/red.png", "loose/red.png") for line in of_index if "red.png" in line]
    wanted = [line.replace('"path": "red.png"', '"path": "loose/red.png"') for line in wanted]
    code, out, _ = run(capfd, "classify", "loose/red.png", "--classes", "red,blue", *form)
    assert code == 0
    assert [line for line in out.splitlines() if "red.png" in line] == wanted


def test_several_pictures_keep_their_order_and_one_bad_one_stops_none(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.jpg").write_bytes(b"nothing")
    files = ["photos/red.png", "bad.jpg", "photos/blue.png"]
    code, out, err = run(capfd, "classify", *files, "--classes", "red,blue")
    assert code == 0
    assert [line.split("\t")[2] for line in out.splitlines()] == ["photos/red.png", "photos/blue.png"]
    assert "  cannot read bad.jpg: not JPEG" in err
    code, out, err = run(capfd, "classify", "bad.jpg", "--classes", "red,blue")
    assert (code, out) == (1, "")
    assert "none of the pictures can be read" in err


def test_a_saved_head_classifies_a_picture(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "classify", "photos", "--classes", "red,blue", "--save-head", "h.safetensors")
    assert run(capfd, "classify", "photos/blue.png", "--head", "h.safetensors")[1].startswith("blue\t")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["photos/red.png", "photos"], 2, "PHOTOS is one folder, or pictures"),
        (["photos", "--model", "fast"], 2, "--model is for pictures"),
        (["photos/red.png", "--in", "x"], 2, "go with a folder that has an index"),
        (["photoz"], 1, "photoz is not a folder\n  hint: did you mean photos"),
        (["none.png"], 1, "cannot read none.png: No such file"),
    ],
)
def test_what_is_neither_a_folder_nor_pictures(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    got, out, err = run(capfd, "classify", *arguments, "--classes", "red,blue")
    assert (got, out) == (code, "")
    assert message in err
