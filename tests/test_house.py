"""The house: packages import downwards, no files form a circle, each library has one door, imports are cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import clipkit

LIBRARY = Path(clipkit.__file__).parent
REPOSITORY = LIBRARY.parent
# Ground first: a package imports only those above it in this list, itself, and the modules of the ground.
PACKAGES = (
    "errors",
    "core",
    "metrics",
    "images",
    "models",
    "store",
    "search",
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
    "doctor",
    "apps",
    "cli",
)
# The one package, or the one module, through which each library comes in.
DOORS = {
    "open_clip": "clipkit.models.openclip",
    "transformers": "clipkit.models.vit",
    "onnxruntime": "clipkit.models.onnx",
    "diffusers": "clipkit.generate.diffusion",
    "rapidocr": "clipkit.models.ocr",
    "onnx": "clipkit.models.onnx_export",
    "tokenizers": "clipkit.models.tokenizer",
    "ftfy": "clipkit.models.tokenizer",
    "huggingface_hub": "clipkit.models.hub",
    "lark": "clipkit.search.grammar",
    "faiss": "clipkit.search.vectors",
    "sqlite3": "clipkit.store",
    "filelock": "clipkit.core.locks",
    "PIL": "clipkit.images",
    "simplejpeg": "clipkit.images",
    "pillow_heif": "clipkit.images",
    "rawpy": "clipkit.images.raw",
    "av": "clipkit.images.video_frames",
    "pyarrow": "clipkit.core.arrow",
    "lance": "clipkit.core.lance_tables",
    "fsspec": "clipkit.bulk.storage",
    "watchfiles": "clipkit.index.watch",
    "platformdirs": "clipkit.core.folders",
    "matplotlib": "clipkit.output.figures",
    "pydantic": "clipkit.evaluate.results",
    "jinja2": "clipkit.core.html",
    "markupsafe": "clipkit.core.html",
    "click": "clipkit.cli",
    "tqdm": "clipkit.cli.output",
    "ray": "clipkit.bulk.ray_engine",
    "gradio": "apps",
    "mcp": "apps.mcp_server",
    "starlette": "apps",
}
HEAVY = (
    "numpy",
    "torch",
    "open_clip",
    "faiss",
    "gradio",
    "pandas",
    "sklearn",
    "safetensors",
    "transformers",
    "diffusers",
    "PIL",
    "pydantic",
    "ray",
    "fsspec",
    "pyarrow",
)


def files() -> list[Path]:
    return sorted([*LIBRARY.rglob("*.py"), *(REPOSITORY / "apps").rglob("*.py")])


def name_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in files()}


@cache
def imports(module: str) -> frozenset[str]:
    """Whole dotted names of modules that a module imports, to run or for types alone, at the top or in a function."""
    names: set[str] = set()
    is_package = MODULES[module].stem == "__init__"
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    found = {name.replace("clipkit_apps", "apps", 1) if name.startswith("clipkit_apps") else name for name in names}
    return frozenset(name if name in MODULES else _module_of(name) for name in found)


def _module_of(name: str) -> str:
    """The module in which an imported name stands."""
    parent = name.rpartition(".")[0]
    return parent if parent in MODULES else name


def place(module: str) -> int:
    """Where its package stands; what lies beside the packages is of the package itself."""
    top, _, rest = module.partition(".")
    return PACKAGES.index("apps" if top == "apps" else rest.partition(".")[0])


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name and name != "clipkit.__main__"])
def test_packages_import_only_what_is_below_them(module: str) -> None:
    for other in imports(module) & set(MODULES):
        if "." in other:
            assert place(other) <= place(module), f"{module} imports {other}: arrows run down"
        else:
            assert place(module) >= PACKAGES.index("cli"), f"{module} imports the package {other}"


def test_no_files_form_a_circle() -> None:
    pending = {module: set(imports(module)) & set(MODULES) - {module} for module in MODULES}
    while free := [module for module, others in pending.items() if not others & pending.keys()]:
        for module in free:
            del pending[module]
    circle = {module: sorted(others & pending.keys()) for module, others in pending.items()}
    assert circle == {}


@pytest.mark.parametrize("module", MODULES)
def test_each_library_has_one_door(module: str) -> None:
    for name in imports(module):
        door = DOORS.get(name.partition(".")[0])
        assert door is None or f"{module}.".startswith(f"{door}."), f"{module} imports {name}; its door is {door}"


def test_every_door_is_used() -> None:
    for library, door in DOORS.items():
        used = [module for module in MODULES if f"{module}.".startswith(f"{door}.")]
        assert any(name.partition(".")[0] == library for module in used for name in imports(module)), library


def test_the_page_knows_nothing_of_the_command_line() -> None:
    for module in [name for name in MODULES if name.startswith("apps")]:
        assert not [name for name in imports(module) if name.startswith("clipkit.cli")], module


def test_only_the_command_line_and_the_page_print() -> None:
    for module, file in MODULES.items():
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        if [call for call in calls if ast.unparse(call.func) == "print"]:
            assert module.startswith(("clipkit.cli.", "apps.")), module


@pytest.mark.parametrize(
    "statement", ["import clipkit", "import clipkit.cli.main", "from clipkit.cli.main import main; main(['--help'])"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    script = f"import sys\n{statement}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_scikit_learn_comes_with_the_estimators_alone() -> None:
    """What the command line and the page import to search, classify and learn by hand does without it."""
    light = "clipkit.classify.words, clipkit.classify.labels, clipkit.explore.question, clipkit.learn.corrections"
    script = f"import sys\nimport {light}, clipkit_apps.page\nprint('sklearn' in sys.modules)\n"
    script += "import clipkit\nclipkit.LinearProbe\nprint('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("folder", ["benchmarks", "training"])
def test_every_script_finds_what_it_imports(folder: str) -> None:
    scripts = sorted(file.stem for file in (LIBRARY.parent / folder).glob("*.py"))
    assert scripts
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(scripts)}"],
        cwd=LIBRARY.parent / folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_these() -> None:
    assert clipkit.__all__ == [
        "BadIndex",
        "ClipTransformer",
        "ClipkitError",
        "Encoder",
        "Head",
        "Hit",
        "Hits",
        "ImageError",
        "ImageIndex",
        "IndexDamaged",
        "IndexLocked",
        "IndexNotFound",
        "IndexReport",
        "IndexTooNew",
        "LinearProbe",
        "ModelError",
        "ModelMismatch",
        "PixelRecipe",
        "QueryError",
        "ShapeError",
        "UNKNOWN",
        "ViTClassifier",
        "ZeroShotClassifier",
        "adapt",
        "compare",
        "finetune",
        "imagine",
        "load_dataset",
        "load_encoder",
        "train_clip",
        "__version__",
    ]
    for name in clipkit.__all__:
        assert getattr(clipkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = clipkit.Nothing  # type: ignore[attr-defined]


def test_what_the_makefile_runs_is_in_the_repository() -> None:
    words = (REPOSITORY / "Makefile").read_text().split()
    named = [word for word in words if word.startswith(("tests/", "docs/", "benchmarks/"))]
    assert named
    assert [word for word in named if not (REPOSITORY / word).exists()] == []
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    assert [word for word in named if {f"{part}/" for part in Path(word).parts} & set(ignored)] == []


@pytest.mark.parametrize("file", ["README.md", "docs/install.md"])
def test_every_extra_is_named(file: str) -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (REPOSITORY / file).read_text()
    assert [name for name in extras if name != "dev" and f"`{name}`" not in text] == []


def test_nothing_is_installed_under_a_general_name() -> None:
    packages = tomllib.loads((LIBRARY.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.partition(".")[0] for name in packages} == {"clipkit", "clipkit_apps", "clipkit_data"}
    folders = {file.parent.relative_to(LIBRARY.parent) for file in LIBRARY.rglob("__init__.py")}
    of_code = {name for name in packages if not name.endswith(".templates")}
    assert {name for name in of_code if name.startswith("clipkit.") or name == "clipkit"} == {
        ".".join(folder.parts) for folder in folders
    }
