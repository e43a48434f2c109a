"""README and docs are run: the commands, the Python, and the lines that read an index without clipkit."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clipkit.models.registry import ALIASES, starter_folder
from tests.support.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
pytestmark = pytest.mark.skipif(
    not (starter_folder() / "open_clip_model.safetensors").exists(), reason="data/starter has no weights"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `demo-photos`, as `make demo` leaves it."""
    place = tmp_path_factory.mktemp("readme")
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        import demo
    finally:
        sys.path.pop(0)
    (place / "demo-photos").mkdir()
    for source, names in demo.BUNDLED.items():
        for name in names:
            shutil.copyfile(demo.site_packages() / source / name, place / "demo-photos" / name)
    return place


def run(place: Path, *command: str) -> str:
    environment = {**os.environ, "CLIPKIT_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=place, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def without_numbers(text: str) -> list[str]:
    """Scores differ in the last digit between machines, times in all."""
    return [re.sub(r"[\d.]+ pictures/s|\d+\.\d+", "#", line) for line in text.splitlines()]


def test_the_commands_print_what_the_readme_says(place: Path) -> None:
    clipkit = str(Path(sys.executable).with_name("clipkit"))
    commands = [part for block in blocks(README, "console") for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
    assert len(commands) >= 4
    for shown in commands:
        command, expected = shown.split("\n", 1)
        program, *arguments = shlex.split(command)
        assert program == "clipkit"
        printed = run(place, clipkit, *arguments)
        assert without_numbers(printed) == without_numbers(expected), command


def test_the_python_runs(place: Path) -> None:
    printed = run(place, sys.executable, "-c", "\n".join(blocks(README, "python"))).splitlines()
    assert re.fullmatch(r"0\.\d{3} chelsea\.png", printed[0])
    assert len(printed) == 4
    assert printed[3] == "['cat' 'unknown']"


def test_an_index_can_be_read_without_clipkit(place: Path) -> None:
    run(place, str(Path(sys.executable).with_name("clipkit")), "index", "demo-photos")
    (block,) = blocks((REPOSITORY / "docs" / "index-format.md").read_text(), "python")
    block = block.replace("photos/.clipkit", "demo-photos/.clipkit")
    check = "\nimport clipkit\nindex = clipkit.ImageIndex.open('demo-photos')\n"
    check += "assert paths == index.paths and (embeddings == index.embeddings).all() and len(paths) == 16\n"
    run(place, sys.executable, "-c", block + check)


def test_every_option_and_alias_that_is_named_exists() -> None:
    from clipkit.cli.main import app

    commands = [*app.commands.values(), *app.commands["evaluate"].commands.values()]  # type: ignore[attr-defined]
    options = {name for command in commands for option in command.params for name in option.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert named <= options | {"--help"}
    assert {"balanced", "starter", "fast"} <= set(ALIASES)


def test_every_link_leads_somewhere() -> None:
    for file in [
        REPOSITORY / "README.md",
        *(REPOSITORY / "docs").glob("*.md"),
        REPOSITORY / "benchmarks" / "README.md",
    ]:
        for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"
