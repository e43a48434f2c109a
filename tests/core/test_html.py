"""Templates: nothing that a value says becomes HTML or hides, whichever way a template writes it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from clipkit.core.html import Markup, escape, render, stream
from tests.support.paths import REPOSITORY

HOSTILE = "<b a='1' c=\"2\">&amp;\u202e\x1b[31m\n\u200b\udcff"
SEEN = "<b a='1' c=\"2\">&amp;\\u202e\\x1b[31m\\n\\u200b\\xff"
TEMPLATES = [
    *(REPOSITORY / "clipkit" / "output" / "templates").iterdir(),
    *(REPOSITORY / "clipkit" / "images").glob("*.html"),
]
FILES = sorted([*TEMPLATES, *(REPOSITORY / "apps" / "templates").iterdir()])


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return tmp_path / "one.html"


@pytest.mark.parametrize(
    "source",
    [
        "{{ value }}",
        "{{ 'x' ~ value }}",
        "{{ [value]|join(', ') }}",
        "{% set other %}{{ value }}{% endset %}{{ other }}",
        "{% macro show(text) %}{{ text }}{% endmacro %}{{ show(value) }}",
        "{% for one in [value] %}{{ one }}{% endfor %}",
        "{{ {'key': value}['key'] }}",
        "{{ '%s'|format(value) }}",
    ],
)
def test_a_value_is_text_and_shows_what_would_hide(template: Path, source: str) -> None:
    template.write_text(source)
    made = render(template, value=HOSTILE)
    assert unescape(made).removeprefix("x") == SEEN
    assert not re.search("[<>\"']", made)
    assert "".join(stream(template, value=HOSTILE)) == made
    assert escape(HOSTILE) == made.removeprefix("x")


def test_what_is_markup_stays_and_what_is_no_text_becomes_text(template: Path) -> None:
    template.write_text("{{ inner }}{{ number }}{{ nothing }}{{ file }}")
    made = render(template, inner=Markup("<i>1</i>"), number=2.5, nothing=None, file=Path("<a>\n"))
    assert made == "<i>1</i>2.5None&lt;a&gt;\\n"


def test_a_value_that_is_missing_is_an_error(template: Path) -> None:
    template.write_text("{{ value }}{% if other %}x{% endif %}")
    for values in ({"value": 1}, {"other": 1}):
        with pytest.raises(UndefinedError, match="is undefined"):
            render(template, **values)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.parent.name}/{file.name}")
def test_no_template_turns_escaping_off(file: Path) -> None:
    filters = re.findall(r"\|\s*(\w+)", " ".join(re.findall(r"{[{%](.*?)[}%]}", file.read_text(), re.DOTALL)))
    assert set(filters) <= {"format", "length", "thousands"}
    assert not re.search(
        r"{[{%][^}]*~|autoescape", file.read_text()
    )  # "~" would escape what stands beside Markup unseen
    assert not re.search(r"""=\s*{{|\bon\w+\s*=|<script""", file.read_text())  # attributes are quoted, none is a script
