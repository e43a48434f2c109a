"""`adapt`: what it learns, what it refuses, that old indexes stay valid, and that a killed run goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import clipkit
from clipkit.cli.main import main
from clipkit.datasets.load import Dataset
from clipkit.errors import ClipkitError, DatasetError, ModelError, ModelMismatch
from clipkit.learn import Adaptation, AdaptRecipe, CurvePoint, adapt
from clipkit.learn.adaptation import choose, needed, reasons
from clipkit.learn.captioned import Captioned, check_language, split_by_copies, three_parts
from clipkit.learn.retrieval_change import Change, hits
from clipkit.metrics import retrieval_metrics
from clipkit.models.image_tower import image_tower_sha256
from clipkit.models.load import load_encoder
from tests.support.colours import COLOURS, ColourEncoder

NAMES = ("red", "green", "blue", "grey")
QUICK = AdaptRecipe(epochs=12, batch_size=32, lr=3e-3)


def noisy(file: Path, name: str, number: int) -> str:
    """A picture of a colour with a pattern of its own, so that no two are copies."""
    rng = np.random.default_rng([number, NAMES.index(name)])
    pixels = np.array(COLOURS[name]) * 0.6 + rng.integers(0, 100, (8, 8, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize((64, 64), 0).save(file)
    return str(file)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Four folders of twenty pictures each."""
    for name in NAMES:
        for number in range(20):
            noisy(tmp_path / "classes" / name / f"{number}.png", name, number)
    return tmp_path / "classes"


@pytest.fixture
def base(models: Callable[[str], Path]) -> Any:
    """A small model whose words mean nothing yet."""
    return load_encoder(str(models("clip")))


def precision(index: clipkit.ImageIndex, files: set[str]) -> float:
    """Share of these pictures that are found by the name of their folder before those of other folders."""
    found = []
    for name in NAMES:
        paths = [hit.path for hit in index.search(f"art of the {name}.", k=80) if hit.path in files]
        mine = [path for path in paths if path.startswith(f"{name}/")]
        found.append(np.mean([path in mine for path in paths[: len(mine)]]))
    return float(np.mean(found))


def test_an_index_made_before_stays_valid_and_answers_better_on_pictures_never_seen(
    classes: Path, base: Any, tmp_path: Path
) -> None:
    index = clipkit.ImageIndex.create(classes, base)
    index.update()
    rows = index.embeddings
    found = adapt(base, classes, out=tmp_path / "mine", recipe=QUICK)
    assert found.is_written, found.reasons
    assert found.keeps_indexes
    assert "80 embeddings taken from the index" in found.notes
    assert all(one.low >= 0 and one.gain > 0.2 for one in found.summary)
    towers_rows = three_parts(
        clipkit.load_dataset(classes), base, tokens=lambda texts: 0, seed=QUICK.seed
    )  # the same split
    unseen = {Path(file).relative_to(classes).as_posix() for file in towers_rows.test.files}
    assert len(unseen) == found.sizes["test"]

    mine = load_encoder(str(tmp_path / "mine"))
    before, after = precision(index, unseen), precision(clipkit.ImageIndex.open(classes, encoder=mine), unseen)
    assert after >= before + 0.2
    adopted = clipkit.ImageIndex.create(classes, mine)
    assert (adopted.former_model, adopted.model) == (base.model, "local:mine")
    assert adopted.update().encoded == 0
    assert np.array_equal(adopted.embeddings, rows)
    again = clipkit.ImageIndex.open(classes)  # as a new process does
    assert again.query_encoder.fingerprint == mine.fingerprint
    assert precision(again, unseen) == after
    assert clipkit.ImageIndex.create(classes, base).model == base.model  # and back


