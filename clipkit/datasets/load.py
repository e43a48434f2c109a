"""Labelled and captioned datasets, from the layouts people have them in."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from clipkit.core.arrays import IntArray
from clipkit.core.arrow import SUFFIXES
from clipkit.core.files import replace_file
from clipkit.core.progress import Failure
from clipkit.core.requirements import missing_packages_named
from clipkit.core.tables import read_table
from clipkit.core.text import counted, described, short_name, some
from clipkit.datasets.arrow_tables import find_shards, read_rows
from clipkit.datasets.picture_store import PictureStore, Rows
from clipkit.datasets.torchvision_items import breed, read_items
from clipkit.errors import DatasetError
from clipkit.index.scan import find_images

if TYPE_CHECKING:
    import pandas as pd

PETS_FOLDER = "oxford-iiit-pet"
PETS_SPLITS = ("trainval", "test")
TRAIN = ("train", "trainval", "training")
VALIDATION = ("val", "validation", "valid", "dev")
TEST = ("test", "testing")
TABLES = ("labels.csv", "captions.csv", "metadata.csv", "metadata.jsonl")  # what a folder's table may be called
FILL = "fill it in, or take the row out"
_IMAGE = ("image", "file_name", "file", "path", "image_file_name")
_CAPTION = ("caption", "text")
Records = list[dict[str, str]]


@dataclass(frozen=True)
class Dataset:
    """Pictures that are there, and what is known of each; `len(dataset)` is their number.

    Items and iteration give (picture, target); a slice is a `Dataset` of the same classes, and `files` are the paths.

    Attributes
    ----------
    name : str
        For people.
    files : tuple of str
        On this disk.
    labels : tuple of str
        One a file, or none at all.
    classes : tuple of str
        The names, each once, sorted.
    captions : tuple of tuple of str
        Those of each file, or none at all.
    failed : tuple of Failure
        Pictures that were named but are missing or cannot be read, each with `path` and `reason`.
    transform : callable or None
        What `dataset[i]` makes of the picture; see `with_transform`.

    Examples
    --------
    >>> from clipkit.datasets import Dataset
    >>> pets = Dataset("pets", ("a.jpg", "b.jpg"), labels=("cat", "dog"), classes=("cat", "dog"))
    >>> len(pets)
    2
    >>> pets.targets(["dog", "cat"])
    array([1, 0])
    """

    name: str
    files: tuple[str, ...]
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    captions: tuple[tuple[str, ...], ...] = ()
    failed: tuple[Failure, ...] = ()
    transform: Callable[[Any], Any] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, place: int) -> tuple[Any, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Dataset: ...
    def __getitem__(self, place: int | slice) -> tuple[Any, Any] | Dataset:
        """(picture, target), as torchvision's datasets give them, so that a DataLoader of torch reads this.

        A slice is a dataset of these pictures. The picture is Pillow's, upright, in RGB, or what `transform` makes of
        it. The target is the label's position in `classes`; the captions where there are no labels, and -1 where there
        is neither. ImageError for a file that cannot be read.
        """
        from clipkit.images.guarded_decoder import open_image

        if isinstance(place, slice):
            return replace(self, **{name: getattr(self, name)[place] for name in ("files", "labels", "captions")})
        picture = open_image(self.files[place])
        shown = picture if self.transform is None else self.transform(picture)
        if self.labels:
            return shown, self.classes.index(self.labels[place])
        return shown, self.captions[place] if self.captions else -1

    def with_transform(self, transform: Callable[[Any], Any] | None) -> Dataset:
        """The same with a transform of its pictures, for `dataset[i]` and a DataLoader of torch.

        Parameters
        ----------
        transform : callable or None
            Given a Pillow image: `encoder.preprocess`, or a pipeline of torchvision.

        Returns
        -------
        Dataset
            A copy.

        Examples
        --------
        >>> encoder = clipkit.load_encoder("starter")
        >>> animals = clipkit.load_dataset("animals").with_transform(encoder.preprocess)
        >>> from torch.utils.data import DataLoader
        >>> pixels, targets = next(iter(DataLoader(animals, batch_size=10)))
        >>> pixels.shape, [animals.classes[i] for i in targets[:6]]
        (torch.Size([10, 3, 288, 288]), ['cat', 'cat', 'cat', 'cat', 'cat', 'other'])
        """
        return replace(self, transform=transform)

    @classmethod
    def from_torchvision(cls, dataset: Any, *, folder: str | os.PathLike[str] | None = None) -> Dataset:
        """A dataset of torchvision's: ImageFolder, OxfordIIITPet, CIFAR10 and others, or a `Subset` of one.

        Its transforms are left out. Pictures that are files stay where they are; others, CIFAR's say, are written once.

        Parameters
        ----------
        dataset : torchvision.datasets.VisionDataset or torch.utils.data.Subset
            Of pictures with a class or captions each.
        folder : str or path, optional
            Also write `labels.csv` or `captions.csv` there, so that a command may name it. With folders such as
            `cifar/train` and `cifar/test`, `cifar` has two splits. By default pictures go to the cache.

        Returns
        -------
        Dataset
            Labels are the names of the classes.

        Raises
        ------
        DatasetError
            If the targets are neither classes nor captions, or the folder has a table.

        Examples
        --------
        >>> from torchvision.datasets import ImageFolder
        >>> from clipkit.datasets import Dataset
        >>> animals = Dataset.from_torchvision(ImageFolder("animals"))
        >>> len(animals), animals.classes
        (10, ('cat', 'other'))
        """
        place = Path(folder) if folder else None
        if place and table_in(place):
            raise DatasetError(f"{place} has a table of pictures already", hint="another folder")
        store = PictureStore("torchvision", repr(dataset), folder=place / "images" if place else None)
        rows = read_items(dataset, store)
        store.close()
        if place is None:
            name = type(dataset).__name__
            return _present(name, rows.files, labels=rows.labels, captions=rows.captions)
        return _table(_write_table(place, rows), None, "label")

    def __repr__(self) -> str:
        classes = f"{counted(len(self.classes), 'class')}: {some(self.classes)}" if self.classes else ""
        captions = counted(sum(map(len, self.captions)), "caption") if self.captions else ""
        failed = f"{len(self.failed):,} failed" if self.failed else ""
        return described(self, repr(short_name(self.name)), counted(len(self), "picture"), classes, captions, failed)

    def _repr_html_(self) -> str:
        """Twelve pictures from all over the dataset with their labels, as notebooks show them."""
        from clipkit.images.notebook import MOST, Captioned, notebook_html, rest

        chosen = range(0, len(self), max(1, -(-len(self) // MOST)))
        words = self.labels or [" / ".join(captions) for captions in self.captions] or [""] * len(self)
        pictures = [Captioned(self.files[i], words[i]) for i in chosen]
        facts = [counted(len(self), "picture")]
        facts += [f"{counted(len(self.classes), 'class')}: {some(self.classes, 6)}"] if self.classes else []
        more = rest(len(self), "pictures", "to_frame()", most=len(pictures))
        return notebook_html(short_name(self.name), facts, pictures=pictures, more=more)

    def to_frame(self) -> pd.DataFrame:
        """The pictures as a pandas table.

        Returns
        -------
        pandas.DataFrame
            With the column file, and label and captions where there are any.

        Examples
        --------
        >>> clipkit.load_dataset("animals").to_frame().groupby("label").size().to_dict()
        {'cat': 5, 'other': 5}
        """
        import pandas as pd

        known = {"file": self.files, "label": self.labels, "captions": self.captions}
        kept = ("file", "label") if self.classes else ("file",)  # also of no pictures
        return pd.DataFrame({name: list(values) for name, values in known.items() if values or name in kept})

    def targets(self, classes: Sequence[str]) -> IntArray:
        """Position of each label in `classes`, matched by name.

        Parameters
        ----------
        classes : sequence of str
            In any order.

        Returns
        -------
        ndarray of shape (n,), int64
            One a picture.

        Raises
        ------
        DatasetError
            If a label is not among `classes`.
        """
        place = {name: i for i, name in enumerate(classes)}
        unknown = [name for name in dict.fromkeys(self.labels) if name not in place]
        if unknown:
            raise DatasetError(
                f"{self.name} has {len(unknown)} labels that are no class: {_listed(unknown)}",
                hint=f"the classes are {_listed(classes)}",
            )
        return np.array([place[label] for label in self.labels], dtype=np.int64)

    def renamed(self, names: Mapping[str, str]) -> Dataset:
        """The same with other names for its classes.

        Parameters
        ----------
        names : mapping of str to str
            New name by old; classes that are not in it stay as they are.

        Returns
        -------
        Dataset
            A copy.

        Raises
        ------
        DatasetError
            If two classes would become one.
        """
        classes = tuple(names.get(name, name) for name in self.classes)
        if len(set(classes)) < len(classes):
            raise DatasetError(f"two classes of {self.name} would have the same name", hint="one name for each class")
        return replace(self, classes=classes, labels=tuple(names.get(label, label) for label in self.labels))

    def without(self, failures: Iterable[Failure]) -> Dataset:
        """The same without some files, which move to `failed`.

        Parameters
        ----------
        failures : iterable of Failure
            The files and why.

        Returns
        -------
        Dataset
            A copy.
        """
        gone = tuple(failures)
        bad = {failure.path for failure in gone}
        readable = [i for i, file in enumerate(self.files) if file not in bad]
        return replace(
            self,
            files=tuple(self.files[i] for i in readable),
            labels=tuple(self.labels[i] for i in readable if self.labels),
            captions=tuple(self.captions[i] for i in readable if self.captions),
            failed=self.failed + gone,
        )


@missing_packages_named()
def load_dataset(
    path: str | os.PathLike[str], *, split: str | None = None, label: str = "label", download: bool = False
) -> Dataset:
    """Load labelled or captioned pictures: folders of classes, a table, what `datasets` wrote, or Oxford-IIIT Pet.

    Parameters
    ----------
    path : str or path
        A folder with one folder a class, perhaps below one folder a split; a CSV or JSON Lines `image,label` or
        `image,caption`; a folder with `labels.csv`, `captions.csv`, `metadata.csv` or `metadata.jsonl`, or with a
        folder a split that has one; parquet or Arrow that Hugging Face's `datasets` wrote, a file or a folder; or the
        folder that is or holds `oxford-iiit-pet`. Pictures of a table lie relative to it, or in `images` beside it;
        those inside parquet and Arrow are written to the cache once.
    split : str, optional
        A folder, a value of the CSV's column `split`, or a split of `datasets`; for Pets "trainval" or "test", by
        default "test". Without it all pictures; folders such as train, val and test that hold class folders are splits
        then too, not classes.
    label : str, default "label"
        The column of labels; where there is none, `datasets` may say which column it is.
    download : bool, default False
        Fetch Pets if it is not there.

    Returns
    -------
    Dataset
        Pictures that are missing are in `failed`.

    Raises
    ------
    DatasetError
        If there is no dataset, or a picture has two labels.

    References
    ----------
    .. [1] O. Parkhi et al., "Cats and Dogs", CVPR 2012.

    Examples
    --------
    >>> animals = clipkit.load_dataset("animals")
    >>> len(animals), animals.classes
    (10, ('cat', 'other'))
    >>> clipkit.load_dataset("captions.csv").captions[0]
    ('a cat',)
    """
    if not isinstance(path, str | os.PathLike):
        raise DatasetError(
            f"{type(path).__name__} is no path", hint="clipkit.datasets.Dataset.from_torchvision(DATASET), or a folder"
        )
    place = Path(path)
    root = pets_root(place)
    if download or root:
        return _pets(root or _around(place), split or "test", download)
    if place.is_file() and place.suffix not in SUFFIXES:
        return _table(place, split, label)
    if not place.exists():
        raise DatasetError(
            f"{place} is not there", hint="a folder of class folders, a CSV, or what holds oxford-iiit-pet"
        )
    if table := table_in(place):
        return _table(table, split, label)
    if shards := find_shards(place):
        return _arrow(place, shards, split, label)
    if tables := split_tables(place):
        parts = [_table(tables[name], None, label) for name in _chosen(place, tables, split)]
        return parts[0] if split else _joined(str(place), parts)
    if place.is_file():
        raise DatasetError(
            f"{place} has no column of pictures", hint="a column image of bytes, as `datasets` writes it"
        )
    return _folders(place, split)


def table_in(folder: Path) -> Path | None:
    """The table of a folder's pictures; None where there is none."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def split_tables(root: Path) -> dict[str, Path]:
    """Tables of pictures in folders that are splits, by split, as `datasets` has them in an `imagefolder`."""
    if not root.is_dir():
        return {}
    folders = {entry.name: entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    tables = {name: table_in(folders[name]) for name in name_splits(folders) if name}
    return {name: table for name, table in tables.items() if table and _says_something(table)}


def layout_splits(place: Path) -> set[str]:
    """Splits of what is neither class folders nor one table: Arrow files, and tables in folders; none elsewhere."""
    if not place.is_dir() or table_in(place):
        return set()
    return {name for name in find_shards(place) or split_tables(place) if name}


def _says_something(table: Path) -> bool:
    with suppress(OSError, ValueError):
        columns = {column for _, row in table_rows(table) for column in row}
        return bool(columns & set(_IMAGE)) and bool(columns & {"label", *_CAPTION})
    return False


def _chosen(place: Path, splits: Collection[str], split: str | None) -> list[str]:
    if split is None:
        return list(splits)
    if split not in splits:
        names = [name for name in splits if name]
        first = next(iter([*filter(None, name_splits(names)), *names]), "")
        hint = f"--split {first}" if first else "leave --split out: there are no splits"
        raise DatasetError(f"{place} has no split {split!r}, but {_listed(names) or 'none'}", hint=hint)
    return [split]


def _joined(name: str, parts: Sequence[Dataset]) -> Dataset:
    if len({bool(part.labels) for part in parts}) > 1:
        raise DatasetError(f"{name} has labels in one split and captions in another", hint="one of them: --split train")
    return Dataset(
        name,
        tuple(file for part in parts for file in part.files),
        labels=tuple(label for part in parts for label in part.labels),
        classes=tuple(sorted({one for part in parts for one in part.classes})),
        captions=tuple(texts for part in parts for texts in part.captions),
        failed=tuple(failure for part in parts for failure in part.failed),
    )


def _arrow(place: Path, shards: Mapping[str, Sequence[Path]], split: str | None, label: str) -> Dataset:
    files = [file for name in _chosen(place, shards, split) for file in shards[name]]
    rows = read_rows(place, files, label)
    if not rows.files:
        raise DatasetError(f"{place} has no rows", hint="another split, or download it again")
    return _present(str(place), rows.files, labels=rows.labels, captions=rows.captions)


def pets_root(path: str | os.PathLike[str]) -> Path | None:
    """The folder that holds `oxford-iiit-pet`, where `path` is it or that folder; None where there is none."""
    root = _around(Path(path))
    return root if (root / PETS_FOLDER).is_dir() else None


def _around(place: Path) -> Path:
    return place.parent if place.name == PETS_FOLDER else place


def _pets(root: Path, split: str, download: bool) -> Dataset:
    from torchvision.datasets import OxfordIIITPet

    if split not in PETS_SPLITS:
        raise DatasetError(f"Oxford-IIIT Pet has no split {split!r}", hint=f"--split {', or '.join(PETS_SPLITS)}")
    try:
        reader = OxfordIIITPet(root, split=split, download=download)
    except (RuntimeError, OSError, ValueError) as error:
        hint = f"{root / PETS_FOLDER} must hold images/ and annotations/{split}.txt"
        raise DatasetError(f"Oxford-IIIT Pet cannot be read: {error}", hint=hint) from error
    files = [str(file) for file in reader._images]  # reading item by item would decode every picture
    # By name: torchvision's own positions slip when a subset lacks a breed.
    labels = [breed(file) for file in files]
    return _present(f"Oxford-IIIT Pet, {split}", files, labels=labels)


def _folders(root: Path, split: str | None) -> Dataset:
    if split is not None and not (root / split).is_dir():
        raise DatasetError(f"{root} has no folder {split!r}", hint=_split_hint(root))
    top = root / split if split else root
    scan = find_images(str(top))
    labelled = _labels([found.path for found in scan.found], has_splits=not split)
    if not labelled:
        raise DatasetError(f"{top} has no folders with pictures, one a class", hint="or give a CSV: image,label")
    inside, labels = list(labelled), list(labelled.values())
    dataset = _present(str(top), [str(top / path) for path in inside], labels=labels)
    return replace(dataset, failed=dataset.failed + tuple(scan.unreadable))


def name_splits(names: Collection[str]) -> tuple[str | None, str | None, str | None]:
    """Which of these names means train, which validation and which test, in any case; None for what is not there."""
    lower = {name.lower(): name for name in sorted(names, reverse=True)}
    train, validation, test = (next((lower[name] for name in kind if name in lower), None) for kind in _KINDS)
    return train, validation, test


_KINDS = (TRAIN, VALIDATION, TEST)


def split_folders(root: Path) -> tuple[str | None, str | None, str | None]:
    """The folders of `root` that are its train, validation and test; none unless two of them hold class folders."""
    found = _splits_among([found.path for found in find_images(str(root)).found])
    return name_splits(found)


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders of `root`, or of its splits, that hold pictures, sorted; none where it is no folder."""
    if not os.path.isdir(root):  # Path.is_dir raises for names that are too long
        return ()
    return tuple(sorted(set(_labels([found.path for found in find_images(str(root)).found]).values())))


def _labels(paths: Sequence[str], *, has_splits: bool = True) -> dict[str, str]:
    """The class of each picture that lies in a folder; has_splits: that of its split, where there are such."""
    if has_splits and (splits := _splits_among(paths)):
        parts = [path.split("/") for path in paths if path.count("/") > 1]
        return {"/".join(part): part[1] for part in parts if part[0] in splits}
    return {path: path.partition("/")[0] for path in paths if "/" in path}


def _splits_among(paths: Sequence[str]) -> set[str]:
    """Names of the splits in pictures' paths: a class may be called train, but it holds pictures, not classes."""
    holding = {path.partition("/")[0] for path in paths if path.count("/") > 1}
    flat = {path.partition("/")[0] for path in paths if path.count("/") == 1}
    splits = {name for name in name_splits(holding - flat) if name}
    return splits if len(splits) > 1 else set()


def _split_hint(root: Path) -> str:
    """A split that is there: a folder of folders; without one, the classes lie in `root` itself."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    splits = [folder.name for folder in folders if any(entry.is_dir() for entry in folder.iterdir())]
    return f"--split {splits[0]}" if splits else "leave --split out: there are no splits"


def _table(file: Path, split: str | None, label: str) -> Dataset:
    rows = _rows(file)
    columns = list(rows[0])
    if split is not None:
        if "split" not in columns:
            raise DatasetError(f"{file} has no column split", hint=f"its columns are {', '.join(columns)}")
        rows = [row for row in rows if row["split"] == split]
        if not rows:
            raise DatasetError(
                f"{file} has no row of the split {split!r}", hint="leave --split out, or name one that it has"
            )
    image = next((column for column in _IMAGE if column in columns), None)
    caption = next((column for column in _CAPTION if column in columns), None)
    if image is None or (label not in columns and caption is None):
        raise DatasetError(
            f"{file} has the columns {', '.join(columns)}", hint=f"name them image,{label} or image,caption"
        )
    if label not in columns and caption is not None:
        return _captioned(file, rows, image, caption)
    _check_labels(file, rows, image, label)
    files = _located(file.parent, [row[image] for row in rows])
    return _present(str(file), files, labels=[row[label] for row in rows])


def table_rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Each row of a CSV or JSON Lines, with its line number; a list of texts is a row each. Errors as `read_table`."""
    if file.suffix != ".jsonl":
        return read_table(file)
    rows: list[tuple[int, dict[str, str]]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        record = json.loads(line) if line.strip() else {}
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is no JSON object")
        plain = {key.strip().lower(): "" if value is None else value for key, value in record.items()}
        lists = {key: value for key, value in plain.items() if isinstance(value, list)}
        for i in range(max(map(len, lists.values()), default=1) if record else 0):
            one = {key: (value[i : i + 1] or [""])[0] if key in lists else value for key, value in plain.items()}
            rows.append((number, {key: str(value).strip() for key, value in one.items()}))
    columns = dict.fromkeys(key for _, row in rows for key in row)
    return [(number, {column: row.get(column, "") for column in columns}) for number, row in rows]


def _rows(file: Path) -> Records:
    try:
        rows = table_rows(file)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read: {error}", hint="a CSV in UTF-8: image,label") from error
    if not rows:
        raise DatasetError(f"{file} has no rows", hint="a CSV with a row a picture: image,label")
    for number, row in rows:
        if "" in row:
            raise DatasetError(f"{file}, row {number}, has more cells than columns", hint='quote: "a dog, running"')
    return [row for _, row in rows]


def _check_labels(file: Path, rows: Records, image: str, label: str) -> None:
    """One picture has one label; and one word must not stand for two classes, as ImageNet's `crane` does."""
    wnids: dict[str, str] = {}
    labels: dict[str, str] = {}
    for row in rows:
        if not row[image] or not row[label]:
            raise DatasetError(f"{file}: a row without {image if not row[image] else label}: {row}", hint=FILL)
        if labels.setdefault(row[image], row[label]) != row[label]:
            raise DatasetError(
                f"{file} gives {row[image]} two labels: {labels[row[image]]}, {row[label]}",
                hint="keep one of the two rows",
            )
        if label != "wnid" and wnids.setdefault(row[label], row.get("wnid", "")) != row.get("wnid", ""):
            raise DatasetError(
                f"{file}: the label {row[label]!r} stands for two wnids", hint="tell them apart by label='wnid'"
            )


def _captioned(file: Path, rows: Records, image: str, caption: str) -> Dataset:
    captions: dict[str, list[str]] = {}
    for row in rows:
        if not row[image] or not row[caption]:
            raise DatasetError(f"{file}: a row without {image if not row[image] else caption}: {row}", hint=FILL)
        captions.setdefault(row[image], []).append(row[caption])
    files = _located(file.parent, captions)
    return _present(str(file), files, captions=[tuple(texts) for texts in captions.values()])


def _located(folder: Path, images: Iterable[str]) -> list[str]:
    """Beside the table, or in `images` beside it, where the first of them that is anywhere decides."""
    names = list(images)
    places = [folder, folder / "images"]
    base = next((place for name in names for place in places if (place / name).is_file()), folder)
    return [str(base / name) for name in names]


def _write_table(folder: Path, rows: Rows) -> Path:
    """A CSV of files that lie in `folder`, or anywhere."""
    kind, texts = ("label", [(label,) for label in rows.labels]) if rows.labels else ("caption", [*rows.captions])
    lines: list[tuple[str, str]] = [("image", kind)]
    for file, several in zip(rows.files, texts, strict=True):
        inside = Path(file).is_relative_to(folder)
        name = Path(file).relative_to(folder).as_posix() if inside else os.path.abspath(file)
        lines += [(name, text) for text in several]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    table = folder / f"{kind}s.csv"
    replace_file(table, stream.getvalue().encode())
    return table


def _present(
    name: str, files: Sequence[str], *, labels: Sequence[str] = (), captions: Sequence[tuple[str, ...]] = ()
) -> Dataset:
    """The dataset, with what is missing on this disk in `failed`; a class keeps its place though all of it is gone."""
    classes = tuple(sorted(set(labels)))
    dataset = Dataset(name, tuple(files), tuple(labels), classes, tuple(captions))
    missing = [Failure(file, "not there") for file in dict.fromkeys(files) if not Path(file).is_file()]
    present = dataset.without(missing) if missing else dataset
    if not len(present):
        raise DatasetError(
            f"{name} has no picture that is there; the first of {len(files)} would be {files[0]}",
            hint="paths in a table are relative to it, or to a folder called images beside it",
        )
    return present


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
