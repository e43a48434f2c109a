"""Parquet and Arrow as Hugging Face's `datasets` writes them, made here by pyarrow alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import ipc

from clipkit.datasets.load import load_dataset
from clipkit.datasets.splits import own_parts, read_split
from clipkit.errors import DatasetError
from clipkit.evaluate.zeroshot import evaluate_retrieval, evaluate_zeroshot, load_labelled, measured_split
from clipkit.learn.fitting import training_part
from tests.support.colours import COLOURS, ColourEncoder

NAMES = ["red", "blue", "green"]  # in no order of the alphabet: a number is a place in this list
LABELLED = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}


def png(name: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), COLOURS[name]).save(stream, "PNG")
    return stream.getvalue()


def make_table(labels: list[int], features: dict[str, Any] | None = LABELLED, **more: list[Any]) -> pa.Table:
    """Pictures of the colours their labels name."""
    pictures = [{"bytes": png(NAMES[label]), "path": f"{i}.png"} for i, label in enumerate(labels)]
    image = pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": image, "label": pa.array(labels, pa.int64()), **more})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    return table.replace_schema_metadata(metadata)


def write_parquet(file: Path, table: pa.Table) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def save_to_disk(folder: Path, tables: list[pa.Table]) -> None:
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(tables):05}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


@pytest.fixture(params=["hub", "flat", "folders", "save_to_disk", "arrow file"])
def two_splits(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Four pictures to learn from, in two shards, and two to measure on, in each layout."""
    root, shards, test = tmp_path / "set", [make_table([0, 1]), make_table([1, 0])], make_table([0, 1])
    if request.param == "save_to_disk":
        save_to_disk(root / "train", shards)
        save_to_disk(root / "test", [test])
        (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    elif request.param == "arrow file":
        root.mkdir()
        for name, table in {"set-train-00000": shards[0], "set-train-00001": shards[1], "set-test": test}.items():
            with ipc.new_file(str(root / f"{name}.arrow"), table.schema) as writer:
                writer.write_table(table)
    else:
        names = {
            "hub": ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"),
            "flat": ("train-00000-of-00002", "train-00001-of-00002", "test"),
            "folders": ("default/train/0000", "default/train/0001", "default/test/0000"),
        }[request.param]
        for name, table in zip(names, [*shards, test], strict=True):
            write_parquet(root / f"{name}.parquet", table)
    return root


def test_every_layout_has_its_splits(two_splits: Path) -> None:
    assert own_parts(two_splits) == ("train", None, "test")
    assert measured_split(two_splits) == "test"
    train = load_dataset(two_splits, split="train")
    assert (train.labels, train.classes) == (("red", "blue", "blue", "red"), ("blue", "red"))
    assert len(load_dataset(two_splits)) == 6
    with pytest.raises(DatasetError, match="has no split 'dev'") as caught:
        load_dataset(two_splits, split="dev")
    assert caught.value.hint == "--split train"


def test_the_commands_measure_and_learn_from_them(two_splits: Path) -> None:
    encoder = ColourEncoder()
    assert evaluate_zeroshot(load_labelled(two_splits), encoder, templates="plain").metrics["acc1"] == 1
    assert training_part(two_splits).labels == ("red", "blue", "blue", "red")
    split = read_split(two_splits)
    assert (split.description, len(split.train), len(split.test)) == ("its own train and test", 4, 2)


def test_pictures_are_those_of_the_table_each_with_a_file_of_its_own(tmp_path: Path, private_cache: Path) -> None:
    file = write_parquet(tmp_path / "one.parquet", make_table([0, 0, 2]))
    dataset = load_dataset(file)
    assert [Path(one).read_bytes() for one in dataset.files] == [png("red"), png("red"), png("green")]
    assert len(set(dataset.files)) == 3
    assert {Path(one).suffix for one in dataset.files} == {".png"}
    assert load_dataset(file) == dataset
    shutil.rmtree(private_cache)
    assert load_dataset(file) == dataset
    assert [Path(one).read_bytes() for one in dataset.files][2] == png("green")
    Path(dataset.files[0]).write_bytes(b"torn")
    assert Path(load_dataset(file).files[0]).read_bytes() == png("red")


def test_one_dataset_saved_to_disk_has_no_splits(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "one", [make_table([0, 2]), make_table([1])])
    assert load_dataset(tmp_path / "one").labels == ("red", "green", "blue")
    assert own_parts(tmp_path / "one") == (None, None, None)


def test_labels_may_be_texts_numbers_or_of_the_finest_classes(tmp_path: Path) -> None:
    texts = make_table([0, 1], None).set_column(1, "label", pa.array(["cat", "dog"]))
    assert load_dataset(write_parquet(tmp_path / "a.parquet", texts)).labels == ("cat", "dog")
    assert load_dataset(write_parquet(tmp_path / "b.parquet", make_table([0, 2], None))).labels == ("0", "2")
    features = {"image": {"_type": "Image"}, "coarse": {"names": ["warm"], "_type": "ClassLabel"}}
    features["fine"] = {"names": NAMES, "_type": "ClassLabel"}
    table = make_table([0, 1], None, coarse=[0, 0]).rename_columns(["image", "fine", "coarse"])
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = write_parquet(tmp_path / "c.parquet", table)
    assert load_dataset(file).labels == ("red", "blue")
    assert load_dataset(file, label="coarse").labels == ("warm", "warm")


def test_captions_are_read_where_there_are_no_labels(tmp_path: Path) -> None:
    table = make_table([0, 1]).drop_columns(["label"])
    table = table.append_column("caption", pa.array([["red"], ["blue", "sea"]]))
    dataset = load_dataset(write_parquet(tmp_path / "a.parquet", table))
    assert (dataset.labels, dataset.captions) == ((), (("red",), ("blue", "sea")))
    assert evaluate_retrieval(dataset, ColourEncoder()).dataset.endswith("a.parquet")


def test_pictures_that_are_files_beside_the_table_stay_there(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    pictures = [{"bytes": None, "path": "red.png"}, {"bytes": None, "path": str(tmp_path / "gone.png")}]
    image = pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    file = write_parquet(tmp_path / "a.parquet", pa.table({"image": image, "label": ["x", "y"]}))
    dataset = load_dataset(file)
    assert dataset.files == (str(tmp_path / "red.png"),)
    assert [failure.path for failure in dataset.failed] == [str(tmp_path / "gone.png")]


def test_vectors_beside_class_folders_are_no_pictures(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(name))
    write_parquet(tmp_path / "embeddings.parquet", pa.table({"path": ["a"], "embedding": [[1.0]]}))
    assert load_dataset(tmp_path).classes == ("blue", "red")


@pytest.mark.parametrize(
    ("table", "fact"),
    [
        (make_table([0]).set_column(1, "label", pa.array([-1])), "a row whose label is -1, which is no class"),
        (make_table([0]).drop_columns(["label"]), "has the columns image"),
        (pa.table({"label": ["a"]}), "has the columns label"),
        (make_table([0]).slice(0, 0), "has no rows"),
        (pa.table({"image": pa.array([None], pa.binary()), "label": ["a"]}), "a row without a picture"),
        (make_table([0]).drop_columns(["label"]).append_column("text", pa.array([""])), "a row without text"),
    ],
)
def test_a_table_that_says_too_little_is_an_error(tmp_path: Path, table: pa.Table, fact: str) -> None:
    with pytest.raises(DatasetError, match=fact):
        load_dataset(write_parquet(tmp_path / "a.parquet", table))


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", make_table([0, 1]))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"a\.parquet cannot be read"):
        load_dataset(file)
    save_to_disk(tmp_path / "one", [make_table([0])])
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DatasetError, match=r"state\.json cannot be read"):
        load_dataset(tmp_path / "one")


def test_an_order_that_is_kept_apart_is_refused(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "one", [make_table([0])])
    state = json.loads((tmp_path / "one" / "state.json").read_text())
    (tmp_path / "one" / "state.json").write_text(json.dumps({**state, "_indices_files": [{"filename": "x"}]}))
    with pytest.raises(DatasetError, match="keeps its order apart"):
        load_dataset(tmp_path / "one")


def test_many_rows_come_in_their_order(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, 600).tolist()
    write_parquet(tmp_path / "p" / "a.parquet", make_table(labels))
    save_to_disk(tmp_path / "d", [make_table(labels)])
    for place in ("p", "d"):
        assert load_dataset(tmp_path / place).labels == tuple(NAMES[label] for label in labels)


def test_what_a_table_lacks_is_said_once_with_its_own_hint(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", make_table([0, 1], None).rename_columns(["image", "kind"]))
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path, split="train")
    assert caught.value.message == f"{tmp_path / 'train.parquet'} has the columns image, kind"
    assert "load_dataset(FILE, label=COLUMN)" in str(caught.value.hint)
    assert load_dataset(tmp_path, split="train", label="kind").classes == ("0", "1")


def test_pictures_without_any_path_are_pictures(tmp_path: Path) -> None:
    """As pandas writes them: the type of the path is null, or it stands first."""
    for name, kinds in {
        "null": [("bytes", pa.binary()), ("path", pa.null())],
        "turned": [("path", pa.string()), ("bytes", pa.binary())],
        "large": [("bytes", pa.large_binary()), ("path", pa.large_string())],
    }.items():
        image = pa.array([{"bytes": png("red"), "path": None}, {"bytes": png("blue"), "path": None}], pa.struct(kinds))
        write_parquet(tmp_path / name / "train.parquet", pa.table({"image": image, "label": ["red", "blue"]}))
        assert load_dataset(tmp_path / name, split="train").labels == ("red", "blue")


ELSEWHERE = """
import sys
from pathlib import Path
from clipkit.datasets import load_dataset, picture_store
picture_store.MOST_BYTES = int(sys.argv[2])
print(Path(load_dataset(sys.argv[1]).files[0]).parents[1])
"""


def load_elsewhere(table: Path, most_bytes: int) -> Path:
    """Load it in a process that ends; where its pictures lie."""
    command = [sys.executable, "-c", ELSEWHERE, str(table), str(most_bytes)]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def test_datasets_that_were_not_loaded_for_long_leave_the_cache(tmp_path: Path, private_cache: Path) -> None:
    tables = [write_parquet(tmp_path / f"{i}.parquet", make_table([i, i])) for i in range(3)]
    size = 2 * max(len(png(name)) for name in NAMES)
    old, leftover = private_cache / "datasets" / "0123456789abcdef", private_cache / "datasets" / ".x-old.part"
    for folder in (old, leftover):  # of an earlier version, which kept no record, and of a run that was killed
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(bytes(size))
    os.utime(old, (1, 1))
    first = load_elsewhere(tables[0], 2 * size)
    assert (old.is_dir(), leftover.exists()) == (True, False)  # there is room for two
    second = load_elsewhere(tables[1], 2 * size)
    assert not old.exists()
    load_elsewhere(tables[0], 2 * size)  # now the second is the one that was not used for longer
    here = load_dataset(tables[2])
    load_elsewhere(tables[0], 2 * size)
    assert (first.is_dir(), second.is_dir()) == (True, False)
    load_elsewhere(tables[1], 1)
    assert (first.exists(), second.is_dir()) == (False, True)  # the newest stays
    assert all(Path(file).is_file() for file in here.files)  # and what this process has loaded
    assert load_dataset(tables[0]).labels == ("red", "red")  # what has gone is written again
    assert first.is_dir()
