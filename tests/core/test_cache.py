"""The array cache: what was put is got, and whatever is absent, damaged or of another format is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.folders import cache_folder

ROWS = np.arange(8, dtype=np.float16).reshape(2, 4)


@pytest.fixture
def cache(private_cache: Path) -> ArrayCache:
    return ArrayCache("words", "templates", form="words 1")


def test_arrays_and_payload_are_got_by_their_key(cache: ArrayCache, private_cache: Path) -> None:
    cache.put("one", {"rows": ROWS}, {"n": 2})
    cache.put("two", {"rows": ROWS + 1})
    found = cache.get("one")
    assert found is not None
    np.testing.assert_array_equal(found[0]["rows"], ROWS)
    assert found[1] == {"n": 2}
    assert list(cache.payloads()) == [("one", {"n": 2}), ("two", None)]
    assert (private_cache / "words" / "templates" / "one.safetensors").is_file()


def test_what_is_absent_is_not_there(cache: ArrayCache) -> None:
    assert cache.get("one") is None
    assert list(cache.payloads()) == []


def test_a_second_value_replaces_the_first(cache: ArrayCache) -> None:
    cache.put("one", {"rows": ROWS})
    cache.put("one", {"rows": ROWS + 1}, "new")
    found = cache.get("one")
    assert found is not None
    np.testing.assert_array_equal(found[0]["rows"], ROWS + 1)


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_what_is_damaged_is_not_there_and_can_be_put_again(
    cache: ArrayCache, private_cache: Path, damage: bytes | None
) -> None:
    cache.put("one", {"rows": ROWS})
    (file,) = private_cache.glob("words/templates/*")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    assert cache.get("one") is None
    cache.put("one", {"rows": ROWS})
    assert cache.get("one") is not None


def test_another_format_is_not_there(cache: ArrayCache) -> None:
    cache.put("one", {"rows": ROWS})
    assert ArrayCache("words", "templates", form="words 2").get("one") is None
    assert ArrayCache("words", form="words 1").get("one") is None


def test_a_cache_that_cannot_be_written_is_only_slower(private_cache: Path) -> None:
    (private_cache / "words").write_bytes(b"a file where the folder should be")
    cache = ArrayCache("words", form="words 1")
    cache.put("one", {"rows": ROWS})
    assert cache.get("one") is None
    assert list(cache.payloads()) == []


def test_a_key_is_decided_by_every_part_and_its_place() -> None:
    parts = [("a", "b"), ("ab",), ("b", "a"), ("a", "b", None), ("a", ["b"]), (1,), ("1",), (1.5,), (True,), ()]
    keys = {cache_key(*each) for each in parts}
    assert len(keys) == len(parts)
    assert cache_key("a", 1) == cache_key("a", 1)
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)


def test_the_folder_is_the_environments_or_the_systems(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() == private_cache
    for absent in (lambda: monkeypatch.setenv("CLIPKIT_CACHE", ""), lambda: monkeypatch.delenv("CLIPKIT_CACHE")):
        absent()
        assert cache_folder().is_absolute()
        assert cache_folder() != private_cache
        assert "clipkit" in cache_folder().parts
