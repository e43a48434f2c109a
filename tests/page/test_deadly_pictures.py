"""Pictures of which a decoder dies: the page says that they cannot be shown, and goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from clipkit.explore.library import Library
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder, paint
from tests.support.page_robot import serving
from tests.support.paths import REPOSITORY


def fetch(address: str) -> tuple[int, bytes]:
    try:
        with urlopen(address, timeout=30) as reply:
            return reply.status, reply.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("how", ["segfault", "hang"])
def test_a_picture_that_kills_its_decoder_is_not_shown_and_the_next_ones_are(
    how: str, photos: Path, tmp_path: Path
) -> None:
    paint(photos / "boom.png", (9, 99, 9))
    index = ImageIndex.create(photos, ColourEncoder())
    index.update()
    ids = {path: id_ for id_, path in index.store.paths()[1].items()}
    key = Library(photos, lambda *_: ColourEncoder()).key
    arguments = {"module": "tests.support.boom_page", "cwd": REPOSITORY}
    with serving(tmp_path, how, str(photos), **arguments) as page:  # type: ignore[arg-type]
        boom = f"{key}/{ids['boom.png']}"
        assert fetch(f"{page}/clipkit/thumb/{boom}") == (404, b"this picture cannot be shown\n")
        started = time.monotonic()
        for size in ("thumb", "large"):
            assert fetch(f"{page}/clipkit/{size}/{boom}")[0] == 404
        assert time.monotonic() - started < 2  # no decoder is given it again
        for size in ("thumb", "large"):
            status, data = fetch(f"{page}/clipkit/{size}/{key}/{ids['red.png']}")
            assert (status, data[:3]) == (200, b"\xff\xd8\xff")
        status, data = fetch(f"{page}/clipkit/about/{boom}")
        assert (status, json.loads(data)["camera"], json.loads(data)["is_shown"]) == (200, "", True)
