"""Metadata columns: the same whether read at once, from the cache, or brought up to date; and filters of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.core.folders import cache_folder
from clipkit.explore.conditions import ids_that_meet
from clipkit.index.check import prune
from clipkit.index.image_index import ImageIndex
from clipkit.search.query import parse_query
from clipkit.store import columns as module
from clipkit.store.columns import Columns
from tests.images.test_metadata import PACKET
from tests.support.colours import COLOURS, ColourEncoder


def save(file: Path, colour: str, camera: str = "") -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    exif = Image.Exif()
    exif[0x0110] = camera
    Image.new("RGB", (64, 32), COLOURS[colour]).save(file, exif=exif)


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    for name, colour, camera in (("a.jpg", "red", "X100V"), ("b.jpg", "green", "Q2"), ("trip/c.jpg", "blue", "X100V")):
        save(tmp_path / "photos" / name, colour, camera)
    made = ImageIndex.create(tmp_path / "photos", ColourEncoder())
    made.update()
    return made


def paths(index: ImageIndex, query: str) -> list[str]:
    _, names = index.store.paths()
    found = ids_that_meet(index, parse_query(query).conditions)
    assert found is not None
    return [names[id_] for id_ in found.tolist()]


def as_lists(columns: Columns) -> dict[str, object]:
    texts = {name: [column.values[code] for code in column.codes] for name, column in columns.texts.items()}
    numbers = {name: np.nan_to_num(column, nan=-1).tolist() for name, column in columns.numbers.items()}
    return {"revision": columns.revision, "ids": columns.ids.tolist(), **numbers, **texts}


def _remove(root: Path, index: ImageIndex) -> None:
    (root / "a.jpg").unlink()
    index.update()


def _move(root: Path, index: ImageIndex) -> None:
    (root / "b.jpg").rename(root / "trip" / "d.jpg")
    index.update()


def _replace(root: Path, index: ImageIndex) -> None:
    save(root / "a.jpg", "blue", "Canon EOS 5D Mark III")
    index.update()


def _describe(root: Path, index: ImageIndex) -> None:
    (root / "trip" / "c.xmp").write_text(PACKET)
    assert index.update().refreshed == 1


def _prune(root: Path, index: ImageIndex) -> None:
    _remove(root, index)
    prune(index)


@pytest.mark.parametrize("change", [_remove, _move, _replace, _describe, _prune])
def test_columns_brought_up_to_date_are_those_read_at_once(
    change: Callable[[Path, ImageIndex], None], index: ImageIndex
) -> None:
    index.columns  # noqa: B018
    change(index.root, index)
    other = ImageIndex.open(index.root, encoder=ColourEncoder())
    for columns in (index.columns, other.columns):
        assert as_lists(columns) == as_lists(index.store.columns())
    assert "trip/c.jpg" in paths(index, "shape:landscape path:trip type:jpeg")


def test_only_what_changed_is_read_again(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    read = module._read_block

    def counted(revision: int, token: str, block: Sequence[tuple[object, ...]]) -> Columns:
        rows.append(len(block))
        return read(revision, token, block)

    monkeypatch.setattr(module, "_read_block", counted)
    assert paths(ImageIndex.open(index.root), "camera:x100v") == ["a.jpg", "trip/c.jpg"]
    assert rows == []
    save(index.root / "d.jpg", "green", "X100V")
    index.update()
    assert paths(ImageIndex.open(index.root), "camera:x100v") == ["a.jpg", "trip/c.jpg", "d.jpg"]
    assert rows == [1]


@pytest.mark.parametrize("damage", [b"", b"nothing of the kind"])
def test_a_damaged_file_of_columns_is_read_anew(damage: bytes, index: ImageIndex) -> None:
    (file,) = (cache_folder() / "columns").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage or whole[:-9] + b"\xff" + whole[-8:])
    assert paths(ImageIndex.open(index.root), "-camera:x100v") == ["b.jpg"]
    assert file.read_bytes() == whole


def test_texts_of_several_blocks_are_one_column() -> None:
    rows = [
        (id_, 4, 2, None, None, None, "2019", f"camera {id_ % 3}", None, None, b"x/%d.jpg" % id_) for id_ in range(9)
    ]
    blocks: Iterable[list[tuple[object, ...]]] = [rows[6:], rows[:2], rows[2:6]]
    columns = Columns.of(1, "t", blocks)
    assert columns.ids.tolist() == list(range(9))
    camera = columns.texts["camera"]
    assert [camera.values[code] for code in camera.codes] == [f"camera {id_ % 3}" for id_ in range(9)]
    assert columns.texts["suffix"].values == (".jpg",)
    assert columns.texts["tags"].where(bool).tolist() == [False] * 9
