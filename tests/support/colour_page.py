"""A page whose encoder knows colours: `python -m tests.support.colour_page PHOTOS [USER:PASSWORD [NAME [/PATH]]]`.

PHOTOS may be several folders, parted as in PATH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from clipkit.core.arrays import Embeddings
from tests.support.colours import COLOURS, ColourEncoder


class TalkingEncoder(ColourEncoder):
    """Knows every other text too: it is grey, as are the neutral ones."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return super().encode_texts([text if text in COLOURS else "grey" for text in texts])


def main(photos: str, auth: str = "", allow_host: str = "", root_path: str = "") -> None:
    """Until somebody ends it."""
    from clipkit_apps.launch import serve, wait

    user, _, password = auth.partition(":")
    running = serve(
        photos.split(os.pathsep),
        lambda name, exact: TalkingEncoder(),
        auth=(user, password) if user else None,
        allow_hosts=(allow_host,) if allow_host else (),
        root_path=root_path,
    )
    print(f"clipkit is at {running.address}", flush=True)
    wait()
    running.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
