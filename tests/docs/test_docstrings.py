"""Docstrings of public names: their numpydoc sections, and their examples, which are run."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import io
import itertools
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpydoc.docscrape import NumpyDocString

import clipkit
from clipkit.models.load import load_encoder
from clipkit.models.registry import starter_folder
from tests.support.shards import write_shards
from tests.support.tiny_diffusion import make_pipeline
from tests.support.tiny_vits import make_vit

PACKAGES = (
    *(
        "",
        "models",
        "index",
        "datasets",
        "classify",
        "learn",
        "generate",
        "explore",
        "evaluate",
        "output",
        "plot",
        "bulk",
    ),
)
MODULES = ("errors", "metrics")  # all that is public in them
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
CROPS = 5  # pictures of each class in `animals`
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
HAS_STARTER = (starter_folder() / "open_clip_model.safetensors").exists()

Public = dict[str, Any]  # objects by dotted name


def _exports() -> Public:
    """Every exported class and function, once, under the shortest of its names."""
    found: dict[int, tuple[str, Any]] = {}
    for package in PACKAGES:
        name = f"clipkit.{package}".rstrip(".")
        module = importlib.import_module(name)
        for exported in module.__all__:
            value = getattr(module, exported)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(id(value), (f"{name}.{exported}", value))
    for package in MODULES:
        module = importlib.import_module(f"clipkit.{package}")
        for exported, value in vars(module).items():
            is_own = getattr(value, "__module__", "") == module.__name__ and not exported.startswith("_")
            if is_own and (inspect.isclass(value) or inspect.isfunction(value)):
                found.setdefault(id(value), (f"{module.__name__}.{exported}", value))
    return dict(found.values())


def _methods(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class of ours defines or inherits from one of ours."""
    ours = [base for base in owner.__mro__ if base.__module__.startswith("clipkit")]
    for name in dict.fromkeys(name for base in ours for name in vars(base) if not name.startswith("_")):
        value = inspect.getattr_static(owner, name)
        if isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value):
            yield name, value


EXPORTS = _exports()
METHODS: Public = {
    f"{owner}.{name}": method
    for owner, value in EXPORTS.items()
    if inspect.isclass(value)
    for name, method in _methods(value)
}
WITH_EXAMPLES = [name for name, value in {**EXPORTS, **METHODS}.items() if ">>>" in (inspect.getdoc(value) or "")]


def _parsed(value: Any) -> NumpyDocString:
    return NumpyDocString(inspect.getdoc(value) or "")


def _names(parsed: NumpyDocString, section: str) -> list[str]:
    """The names that a section documents; `a, b : float` are two."""
    return [name.strip().lstrip("*") for entry in parsed[section] for name in entry.name.split(",")]


def _parameters(value: Callable[..., Any]) -> list[str]:
    names = inspect.signature(value).parameters
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def _is_made_by_own_parameters(value: type) -> bool:
    maker = next((base for base in value.__mro__ if "__init__" in vars(base)), object)
    inherits_error = issubclass(value, Exception) and maker is not value
    return maker.__module__.startswith("clipkit") and not inherits_error and not getattr(value, "_is_protocol", False)


def _records() -> Public:
    """Dataclasses and named tuples that stand beside the exports, as what those return, and list their attributes."""
    modules = {sys.modules[value.__module__] for value in EXPORTS.values()}
    own = {f"{module.__name__}.{name}": value for module in modules for name, value in vars(module).items()}
    return {
        name: value
        for name, value in sorted(own.items())
        if inspect.isclass(value) and name == f"{value.__module__}.{value.__qualname__}"
        if value not in EXPORTS.values() and (dataclasses.is_dataclass(value) or issubclass(value, tuple))
        if _parsed(value)["Attributes"]
    }


RECORDS = _records()


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_name_has_the_sections_that_it_needs(name: str) -> None:
    value = EXPORTS[name]
    parsed = _parsed(value)
    assert len(parsed["Summary"]) == 1, "a summary of one line"
    assert parsed["Summary"][0].endswith((".", "?"))
    assert parsed["Examples"], "examples"
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
        assert [n for n in _names(parsed, "Attributes") + _names(parsed, "Parameters") if n in fields] == fields
    elif inspect.isfunction(value) or _is_made_by_own_parameters(value):
        assert _names(parsed, "Parameters") == _parameters(value)
    if inspect.isfunction(value) and inspect.signature(value).return_annotation not in (None, "None"):
        assert parsed["Returns"], "what it returns"


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_lists_its_attributes_lists_all_of_them(name: str) -> None:
    record = RECORDS[name]
    fields = [field for field in record.__annotations__ if not field.startswith("_")]
    assert sorted(_names(_parsed(record), "Attributes")) == sorted(fields)


