"""Items of torchvision's datasets: files where they are files, and else pictures that are written once."""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from clipkit.datasets.picture_store import PictureStore, Rows
from clipkit.errors import DatasetError

Target: TypeAlias = str | tuple[str, ...]  # a label, or captions

# Where torchvision's datasets keep the files and targets that they have read from a folder.
LISTS = (("_image_files", "_labels"), ("_images", "_labels"))
TRANSFORMS = ("transform", "target_transform", "transforms")


def read_items(dataset: Any, store: PictureStore) -> Rows:
    """Files of a dataset of torchvision, with labels by name or captions; a `Subset` of torch is one too."""
    base, places = _base(dataset)
    files, targets = _from_lists(base, places) or _from_items(base, places, store)
    if not files:
        raise DatasetError(f"{type(base).__name__} has no picture", hint="another split, or download=True")
    named = [breed(file) for file in files] if type(base).__name__ == "OxfordIIITPet" else None
    found: Sequence[Target] = named or [_named(target, _class_names(base), type(base).__name__) for target in targets]
    labels = tuple(one for one in found if isinstance(one, str))
    captions = tuple(one for one in found if not isinstance(one, str))
    if labels and captions:
        raise DatasetError(f"{type(base).__name__} has labels and captions", hint="a dataset of one of them")
    return Rows(tuple(files), labels, captions)


def breed(file: str) -> str:
    """The class of a file of Oxford-IIIT Pet: torchvision's own positions slip when a subset lacks a breed."""
    return " ".join(part.title() for part in Path(file).stem.rpartition("_")[0].split("_"))


def _base(dataset: Any) -> tuple[Any, Sequence[int]]:
    """The dataset itself, and which of its items."""
    places: Sequence[int] = range(len(dataset))
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        places = [int(dataset.indices[place]) for place in places]
        dataset = dataset.dataset
    return dataset, places


def _from_lists(base: Any, places: Sequence[int]) -> tuple[list[str], list[Any]] | None:
    pairs = getattr(base, "samples", None)
    if not isinstance(pairs, list):
        lists = [[getattr(base, name, None) for name in names] for names in LISTS]
        pairs = next(
            (list(zip(*both, strict=True)) for both in lists if all(isinstance(one, list) for one in both)), []
        )
    pairs = [pair for pair in pairs if isinstance(pair[0], str | os.PathLike)]
    if not pairs or len(pairs) != len(base):
        return None
    return [os.path.abspath(pairs[place][0]) for place in places], [pairs[place][1] for place in places]


def _from_items(base: Any, places: Sequence[int], store: PictureStore) -> tuple[list[str], list[Any]]:
    plain = copy.copy(base)  # the user's own keeps its transforms
    for name in TRANSFORMS:
        if hasattr(plain, name):
            setattr(plain, name, None)
    items = [_item(plain, place, store.keep) for place in places]
    return [file for file, _ in items], [target for _, target in items]


def _item(plain: Any, place: int, keep: Callable[[bytes, str], str]) -> tuple[str, Any]:
    from clipkit.images.decode import as_png

    item = plain[place]
    if not isinstance(item, tuple) or len(item) != 2 or not hasattr(item[0], "getexif"):
        name = type(plain).__name__
        raise DatasetError(f"{name} does not give (Pillow image, target)", hint="a dataset of torchvision's own kind")
    return keep(as_png(item[0]), ".png"), item[1]


def _class_names(base: Any) -> list[str]:
    names = getattr(base, "classes", None) or getattr(base, "categories", None) or []
    return [str(name if isinstance(name, str) else name[0]) for name in names]  # ImageNet has several words for each


def _named(target: Any, classes: Sequence[str], dataset: str) -> Target:
    if isinstance(target, str):
        return target
    if isinstance(target, list | tuple) and target and all(isinstance(text, str) for text in target):
        return tuple(target)
    try:
        place = operator.index(target)
        return classes[place] if classes else str(place)
    except (TypeError, IndexError) as error:
        fact = f"{dataset} has a target that is neither a class nor captions: {str(target)[:60]}"
        raise DatasetError(fact, hint='target_type="category", or another dataset') from error
