"""docs/json.md: every command prints the fields that are documented, of the types that are documented, and no other."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.cli.main import app, main
from clipkit.index.image_index import ImageIndex
from clipkit.models.openclip import OpenClipEncoder
from tests.support.colours import COLOURS, paint
from tests.support.paths import REPOSITORY
from tests.support.shards import write_vectors
from tests.support.tiny_vits import make_vit

PAGE = (REPOSITORY / "docs" / "json.md").read_text()
# a command as the page has it -> its table
TABLES = {
    command: dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", table, re.MULTILINE))
    for command, table in re.findall(
        r"^`(clipkit [^`]+ --json)`: [^\n]+\n\n\| field[^\n]+\n((?:\|[^\n]+\n)+)", PAGE, re.MULTILINE
    )
}
IS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "whole": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "true/false": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
}
OTHERS = {"explain": "its fields are not promised", "ui": "", "mcp": ""}


def is_of(value: Any, kind: str) -> bool:
    if kind.endswith("?"):
        return value is None or is_of(value, kind[:-1])
    if kind.startswith("list of "):
        return isinstance(value, list) and all(is_of(one, kind.removeprefix("list of ")) for one in value)
    return IS[kind](value)


@pytest.fixture
def told(
    tmp_path: Path,
    starter: OpenClipEncoder,
    pipelines: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[[str], list[dict[str, Any]]]:
    """What a command of the page prints, in a folder with an index, an album, duplicates and a broken file."""
    photos = tmp_path / "PHOTOS"
    for number, (name, colour) in enumerate(COLOURS.items()):
        paint(photos / f"{name}.png", colour)
        for copy in range(4):
            shade = tuple(min(255, max(0, value + 9 * copy)) for value in colour)
            place = tmp_path / "DATASET" / ("warm" if number % 2 else "cold") / f"{name}{copy}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pattern = np.random.default_rng([number, copy]).integers(0, 120, (8, 8, 1))  # no two are copies
            pixels = (0.5 * np.array(shade) + pattern).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(place)
    (photos / "again.png").write_bytes((photos / "red.png").read_bytes())
    (photos / "broken.jpg").write_bytes(b"no picture")
    ImageIndex.create(photos, starter).update()
    make_vit("vit", tmp_path / "FOLDER")
    write_vectors(tmp_path / "SHARDS", _vectors(starter.dim), starter)
    (tmp_path / "PICTURE").write_bytes((photos / "red.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    main(["album", "PHOTOS", "NAME", "PHOTOS/red.png"])
    capfd.readouterr()

    def run(command: str) -> list[dict[str, Any]]:
        words = re.findall(r'"[^"]+"|\S+', command)[1:]
        if words[0] == "recall":
            main(["search", "--build", "ivf", "SHARDS"])
        ways = {"probe": ["--model", "starter"], "classify": []}
        ways["adapt"] = ["--epochs", "1"]
        ways["compare"] = ["--model", "starter", "--shots", "1", "--seeds", "2", "--methods", "zeroshot,probe"]
        if words[0] == "imagine":
            ways["imagine"] = ["--model", str(pipelines("painter")), "--steps", "2", "--n", "1", "--device", "cpu"]
        main([word.strip('"') for word in words] + ways.get(words[0], []))
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return run


def _vectors(dim: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((300, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_page_has_every_command_that_prints_json() -> None:
    with_json = {
        name
        for name, command in app.commands.items()
        if any("--json" in getattr(option, "opts", ()) for option in command.params)
    }
    documented = {command.split()[1] for command in TABLES}
    assert documented | set(OTHERS) >= with_json
    assert documented <= with_json


@pytest.mark.parametrize("command", [command for command in TABLES if " check " not in command])
def test_a_command_prints_what_the_page_says(command: str, told: Callable[[str], list[dict[str, Any]]]) -> None:
    lines = told(command)
    assert lines, command
    for line in lines:
        assert list(line) == list(TABLES[command])
        wrong = {name: line[name] for name, kind in TABLES[command].items() if not is_of(line[name], kind)}
        assert not wrong


def test_check_prints_a_damage(told: Callable[[str], list[dict[str, Any]]], tmp_path: Path) -> None:
    index = ImageIndex.open(tmp_path / "PHOTOS")
    assert not told("clipkit check PHOTOS --json")
    (hit,) = index.search("red", k=1)
    with closing(sqlite3.connect(index.store.file, isolation_level=None)) as db:
        db.execute("UPDATE images SET embedding = zeroblob(10) WHERE id = ?", (hit.id,))
    (line,) = told("clipkit check PHOTOS --json")
    assert (list(line), line["path"]) == (["path", "damage"], hit.path)
    assert list(TABLES["clipkit check PHOTOS --json"]) == ["path", "damage"]


def test_what_an_option_adds(told: Callable[[str], list[dict[str, Any]]]) -> None:
    (line, *_) = told("clipkit classify PHOTOS --classes cat,dog --json --dry-run --copy-to sorted")
    assert list(line) == [*TABLES["clipkit classify PHOTOS --classes cat,dog --json"], "targets"]
    assert is_of(line["targets"], "list of text")
    assert all(set(answer) == {"label", "probability"} for answer in line["answers"])
    (filtered, *_) = told("clipkit search type:png PHOTOS --json")
    assert (filtered["score"], filtered["relevance"]) == (0.0, None)
