"""HTML from Jinja2 templates: every value is escaped, and control and bidi characters in it are made visible."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup as Markup

from clipkit.core.text import printable


def render(template: Path, /, **values: Any) -> Markup:
    """The template file with these values; as Markup, which another template takes over as it is."""
    return Markup(_environment(template.parent).get_template(template.name).render(values))  # the values are escaped


def stream(template: Path, /, **values: Any) -> Iterator[str]:
    """The same in pieces, each made when it is asked for: a value that is a generator is never held whole."""
    return _environment(template.parent).get_template(template.name).generate(values)


def escape(text: str) -> str:
    """Text that is safe between tags and in quotes, as the templates write it."""
    return str(Markup.escape(_visible(text)))


def data_url(content: bytes, kind: str) -> str:
    """A file as an address that needs no request. kind: its media type, "image/png"."""
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment


def _visible(value: object) -> object:
    """Markup as it is; of anything else its text, control, bidi and undecodable characters as backslash escapes."""
    return value if isinstance(value, Markup) else printable(str(value))
