"""Requests to Gradio's endpoints that cannot be answered: a 4xx for who asks, at most one line for who serves."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import gradio as gr
import gradio.queueing
import gradio.routes
from gradio.route_utils import get_fn

from clipkit.core.text import printable

ENDPOINTS = ("/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/", "/gradio_api/queue/join")
MOST_WORDS = 200  # characters of a reason
_REASONS = ("valid key-word argument", "No value provided for required argument")  # of Gradio, fit to be shown
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)  # Gradio keeps whatever name is sent
_GRADIO: tuple[ModuleType, ...] = (gradio.queueing, gradio.routes)


def refuse_wrong_counts(blocks: gr.Blocks) -> None:
    """Have the queue answer 400 where a request names no function or session, or has too few values."""
    push = blocks._queue.push

    async def checked(body: Any, request: Any, username: str | None) -> Any:
        reason = _complaint(blocks, body)
        return (False, reason, "error") if reason else await push(body, request, username)

    blocks._queue.push = checked  # type: ignore[method-assign]


def print_one_line() -> None:
    """Have Gradio print a line where a function has failed, and no traceback: anybody could fill the terminal."""
    one_line = SimpleNamespace(print_exc=lambda: say_failure("an event", sys.exc_info()[1]))
    for module in _GRADIO:
        module.traceback = one_line  # type: ignore[attr-defined]


def say_failure(what: str, error: BaseException | None) -> None:
    """What has failed, and where, in a line on stderr."""
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    print(f"{what} failed: {type(error).__name__}: {first_line(error)}{place}", file=sys.stderr)


def first_line(error: BaseException | None) -> str:
    """The first line of a reason, fit for a terminal."""
    return printable(str(error).strip().partition("\n")[0][:MOST_WORDS])


def reason_for_client(path: str, error: Exception) -> str:
    """What to answer where a request has brought an endpoint to fail; "" where that was not the request's doing."""
    is_ours = isinstance(error, TypeError | ValueError | LookupError) or type(error).__name__ == "FnIndexInferError"
    if not path.startswith(ENDPOINTS) or not is_ours:
        return ""
    text = first_line(error).partition(" Please click")[0]
    return text if any(part in text for part in _REASONS) else "there is no such function, or it takes other values"


def _complaint(blocks: gr.Blocks, body: Any) -> str:
    """Why the queue cannot take a request; "" where it can."""
    if body.session_hash is not None and not _SESSION.fullmatch(body.session_hash):
        return "there is no such session"
    try:
        function = get_fn(blocks, None, body)
    except (LookupError, TypeError):
        return "there is no such function"
    wanted = [block for block in function.inputs if not block.skip_api]
    given = len(body.data or ())
    if given >= min(len(wanted), len(function.inputs)):
        return ""
    names = _names(function.fn) if function.api_visibility == "public" else []
    takes = f"{function.api_name} takes {', '.join(names)}" if names else f"{len(wanted)} values are wanted"
    by_name = f"; by name: /gradio_api/call/v2/{function.api_name}" if names else ""
    return f"{takes}: {given} came{by_name}"


def _names(function: Callable[..., Any] | None) -> Sequence[str]:
    return list(inspect.signature(function).parameters) if function else []
