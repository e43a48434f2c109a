"""probe, classify --head and search --head --class on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.classify.head import Head
from clipkit.cli.main import main
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import load_dataset
from clipkit.errors import DatasetError
from clipkit.learn.fitting import fit_head, training_part
from clipkit.learn.methods import HEAD_METHODS
from clipkit.metrics import bootstrap
from clipkit.models.openclip import OpenClipEncoder
from tests.cli.test_classify_and_evaluate import ColourPhrases
from tests.cli.test_index_and_search import run
from tests.support.colours import COLOURS, ColourEncoder, paint

BASES = {"red": (200, 40, 30), "green": (40, 190, 50), "blue": (30, 40, 200)}


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, exact_pixels: bool = False, **options: object) -> ColourPhrases:
        return ColourPhrases(exact=exact_pixels)

    monkeypatch.setattr("clipkit.models.load.load_encoder", load)


def shaded(root: Path, each: int = 6, *, shift: int = 0) -> Path:
    """One folder a colour, `each` shades of it."""
    for name, (r, g, b) in BASES.items():
        for i in range(each):
            paint(root / name / f"{i}.png", (r + 3 * i + shift, g + 2 * i, b + i))
    return root


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    """photos with an index, and data with labels."""
    monkeypatch.chdir(photos.parent)
    assert main(["index", "photos"]) == 0
    shaded(photos.parent / "data")
    capfd.readouterr()
    return photos.parent


@pytest.mark.parametrize("method", HEAD_METHODS)
def test_every_method_makes_a_head_that_classify_uses(
    here: Path, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    arguments = ["probe", "data", "--out", "h.safetensors", "--method", method, "--space", "projected"]
    code, out, err = run(capfd, *arguments)
    assert code == 0
    assert "learned from      18 pictures, 3 of them held back to choose" in out
    assert "validation acc1   1.000  (0.438 to 1.000, n = 3)" in out  # Wilson: 3 / (3 + 1.96 ** 2)
    assert err.endswith("next: clipkit classify ./photos --head h.safetensors\n")
    assert Head.load("h.safetensors").classes == ("blue", "green", "red")
    lines = run(capfd, "classify", "photos", "--head", "h.safetensors")[1].splitlines()
    called = {line.split("\t")[2]: line.split("\t")[0] for line in lines}
    assert {name: called[f"photos/{name}.png"] for name in BASES} == {name: name for name in BASES}


def test_a_backbone_head_reads_the_pictures_again(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "probe", "data", "--out", "b.safetensors", "--space", "backbone")
    assert code == 0
    assert "--space projected makes one for an index" in err
    head = Head.load("b.safetensors")
    assert (head.space, head.dim) == ("backbone", 7)
    (here / "photos" / "grey.png").write_bytes(b"no picture any more")
    (here / "photos" / "white.png").unlink()
    code, out, err = run(capfd, "classify", "photos", "--head", "b.safetensors")
    assert code == 0
    called = {line.split("\t")[2]: line.split("\t")[0] for line in out.splitlines()}
    assert {name: called[f"photos/{name}.png"] for name in BASES} == {name: name for name in BASES}
    assert len(called) == 6
    assert "cannot read" in err
    assert "grey.png" in err
    assert "white.png" in err
    assert run(capfd, "classify", "photos", "--head", "b.safetensors", "--in", "nowhere")[1] == ""


def test_a_backbone_head_is_refused_where_there_are_no_pictures_to_see(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(capfd, "probe", "data", "--out", "b.safetensors", "--space", "backbone")
    code, out, err = run(capfd, "search", "red", "photos", "--head", "b.safetensors", "--class", "red")
    assert (code, out) == (1, "")
    assert "reads backbone features, and these are projected" in err
    assert "  hint: " in err


def test_search_shows_only_pictures_of_a_class(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "probe", "data", "--out", "p.safetensors", "--space", "projected")
    named = [line.split("\t") for line in run(capfd, "classify", "photos", "--head", "p.safetensors")[1].splitlines()]
    for classes in (["blue"], ["green", "red"]):
        wanted = {line[2] for line in named if line[0] in classes}
        chosen = [part for name in classes for part in ("--class", name)]
        for top in ("8", "1"):
            code, out, _ = run(capfd, "search", "red", "photos", "--head", "p.safetensors", *chosen, "-t", top)
            found = [line.split("\t")[1] for line in out.splitlines()]
            assert code == 0
            plain = [line.split("\t")[1] for line in run(capfd, "search", "red", "photos")[1].splitlines()]
            assert found == [path for path in plain if path in wanted][: int(top)]  # filtered, then the k best
    arguments = ["search", "red", "photos", "--head", "p.safetensors", "--class", "red"]
    assert "no pictures are indexed in nowhere" in run(capfd, *arguments, "--in", "nowhere")[2]
    paint(here / "photos" / "sea" / "deep.png", COLOURS["blue"])
    run(capfd, "index", "photos")
    assert "that are red are indexed in sea" in run(capfd, *arguments, "--in", "sea")[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["search", "red", "photos", "--head", "p", "--class", "pink"],
            1,
            "no class 'pink'\n  hint: its classes are bl",
        ),
        (["search", "red", "photos", "--head", "p"], 2, "--head and --class go together"),
        (["search", "red", "photos", "--class", "red"], 2, "--head and --class go together"),
        (["search", "red", "photos", "--head", "none", "--class", "red"], 1, "none is not there"),
        (["probe", "nowhere", "--out", "h"], 1, "nowhere is not there"),
        (["probe", "data"], 2, "Missing option '--out'"),
        (["probe", "data", "--out", "h", "--shots", "4"], 1, "'blue' has 6 pictures, and 4 shots need 4 and 4 more"),
        (["probe", "data", "--out", "h", "--split", "test"], 1, "test is for measuring"),
        (["probe", "data", "--out", "h", "--method", "text-probe", "--space", "backbone"], 1, "starts from words"),
        (["probe", "data", "--out", "h", "--method", "gelu", "--C", "1"], 1, "gelu has no C"),
        (["probe", "data", "--out", "h", "--C", "-1"], 1, "C is -1.0, not a positive number"),
        (["probe", "data/red", "--out", "h"], 1, "has no folders with pictures"),
        (["probe", "one", "--out", "h"], 1, "every label is 'red'"),
        (["probe", "bad", "--out", "h"], 1, "no picture that can be read"),
        (["probe", "photos/captions.csv", "--out", "h"], 1, "has captions, no labels"),
        (["probe", "data", "--out", "photos"], 1, "photos cannot be written: it is a folder"),
        (["probe", "data", "--out", "p/h"], 1, "p cannot be written"),
        (["probe", "data", "--out", "h", "--seed", "-1"], 2, "-1 is not in the range 0<=x<="),
        (["probe", "lost", "--out", "h"], 1, "no picture of red can be read"),
        (["probe", "flat", "--out", "h"], 1, "train has no folders with pictures"),
        (["probe", "flat/test", "--out", "h"], 1, "every label is 'blue'"),
        (["probe", "asked", "--out", "h"], 1, "asked has a test part and none to learn from"),
    ],
)
def test_a_mistake_gets_a_sentence_and_its_code(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    paint(here / "one" / "red" / "a.png", BASES["red"])
    for name in ("red", "blue"):
        (here / "bad" / name).mkdir(parents=True)
        (here / "bad" / name / "a.png").write_bytes(b"nothing")
    for place in (
        "lost/blue/a.png",
        "lost/green/a.png",
        "flat/train/a.png",
        "flat/test/blue/a.png",
        "asked/test/a.png",
    ):
        paint(here / place, BASES["blue"])
    (here / "lost" / "red").mkdir()
    (here / "lost" / "red" / "a.png").write_bytes(b"nothing")
    (here / "photos" / "captions.csv").write_text("image,caption\nred.png,a red thing\n")
    run(capfd, "probe", "data", "--out", "p", "--space", "projected")
    got, _, err = run(capfd, *arguments)
    assert (got, message in err, "Traceback" in err) == (code, True, False), err


def test_a_head_of_another_model_is_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for space in ("projected", "backbone"):
        run(capfd, "probe", "data", "--out", "h.safetensors", "--space", space)
        head = Head.load("h.safetensors")
        Head(**{**vars(head), "fingerprint": "dd" * 32}).save("h.safetensors")
        code, _, err = run(capfd, "classify", "photos", "--head", "h.safetensors")
        assert code == 1
        assert "this head was made with colour, not other weights of the same name" in err


def test_unreadable_pictures_are_left_out_and_named(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "data" / "red" / "0.png").write_bytes(b"nothing")
    code, out, err = run(capfd, "probe", "data", "--out", "h.safetensors", "--json")
    assert code == 0
    record = json.loads(out)
    assert (record["n"], record["n_validation"]) == (17, 3)
    assert "left out: data/red/0.png" in err
    assert [failure["path"] for failure in record["failed"]] == ["data/red/0.png"]
    assert record["classes"] == ["blue", "green", "red"]
    assert set(record["by_space"]) == {"projected", "backbone"}


def test_a_datasets_own_parts_are_used_and_its_test_part_is_not_opened(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, each in (("train", 4), ("val", 2), ("test", 3)):
        shaded(here / "parts" / part, each, shift={"train": 0, "val": 1, "test": 2}[part])
    opened: list[str] = []
    real = ColourEncoder.encode_images

    def spy(self: ColourEncoder, pictures: Any, *, space: str = "projected") -> Any:
        opened.extend(map(str, pictures))
        return real(self, pictures, space=space)

    monkeypatch.setattr(ColourEncoder, "encode_images", spy)
    assert run(capfd, "probe", "parts", "--out", "h.safetensors", "--json")[0] == 0
    assert len(set(opened)) == 18
    assert not [file for file in opened if "test" in file]
    record = json.loads(run(capfd, "probe", "parts", "--out", "h.safetensors", "--json")[1])
    assert (record["n"], record["n_validation"], record["classes"]) == (18, 6, ["blue", "green", "red"])
    record = json.loads(run(capfd, "probe", "parts", "--out", "h.safetensors", "--json", "--shots", "2")[1])
    assert (record["n"], record["n_validation"]) == (12, 6)
    with pytest.raises(DatasetError, match="for measuring"):
        training_part("parts", "test")


def test_a_class_may_be_called_train(here: Path) -> None:
    for name in ("train", "bus"):
        for i in range(3):
            paint(here / "rails" / name / f"{i}.png", BASES["red" if name == "bus" else "blue"])
    assert training_part(here / "rails").classes == ("bus", "train")


def test_both_spaces_are_tried_on_the_same_pictures_and_the_better_is_taken(here: Path) -> None:
    """Brightness decides, which the squares know better than the colours."""
    for i in range(40):
        paint(here / "light" / ("dim" if i % 2 else "lit") / f"{i}.png", (90 + i + 3 * (i % 2),) * 3)
    fitted = fit_head(here / "light", ColourPhrases())
    assert fitted.head.space == max(fitted.by_space, key=lambda space: (fitted.by_space[space], space == "projected"))
    assert fitted.accuracy == fitted.by_space[fitted.head.space]
    low, high = fitted.ci95
    assert low <= fitted.accuracy <= high
    assert fitted.n_validation == 8
    for space in ("projected", "backbone"):
        alone = fit_head(here / "light", ColourPhrases(), space=space)
        assert alone.accuracy == fitted.by_space[space]


def test_the_accuracy_that_is_said_is_of_pictures_not_learned_from(here: Path) -> None:
    """Labels by lot: a fit knows its own pictures by heart and the others not at all."""
    rng = np.random.default_rng(0)
    for i in range(120):
        paint(here / "lots" / str(rng.integers(2)) / f"{i}.png", tuple(rng.integers(0, 256, 3).tolist()))
    for method in ("probe", "prototypes", "gelu"):
        fitted = fit_head(here / "lots", ColourPhrases(), method=method, space="backbone")
        assert fitted.accuracy < 0.8
    given = fit_head(here / "lots", ColourPhrases(), space="backbone", C=1000.0)
    assert (given.chosen, given.accuracy < 0.8) == ("", True)


def test_embeddings_of_the_two_spaces_are_kept_apart(here: Path) -> None:
    dataset, encoder = load_dataset(here / "data"), ColourPhrases()
    for _ in range(2):
        for space, width in (("projected", 4), ("backbone", 7)):
            embedded = embed_once(dataset, encoder, space=space)
            assert embedded.embeddings.shape == (18, width)
            np.testing.assert_allclose(
                embedded.embeddings, encoder.encode_images(dataset.files, space=space), atol=1e-6
            )
    assert encoder.encoded == 6 * 18  # two into the cache, four to compare


def test_the_command_explains_itself(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "probe", "--help")
    assert code == 0
    assert "clipkit probe ./animals --out animals.safetensors" in out
    assert all(name in out for name in HEAD_METHODS)


@pytest.mark.real
@pytest.mark.slow
def test_the_starter_learns_pets_from_its_labels(
    real_data: Path, tmp_path: Path, pets_cache: Path, starter: OpenClipEncoder
) -> None:
    """Space and C are chosen on trainval alone; test is asked once, here."""
    encoder = starter
    fitted = fit_head(real_data, encoder)
    assert fitted.n == len(load_dataset(real_data, split="trainval"))
    fitted.head.save(tmp_path / "pets.safetensors")
    asked = embed_once(load_dataset(real_data, split="test"), encoder, space=fitted.head.space)
    found = Head.load(tmp_path / "pets.safetensors").predict(asked.embeddings)
    is_right = found == np.array(asked.dataset.labels)
    low, high = bootstrap(lambda rows: float(is_right[rows].mean()), len(is_right))
    assert is_right.mean() >= 0.90, f"acc1 {is_right.mean():.4f} ({low:.3f} to {high:.3f}) in {fitted.head.space}"
    assert abs(fitted.accuracy - is_right.mean()) < 0.05
