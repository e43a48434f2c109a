"""The house: imports go to lower floors, each outside library has one door, and importing clipkit costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clipkit

LIBRARY = Path(clipkit.__file__).parent
FLOORS = {
    7: ["cli", "cli_care", "cli_compare", "cli_learn", "cli_probe", "cli_ui", "cli_vision"],
    6: [
        "folders",
        "terminal",
        "options",
        "watching",
        "checking",
        "exchange",
        "doctor",
        "copying",
        "preview",
        "sheet",
        "sorting",
        "listing",
        "evaluate",
        "fitting",
        "report",
        "contest",
        "compare",
        "comparison_page",
    ],
    5: ["attention", "finetune", "material", "probe", "fewshot", "index", "spoken"],
    4: ["tunable", "views", "learning", "updating", "cache", "zeroshot", "kept", "splits", "scoring"],
    3: [
        "encoder",
        "reading",
        "query",
        "engines",
        "thumbnails",
        "published",
        "datasets",
        "comparison",
        "vit",
        "training",
    ],
    2: [
        "images",
        "journal",
        "scan",
        "store",
        "trust",
        "writer",
        "neighbors",
        "models",
        "hub",
        "towers",
        "backbones",
        "sealed",
        "anatomy",
        "hidden",
        "regression",
        "layouts",
        "head",
        "metrics",
        "prompts",
        "attempts",
        "ordering",
    ],
    1: ["records", "errors", "places", "files", "surroundings", "weighing"],
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules}
# An import that does not go down, and why it may stand.
EXCEPTIONS = {
    ("scan", "images"): "which suffixes are pictures is for images to say",
    ("cli", "cli_care"): "one command line in several files",
    ("cli", "cli_learn"): "as above",
    ("cli", "cli_probe"): "as above",
    ("cli", "cli_ui"): "as above",
    ("cli", "cli_vision"): "as above",
    ("options", "terminal"): "messages of a model that is being loaded are said there",
    ("store", "writer"): "one database in two files: what may be read, and what a transaction may do",
    ("store", "trust"): "what a file must be before it is believed is a page of its own",
    ("models", "hub"): "names in one file, fetching in the other",
    ("query", "encoder"): "a query is embedded by an Encoder: the protocol only",
    ("preview", "terminal"): "what cannot be printed is made visible in one way everywhere",
    ("sheet", "terminal"): "as above",
    ("listing", "terminal"): "as above",
    ("report", "terminal"): "as above",
    ("comparison_page", "terminal"): "as above",
    ("comparison_page", "report"): "the page shows the figures",
    ("compare", "contest"): "a comparison in three files: one method once, all of them, and the page",
    ("compare", "comparison_page"): "as above",
    ("cli", "cli_compare"): "one command line in several files",
    ("finetune", "material"): "one recipe in two files: what is learned from, and what is learned",
    ("head", "hidden"): "the optional layer of a head is a page of its own",
    ("sorting", "copying"): "a picture gets its name in a folder in one way everywhere",
}
DOORS = {
    # Models there; the words of the published protocols here; the layout of a model that has learned.
    "open_clip": {"encoder", "published", "tunable"},
    "faiss": {"neighbors", "engines"},
    "sqlite3": {"store", "trust", "writer"},
    "PIL": {"images", "thumbnails"},  # reading there; writing JPEG, PNG and palettes here
    "simplejpeg": {"images"},
    "pillow_heif": {"images"},
    "click": {"cli", "cli_care", "cli_compare", "cli_learn", "cli_probe", "cli_ui", "cli_vision", "options"},
    "huggingface_hub": {"hub", "doctor"},
    "filelock": {"store"},
    "platformdirs": {"places"},
    "tqdm": {"terminal"},
    "pyarrow": {"layouts"},
    "gradio": set(),
    "matplotlib": {"report"},
    "transformers": {"vit"},
}
HEAVY = ("numpy", "torch", "open_clip", "faiss", "gradio", "pandas", "sklearn", "safetensors", "transformers", "PIL")


def modules() -> list[str]:
    return sorted(file.stem for file in LIBRARY.glob("*.py") if file.stem != "__init__")


def imports(module: str) -> set[str]:
    """Whole dotted names that a module imports to run; those for types alone do not count."""
    names: set[str] = set()
    pending: list[ast.AST] = [ast.parse((LIBRARY / f"{module}.py").read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names |= {
                f"{node.module}.{alias.name}" if node.module == "clipkit" else str(node.module) for alias in node.names
            }
        pending.extend(ast.iter_child_nodes(node))
    return names


def test_every_module_has_a_floor() -> None:
    assert modules() == sorted(FLOOR)


def test_every_module_stands_in_the_architecture() -> None:
    page = (LIBRARY.parent / "docs" / "architecture.md").read_text()
    assert [module for module in modules() if f"`{module}`" not in page] == []


@pytest.mark.parametrize("module", modules())
def test_imports_go_to_a_lower_floor(module: str) -> None:
    for name in imports(module):
        package, _, other = name.partition(".")
        if package == "clipkit" and other in FLOOR:
            allowed = FLOOR[other] < FLOOR[module] or (module, other) in EXCEPTIONS
            assert allowed, f"{module} (floor {FLOOR[module]}) imports {other} (floor {FLOOR[other]}): arrows run down"


@pytest.mark.parametrize("module", modules())
def test_each_library_has_one_door(module: str) -> None:
    for name in imports(module):
        library = name.partition(".")[0]
        assert module in DOORS.get(library, {module}), f"{module} imports {library}; its door is {DOORS[library]}"


def test_the_exceptions_and_doors_are_still_needed() -> None:
    for module, other in EXCEPTIONS:
        assert f"clipkit.{other}" in imports(module), f"{module} no longer imports {other}"
    for library, doors in DOORS.items():
        for module in doors - {"writer"}:  # types only
            used = {name.partition(".")[0] for name in imports(module)}
            assert library in used, f"{module} no longer imports {library}"


def test_only_the_command_line_prints() -> None:
    for module in set(modules()) - {"cli", "terminal"}:
        calls = [
            node for node in ast.walk(ast.parse((LIBRARY / f"{module}.py").read_text())) if isinstance(node, ast.Call)
        ]
        assert not [call for call in calls if ast.unparse(call.func) == "print"], f"{module} prints"


def test_no_file_is_longer_than_a_person_reads() -> None:
    lengths = {module: len((LIBRARY / f"{module}.py").read_text().splitlines()) for module in modules()}
    assert {module: length for module, length in lengths.items() if length > 350} == {}


@pytest.mark.parametrize(
    "statement", ["import clipkit", "import clipkit.cli", "from clipkit.cli import main; main(['--help'])"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    script = f"import sys\n{statement}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


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
        "load_encoder",
        "__version__",
    ]
    for name in clipkit.__all__:
        assert getattr(clipkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = clipkit.Nothing  # type: ignore[attr-defined]


def test_nothing_is_installed_under_a_general_name() -> None:
    text = (LIBRARY.parent / "pyproject.toml").read_text()
    assert 'packages = ["clipkit", "clipkit_apps", "clipkit_data", "clipkit_data.starter"]' in text