@pytest.mark.parametrize("name", METHODS)
def test_a_public_method_has_a_summary_and_names_its_parameters_rightly(name: str) -> None:
    method = METHODS[name]
    parsed = _parsed(method)
    assert len(parsed["Summary"]) == 1, "a summary of one line"
    assert parsed["Summary"][0].endswith(".")
    if parsed["Parameters"]:
        assert _names(parsed, "Parameters") == _parameters(getattr(method, "__func__", method))


@pytest.mark.parametrize("name", [name for name, value in EXPORTS.items() if inspect.isclass(value)])
def test_a_public_class_has_a_repr_that_says_something(name: str) -> None:
    value = EXPORTS[name]
    if getattr(value, "_is_protocol", False):
        return
    assert value.__repr__ is not object.__repr__
    is_made = dataclasses.is_dataclass(value) and hasattr(vars(value).get("__repr__"), "__wrapped__")
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) and is_made else ()
    long = re.compile("Array|Embeddings|ndarray|Canvas|Dataset|Mapping")
    assert not [field.name for field in fields if long.search(str(field.type))], "a line would not hold it"


@pytest.mark.parametrize("package", [*PACKAGES, *MODULES])
def test_a_package_lists_what_it_exports_in_a_line_each(package: str) -> None:
    module = importlib.import_module(f"clipkit.{package}".rstrip("."))
    listed = re.findall(r"^- `(\w+)`: .+\.$", module.__doc__ or "", flags=re.MULTILINE)
    own = [value.__name__ for value in EXPORTS.values() if value.__module__ == module.__name__]
    names = getattr(module, "__all__", own)
    assert sorted(listed) == sorted(name for name in names if not name.startswith("__"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples find around them: photographs with an index, two classes of crops, captions, a tiny ViT."""
    import skimage
    from PIL import Image

    source = Path(skimage.__file__).parent / "data"
    place = tmp_path_factory.mktemp("examples") / "template"
    (place / "photos").mkdir(parents=True)
    for name in PHOTOS:
        shutil.copyfile(source / name, place / "photos" / name)
    for label, names in {"cat": ["chelsea.png"], "other": ["coffee.png", "rocket.jpg"]}.items():
        (place / "animals" / label).mkdir(parents=True)
        for i in range(CROPS):
            with Image.open(source / names[i % len(names)]) as picture:
                crop = picture.crop((10 * i, 5 * i, 280 + 10 * i, 260 + 5 * i))
            crop.save(place / "animals" / label / f"{i}.png")
    for label, names in {"animal": ["chelsea.png", "astronaut.png"], "thing": ["coffee.png", "rocket.jpg"]}.items():
        (place / "tiles" / label).mkdir(parents=True)
        for name in names:  # side by side, so that none is a copy of another
            with Image.open(source / name) as picture:
                for x, y in itertools.product(range(0, picture.width - 149, 150), range(0, picture.height - 149, 150)):
                    tile = picture.crop((x, y, x + 150, y + 150))
                    tile.save(place / "tiles" / label / f"{Path(name).stem}-{x}-{y}.png")
    captions = ["chelsea.png,a cat", "coffee.png,a cup of coffee", "rocket.jpg,a rocket"]
    (place / "captions.csv").write_text("\n".join(["image,caption", *(f"photos/{line}" for line in captions)]))
    (place / "classes.txt").write_text("cat\ncup of coffee\nrocket\n")
    make_vit("vit", place / "tiny-vit")
    make_pipeline(place / "made").rename(place / "tiny-pipeline")
    return place


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`load_encoder` that loads each model once."""
    return cache(load_encoder)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared-cache")


@pytest.fixture
def example_folder(
    template: Path,
    shared_cache: Path,
    starter: Callable[..., Any],
    private_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A copy of the template as the current folder; every example may change it."""
    monkeypatch.setenv("CLIPKIT_CACHE", str(shared_cache))  # what one example embeds, the next one has
    monkeypatch.setattr(clipkit, "load_encoder", starter)
    monkeypatch.setattr("clipkit.models.load_encoder", starter, raising=False)
    monkeypatch.setattr("clipkit.index.image_index.load_encoder", starter)
    monkeypatch.setattr("clipkit.bulk.queries.load_encoder", starter)
    if not (template / "photos" / ".clipkit").exists():
        clipkit.ImageIndex.create(template / "photos", starter("starter")).update()
        write_shards(
            template / "shards", template / "photos", starter("starter"), names=PHOTOS, source="s3://bucket/photos"
        )
    place = shutil.copytree(template, tmp_path / "examples")
    monkeypatch.chdir(place)
    return place


@pytest.mark.skipif(not HAS_STARTER, reason="data/starter has no weights")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_docstring_run_as_shown(name: str, example_folder: Path) -> None:
    text = inspect.getdoc({**EXPORTS, **METHODS}[name]) or ""
    test = doctest.DocTestParser().get_doctest(text, {"clipkit": clipkit, "np": np}, name, None, 0)
    report = io.StringIO()
    failed, attempted = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.write)
    if ".plot." in name:
        import matplotlib.pyplot as plt

        plt.close("all")
    assert attempted
    assert not failed, report.getvalue()
