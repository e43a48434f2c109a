"""axe-core on what a window shows: faults that keep people from using the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

GRAVE = ("serious", "critical")
WIDTHS = (1600, 390)
HEIGHT = 2400  # what scrolling would show, too
SETTLED_MS = 250  # fades have begun
# Pictures on the screen are there, or known to be broken, and fades are over: half a fade is half a contrast.
SETTLED = """() => [...document.querySelectorAll('.ck-wall img')].every(
    image => image.complete || image.getBoundingClientRect().top > innerHeight
) && document.getAnimations().every(
    one => one.playState !== 'running' || one.effect.getTiming().iterations === Infinity
)"""


def accessibility_faults(window: Page, *, leaving_out: Sequence[str] = ()) -> list[str]:
    """What axe-core calls serious or critical on what is shown now: light and dark, on a desk and on a telephone.

    A line each, with the element. leaving_out: CSS selectors of elements that are not looked at; whoever names one says
    why beside it.
    """
    faults = []
    for width in WIDTHS:
        window.set_viewport_size({"width": width, "height": HEIGHT})
        for theme in ("light", "dark"):
            window.evaluate("is => document.body.classList.toggle('dark', is)", theme == "dark")
            window.wait_for_timeout(SETTLED_MS)
            window.wait_for_function(SETTLED)
            faults += [f"{width}, {theme}: {fault}" for fault in _grave(window, leaving_out)]
    return faults


def _grave(window: Page, leaving_out: Sequence[str]) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    context = {"exclude": [[selector] for selector in leaving_out]} if leaving_out else None
    found = axe.Axe().run(window, context=context, options={"resultTypes": ["violations"]})
    return [
        f"{rule['id']} ({rule['impact']}): {node['target'][0]}: {node['html'][:160]}"
        for rule in found.response["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]
