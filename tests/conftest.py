"""Fixtures that every test may use: a private cache, small folders of coloured pictures, real photographs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.colours import COLOURS, ColourEncoder, paint


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIPKIT_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test has just painted count as old, as they would a moment later."""
    monkeypatch.setattr("clipkit.index.scan.TICK_NS", 0)
    monkeypatch.setattr("clipkit.index.scan.COARSE_NS", 0)


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight pictures of one colour each, named after it."""
    for name, colour in COLOURS.items():
        paint(tmp_path / "photos" / f"{name}.png", colour)
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs, where there is one."""
    folder = os.environ.get("CLIPKIT_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("CLIPKIT_TEST_DATA does not point at the photographs")
    return Path(folder)


@pytest.fixture
def paints() -> Callable[..., Path]:
    return paint
