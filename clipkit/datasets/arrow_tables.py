"""Parquet and Arrow tables that Hugging Face's `datasets` wrote, read without it: splits, pictures and labels."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipkit.core.arrow import SUFFIXES, read_blocks, read_schema
from clipkit.datasets.picture_store import PictureStore, Rows
from clipkit.errors import DatasetError

STATE, SPLITS = "state.json", "dataset_dict.json"  # of save_to_disk: of one dataset, and of several
FOLDERS = ("", "data", "*", "*/*")  # where shards lie: beside, as on the hub, in a folder a split, in one a config
CAPTIONS = ("caption", "captions", "text", "sentence")
IMAGES = ("image", "img", "picture", "jpg", "png")
_SHARD = re.compile(r"[-_.]?\d{4,}(-of-\d{4,})?$")  # train-00000-of-00002, or 0000 alone
_PICTURE = re.compile(r"struct<(path: \w+, )?bytes: (large_)?binary\b")  # with a path that may be null everywhere
_WORDS = re.compile(r"[-_.\s]+")
_KNOWN = ("train", "training", "trainval", "validation", "valid", "val", "dev", "test", "testing")


@dataclass(frozen=True)
class _Columns:
    """Which columns of a table matter, and the names of its classes, where its labels are numbers."""

    image: str
    label: str | None
    caption: str | None
    classes: tuple[str, ...]


def find_shards(place: Path) -> dict[str, list[Path]]:
    """Files of pictures in a folder, or a file of them alone, by split ("" where none is named); none is no error."""
    if place.is_file():
        return {"": [place]} if place.suffix in SUFFIXES else {}
    saved = _saved_splits(place)
    files = saved or [(_split_of(file), file) for folder in FOLDERS for file in _files(place, folder)]
    first = next((file for _, file in files), None)
    if first is None or not _holds_pictures(first):
        return {}
    shards: dict[str, list[Path]] = {}
    for split, file in files:
        if file not in shards.setdefault(split, []):
            shards[split].append(file)
    return shards


def read_rows(place: Path, files: Sequence[Path], label: str) -> Rows:
    """The pictures of these files, each a file in the cache, with labels or captions; DatasetError where none are."""
    found: dict[str, list[Any]] = {"files": [], "labels": [], "captions": []}
    store = PictureStore("arrow", os.path.abspath(place), [str(file) for file in files])
    for file in files:
        try:
            columns = _columns(file, label)
            for row in _rows(file, columns):
                found["files"].append(_file_of(row[columns.image], file, store))
                if columns.label:
                    found["labels"].append(_label_of(row[columns.label], columns, file))
                elif columns.caption:
                    found["captions"].append(_captions_of(row[columns.caption], columns.caption, file))
        except DatasetError:  # which is a ValueError, and says what to do
            raise
        except (OSError, ValueError, TypeError) as error:  # Arrow's own errors derive from these
            reason = str(error).partition("\n")[0]
            raise DatasetError(f"{file} cannot be read: {reason}", hint="download or save it again") from error
    store.close()
    return Rows(*(tuple(found[name]) for name in ("files", "labels", "captions")))


def _saved_splits(place: Path) -> list[tuple[str, Path]]:
    """What `save_to_disk` wrote: its files in their order."""
    if (place / STATE).is_file():
        return [("", file) for file in _state_files(place)]
    with suppress(OSError, ValueError, KeyError, TypeError):
        names = json.loads((place / SPLITS).read_bytes())["splits"]
        return [(str(name), file) for name in names for file in _state_files(place / str(name))]
    return []


def _state_files(folder: Path) -> list[Path]:
    try:
        state = json.loads((folder / STATE).read_bytes())
        files = [folder / str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / STATE} cannot be read", hint="save it again: dataset.save_to_disk") from error
    if state.get("_indices_files"):
        raise DatasetError(
            f"{folder} keeps its order apart",
            hint="save it in that order: dataset.flatten_indices().save_to_disk(FOLDER)",
        )
    return files


def _files(place: Path, folder: str) -> Iterator[Path]:
    for suffix in SUFFIXES:
        found = sorted(place.glob(f"{folder}/*{suffix}" if folder else f"*{suffix}"))
        yield from (file for file in found if not file.name.startswith((".", "cache-")))


def _split_of(file: Path) -> str:
    """As `datasets` tells it: a word of the file's name, else the name of its folder."""
    for text in (_SHARD.sub("", file.stem), file.parent.name):
        words = [word for word in _WORDS.split(text) if word.lower() in _KNOWN]
        if words:
            return words[-1]
    return ""


def _holds_pictures(file: Path) -> bool:
    with suppress(OSError, ValueError, TypeError):
        return _image_column(read_schema(file)) is not None
    return False


def _features(schema: Any) -> Mapping[str, Any]:
    """What `datasets` wrote of each column into the schema's metadata."""
    with suppress(KeyError, ValueError, TypeError):
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return features if isinstance(features, dict) else {}
    return {}


def _kind(features: Mapping[str, Any], name: str) -> str:
    feature = features.get(name)
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _image_column(schema: Any) -> str | None:
    features, names = _features(schema), list(schema.names)
    told = [name for name in names if _kind(features, name) == "Image"]
    structs = [name for name in names if _PICTURE.match(str(schema.field(name).type))]
    raw = [name for name in names if name in IMAGES and str(schema.field(name).type) in ("binary", "large_binary")]
    return next(iter([*told, *structs, *raw]), None)


def _columns(file: Path, label: str) -> _Columns:
    schema = read_schema(file)
    features, names = _features(schema), list(schema.names)
    image = _image_column(schema)
    told = {name: tuple(map(str, features[name].get("names") or ())) for name in names
            if _kind(features, name) == "ClassLabel"}  # fmt: skip
    finest = max(told, key=lambda name: len(told[name]), default=None)  # of CIFAR-100's two, fine_label
    chosen = label if label in names else finest if label == "label" else None
    caption = next((name for name in names if name in CAPTIONS), None)
    if image is None or (chosen is None and caption is None):
        has = ", ".join(names)
        raise DatasetError(
            f"{file} has the columns {has}",
            hint="an image column, and a label or a caption; load_dataset(FILE, label=COLUMN) names the label",
        )
    return _Columns(image, chosen, None if chosen else caption, told.get(chosen or "", ()))


def _rows(file: Path, columns: _Columns) -> Iterator[dict[str, Any]]:
    wanted = [name for name in (columns.image, columns.label, columns.caption) if name]
    for block in read_blocks(file, wanted):
        for values in zip(*block.values(), strict=True):
            yield dict(zip(block, values, strict=True))


def _file_of(picture: Any, table: Path, store: PictureStore) -> str:
    entry = picture if isinstance(picture, dict) else {"bytes": picture}
    data, path = entry.get("bytes"), str(entry.get("path") or "")
    if data:
        return store.keep(data, Path(path).suffix.lower())
    if not path:
        raise DatasetError(f"{table} has a row without a picture", hint="take the row out, and save it again")
    return str(table.parent / path)  # an absolute path stays as it is


def _label_of(value: Any, columns: _Columns, table: Path) -> str:
    if columns.classes and isinstance(value, int) and 0 <= value < len(columns.classes):
        return columns.classes[value]
    if value is None or columns.classes or not str(value).strip():
        fact = f"{table} has a row whose {columns.label} is {value!r}, which is no class"
        raise DatasetError(fact, hint="another split, where labels are published: --split train")
    return str(value)


def _captions_of(value: Any, column: str, table: Path) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else list(value or ())
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DatasetError(f"{table} has a row without {column}", hint="take the row out, and save it again")
    return tuple(texts)
