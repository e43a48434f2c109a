"""Search tab state: its components, and what one browser looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from clipkit.explore.question import Question


@dataclass(frozen=True)
class SearchSession:
    """What one browser tab looks at. shown: pictures in its grid. turn: its number. file: the dropped picture.

    side: the library, and its revision, whose folders and file types the side panel offers.
    """

    library: str = ""
    question: Question = field(default_factory=Question)
    shown: int = 0
    turn: int = 0
    file: str = ""
    side: tuple[str, int] = ("", -1)


@dataclass(frozen=True)
class SearchScreen:
    """The components that every action may change, in the order in which handlers return them."""

    session: gr.State
    box: gr.MultimodalTextbox
    chips: gr.HTML
    count: gr.HTML
    grid: gr.HTML
    signal: gr.HTML
    library: gr.Dropdown
    folder: gr.Dropdown
    since: gr.Textbox
    until: gr.Textbox
    least: gr.Radio
    shapes: gr.CheckboxGroup
    kinds: gr.CheckboxGroup

    @property
    def outputs(self) -> list[Any]:
        return list(vars(self).values())

    @property
    def asked(self) -> list[Any]:
        """What a search reads."""
        return [self.box, self.library, self.folder, self.since, self.until, self.least, self.shapes, self.kinds]
