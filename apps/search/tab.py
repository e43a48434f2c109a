"""Search tab: one box, a wall of pictures, and from each picture on to the next; drawn by `static/search`."""

from __future__ import annotations

import gradio as gr

from .. import html
from ..server.state import Page
from ..theme import piece


def tab(page: Page, _: gr.Tab) -> None:
    """Put the view where Gradio shows it; it talks to `routes.py`, past Gradio's queue."""
    piece(html.render("search"), elem_id="ck-search", on_load="window.clipkit.search(element);")
