"""Page load at 100,000 pictures: 8 clients, 20 thumbnails a search, memory, Enter to thumbnails, frames of a scroll."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import re
import secrets
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import (
    MB,
    Target,
    clipkit_command,
    kept,
    print_table,
    private_cache,
    read_arguments,
    seconds,
    summary,
    write,
)
from fixtures import photographs

PICTURES, REAL = 100_000, 2_000  # rows, and different photographs behind them
CLIENTS, SEARCHES, K = 8, 2_000, 20
LOOK_EVERY = 50  # searches between two looks at the server's memory
START_SECONDS = 300.0
COMMIT = 10_000
ENTERS = 20
SCROLLED, STEP = 20_000, 240  # pictures in one wall, and pixels a frame: about a screen in four frames
WORDS = (
    ("a", "one", "the", "some"),
    ("red", "blue", "green", "old", "small", "dark", "wooden", "bright", "wet", "quiet"),
    ("dog", "cat", "boat", "house", "flower", "street", "mountain", "cup", "train", "tree"),
    ("at night", "in snow", "by a lake", "on a table", "in the sun", "far away"),
)
# From the key to the moment when every picture on the screen has its pixels, as the browser sees it.
ENTER = """
words => new Promise((resolve, reject) => {
  const box = document.querySelector('#ck-box');
  const grid = () => document.querySelector('.ck-wall');
  const before = grid().dataset.turn;
  const started = performance.now();
  const look = () => {
    if (performance.now() - started > 20000) return reject('no answer in 20 s');
    const images = [...document.querySelectorAll('.ck-wall .ck-card img')]
      .filter(image => image.getBoundingClientRect().top < innerHeight);
    const isThere = grid().dataset.turn !== before && images.length
      && images.every(image => image.complete && image.naturalWidth > 0);
    if (isThere) return resolve([performance.now() - started, images.length]);
    requestAnimationFrame(look);
  };
  box.value = words;
  box.form.requestSubmit();
  look();
})
"""
# A wheel that turns as fast as frames come: how long each frame took, and how many pictures were in the document.
SCROLL = """
pixels => new Promise(resolve => {
  const frames = [];
  let nodes = 0, last = performance.now();
  const step = now => {
    frames.push(now - last);
    last = now;
    nodes = Math.max(nodes, document.querySelectorAll('.ck-wall > *').length);
    if (scrollY + innerHeight >= document.documentElement.scrollHeight - 4) return resolve([frames.slice(2), nodes]);
    scrollBy(0, pixels);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})
"""


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    quick = arguments.quick
    pictures, real, searches = (4_000, 100, 160) if quick else (PICTURES, REAL, SEARCHES)
    cache = private_cache("page-cache")
    photos = _library(pictures, real)
    results: dict[str, Any] = {"pictures": pictures, "photographs": real, "clients": CLIENTS, "thumbnails": K}
    with _serving(cache, photos) as (place, process, started):
        results["cold_start_seconds"] = {"served": time.perf_counter() - started}
        _Client(place).search("a dog", 1)  # the model and the search cache are loaded by then
        results["cold_start_seconds"]["first_search_answered"] = time.perf_counter() - started
        results["enter_to_thumbnails"] = {"thumbnails_not_made_yet": _browser(place, 5 if quick else ENTERS, seed=1)}
        results["making_all_thumbnails_seconds"] = seconds(lambda: _make_thumbnails(place, real))
        _load(place, process.pid, searches // 4, seed=2)  # warm-up
        results["load"] = _load(place, process.pid, searches, seed=3)
        results["enter_to_thumbnails"]["thumbnails_made"] = _browser(place, 5 if quick else ENTERS, seed=4)
    results["scroll"] = _scrolled(cache, 2_000 if quick else SCROLLED)
    _report(results)
    write("page", results, _targets(results), arguments)


def _targets(results: dict[str, Any]) -> list[Target]:
    load, entered = results["load"], results["enter_to_thumbnails"]["thumbnails_made"]
    what = f"{CLIENTS} clients, {results['pictures']:,} pictures"
    targets = [
        Target(f"searches of {K} thumbnails a second, {what}", load["searches_per_second"], 25, is_floor=True),
        Target(f"the same, 95th percentile, seconds, {what}", load["seconds"]["p95"], 0.5),
        Target("errors", load["errors"], 0),
        Target("growth of the page's memory after warm-up, MB", load["growth_mb"], 50),
    ]
    if entered is not None:
        name = f"Enter to thumbnails, median seconds, {results['pictures']:,} pictures"
        targets.append(Target(name, entered["seconds"]["median"], 0.3))
    if (scroll := results["scroll"]) is not None:
        what = f"scroll through {scroll['pictures']:,} pictures"
        targets += [
            Target(f"longest frame, milliseconds, {what}", scroll["frame_milliseconds"]["highest"], 100),
            Target(f"elements of the wall in the document, {what}", scroll["most_elements"], 400),
        ]
    return targets


# ---- the library -----------------------------------------------------------------------------------------------------


def _library(pictures: int, real: int, *, is_each_its_own: bool = False) -> Path:
    """A folder of hard links to `real` photographs, and an index of random directions at their places."""
    sources = sorted(photographs(real, (500, 375)).glob("*.jpg"))

    def link(folder: Path) -> None:
        for number in range(pictures):
            below = folder / f"{number % 100:02d}"
            below.mkdir(exist_ok=True)
            os.link(sources[number % real], below / f"{number:06d}.jpg")

    folder = kept(f"page-{pictures}-of-{real}", link)
    shutil.rmtree(folder / ".clipkit", ignore_errors=True)
    print(f"indexing {pictures:,} rows", flush=True)
    _index(folder, pictures, real, is_each_its_own=is_each_its_own)
    return folder


def _index(folder: Path, pictures: int, real: int, *, is_each_its_own: bool = False) -> None:
    import hashlib

    from clipkit.index.image_index import ImageIndex
    from clipkit.models.load import load_encoder
    from clipkit.store.records import PictureRow, ScannedFile

    encoder = load_encoder("starter")
    store = ImageIndex.create(folder, encoder).store
    different = pictures if is_each_its_own else real  # pictures with the bytes of another are shown as one
    sums = [hashlib.sha256(f"{number}".encode()).digest() for number in range(different)]
    rng = np.random.default_rng(0)
    for start in range(0, pictures, COMMIT):
        count = min(COMMIT, pictures - start)
        rows = rng.standard_normal((count, encoder.dim), dtype=np.float32)
        half = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        with store.transaction() as writer:
            for number, row in enumerate(half, start):
                found = ScannedFile(f"{number % 100:02d}/{number:06d}.jpg", 40_000, number, number, number)
                writer.put(PictureRow(found, sums[number % different], 500, 375, embedding=row.tobytes()))


# ---- the page --------------------------------------------------------------------------------------------------------


@contextmanager
def _serving(cache: Path, photos: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """`clipkit ui`: where it is, its process, and when it was started."""
    log = cache / "ui.log"
    started = time.perf_counter()
    with open(log, "wb") as said:
        process = subprocess.Popen([clipkit_command(), "ui", str(photos)], stdout=said, stderr=said, cwd=cache)
    try:
        while not (match := re.search(r"clipkit is at (http\S+)", log.read_text(errors="replace"))):
            if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                raise RuntimeError(f"clipkit ui did not start: {log.read_text(errors='replace')}")
            time.sleep(0.02)
        yield match[1].rstrip("/"), process, started
    finally:
        process.terminate()
        process.wait(60)


class _Client:
    """One connection, kept open, and one visitor: what a browser's window is to the page."""

    def __init__(self, place: str) -> None:
        address = urlsplit(place)
        token = address.query.removeprefix("token=")
        self._headers = {"Authorization": f"Bearer {token}", "Cookie": f"clipkit-visitor={secrets.token_urlsafe(16)}"}
        self._wire = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)

    def search(self, words: str, k: int) -> list[str]:
        """The addresses of the thumbnails."""
        body = json.dumps({"words": words, "k": k, "stacked": False})
        found = json.loads(self._ask("POST", "/clipkit/search/ask", body))
        key = found["library"]
        return [f"/clipkit/thumb/{key}/{row['id']}?v={row['version']}" for row in found["pictures"]]

    def thumbnail(self, address: str) -> None:
        if self._ask("GET", address)[:3] != b"\xff\xd8\xff":
            raise RuntimeError(f"{address} is no JPEG")

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        self._wire.request(method, path, body, self._headers | ({"Content-Type": "application/json"} if body else {}))
        answer = self._wire.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}")
        return data


