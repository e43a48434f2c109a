"""Datasets of torchvision that are there already, as clipkit's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import CIFAR10, FakeData, ImageFolder, OxfordIIITPet, VisionDataset
from torchvision.transforms import ToTensor

from clipkit.datasets.load import Dataset, load_dataset
from clipkit.datasets.splits import read_split
from clipkit.errors import DatasetError
from tests.datasets.test_load import make_pets
from tests.support.colours import COLOURS, paint

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 as it is unpacked, of three pictures in each of two files."""
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    rng = np.random.default_rng(0)
    for name, labels in {"data_batch_1": [3, 5, 3], "test_batch": [5, 3, 0]}.items():
        content = {"data": rng.integers(0, 255, (3, 3072), dtype=np.uint8), "labels": labels}
        (base / name).write_bytes(pickle.dumps(content))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return tmp_path


def test_an_image_folder_keeps_its_files(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        paint(tmp_path / name / "a.png", COLOURS[name])
    theirs = ImageFolder(str(tmp_path), transform=ToTensor())
    ours = Dataset.from_torchvision(theirs)
    assert (ours.files, ours.labels) == (load_dataset(tmp_path).files, ("blue", "red"))
    assert Dataset.from_torchvision(Subset(theirs, [1])).labels == ("red",)
    assert theirs[0][0].shape == (3, 16, 16)


def test_pictures_in_memory_are_written_as_they_are(cifar: Path) -> None:
    theirs = CIFAR10(str(cifar), train=True, transform=ToTensor())
    ours = Dataset.from_torchvision(theirs)
    assert ours.labels == ("cat", "dog", "cat")
    for file, pixels in zip(ours.files, theirs.data, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), pixels)
    assert Dataset.from_torchvision(theirs) == ours
    assert Dataset.from_torchvision(Subset(Subset(theirs, [2, 1]), [1])).labels == ("dog",)


def test_folders_of_them_are_a_dataset_that_commands_may_name(cifar: Path, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    Dataset.from_torchvision(CIFAR10(str(cifar), train=True), folder=place / "train")
    test = Dataset.from_torchvision(Subset(CIFAR10(str(cifar), train=False), [0, 1]), folder=place / "test")
    assert test.labels == ("dog", "cat")
    place.rename(tmp_path / "moved")
    split = read_split(tmp_path / "moved")
    assert (split.description, len(split.train), len(split.test)) == ("its own train and test", 3, 2)
    with pytest.raises(DatasetError, match="has a table of pictures already"):
        Dataset.from_torchvision(CIFAR10(str(cifar)), folder=tmp_path / "moved" / "train")


def test_pets_are_named_by_their_files(tmp_path: Path) -> None:
    root = make_pets(tmp_path, ["Abyssinian_1", "great_pyrenees_2"])
    assert Dataset.from_torchvision(OxfordIIITPet(str(root), split="test")).labels == ("Abyssinian", "Great Pyrenees")


class Odd(VisionDataset):
    """Gives what it is made of."""

    def __init__(self, *items: object) -> None:
        super().__init__("nowhere")
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> object:
        return self.items[place]


PICTURE = Image.new("RGB", (4, 4), (1, 2, 3))


def test_targets_may_be_captions_or_numbers_without_names(tmp_path: Path) -> None:
    captioned = Dataset.from_torchvision(Odd((PICTURE, ["a cat", "it"]), (PICTURE, ["a dog"])), folder=tmp_path / "c")
    assert captioned.captions == (("a cat", "it"), ("a dog",))
    assert set(Dataset.from_torchvision(FakeData(size=4, image_size=(3, 8, 8), num_classes=2)).labels) <= {"0", "1"}


@pytest.mark.parametrize(
    ("items", "fact"),
    [
        ([(PICTURE, {"boxes": []})], "a target that is neither a class nor captions"),
        ([(np.zeros((3, 4, 4)), 1)], "does not give"),
        ([PICTURE], "does not give"),
        ([(PICTURE, "cat"), (PICTURE, ["a cat"])], "has labels and captions"),
        ([], "has no picture"),
    ],
)
def test_what_has_no_classes_is_an_error(items: list[object], fact: str) -> None:
    with pytest.raises(DatasetError, match=fact):
        Dataset.from_torchvision(Odd(*items))
