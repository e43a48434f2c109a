"""Fairness: one address, or one visitor, does not take what others need, and an ordinary browser never notices."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import gradio as gr
import pytest
from clipkit_apps.server import bounds, fair_queue, guard, limits, routes, uploads
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

T = TypeVar("T")
UPLOAD = "/gradio_api/upload"
MB = 2**20


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """In a thread: the browser's driver has an event loop in this one for as long as the session lasts."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result()


class Page:
    """A guard, and behind it a page that answers when it is told to, or reads a body and answers at once."""

    def __init__(self) -> None:
        self.at_work = 0
        self.most_at_work = 0
        self.is_open = asyncio.Event()
        self._guard = guard.Guard(self._answer)

    async def ask(
        self, address: str = "10.0.0.1", path: str = "/", *, body: Sequence[bytes] = (), **headers: str
    ) -> tuple[int, str]:
        """Status and sentence."""
        said: list[Any] = []
        pieces = iter(body)

        async def receive() -> Any:
            piece = next(pieces, b"")
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}

        async def send(message: Any) -> None:
            said.append(message)

        pairs = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
        scope = {"type": "http", "method": "POST" if body else "GET", "path": path, "headers": raw}
        await self._guard({**scope, "client": (address, 1)}, receive, send)
        return said[0]["status"], said[-1].get("body", b"").decode()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            while scope["method"] == "POST" and (await receive())["more_body"]:
                pass
            if scope["method"] == "GET":
                await self.is_open.wait()
        finally:
            self.at_work -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})


# ---- requests at work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "in_all"), [("/clipkit/large/x/1", guard.AT_ONCE), ("/gradio_api/queue/data", guard.STREAMS_AT_ONCE)]
)
def test_one_address_leaves_room_for_others_and_its_own_requests_wait_their_turn(path: str, in_all: int) -> None:
    async def crowd() -> None:
        page = Page()
        many = [asyncio.create_task(page.ask(path=path)) for _ in range(1_000)]
        await asyncio.sleep(0.05)
        assert page.at_work < in_all / 2
        other = asyncio.create_task(page.ask("10.0.0.2", path))
        await asyncio.sleep(0)
        refused = [task.result() for task in many if task.done()]
        assert set(refused) == {(429, "too many requests from your address at once; try again in a moment\n")}
        page.is_open.set()
        assert (await other)[0] == 200
        assert [status for status, _ in await asyncio.gather(*many)].count(200) == 1_000 - len(refused)
        assert (await page.ask(path=path))[0] == 200  # nothing is held against it

    run(crowd())


def test_what_a_browser_asks_at_once_is_all_answered() -> None:
    async def browse() -> None:
        page = Page()
        many = [asyncio.create_task(page.ask(path="/clipkit/thumb/x/1")) for _ in range(120)]
        await asyncio.sleep(0.01)
        page.is_open.set()
        assert {status for status, _ in await asyncio.gather(*many)} == {200}
        assert page.most_at_work == guard.OF_ONE_AT_ONCE

    run(browse())


def test_all_addresses_together_are_bounded_too() -> None:
    async def crowd() -> None:
        page = Page()
        many = [asyncio.create_task(page.ask(f"10.0.{n % 9}.1", "/clipkit/file/x/1")) for n in range(200)]
        await asyncio.sleep(0.05)
        assert page.at_work == guard.AT_ONCE
        page.is_open.set()
        assert {status for status, _ in await asyncio.gather(*many)} == {200, 503}

    run(crowd())


# ---- bytes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What time the limits take it to be: `now`, in seconds."""
    found = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(limits.time, "monotonic", lambda: found.now)
    return found


def visitor(number: int) -> dict[str, str]:
    return {"cookie": f"clipkit-visitor={number:022}"}


def test_a_visitor_sends_so_many_bytes_an_hour_and_others_are_not_held_up(clock: SimpleNamespace) -> None:
    async def send() -> None:
        page, picture = Page(), [bytes(MB)] * 20
        for _ in range(10):
            assert (await page.ask(path=UPLOAD, body=picture, **visitor(1)))[0] == 200
        status, said = await page.ask(path=UPLOAD, body=picture, **visitor(1))
        assert (status, said) == (429, "more than 200 MB were sent within an hour; try again in 1 min\n")
        announced = {"content_length": str(20 * MB)}
        status, said = await page.ask(path=UPLOAD, body=picture, **announced, **visitor(1))
        assert (status, said) == (429, "more than 200 MB were sent within an hour; try again in 6 min\n")
        assert (await page.ask(path=UPLOAD, body=picture, **visitor(2)))[0] == 200
        assert (await page.ask("10.0.0.2", UPLOAD, body=picture))[0] == 200
        clock.now += 360
        assert (await page.ask(path=UPLOAD, body=picture, **visitor(1)))[0] == 200
        clock.now += 3_600  # by then all of it is deleted
        for _ in range(10):
            assert (await page.ask(path=UPLOAD, body=picture, **visitor(1)))[0] == 200

    run(send())


