"""Fixtures that every test may use: a private cache, small folders of coloured pictures, real photographs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clipkit.models.registry import SAFE_WEIGHTS, starter_folder
from tests.support.colours import COLOURS, ColourEncoder, paint

if TYPE_CHECKING:
    from clipkit.generate import DiffusionGenerator
    from clipkit.models.openclip import OpenClipEncoder

# Before torch is imported: OpenMP's threads that wait for work sleep. Spinning, they take the processor from other
# processes: 54 CPU seconds for 19 in the test of the starter against open_clip, beside two busy processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, gone after the test: all of them together would take gigabytes."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIPKIT_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test has just painted count as old, as they would a moment later."""
    monkeypatch.setattr("clipkit.index.scan.TICK_NS", 0)
    monkeypatch.setattr("clipkit.index.scan.COARSE_NS", 0)


@pytest.fixture(autouse=True)
def hints_that_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever an error of any test tells to type must be understood by the command line."""
    from clipkit.errors import ClipkitError
    from tests.support.hints import complaints

    wrong: list[str] = []
    begin = ClipkitError.__init__

    def noted(self: ClipkitError, message: str, *, hint: str | None = None) -> None:
        begin(self, message, hint=hint)
        wrong.extend(complaints(hint or ""))

    monkeypatch.setattr(ClipkitError, "__init__", noted)
    yield
    assert not wrong, f"hints that lead nowhere: {wrong}"


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


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random open_clip model by its kind, made once; nobody writes into it."""
    from tests.support.tiny_models import make_model

    root = tmp_path_factory.mktemp("models")
    made: dict[str, Path] = {}
    return lambda kind: made.get(kind) or made.setdefault(kind, make_model(kind, root / kind))


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny diffusion pipeline by its kind, made once; nobody writes into it."""
    from tests.support.tiny_diffusion import make_pipeline

    root = tmp_path_factory.mktemp("pipelines")
    made: dict[str, Path] = {}
    return lambda kind: made.get(kind) or made.setdefault(kind, make_pipeline(root / kind, kind))


@pytest.fixture(scope="session")
def painter(pipelines: Callable[[str], Path]) -> DiffusionGenerator:
    """A tiny pipeline that paints the colour that a prompt names; nobody changes it."""
    from clipkit.generate import DiffusionGenerator
    from tests.support.tiny_diffusion import STEPS

    return DiffusionGenerator(pipelines("painter"), device="cpu", steps=STEPS)


@pytest.fixture(scope="session")
def starter() -> OpenClipEncoder:
    """The bundled model as it loads by default, for tests that only encode with it."""
    if not (starter_folder() / SAFE_WEIGHTS).is_file():
        pytest.skip("data/starter has no weights yet")
    from clipkit.models.load import load_encoder

    return load_encoder("starter", device="cpu")


@pytest.fixture(scope="session")
def _pets_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pets-cache")


@pytest.fixture
def pets_cache(_pets_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which the embeddings of the real photographs stay from test to test."""
    monkeypatch.setenv("CLIPKIT_CACHE", str(_pets_cache))
    return _pets_cache


@pytest.fixture
def paints() -> Callable[..., Path]:
    return paint