def _make_thumbnails(place: str, real: int) -> None:
    """Each photograph's once, by the ids of the first rows."""
    key = re.search(r"/thumb/([0-9a-f]+)/", _Client(place).search("a dog", 1)[0])
    if key is None:
        raise RuntimeError("no thumbnail has an address")
    addresses = [f"/clipkit/thumb/{key[1]}/{number}" for number in range(1, real + 1)]

    def fetch(part: list[str]) -> None:
        client = _Client(place)
        for address in part:
            client.thumbnail(address)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(fetch, [addresses[n::CLIENTS] for n in range(CLIENTS)]))


# ---- the load --------------------------------------------------------------------------------------------------------


def _load(place: str, pid: int, searches: int, *, seed: int) -> dict[str, Any]:
    """Each client asks, fetches the thumbnails one after the other, and asks again."""
    queries = [" ".join(words) for words in itertools.product(*WORDS)]
    random.Random(seed).shuffle(queries)
    left = itertools.islice(itertools.cycle(queries), searches)
    lock = threading.Lock()
    whole: list[float] = []
    asked: list[float] = []
    errors: list[str] = []
    memory = [_resident(pid)]

    def work() -> None:
        client = _Client(place)
        while True:
            with lock:
                words = next(left, None)
            if words is None:
                return
            begun = time.perf_counter()
            try:
                addresses = client.search(words, K)
                answered = time.perf_counter()
                if len(addresses) != K:
                    raise RuntimeError(f"{len(addresses)} pictures instead of {K}")
                for address in addresses:
                    client.thumbnail(address)
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                errors.append(str(error))
                client = _Client(place)
                continue
            with lock:
                whole.append(time.perf_counter() - begun)
                asked.append(answered - begun)
                if len(whole) % LOOK_EVERY == 0:
                    memory.append(_resident(pid))

    worked, started = _worked(pid), time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: work(), range(CLIENTS)))
    taken = time.perf_counter() - started
    memory.append(_resident(pid))
    return {
        "searches": len(whole),
        "different_queries": min(len(queries), searches),
        "seconds_altogether": taken,
        "searches_per_second": len(whole) / taken,
        "processor_seconds_of_the_page_per_search": (_worked(pid) - worked) / max(len(whole), 1),
        "seconds": _percentiles(whole),
        "search_alone_seconds": _percentiles(asked),
        "errors": len(errors),
        "first_errors": errors[:5],
        "memory_mb": [round(value / MB, 1) for value in memory],
        "growth_mb": (max(memory) - memory[0]) / MB,
    }


