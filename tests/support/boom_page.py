"""A page whose decoders die of files named boom: `python -m tests.support.boom_page HOW PHOTOS ...`.

HOW is that of `boom_decoder`, and the rest that of `colour_page`.
"""

from __future__ import annotations

import sys

from clipkit.images import guarded_decoder
from tests.support import colour_page

if __name__ == "__main__":
    program = (sys.executable, "-m", "tests.support.boom_decoder", sys.argv[1])
    guarded_decoder._POOL = guarded_decoder.DecoderPool(program, hang_seconds=4)
    colour_page.main(*sys.argv[2:])
