"""Tables: whatever a spreadsheet writes is read, with the number of the row that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit.core.tables import read_table
from clipkit.datasets.load import load_dataset
from clipkit.errors import DatasetError
from tests.support.colours import paint

PLAIN = "image,label\na.png,cat\nb.png,dog\n"
WRITTEN = {
    "plain": PLAIN.encode(),
    "mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "utf-16": PLAIN.encode("utf-16"),
    "spaces": b"image,  label \na.png , cat\nb.png,dog\n",
    "capitals": b"Image,LABEL\na.png,cat\nb.png,dog\n",
    "semicolons": b"image;label\na.png;cat\nb.png;dog\n",
    "tabs": b"image\tlabel\na.png\tcat\nb.png\tdog\n",
    "empty rows": b"image,label\na.png,cat\n,\nb.png,dog\n\n,,\n",
    "line ends": PLAIN.replace("\n", "\r\n").encode(),
    "quotes": b'"image","label"\n"a.png","cat"\n"b.png","dog"\n',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_read_however_it_was_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(WRITTEN[name])
    rows = [row for _, row in read_table(tmp_path / "table.csv")]
    assert rows == [{"image": "a.png", "label": "cat"}, {"image": "b.png", "label": "dog"}]
    for picture in ("a.png", "b.png"):
        paint(tmp_path / picture, (9, 9, 9))
    assert load_dataset(tmp_path / "table.csv").labels == ("cat", "dog")


def test_a_row_that_is_wrong_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image,label\n\na.png,cat,dog\n")
    with pytest.raises(DatasetError, match="row 3, has more cells"):
        load_dataset(tmp_path / "table.csv")


def test_what_is_no_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes("image,label\na.png,Käse\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="UTF-8 or UTF-16"):
        load_dataset(tmp_path / "table.csv")
