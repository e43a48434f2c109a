"""Checksummed tensor files: what was written is read, any change to the file is noticed, older files are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.core.tensor_files import read_payload, read_tensors, write_tensors
from clipkit.errors import ModelError

ARRAYS: dict[str, Any] = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "half": np.array([0.5, -2.0], np.float16),
    "labels": np.array([3, -1], np.int64),
    "mask": np.array([True, False, True]),
    "scale": np.array(100.0),
    "empty": np.empty((0, 4), np.float32),
    "column": np.arange(12, dtype=np.uint8).reshape(3, 4)[:, 1],  # not contiguous
}
PAYLOAD = {"classes": ["cat", "h\u00fcnd"], "C": 0.5, "notes": None}
FORM = "clipkit test 1"


def save(file: Path, metadata: dict[str, str], arrays: dict[str, Any]) -> Path:
    """A file as another version may have written it."""
    from safetensors.numpy import save_file

    save_file(arrays, file, metadata=metadata)
    return file


def checksum(arrays: dict[str, Any], text: str, *, with_types: bool) -> str:
    """As docs of the files say: of the text, then of each array's name, shape, type and bytes, in order of names."""
    content = hashlib.sha256(text.encode())
    for name, value in sorted(arrays.items()):
        content.update(f"{name} {value.shape}{f' {value.dtype}' if with_types else ''}".encode() + value.tobytes())
    return content.hexdigest()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def test_arrays_and_payload_come_back_as_they_were(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", ARRAYS, PAYLOAD, form=FORM)
    found = read_tensors(tmp_path / "file", forms=("another", FORM))
    assert same(found.arrays, ARRAYS)
    assert (found.payload, found.form) == (PAYLOAD, FORM)
    assert read_payload(tmp_path / "file") == PAYLOAD


def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    arrays = {"weight": ARRAYS["weight"], "labels": ARRAYS["labels"]}
    write_tensors(file, arrays, PAYLOAD, form=FORM)
    content, noticed = file.read_bytes(), 0
    for place in range(len(content)):
        for mask in (0x01, 0x20, 0xFF):  # another value, another case of a letter, all bits
            changed = bytearray(content)
            changed[place] ^= mask
            file.write_bytes(changed)
            try:
                found = read_tensors(file, forms=(FORM,))
            except ModelError:
                noticed += 1
            else:
                assert same(found.arrays, arrays), f"byte {place} ^ {mask:#x}"
                assert (found.payload, found.form) == (PAYLOAD, FORM), f"byte {place} ^ {mask:#x}"
    assert noticed > 2.9 * len(content)  # what changes nothing is white space


def test_every_shorter_file_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_tensors(file, {"weight": ARRAYS["weight"]}, PAYLOAD, form=FORM)
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        with pytest.raises(ModelError, match="is not a file of clipkit"):
            read_tensors(file, forms=(FORM,))


@pytest.mark.parametrize("key", ["payload", "said", "head"])
@pytest.mark.parametrize("with_types", [True, False])
def test_older_payload_keys_and_a_checksum_without_types_are_read(tmp_path: Path, key: str, with_types: bool) -> None:
    text, arrays = json.dumps(PAYLOAD), {"weight": ARRAYS["weight"]}
    sum_ = checksum(arrays, text, with_types=with_types)
    file = save(tmp_path / "file", {"format": FORM, key: text, "sha256": sum_}, arrays)
    found = read_tensors(file, forms=(FORM,))
    assert same(found.arrays, arrays)
    assert found.payload == PAYLOAD


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "another", "payload": "1"}, "is not a head that this clipkit knows: 'another'"),
        ({"payload": "1"}, "is not a head that this clipkit knows: 'no format'"),
        ({"format": FORM, "payload": "1"}, "is damaged: its content is not what was written"),
        ({"format": FORM, "payload": "1", "sha256": "0" * 64}, "is damaged: its content is not what was written"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    file = save(tmp_path / "file", metadata, {"weight": ARRAYS["weight"]})
    with pytest.raises(ModelError, match=message) as caught:
        read_tensors(file, forms=(FORM,), kind="head", hint="do this")
    assert caught.value.hint == "do this"


def test_a_right_checksum_over_a_payload_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    arrays = {"weight": ARRAYS["weight"]}
    for metadata in ({"payload": "{"}, {}):
        text = metadata.get("payload", "")
        sum_ = checksum(arrays, text, with_types=True)
        file = save(tmp_path / "file", {"format": FORM, "sha256": sum_, **metadata}, arrays)
        with pytest.raises(ModelError, match="is damaged"):
            read_tensors(file, forms=(FORM,))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="absent is not there"):
        read_tensors(tmp_path / "absent", forms=(FORM,))
    with pytest.raises(ModelError, match="is not a file of clipkit"):
        read_tensors(tmp_path, forms=(FORM,))
    assert read_payload(tmp_path / "absent") is None
    (tmp_path / "rubbish").write_bytes(b"rubbish")
    assert read_payload(tmp_path / "rubbish") is None


def test_equal_contents_are_equal_files(tmp_path: Path) -> None:
    """safetensors keeps the metadata in an order that changes from one file to the next."""
    arrays = {"b": np.arange(3, dtype=np.float32), "a": np.zeros((2, 2), np.float16)}
    for i in range(6):
        write_tensors(tmp_path / str(i), arrays, {"classes": ["caf\u00e9"]}, form="x")
    assert len({(tmp_path / str(i)).read_bytes() for i in range(6)}) == 1
    assert read_tensors(tmp_path / "0", forms=["x"]).payload == {"classes": ["caf\u00e9"]}