def test_a_cookie_for_every_upload_does_not_help(clock: SimpleNamespace) -> None:
    async def send() -> None:
        page, picture = Page(), [bytes(10 * MB)] * 2
        statuses = [(await page.ask(path=UPLOAD, body=picture, **visitor(n)))[0] for n in range(60)]
        assert statuses == [200] * 50 + [429] * 10
        assert (await page.ask("10.0.0.2", UPLOAD, body=picture))[0] == 200

    run(send())


def test_the_table_of_visitors_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_KEYS", 8)
    buckets = limits.TokenBuckets(100, 3_600)
    for number in range(20):
        buckets.take(str(number), 100)
    assert [bool(buckets.wait(str(number), 50)) for number in range(20)] == [False] * 12 + [True] * 8


def test_uploads_that_broke_off_do_not_stay(tmp_path: Path) -> None:
    for name in ("tmpbroken", "folder/old.jpg", "folder/deeper/old.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    elsewhere = tmp_path.parent / "elsewhere.jpg"
    elsewhere.write_bytes(b"x")
    os.symlink(elsewhere, tmp_path / "link")
    uploads.sweep(tmp_path, keep_seconds=60)
    assert len(list(tmp_path.rglob("*"))) == 6
    uploads.sweep(tmp_path, keep_seconds=-1)
    assert list(tmp_path.iterdir()) == []
    assert elsewhere.exists()


# ---- the queue -------------------------------------------------------------------------------------------------------


def test_one_address_cannot_fill_the_queue_and_the_first_question_of_another_goes_before_its_second() -> None:
    def request(address: str) -> Any:
        return SimpleNamespace(client=SimpleNamespace(host=address), headers={}, query_params={})

    async def join(blocks: gr.Blocks, address: str) -> tuple[bool, str, str]:
        body = gr.routes.PredictBodyInternal(fn_index=0, data=[], session_hash=address)
        return await blocks._queue.push(body, request(address), None)  # type: ignore[return-value]

    async def crowd() -> None:
        with gr.Blocks() as blocks:  # within a loop, or it would begin one
            gr.Button().click(lambda: None, api_name="wait")
        blocks.queue(max_size=64)
        fair_queue.share_queue(blocks)
        joined = [await join(blocks, "10.0.0.1") for _ in range(40)]
        assert [success for success, _, _ in joined] == [True] * fair_queue.MOST_OF_ONE + [False] * 24
        assert joined[-1][1:] == (fair_queue.CROWDED, "queue_full")
        assert (await join(blocks, "10.0.0.2"))[0]
        assert (await join(blocks, "10.0.0.2"))[0]
        (line,) = blocks._queue.event_queue_per_concurrency_id.values()
        first = [event.request.client.host for event in line.queue[:5]]
        assert first == ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2", "10.0.0.1"]

    run(crowd())


def test_gradio_forgets_sessions_and_uploads_that_nobody_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_SESSIONS", 3)
    monkeypatch.setattr(bounds, "MOST_UPLOADS", 3)

    async def ask() -> None:
        with gr.Blocks() as blocks:
            gr.Button().click(lambda: None)
        bounds.bound_memory(blocks)
        sessions, uploads_ = blocks._queue.pending_event_ids_session, gr.routes.file_upload_statuses
        for number in range(20):
            sessions.setdefault(str(number), set()).add("event")
            assert sessions[str(number)] == {"event"}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(uploads_.is_tracked(f"unknown {number}"), 0.001)
            uploads_.append(f"sent {number}", "x.jpg", b"x")
        assert len(sessions) == len(uploads_._statuses) == len(uploads_._signals) == 3
        assert await uploads_.is_tracked("sent 19")
        assert uploads_.pop("sent 19").filename == "x.jpg"

    run(ask())


def test_pictures_leave_threads_to_the_rest_of_the_page() -> None:
    is_open = threading.Event()

    def slow(*_: Any) -> Response:
        is_open.wait()
        return Response("picture")

    async def crowd() -> None:
        found = routes.Routes(None, None, routes.Outbox())  # type: ignore[arg-type]
        found._picture = found._facts = slow  # type: ignore[method-assign, assignment]
        asked = [asyncio.create_task(found._large(None)) for _ in range(60)]  # type: ignore[arg-type]
        asked += [asyncio.create_task(found._about(None)) for _ in range(60)]  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        assert await asyncio.wait_for(run_in_threadpool(lambda: 5), 5) == 5  # as Gradio answers what is not async
        is_open.set()
        assert len(await asyncio.gather(*asked)) == 120

    run(crowd())