def _percentiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"median": cuts[49], "p95": cuts[94], "p99": cuts[98], "highest": max(times)}


def _resident(pid: int) -> int:
    """Bytes of memory that the process holds now, shared pages of files included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _worked(pid: int) -> float:
    """Processor seconds that the process has used: what a busy machine does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- the browser -----------------------------------------------------------------------------------------------------


def _scrolled(cache: Path, pictures: int) -> dict[str, Any] | None:
    """Frames of a scroll from the first to the last picture of a library, whose thumbnails are made already."""
    with ExitStack() as stack:
        real = min(REAL, pictures)
        place, _, _ = stack.enter_context(_serving(cache, _library(pictures, real, is_each_its_own=True)))
        browser = stack.enter_context(_chromium())
        if browser is None:
            return None
        _make_thumbnails(place, pictures)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(place)
        page.wait_for_selector(".ck-wall .ck-card[data-id]", timeout=120_000)
        page.wait_for_function(f"document.querySelector('.ck-wall').clientHeight > {pictures} * 20", timeout=120_000)
        frames, nodes = page.evaluate(SCROLL, STEP)
    cuts = statistics.quantiles(frames, n=100, method="inclusive")
    milliseconds = {"median": cuts[49], "p95": cuts[94], "p99": cuts[98], "highest": max(frames)}
    return {"pictures": pictures, "frames": len(frames), "frame_milliseconds": milliseconds, "most_elements": nodes}


@contextmanager
def _chromium() -> Iterator[Any]:
    """A browser; None where there is no Chromium, or no playwright to drive it."""
    chromium = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        yield None
        return
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


def _browser(place: str, times: int, *, seed: int) -> dict[str, Any] | None:
    """Enter to thumbnails; None where there is no browser."""
    queries = [" ".join(words) for words in itertools.product(*WORDS)]
    random.Random(seed).shuffle(queries)
    with _chromium() as browser:
        if browser is None:
            return None
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        opened = seconds(
            lambda: (page.goto(place), page.wait_for_selector(".ck-wall .ck-card[data-id]", timeout=120_000))
        )
        page.wait_for_timeout(2_000)  # the first pictures are there, and the page is quiet
        entered = []
        for words in queries[: times + 2]:
            entered.append(page.evaluate(ENTER, words))
            page.wait_for_timeout(300)
    raw = [milliseconds / 1000 for milliseconds, _ in entered[2:]]
    return {
        "page_opened_seconds": opened,
        "thumbnails_on_screen": statistics.median(count for _, count in entered),
        "seconds": summary(raw),
    }


def _report(results: dict[str, Any]) -> None:
    load, entered = results["load"], results["enter_to_thumbnails"]
    rows: list[tuple[object, ...]] = [("seconds", "median", "p95 or lowest", "highest")]
    rows += [
        (name, load[key]["median"], load[key]["p95"], load[key]["highest"])
        for name, key in ((f"a search with {K} thumbnails", "seconds"), ("the search alone", "search_alone_seconds"))
    ]
    for name, found in entered.items():
        if found is not None:
            taken = found["seconds"]
            rows.append((f"Enter, {name.replace('_', ' ')}", taken["median"], taken["lowest"], taken["highest"]))
    print_table(rows)
    if (scroll := results["scroll"]) is not None:
        frame = scroll["frame_milliseconds"]
        print(
            f"scroll: {scroll['frames']:,} frames, median {frame['median']:.0f} ms, p99 {frame['p99']:.0f}, highest "
            f"{frame['highest']:.0f}; at most {scroll['most_elements']} elements"
        )
    cold = results["cold_start_seconds"]
    print(
        f"{load['searches_per_second']:.1f} searches/s; served after {cold['served']:.1f} s, first answer after "
        f"{cold['first_search_answered']:.1f} s; memory {load['memory_mb'][0]:.0f} to {max(load['memory_mb']):.0f} MB"
    )


if __name__ == "__main__":
    main()
