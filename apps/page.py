"""Page assembly: its tabs put together, its JSON endpoints, and the server that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio_client.utils import is_http_url_like
from starlette.middleware import Middleware

from .classify.tab import tab as classify_tab
from .compare.tab import tab as compare_tab
from .library.tab import tab as library_tab
from .search.api import Endpoints
from .search.routes import SearchRoutes
from .search.tab import tab as search_tab
from .server.bounds import bound_memory
from .server.connections import bound_connections
from .server.fair_queue import share_queue
from .server.guard import LOCAL_PROXIES, LOOPBACK, Guard, broken
from .server.requests import print_one_line, refuse_wrong_counts
from .server.routes import Routes
from .server.state import Page
from .theme import HEAD, piece, theme

# A tab is a file with a function that builds its components inside `here`: add the file, and a line here.
TABS: tuple[tuple[str, Callable[[Page, gr.Tab], None]], ...] = (
    ("Search", search_tab),
    ("Classify", classify_tab),
    ("Compare", compare_tab),
    ("Library", library_tab),
)
TITLE = (
    '<header class="ck-head"><h1>clipkit</h1><p>Search your pictures. Everything stays on this machine.</p>'
    '<button type="button" class="ck-plain-button ck-shade" aria-label="light or dark">◐</button>{}</header>'
)
LOG_OUT = '<button type="button" class="ck-plain-button ck-logout">Log out</button>'
# A form would be sent without an origin, as the page's referrer policy has it, and the guard wants to know that.
TIE_LOG_OUT = """element.querySelector(".ck-logout").onclick = async () => {
  await fetch("logout", { method: "POST" });
  location.reload();
};"""
WAITING = 64  # events; the next one is told to come again
AT_ONCE = 4  # events of one kind
QUEUE_SECONDS = 0.02  # between two looks for an event; Gradio's 0.001 takes 7 % of a processor while nobody asks


def build(page: Page, *, has_login: bool = False) -> gr.Blocks:
    """The whole page, not yet served."""
    blocks: gr.Blocks
    with gr.Blocks(title="clipkit", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        Endpoints(page).attach()  # first, or an event of a tab would take the name
        local = "document.body.classList.add('ck-local');" if page.shelf.is_local else ""
        start = f"window.clipkit.head(element); {local}{TIE_LOG_OUT if has_login else ''}"
        piece(TITLE.format(LOG_OUT if has_login else ""), elem_id="ck-title", on_load=start)
        with gr.Tabs():
            for name, build_tab in TABS:
                with gr.Tab(name, id=name.lower()) as here:
                    build_tab(page, here)
    for block in blocks.blocks.values():
        # Gradio fetches what a request names as the address of a file; this page asks nobody for anything.
        block.async_move_resource_to_block_cache = partial(_keep, block)  # type: ignore[method-assign]
    blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE, api_open=False)
    blocks._queue.sleep_when_free = QUEUE_SECONDS
    bound_memory(blocks)
    share_queue(blocks)
    refuse_wrong_counts(blocks)
    print_one_line()
    return blocks


async def _keep(block: Block, place: str | Path | None) -> str | None:
    if is_http_url_like(str(place)):
        raise gr.Error("Files are uploaded here; addresses are not fetched.", print_exception=False)
    return await type(block).async_move_resource_to_block_cache(block, place)


def launch(
    blocks: gr.Blocks,
    page: Page,
    *,
    host: str,
    port: int,
    auth: Sequence[tuple[str, str]],
    allow_hosts: Sequence[str] = (),
    proxies: Sequence[str] = (),
    root_path: str = "",
    token: str = "",
) -> str:
    """Serve it in the background; its address. OSError where the port is taken."""
    trusted = (*LOCAL_PROXIES, *proxies) if allow_hosts else ()
    names: dict[str, Any] = {"hosts": LOOPBACK if host in LOOPBACK else None, "allowed": allow_hosts}
    names["proxies"] = trusted
    options: dict[str, Any] = {
        "routes": [*Routes(page.shelf, page.thumbnails, page.outbox).all(), *SearchRoutes(page).all()],
        "middleware": [Middleware(Guard, **names, root_path=root_path, has_login=bool(auth), token=token)],
        "exception_handlers": {Exception: broken},
    }
    bound_connections(trusted)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        auth=list(auth) or None,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        share=False,
        max_file_size="20mb",
        show_error=False,
        enable_monitoring=False,
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        num_workers=0,
        root_path=root_path,
        footer_links=[],
        state_session_capacity=200,
        theme=theme(),
        head=HEAD,
        app_kwargs=options,
    )
    return address
