"""The cache of exported models: made once, however many want one, and of bounded size."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clipkit.core.folders import cache_folder
from clipkit.models import export_cache, load
from clipkit.models.export_cache import trim, use
from clipkit.models.exports import RECORD, all_exports
from clipkit.models.load import load_encoder


def make(name: str, *, used: float, size: int = 10) -> Path:
    folder = cache_folder() / "exports" / name
    folder.mkdir(parents=True)
    (folder / "image.weights").write_bytes(bytes(size))
    (folder / RECORD).write_text("{}")
    os.utime(folder / RECORD, (used, used))
    return folder


def names() -> list[str]:
    return sorted(entry.name for entry in (cache_folder() / "exports").iterdir() if entry.name[0] != ".")


def test_two_that_load_the_same_model_export_it_once(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, said, encoders = [], [], []
    honest, begun = load.export_weights, threading.Event()

    def slow(weights: object, notify: object = None) -> object:
        made.append(1)
        begun.set()
        time.sleep(1)
        return honest(weights, notify)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "export_weights", slow)

    def first() -> None:
        encoders.append(load_encoder(str(models("clip")), device="cpu"))

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(60)
    encoders.append(load_encoder(str(models("clip")), device="cpu", notify=said.append))
    thread.join()
    assert len(made) == 1
    assert "another clipkit is preparing local:clip: waiting for it" in said
    assert len(encoders) == 2
    assert len(list(all_exports())) == 1


def test_the_least_recently_used_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_cache, "MOST", 3)
    for day in range(6):
        make(f"day-{day}", used=1e9 + 86_400 * day)
    use(cache_folder() / "exports" / "day-1", threading.Event())
    trim(cache_folder() / "exports" / "day-0")
    assert names() == ["day-0", "day-1", "day-5"]


def test_they_go_by_size_too_but_never_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_cache, "MOST_BYTES", 1000)
    make("old", used=1e9, size=500)
    make("large", used=1e9 + 9, size=2000)
    trim(cache_folder() / "exports" / "large")
    assert names() == ["large"]


def test_one_in_use_stays_as_long_as_its_encoder(models: Callable[[str], Path], tmp_path: Path) -> None:
    encoder = load_encoder(str(models("clip")), engine="onnx")
    (export,) = all_exports()
    os.utime(export.folder / RECORD, (0, 0))
    for day in range(export_cache.MOST):
        make(f"day-{day}", used=1e9 + day)
    trim(cache_folder() / "exports" / "day-0")
    assert export.folder.name in names()
    assert len(encoder.encode_texts(["a dog"])) == 1
    del encoder
    os.utime(export.folder / RECORD, (0, 0))
    trim(cache_folder() / "exports" / "day-0")
    assert export.folder.name not in names()


def test_half_exports_of_killed_processes_go_after_a_day(models: Callable[[str], Path]) -> None:
    old, new = (cache_folder() / "exports" / f".{name}.part" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    load_encoder(str(shutil.copytree(models("clip"), old.parents[1] / "model")), engine="onnx")
    assert not old.exists()
    assert new.exists()
