"""A page whose encoder knows colours: `python -m tests.support.colour_page PHOTOS [LOGIN [NAME [PATH [TOKEN]]]]`.

PHOTOS may be several folders, parted as in PATH; LOGIN is USER:PASSWORD. "" leaves one out.
"""

from __future__ import annotations

import os
import sys

from tests.support.colours import ColourEncoder


def main(photos: str, auth: str = "", allow_host: str = "", root_path: str = "", token: str = "") -> None:
    """Until somebody ends it."""
    from clipkit_apps.launch import serve, wait

    user, _, password = auth.partition(":")
    running = serve(
        photos.split(os.pathsep),
        lambda name, exact: ColourEncoder(),
        auth=[(user, password)] if user else (),
        allow_hosts=(allow_host,) if allow_host else (),
        root_path=root_path,
        token=token,
    )
    print(f"clipkit is at {running.address}", flush=True)
    wait()
    running.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