def test_the_folder_is_open_clips_own_with_a_card_and_a_report(classes: Path, base: Any, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    found = adapt(base, classes, out=out, recipe=QUICK)
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
    tokens = open_clip.get_tokenizer(f"local-dir:{out}")(["a bad photo of the red."])
    with torch.no_grad():
        expected = theirs.eval().encode_text(tokens, normalize=True).numpy()
    assert np.allclose(load_encoder(str(out)).encode_texts(["a bad photo of the red."]), expected, atol=1e-4)
    assert not list(out.glob("checkpoint*"))
    assert "| words to pictures | R@1 |" in (out / "README.md").read_text()
    assert Adaptation.load(out) == found
    assert json.loads((out / "adaptation.json").read_text())["share"] == found.share > 0
    with pytest.raises(ModelError, match="finished adaptation"):
        adapt(base, classes, out=out, recipe=QUICK)


def test_what_is_not_proven_is_not_written_and_force_writes_it_without_training_again(
    base: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    files = [noisy(tmp_path / "p" / f"{i}.png", NAMES[i % 4], i) for i in range(40)]
    words = [" ".join(rng.choice(["red", "dog", "lake", "two", "boat", "the", "cat"], 3)) for _ in files]
    (tmp_path / "p" / "captions.csv").write_text(
        "image,caption\n"
        + "".join(f"{Path(file).name},{text} {i}\n" for i, (file, text) in enumerate(zip(files, words, strict=True)))
    )
    short, out = replace(QUICK, epochs=2), tmp_path / "mine"
    found = adapt(base, tmp_path / "p" / "captions.csv", out=out, recipe=short)
    assert not found.is_written
    assert found.reasons
    assert found.needed.startswith(("cannot be told", "about"))
    assert [point.pictures for point in found.curve] == [6, 12, 24]
    assert not (out / "open_clip_config.json").exists()
    with pytest.raises(ModelError, match="without open_clip_config"):
        load_encoder(str(out))
    steps: list[int] = []
    forced = adapt(
        base, tmp_path / "p" / "captions.csv", out=out, recipe=short, force=True, progress=lambda at: steps.append(1)
    )
    assert forced.is_written
    assert not steps
    assert (forced.losses, forced.changes) == (found.losses, found.changes)
    assert "not proven better" in (out / "README.md").read_text()


def test_a_full_recipe_changes_pictures_and_old_indexes_are_refused_with_the_command(
    classes: Path, base: Any, tmp_path: Path
) -> None:
    clipkit.ImageIndex.create(classes, base).update()
    recipe = AdaptRecipe("full", epochs=1, lr=1e-3)
    found = adapt(base, classes, out=tmp_path / "mine", recipe=recipe, force=True)
    assert not found.keeps_indexes
    mine = load_encoder(str(tmp_path / "mine"))
    with pytest.raises(ModelMismatch) as refused:
        clipkit.ImageIndex.create(classes, mine)
    assert refused.value.hint == f"clipkit index {classes} --rebuild --model {tmp_path / 'mine'}"
    assert image_tower_sha256(mine.fingerprint, mine.source) != image_tower_sha256(base.fingerprint, base.source)


@pytest.mark.parametrize("kind", ["words", "projection", "lora"])
def test_each_recipe_changes_what_it_names_and_nothing_else(
    classes: Path, base: Any, tmp_path: Path, kind: Any
) -> None:
    from safetensors.numpy import load_file

    out = tmp_path / "mine"
    adapt(base, classes, out=out, recipe=AdaptRecipe(kind, epochs=1), force=True)
    before = load_file(Path(base.source) / "open_clip_model.safetensors")
    after = load_file(out / "open_clip_model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    blocks = [f"transformer.resblocks.{i}.mlp.{part}.weight" for i in range(2) for part in ("c_fc", "c_proj")]
    wanted = {"words": blocks, "projection": ["text_projection"], "lora": [*blocks, *(f"visual.{b}" for b in blocks)]}
    if changed:  # where no step was better on validation the weights are those before
        assert changed == set(wanted[kind])


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(classes: Path, base: Any, tmp_path: Path) -> None:
    short = replace(QUICK, epochs=4)
    whole = adapt(base, classes, out=tmp_path / "whole", recipe=short, force=True)
    code = f"""
import os, signal
from clipkit.learn import AdaptRecipe, adapt
from clipkit.models.load import load_encoder
def progress(at):
    if at.total == 8 and at.done == 5:  # in the third epoch
        os.kill(os.getpid(), signal.SIGKILL)
adapt(load_encoder({base.source!r}), {str(classes)!r}, out={str(tmp_path / "killed")!r}, progress=progress,
      recipe=AdaptRecipe(epochs=4, batch_size=32, lr=3e-3))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert [file.name for file in (tmp_path / "killed").iterdir()] == ["checkpoint.safetensors"]
    steps: list[int] = []
    ended = adapt(
        base,
        classes,
        out=tmp_path / "killed",
        recipe=short,
        force=True,
        progress=lambda at: steps.append(at.done) if at.total == 8 else None,
    )
    assert steps == [5, 6, 7, 8]
    assert ended.losses == whole.losses
    assert ended.changes == whole.changes


def test_a_checkpoint_of_other_pictures_or_settings_is_refused(classes: Path, base: Any, tmp_path: Path) -> None:
    out = tmp_path / "mine"

    def stop(at: Any) -> None:
        if at.total == 24 and at.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(base, classes, out=out, recipe=QUICK, progress=stop)
    with pytest.raises(ModelError, match=r"another run: lr 0.003, not 0.1"):
        adapt(base, classes, out=out, recipe=replace(QUICK, lr=0.1))


def test_a_full_disk_at_a_checkpoint_is_said_with_where_the_run_stands(
    classes: Path, base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **ways: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("clipkit.learn.tuning.write_tensors", full)
    with pytest.raises(ClipkitError, match="cannot take a checkpoint: No space left on device; the run stands at 0"):
        adapt(base, classes, out=tmp_path / "mine", recipe=QUICK)
    assert not (tmp_path / "mine").exists()


def test_a_loss_that_is_not_finite_ends_the_run_with_a_smaller_rate(classes: Path, base: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the loss became (nan|inf)") as wrong:
        adapt(base, classes, out=tmp_path / "mine", recipe=replace(QUICK, lr=1e30))
    assert wrong.value.hint == "--lr 1e+29"


RUSSIAN = "красная собака на горе"  # noqa: RUF001


@pytest.mark.parametrize(
    ("texts", "count", "words"),
    [
        (["red"], 1, "too few"),
        (["red"], 19, "too few"),
        ([RUSSIAN], 24, "are not English"),
    ],
)
def test_too_few_pictures_and_foreign_captions_are_refused(
    base: Any, tmp_path: Path, texts: Sequence[str], count: int, words: str
) -> None:
    files = tuple(noisy(tmp_path / f"{i}.png", NAMES[i % 4], i) for i in range(count))
    dataset = Dataset("mine", files, captions=tuple((f"{texts[0]} {i}",) for i in range(count)))
    with pytest.raises(DatasetError, match=words):
        adapt(base, dataset, out=tmp_path / "out")


def test_words_of_another_language_are_refused_where_the_model_has_none_for_them() -> None:
    german = [("ein roter Hund und eine Katze",), ("zwei Kinder auf dem Berg",), ("a dog on a sofa",)]
    with pytest.raises(DatasetError, match="2 of 3 texts are not English, and starter knows English only") as wrong:
        check_language(german, "starter", lambda texts: 20)
    assert wrong.value.hint == "captions in English, or a model of many languages: --base multilingual"
    check_language(german, "ViT-B-16-SigLIP-i18n-256/webli", lambda texts: 12)  # .3 tokens a letter
    with pytest.raises(DatasetError, match=r"0\.91 tokens a letter"):
        check_language(german, "local:mine", lambda texts: 40)
    check_language([*german, *[("a cat on a mat",)] * 4], "starter", lambda texts: 20)  # two of seven


def test_other_bad_input_is_named(classes: Path, base: Any, tmp_path: Path) -> None:
    files = tuple(noisy(tmp_path / f"{i}.png", NAMES[i % 4], i) for i in range(24))
    bare = Dataset("mine", files, captions=(("a dog",),) * 23 + (("",),))
    with pytest.raises(DatasetError, match=r"23\.png has no caption"):
        adapt(base, bare, out=tmp_path / "a")
    with pytest.raises(DatasetError, match="one class"):
        adapt(base, Dataset("mine", files, ("red",) * 24, ("red",)), out=tmp_path / "b")
    same = Dataset("mine", files, captions=(("a dog", " a dog "),) * 24)
    with pytest.raises(DatasetError, match="one caption for all"):
        adapt(base, same, out=tmp_path / "b")
    with pytest.raises(DatasetError, match=r"60 pictures of .*classes are learned from or choose"):
        adapt(base, classes, out=tmp_path / "b", general=classes)
    with pytest.raises(ModelError, match="no open_clip model"):
        adapt(ColourEncoder(), classes, out=tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").touch()
    with pytest.raises(ModelError, match="not an empty folder"):
        adapt(base, classes, out=tmp_path / "d")
    with pytest.raises(ClipkitError, match="cannot be written"):
        adapt(base, classes, out="/proc/mine")
    with pytest.raises(ModelError, match="epochs = 0"):
        AdaptRecipe(epochs=0)


def test_captions_that_are_longer_than_the_model_reads_are_counted(base: Any, tmp_path: Path) -> None:
    files = tuple(noisy(tmp_path / f"{i}.png", NAMES[i % 4], i) for i in range(24))
    captions = tuple((f"{NAMES[i % 4]} {i} {'by the lake ' * (40 if i < 3 else 1)}",) for i in range(24))
    dataset = Dataset("long", files, captions=captions)
    found = adapt(base, dataset, out=tmp_path / "out", recipe=AdaptRecipe("projection", epochs=1))
    note = f"3 texts longer than {base.model} reads: the ends are cut off"
    assert note in found.notes
    assert note in Adaptation.load(tmp_path / "out").to_json()["notes"]


def test_what_is_missing_and_what_has_no_caption_is_counted(base: Any, tmp_path: Path) -> None:
    for i in range(24):
        noisy(tmp_path / f"{i}.png", NAMES[i % 4], i)
    lines = [f"{i}.png,{NAMES[i % 4]} {i}\n" for i in range(22)]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(lines) + "gone.png,red\n")
    parts = three_parts(clipkit.load_dataset(tmp_path / "captions.csv"), base, tokens=lambda texts: 0)
    assert parts.notes[0].startswith("1 captioned picture not there, and left out: ")
    assert parts.notes[1] == "2 pictures beside them without a caption, not used"
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (13, 3, 6)


def test_near_copies_stay_in_one_part_and_classes_are_spread() -> None:
    copies = np.repeat(np.arange(50), 2)
    right = np.eye(5, dtype=np.bool_)[np.repeat(np.arange(5), 20)]
    whole = Captioned(("x",) * 100, np.zeros((100, 4), np.float32), (("a",),) * 5, right, copies, are_classes=True)
    parts = split_by_copies(whole, 1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert [len(part) for part in parts] == [60, 16, 24]
    groups = [set(copies[part].tolist()) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert all(right[part].sum(axis=0).min() >= 2 for part in parts)
    assert [part.tolist() for part in split_by_copies(whole, 1)] == [part.tolist() for part in parts]
    with pytest.raises(DatasetError, match="copies of each other"):
        split_by_copies(replace(whole, copies=np.zeros(100, np.int64)), 1)


def test_equal_pictures_are_found_to_be_copies(base: Any, tmp_path: Path) -> None:
    for i in range(24):
        noisy(tmp_path / f"{i}.png", NAMES[i % 4], i)
    (tmp_path / "copy.png").write_bytes((tmp_path / "3.png").read_bytes())
    files = tuple(str(tmp_path / f"{name}.png") for name in (*range(24), "copy"))
    dataset = Dataset("mine", files, captions=tuple((f"a dog {i}",) for i in range(25)))
    parts = three_parts(dataset, base, tokens=lambda texts: 0)
    assert "2 pictures in 1 group of near copies, each in one part" in parts.notes
    holding = [{Path(file).name for file in part.files} for part in (parts.train, parts.validation, parts.test)]
    assert [len(names & {"3.png", "copy.png"}) for names in holding].count(2) == 1


def test_recall_is_that_of_retrieval_metrics_where_no_text_is_shared() -> None:
    rng = np.random.default_rng(0)
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 120, 8)))
    owners = np.repeat(np.arange(40), 3)
    images, texts = images[:40].astype(np.float32), texts.astype(np.float32)
    found = hits(images, texts, np.arange(40)[:, None] == owners).mean(axis=2)
    known = retrieval_metrics(images, texts, owners)
    for way, key in enumerate(("image", "text")):
        assert found[way].tolist() == pytest.approx([known[f"{key}_retrieval_recall@{k}"] for k in (1, 5, 10)])


def test_what_is_also_right_does_not_stand_in_the_way_and_a_tie_is_no_hit() -> None:
    right = np.array([[True, False], [True, False], [False, True]])
    images = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    assert hits(images, np.eye(2, dtype=np.float32), right, ks=[1]).min() == 1
    assert hits(np.ones((3, 2), np.float32), np.ones((2, 2), np.float32), right, ks=[1]).max() == 0


def test_the_decision_is_by_both_ways_and_the_general_set() -> None:
    good = Change("words to pictures", "mean", 0.5, 0.6, 0.02, 0.18, 50)
    level = Change("pictures to words", "mean", 0.5, 0.5, 0.0, 0.0, 50)
    same = Change("general", "top-1", 0.9, 0.9, -0.01, 0.01, 900)
    assert reasons([good, level], same, 0.5) == []
    assert reasons([good, replace(level, low=-0.001)], same, 0.5) == [
        "pictures to words: the interval of the difference holds a loss (-0.001 to +0.000)"
    ]
    assert reasons([level, level], same, 0.5) == ["nothing is found better than before"]
    assert reasons([good, level], replace(same, low=-0.021), 0.5)[0].startswith("general: a loss of more than 0.02")
    assert reasons([good, level], same, 0.0)[0].startswith("no step away")


def test_it_goes_no_further_than_the_general_set_stays() -> None:
    validation = {0.0: 0.3, 0.125: 0.35, 0.25: 0.4, 0.5: 0.45, 0.75: 0.5, 1.0: 0.48}
    lows, asked = {0.125: -0.005, 0.25: -0.01, 0.5: -0.021, 0.75: -0.01, 1.0: -0.3}, []

    def general_low(share: float) -> float:
        asked.append(share)
        return lows[share]

    found = choose(validation, general_low)
    assert found.share == 0.25
    assert asked == [0.125, 0.25, 0.5]  # in order, and none after one that has failed
    assert found.general_low == {share: lows[share] for share in asked}
    assert choose(validation, lambda _: 0.0).share == 0.75  # and none beyond the best on validation
    assert choose(dict.fromkeys(validation, 0.3), general_low).share == 0.0
    assert choose(validation, lambda _: -0.03).share == 0.0


def test_how_many_pictures_it_would_take_is_guessed_or_said_to_be_unknown() -> None:
    rising = [CurvePoint(n, 0.01 * k, 0.01 * k - 0.04, 0.01 * k + 0.04) for k, n in enumerate((25, 50, 100))]
    # gain .02 + .01 log2(times) against .04 / sqrt(times): equal between 1.95 and 2.44 times
    assert needed(rising, 1000) == "about 2,000 captioned pictures, guessed from three sizes"
    assert needed(rising[::-1], 1000) != ""
    falling = [replace(point, gain=-point.gain) for point in rising]
    assert needed(falling, 1000) == "cannot be told: more pictures did not help"
    slow = [replace(point, gain=0.0001 * k - 0.01) for k, point in enumerate(rising)]
    assert needed(slow, 1000).startswith("cannot be told: more than 16,000 pictures")


def test_the_tower_of_pictures_is_itself_in_another_precision_and_beside_other_words(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    state = load_file(models("clip") / "open_clip_model.safetensors")
    half = {name: value.astype(np.float16) if value.dtype.kind == "f" else value for name, value in state.items()}
    back = {name: value.astype(np.float32) if value.dtype.kind == "f" else value for name, value in half.items()}
    other = {name: value if name.startswith("visual.") else np.array(np.flip(value)) for name, value in back.items()}
    moved = {**back, "visual.proj": back["visual.proj"] + np.float32(1e-3)}
    sums = []
    for number, one in enumerate((half, back, other, moved)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(one, folder / "open_clip_model.safetensors")
        content = (folder / "open_clip_model.safetensors").read_bytes()
        key = hashlib.sha256(content).hexdigest()
        sums.append(image_tower_sha256(key, str(folder)))
        assert image_tower_sha256("0" * 64, str(folder)) == ""  # what is asked for is not what lies there
    assert sums[0] == sums[1] == sums[2] != sums[3]
    assert image_tower_sha256("1" * 64, "ViT-B-32/openai") == ""


@pytest.mark.parametrize("content", ["3", "[1]", "{"])
def test_towers_that_were_noted_in_a_damaged_file_are_computed_again(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    monkeypatch.setenv("CLIPKIT_CACHE", str(tmp_path / "cache"))
    folder = models("clip")
    weights = hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest()
    expected = image_tower_sha256(weights, str(folder))
    (tmp_path / "cache" / "models" / "image_towers.json").write_text(content)
    assert image_tower_sha256(weights, str(folder)) == expected != ""


def test_the_command_prints_a_table_draws_and_ends_with_1_where_nothing_is_written(
    classes: Path, models: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base, out = str(models("clip")), tmp_path / "mine"
    ways = ["--base", base, "--lr", "3e-3", "--batch-size", "32", "--epochs", "12"]
    assert main(["adapt", str(classes), "--out", str(out), *ways, "--json"]) == 0
    text, err = capfd.readouterr()
    record = json.loads(text)
    assert record["is_written"]
    assert f"next: clipkit index ./photos --model {out}" in err
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("loss.png", "before-after.png"))
    assert main(["index", str(classes), "--model", base]) == 0
    capfd.readouterr()
    assert main(["index", str(classes), "--model", str(out)]) == 0
    err = capfd.readouterr().err
    assert "80 unchanged" in err
    assert "local:mine reads queries now, not local:clip: one image tower" in err

    slow = [*ways[:2], "--lr", "1e-9", "--epochs", "1"]
    assert main(["adapt", str(classes), "--out", str(tmp_path / "no"), *slow]) == 1
    text, err = capfd.readouterr()
    assert "words to pictures    R@10" in text
    assert "not proven: " in text
    assert "error: " in err
    assert "--force" in err
    assert Adaptation.load(tmp_path / "no").is_written is False
