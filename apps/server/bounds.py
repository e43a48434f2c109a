"""Bounds on what Gradio remembers of whoever asks: it forgets neither a session nor an upload that nobody looks at."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import gradio as gr
import gradio.routes

MOST_SESSIONS = 10_000
MOST_UPLOADS = 1_000  # whose progress somebody may ask for


class Recent(OrderedDict[str, Any]):
    """The `most` entries that were last used; others are forgotten."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __getitem__(self, key: str) -> Any:
        found = super().__getitem__(key)
        if key in self:
            self.move_to_end(key)
        return found

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        while len(self) > self._most:
            self.popitem(last=False)


class Signals(Recent):
    """An event for every key that is asked for."""

    def __missing__(self, key: str) -> asyncio.Event:
        self[key] = event = asyncio.Event()
        return event


def bound_memory(blocks: gr.Blocks) -> None:
    """Have Gradio forget sessions and uploads, the oldest first."""
    blocks._queue.pending_event_ids_session = Recent(MOST_SESSIONS)
    uploads = gradio.routes.file_upload_statuses
    uploads._statuses, uploads._signals = Recent(MOST_UPLOADS), Signals(MOST_UPLOADS)  # type: ignore[assignment]
