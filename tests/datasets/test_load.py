"""Datasets: names decide, and no picture is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.core.progress import Failure, Progress
from clipkit.datasets.embed import embed_pictures
from clipkit.datasets.load import Dataset, class_folders, load_dataset
from clipkit.datasets.splits import read_split
from clipkit.errors import DatasetError, ImageError
from clipkit.evaluate.zeroshot import measured_split
from tests.support.colours import COLOURS, ColourEncoder, paint


def make_table(folder: Path, text: str, *, name: str = "labels.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def make_pets(root: Path, names: list[str], *, missing: str = "") -> Path:
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for name in names:
        if name != missing:
            paint(base / "images" / f"{name}.jpg", COLOURS["red"])
    for split in ("trainval", "test"):
        lines = [f"{name} {number} 1 1" for number, name in enumerate(names, start=3)]
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_folders_are_classes(tmp_path: Path) -> None:
    for name in ("red/a.png", "red/deep/b.png", "blue/c.png", "loose.png", "blue/notes.txt"):
        paint(tmp_path / name, COLOURS["red"]) if name.endswith("png") else (tmp_path / name).write_text("x")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("blue", "red")
    assert dataset.labels == ("blue", "red", "red")
    assert [Path(file).name for file in dataset.files] == ["c.png", "a.png", "b.png"]
    assert dataset.failed == ()


def test_a_split_is_a_folder_above_the_classes(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "red" / "a.png", COLOURS["red"])
    paint(tmp_path / "val" / "blue" / "b.png", COLOURS["blue"])
    assert load_dataset(tmp_path, split="val").labels == ("blue",)
    with pytest.raises(DatasetError, match="has no folder 'test'"):
        load_dataset(tmp_path, split="test")


SPLIT_NAMES = [("train", "test"), ("Training", "Testing"), ("train", "valid"), ("trainval", "dev"), ("val", "test")]


@pytest.mark.parametrize("names", SPLIT_NAMES)
def test_splits_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    for split in names:
        for label in ("red", "blue"):
            paint(tmp_path / split / label / "a.png", COLOURS[label])
    paint(tmp_path / "notes" / "c.png", COLOURS["green"])
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("blue", "red")
    assert sorted(dataset.labels) == ["blue", "blue", "red", "red"]
    assert [Path(file).parent.name for file in dataset.files] == list(dataset.labels)
    assert class_folders(tmp_path) == ("blue", "red")


def test_a_class_may_be_called_train_or_test(tmp_path: Path) -> None:
    for name in ("train", "test", "plane"):
        paint(tmp_path / name / "a.png", COLOURS["red"])
    assert load_dataset(tmp_path).classes == ("plane", "test", "train")
    paint(tmp_path / "train" / "deep" / "a.png", COLOURS["red"])  # pictures beside its folders: still a class
    paint(tmp_path / "test" / "deep" / "a.png", COLOURS["red"])
    assert load_dataset(tmp_path).classes == ("plane", "test", "train")
    assert class_folders(tmp_path / "plane") == ()
    assert class_folders(tmp_path / ("x" * 300)) == ()


def test_the_hint_for_a_missing_split_names_one_that_works(tmp_path: Path) -> None:
    paint(tmp_path / "blue" / "a.png", COLOURS["blue"])
    with pytest.raises(DatasetError) as without:
        load_dataset(tmp_path, split="test")
    assert without.value.hint == "leave --split out: there are no splits"
    paint(tmp_path / "train" / "red" / "a.png", COLOURS["red"])
    with pytest.raises(DatasetError) as beside:
        load_dataset(tmp_path, split="test")
    assert beside.value.hint == "--split train"


def test_a_folder_without_classes_is_refused(photos: Path) -> None:
    with pytest.raises(DatasetError, match="no folders with pictures"):
        load_dataset(photos)
    with pytest.raises(DatasetError, match="is not there"):
        load_dataset(photos / "nowhere")


@pytest.mark.parametrize("place", ["beside", "images"])
def test_a_table_names_pictures_and_labels(tmp_path: Path, place: str) -> None:
    base = tmp_path / "images" if place == "images" else tmp_path
    for name in ("a.png", "b, c.png"):
        paint(base / name, COLOURS["red"])
    make_table(tmp_path, '\ufeffimage,label,extra\n"b, c.png", red ,1\na.png,blue,2\n')
    dataset = load_dataset(tmp_path)
    assert [Path(file).name for file in dataset.files] == ["b, c.png", "a.png"]
    assert dataset.labels == ("red", "blue")
    assert dataset.classes == ("blue", "red")
    assert load_dataset(tmp_path / "labels.csv", label="extra").labels == ("1", "2")


def test_a_table_may_have_splits(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        paint(tmp_path / name, COLOURS["red"])
    file = make_table(tmp_path, "image,label,split\na.png,red,train\nb.png,blue,test\n")
    assert load_dataset(file, split="test").labels == ("blue",)
    with pytest.raises(DatasetError, match="no row of the split 'val'"):
        load_dataset(file, split="val")


def test_a_picture_has_all_its_captions(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        paint(tmp_path / name, COLOURS["red"])
    file = make_table(tmp_path, 'image,caption\na.png,"red, very"\nb.png,blue\na.png,reddish\n', name="captions.csv")
    dataset = load_dataset(file)
    assert dataset.captions == (("red, very", "reddish"), ("blue",))
    assert (dataset.labels, dataset.classes) == ((), ())


def test_what_is_missing_is_counted_and_named_and_shifts_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        paint(tmp_path / name, COLOURS["red"])
    file = make_table(tmp_path, "image,label\na.png,red\nb.png,green\nc.png,blue\n")
    dataset = load_dataset(file)
    assert [Path(name).name for name in dataset.files] == ["a.png", "c.png"]
    assert dataset.labels == ("red", "blue")
    assert dataset.classes == ("blue", "green", "red")  # a class whose pictures are gone is still a class
    assert dataset.failed == (Failure(str(tmp_path / "b.png"), "not there"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("image,label\n", "has no rows"),
        ("image,colour\na.png,red\n", "has the columns image, colour"),
        ("label\nred\n", "has the columns label"),
        ("image,label\na.png,red,big\n", "row 2, has more cells"),
        ("image,label\na.png\n", "a row without label"),
        ("image,caption\na.png,\n", "a row without caption"),
        ("image,label\n,red\n", "a row without image"),
        ("image,label\na.png,red\na.png,blue\n", "gives a.png two labels: red, blue"),
        ("image,label\nz.png,red\n", "no picture that is there"),
        ("image,wnid,label\na.png,n1,crane\nb.png,n2,crane\n", "'crane' stands for two wnids"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    paint(tmp_path / "a.png", COLOURS["red"])
    with pytest.raises(DatasetError, match=message):
        load_dataset(make_table(tmp_path, text))


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"image,label\n\xff\xfe,red\n")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_dataset(tmp_path)


def test_pets_are_named_after_their_files_though_a_breed_lacks(tmp_path: Path) -> None:
    make_pets(tmp_path, ["american_bulldog_1", "american_bulldog_2", "Egyptian_Mau_7"], missing="american_bulldog_2")
    for place in (tmp_path, tmp_path / "oxford-iiit-pet"):
        dataset = load_dataset(place, split="trainval")
        assert dataset.labels == ("American Bulldog", "Egyptian Mau")
        assert [Path(failure.path).name for failure in dataset.failed] == ["american_bulldog_2.jpg"]


def test_pets_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    (tmp_path / "oxford-iiit-pet" / "images").mkdir(parents=True)
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        load_dataset(tmp_path)
    assert "annotations/test.txt" in (caught.value.hint or "")
    with pytest.raises(DatasetError, match="no split 'val'"):
        load_dataset(tmp_path, split="val")


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    dataset = Dataset("mine", ("a", "b", "c"), ("red", "blue", "red"), ("blue", "red"))
    assert dataset.targets(["red", "green", "blue"]).tolist() == [0, 2, 0]
    with pytest.raises(DatasetError, match="mine has 1 labels that are no class: red"):
        dataset.targets(["blue", "green"])
    assert dataset.renamed({"red": "rouge"}).labels == ("rouge", "blue", "rouge")
    with pytest.raises(DatasetError, match="the same name"):
        dataset.renamed({"red": "blue"})


def test_an_unreadable_picture_moves_to_failed_and_shifts_nothing(tmp_path: Path) -> None:
    for name, colour in COLOURS.items():
        paint(tmp_path / name / "a.png", colour)
    (tmp_path / "green" / "bad.png").write_bytes(b"not a picture")
    steps: list[Progress] = []
    embedded = embed_pictures(load_dataset(tmp_path), ColourEncoder(batch_size=3), progress=steps.append)
    names = [Path(file).parent.name for file in embedded.dataset.files]
    assert names == list(embedded.dataset.labels) == sorted(COLOURS)
    assert np.array_equal(embedded.embeddings, ColourEncoder().encode_texts(names))
    assert [Path(failure.path).name for failure in embedded.dataset.failed] == ["bad.png"]
    assert [(step.done, step.total) for step in steps] == [(3, 9), (6, 9), (9, 9)]


@pytest.mark.real
def test_the_shared_pets_and_captions_are_read(real_data: Path) -> None:
    from clipkit.classify.prompts import PETS

    for split, count in (("trainval", 1593), ("test", 940)):
        dataset = load_dataset(real_data, split=split)
        assert (len(dataset), dataset.classes, dataset.failed) == (count, PETS, ())
        assert np.bincount(dataset.targets(PETS)).min() >= 11
    captions = load_dataset(real_data / "captions")
    assert (len(captions), {len(texts) for texts in captions.captions}, captions.failed) == (400, {5}, ())


@pytest.mark.real
def test_the_imagenet_sample_is_told_apart_by_wordnet_ids(real_data: Path) -> None:
    from clipkit.classify.prompts import imagenet_classes, name_wnids

    with pytest.raises(DatasetError, match="stands for two wnids"):
        load_dataset(real_data / "imagenet_sample")
    dataset = load_dataset(real_data / "imagenet_sample", label="wnid")
    named = dataset.renamed(name_wnids(dataset.classes))
    assert named.targets(list(imagenet_classes())).tolist() == list(range(1000))
    by_file = {Path(file).name: label for file, label in zip(named.files, named.labels, strict=True)}
    assert by_file["n01440764_tench.jpg"] == "tench"
    assert by_file["n04008634_projectile.jpg"] == "missile (2)"


def test_a_dataset_is_read_by_a_dataloader_of_torch(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader
    from torchvision.transforms.v2.functional import pil_to_tensor

    for i, colour in enumerate([(250, 0, 0), (0, 0, 250)] * 3):
        paint(tmp_path / ("blue" if i % 2 else "red") / f"{i}.png", colour)
    dataset = load_dataset(tmp_path)
    picture, target = dataset[-1]
    assert (picture.mode, picture.getpixel((0, 0)), dataset.classes[target]) == ("RGB", (250, 0, 0), "red")
    assert [dataset.classes[target] for _, target in dataset] == list(dataset.labels)
    loader = DataLoader(dataset.with_transform(pil_to_tensor), batch_size=4, num_workers=1)
    pixels, targets = next(iter(loader))
    assert pixels.shape == (4, 3, 16, 16)
    assert [pixel[0, 0, 0].item() > 0 for pixel in pixels] == [dataset.classes[i] == "red" for i in targets]
    assert dataset.with_transform(pil_to_tensor) == dataset


def test_without_labels_the_target_is_the_captions_or_less_than_any_class(tmp_path: Path) -> None:
    file = str(paint(tmp_path / "a.png", (1, 2, 3)))
    assert Dataset("some", (file,), captions=(("one", "two"),))[0][1] == ("one", "two")
    assert Dataset("some", (file,))[0][1] == -1
    with pytest.raises(ImageError, match=r"gone\.png"):
        Dataset("some", (str(tmp_path / "gone.png"),))[0]


def test_json_lines_are_a_table_and_a_list_of_captions_is_several(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        paint(tmp_path / name, COLOURS["red"])
    lines = ['{"file_name": "a.png", "text": ["one", "two"], "width": 3}', "", '{"file_name": "b.png", "text": "it"}']
    make_table(tmp_path, "\n".join(lines), name="metadata.jsonl")
    assert load_dataset(tmp_path).captions == (("one", "two"), ("it",))
    labelled = ['{"File_Name": "a.png", "label": 1}', '{"File_Name": "b.png", "label": "x"}']
    assert load_dataset(make_table(tmp_path, "\n".join(labelled), name="mine.jsonl")).labels == ("1", "x")


@pytest.mark.parametrize(
    ("text", "fact"),
    [("[1]", "line 1 is no JSON object"), ("{", "cannot be read"), ('{"file_name": "a.png"}', "has the columns")],
)
def test_json_lines_that_say_too_little_are_an_error(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(DatasetError, match=fact):
        load_dataset(make_table(tmp_path, text, name="metadata.jsonl"))


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_tables_in_folders_that_are_splits(tmp_path: Path, name: str) -> None:
    for split, labels in {"train": ("red", "blue"), "validation": ("red",), "test": ("blue",)}.items():
        for label in labels:
            paint(tmp_path / split / f"{label}.png", COLOURS[label])
        rows = {
            "metadata.csv": ["file_name,label", *(f"{label}.png,{label}" for label in labels)],
            "metadata.jsonl": [json.dumps({"file_name": f"{label}.png", "label": label}) for label in labels],
        }
        make_table(tmp_path / split, "\n".join(rows[name]), name=name)
    assert load_dataset(tmp_path, split="train").labels == ("red", "blue")
    assert sorted(load_dataset(tmp_path).labels) == ["blue", "blue", "red", "red"]
    split = read_split(tmp_path)
    assert split.description == "its own train, validation and test"
    assert measured_split(tmp_path) == "test"
    with pytest.raises(DatasetError, match="has no split 'tst'"):
        load_dataset(tmp_path, split="tst")


def test_a_table_beside_class_folders_that_says_nothing_of_pictures_is_passed_over(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("red", "blue"):
            paint(tmp_path / split / label / "a.png", COLOURS[label])
        make_table(tmp_path / split, "key,value\nby,me\n", name="metadata.csv")
    assert load_dataset(tmp_path).classes == ("blue", "red")
    assert load_dataset(tmp_path, split="train").labels == ("blue", "red")


@pytest.mark.parametrize("given", [None, 3, ["a.png"]])
def test_what_is_no_path_is_told_where_to_go(given: Any) -> None:
    with pytest.raises(DatasetError, match="is no path") as caught:
        load_dataset(given)
    assert "from_torchvision" in str(caught.value.hint)


def test_a_table_of_no_pictures_has_its_columns() -> None:
    assert Dataset("none", (), classes=("cat", "dog")).to_frame().columns.tolist() == ["file", "label"]
