"""Gradio theme: one calm theme of system fonts; style and script are files in static/."""

from __future__ import annotations

from typing import Any

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
HEAD = "".join(
    f'<link rel="stylesheet" href="clipkit/static/{name}.css"><script src="clipkit/static/{name}.js"></script>'
    for name in ("page", "classify")
) + "".join(
    f'<link rel="stylesheet" href="clipkit/static/{name}.css">'
    for name in ("search/search", "vendor/photoswipe/photoswipe")
)
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 4}
# Gradio's own subdued text is 2.6 : 1 on this ground, and 4.5 can be read.
COLOURS = {
    "body_background_fill": "*neutral_50",
    "body_background_fill_dark": "#17181b",
    "background_fill_secondary": "#ffffff",
    "background_fill_secondary_dark": "#212327",
    "body_text_color_subdued": "*neutral_500",
    "block_info_text_color": "*neutral_500",
    "block_background_fill": "transparent",
    "block_background_fill_dark": "transparent",
    "block_border_width": "0px",
    "input_background_fill": "#ffffff",
    "input_background_fill_dark": "#212327",
    "button_secondary_background_fill": "#ffffff",
    "button_secondary_background_fill_dark": "#212327",
    "button_secondary_background_fill_hover": "*neutral_100",
    "button_secondary_border_color": "*border_color_primary",
    "button_border_width": "1px",
    "button_primary_background_fill": "#3b6ea8",
    "button_primary_background_fill_dark": "#3b6ea8",
    "button_primary_background_fill_hover": "#325f93",
    "button_primary_background_fill_hover_dark": "#4a7fbb",
    "button_primary_border_color": "#3b6ea8",
    "button_primary_border_color_dark": "#3b6ea8",
    "button_primary_text_color": "#ffffff",
}


def theme() -> gr.themes.Base:
    """Gradio's plainest theme with fonts that are on the machine: nothing is fetched from anywhere."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_sm,
        font=FONTS,
        font_mono=MONO,
    ).set(**COLOURS)


# Gradio puts the scripts of `head` into a page that is drawn already, so a component may come before them.
WHEN_READY = """(function ready(begin) {
  if (window.clipkit && window.clipkitClassify) begin();
  else setTimeout(() => ready(begin), 20);
})"""


def piece(value: str = "", *, elem_id: str, on_load: str | None = None) -> gr.HTML:
    """A part of the page that is HTML of our own, in our own style; `on_load` ties it to the page's script.

    Where `on_load` has the word 'act' in quotes, `piece(...).act(...)` listens to what the script sends.
    """
    js = f"{WHEN_READY}(() => {{ {on_load}\n }});" if on_load else None
    return gr.HTML(value, elem_id=elem_id, js_on_load=js, padding=False, apply_default_css=False)


def signal_piece(script: str) -> gr.HTML:
    """An unseen component through which Python tells the page's `script` something."""
    listen = f"watch('value', () => {script}.signal(props.value));"
    return gr.HTML("", html_template="<i></i>", js_on_load=listen, visible="hidden")
