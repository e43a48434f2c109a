"""Fair queue: events of all addresses in turn, and of one address no more than a part of what may wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from gradio.queueing import Event

from .limits import network_of

MOST_OF_ONE = 16  # events of one address that wait; a browser window has one or two
CROWDED = "too many questions from your address are waiting already; try again in a moment"


def share_queue(blocks: gr.Blocks) -> None:
    """Have Gradio's queue, which serves who came first, take the events of all addresses in turn."""
    queue = blocks._queue
    push = queue.push

    def waiting() -> Iterator[list[Event]]:
        return (line.queue for line in list(queue.event_queue_per_concurrency_id.values()))

    async def fair(body: Any, request: Any, username: str | None) -> Any:
        whose = [_address(event.request) for events in waiting() for event in events]
        if whose.count(_address(request)) >= MOST_OF_ONE:
            return False, CROWDED, "queue_full"
        answer = await push(body, request, username)
        for events in waiting():
            events[:] = in_turn(events)
        return answer

    queue.push = fair  # type: ignore[method-assign]


def in_turn(events: Sequence[Event]) -> list[Event]:
    """The first of each address, then the second of each, and so on; those of one address keep their order."""
    seen: Counter[str] = Counter()
    ranks = []
    for event in events:
        whose = _address(event.request)
        ranks.append(seen[whose])
        seen[whose] += 1
    order = sorted(range(len(events)), key=ranks.__getitem__)
    return [events[place] for place in order]


def _address(request: Any) -> str:
    return network_of(request.client.host if request is not None and request.client else "")
