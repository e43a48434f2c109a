"""Completion by the Tab key: commands, options, values and files, in the shells that README names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from clipkit.cli.main import app

FILES = {"photos", "picture", "pictures", "dataset", "source", "at", "head_file", "out"}


def completed(*words: str) -> list[str]:
    environment = {**os.environ, "_CLIPKIT_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": " ".join(["clipkit", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-c", "from clipkit.__main__ import run; run()"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("sea",), ["plain,search"]),
        (("search", "--min-rel"), ["plain,--min-relevance"]),
        (("search", "--min-relevance", "str"), ["plain,strong"]),
        (("index", "Pic"), ["file,Pic"]),
        (("info", "--index", ""), ["file,"]),
    ],
)
def test_what_tab_offers(words: tuple[str, ...], answer: list[str]) -> None:
    assert completed(*words) == answer


def test_every_place_on_the_disk_is_completed_as_one() -> None:
    for name, command in app.commands.items():
        for option in command.params:
            if option.name in FILES:
                assert option.type.name == "path", f"{name} {option.name}"


def test_bash_reads_the_script() -> None:
    if not (bash := shutil.which("bash")):
        pytest.skip("bash is not installed")
    script = f'eval "$(_CLIPKIT_COMPLETE=bash_source {sys.executable} -m clipkit)" && complete -p clipkit'
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True)
    assert "clipkit_completion" in done.stdout, done.stderr
