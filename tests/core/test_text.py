"""Text for terminals: whatever a file is called, it stays on its line and runs nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.core.text import near, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a cat.jpg", "a cat.jpg"),
        ("h\u00fcnd \u732b.jpg", "h\u00fcnd \u732b.jpg"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\U000e0041", r"\U000e0041"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("", ""),
    ],
)
def test_control_characters_and_undecodable_bytes_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_what_is_printable_can_be_printed_and_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()


def test_a_path_is_said_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    here = os.getcwd()
    assert near(f"{here}/sub/a.jpg") == "sub/a.jpg"
    assert near(f"{here} 2/a.jpg") == f"{here} 2/a.jpg"  # a folder beside it whose name begins as this one's
    assert near("/elsewhere/a.jpg") == "/elsewhere/a.jpg"
    assert near("a.jpg") == "a.jpg"
    monkeypatch.chdir("/")
    assert near("/elsewhere/a.jpg") == "elsewhere/a.jpg"
