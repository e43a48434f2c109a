"""Terminal previews: which way of showing pictures a terminal has, and the characters that do it."""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from clipkit.core.text import printable
from clipkit.errors import ClipkitError, ImageError
from clipkit.images.decode import Size
from clipkit.images.thumbnails import Canvas, thumbnail, to_jpeg, to_palette, to_png

Side = Literal["columns", "rows"]
Protocol = Literal["kitty", "iterm2", "sixel", "blocks"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# What each terminal says of itself. The environment is inherited, so what it says last (TERM, then TERM_PROGRAM) counts
# before what may come from a terminal around it. Where pictures are off by default (VS Code), half blocks are certain.
BY_TERM: dict[str, Protocol] = {
    "xterm-kitty": "kitty",
    "xterm-ghostty": "kitty",
    "foot": "sixel",
    "foot-extra": "sixel",
    "mlterm": "sixel",
    "mlterm-256color": "sixel",
    "contour": "sixel",
    "yaft-256color": "sixel",
}
BY_PROGRAM: dict[str, Protocol] = {
    "kitty": "kitty",
    "ghostty": "kitty",
    "iTerm.app": "iterm2",
    "WezTerm": "iterm2",
    "mintty": "iterm2",
    "rio": "iterm2",
    "WarpTerminal": "iterm2",
}
PLAIN = ("XTERM_VERSION", "VTE_VERSION", "ALACRITTY_WINDOW_ID", "WT_SESSION")  # no pictures, or not in all versions
KONSOLE_WITH_PICTURES = 220400
CELL = (10, 20)  # pixels of one character, where the terminal does not say
MAX_CELL = 64  # pixels; a terminal that says more is mistaken, and would be sent megabytes
KITTY_CHUNK = 4096  # base64 characters in one escape sequence: the protocol's limit
SIXEL_COLOURS = 256
RUN = re.compile(r"(.)\1{3,}")  # what is shorter said as a count and a character
CUBE = np.array([0, 95, 135, 175, 215, 255])  # the levels of the 6 x 6 x 6 colours 16 to 231; then 24 greys from 8 on


def choose_protocol(environ: Mapping[str, str], is_tty: bool) -> Protocol | None:
    """The best way that this terminal surely has, from its environment alone; None where no picture can be shown.

    The terminal itself is never asked: an answer that does not come hangs, one that comes late is typed into the shell.
    CLIPKIT_PREVIEW names a protocol, or `none`; ClipkitError where it says something else.
    """
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if not is_tty or environ.get("CLIPKIT_PREVIEW") == "none":
        return None
    if wish := environ.get("CLIPKIT_PREVIEW"):
        if wish not in PROTOCOLS:
            raise ClipkitError(f"CLIPKIT_PREVIEW is {wish}", hint=f"one of {', '.join(PROTOCOLS)}, none")
        return wish
    if term == "dumb" or not (term or environ.get("WT_SESSION")):
        return None
    if term.startswith(("tmux", "screen")) or any(name in environ for name in ("TMUX", "STY", "ZELLIJ")):
        return "blocks"  # a multiplexer swallows the others
    if term in BY_TERM:
        return BY_TERM[term]
    if program:
        return BY_PROGRAM.get(program, "blocks")
    return _inherited(environ) if term.startswith("xterm") else "blocks"


def has_true_color(environ: Mapping[str, str]) -> bool:
    """Whether half blocks may use 24-bit colours; 256 otherwise."""
    return environ.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in environ


def cell_size(terminal: int) -> Size:
    """Pixels of one character of the terminal that has this file descriptor, as the system knows them, or CELL."""
    try:
        from fcntl import ioctl
        from termios import TIOCGWINSZ

        rows, columns, width, height = struct.unpack("4H", ioctl(terminal, TIOCGWINSZ, bytes(8)))
    except (ImportError, OSError):  # Windows has neither; a pipe has no size
        return CELL
    cell = (width // max(1, columns), height // max(1, rows))
    return cell if min(cell) > 0 and max(cell) <= MAX_CELL else CELL


def render(
    file: str, protocol: Protocol, *, columns: int, rows: int, cell: Size = CELL, true_color: bool = False
) -> str:
    """What to write to the terminal: the picture, in at most `columns` x `rows` characters, then a new line.

    cell: pixels of one character, where they matter. The picture is never enlarged. One that cannot be read gives a
    line with the reason.
    """
    cell = (1, 2) if protocol == "blocks" else cell
    box = (max(1, columns) * cell[0], max(1, rows) * cell[1])
    try:
        canvas = thumbnail(file, box).canvas
    except ImageError as error:
        return f"no preview: {printable(error.message.removeprefix(f'{file}: '))}\n"
    if protocol == "blocks":
        return _blocks(canvas, true_color=true_color)
    if protocol == "sixel":
        return f"{_sixel(canvas)}\n"
    side, cells = _bounding_side(canvas, box, cell)
    return f"{_kitty(canvas, side, cells) if protocol == 'kitty' else _iterm2(canvas, side, cells)}\n"


def _inherited(environ: Mapping[str, str]) -> Protocol:
    """By names that a terminal started inside another one also sees; those that tell it apart come first."""
    if any(name in environ for name in PLAIN):
        return "blocks"
    if environ.get("LC_TERMINAL") == "iTerm2":  # the one name that ssh passes on
        return "iterm2"
    konsole = environ.get("KONSOLE_VERSION", "")
    has_pictures = konsole.isdecimal() and int(konsole) >= KONSOLE_WITH_PICTURES
    return "kitty" if has_pictures or "KITTY_WINDOW_ID" in environ else "blocks"


def _bounding_side(canvas: Canvas, box: Size, cell: Size) -> tuple[Side, int]:
    """The side that the picture fills first, in characters; the terminal works out the other."""
    height, width = canvas.shape[:2]
    if width * box[1] >= height * box[0]:
        return "columns", -(-width // cell[0])
    return "rows", -(-height // cell[1])


def _kitty(canvas: Canvas, side: Side, cells: int) -> str:
    text = b64encode(to_png(canvas)).decode("ascii")
    chunks = [text[start : start + KITTY_CHUNK] for start in range(0, len(text), KITTY_CHUNK)]
    keys = f"a=T,f=100,q=2,{side[0]}={cells},"  # transmit and show a PNG, answer nothing; c or r
    return "".join(
        f"\x1b_G{'' if number else keys}m={int(number < len(chunks) - 1)};{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    )


def _iterm2(canvas: Canvas, side: Side, cells: int) -> str:
    data = to_jpeg(canvas)
    sides = f"width={cells};height=auto" if side == "columns" else f"width=auto;height={cells}"
    return f"\x1b]1337;File=inline=1;size={len(data)};{sides}:{b64encode(data).decode('ascii')}\x07"


def _sixel(canvas: Canvas) -> str:
    palette, pixels = to_palette(canvas, SIXEL_COLOURS)
    height, width = pixels.shape
    percent = np.rint(palette[0] / 255 * 100).astype(int)
    colours = "".join(f"#{number};2;{r};{g};{b}" for number, (r, g, b) in enumerate(percent.tolist()))
    bands = "-".join(_band(pixels[top : top + 6]) for top in range(0, height, 6))
    return f'\x1bP0;1q"1;1;{width};{height}{colours}{bands}\x1b\\'


def _band(pixels: npt.NDArray[np.uint8]) -> str:
    """Six rows or fewer, one colour after the other; a character is 63 plus a bit for each row that has the colour."""
    weights = 1 << np.arange(len(pixels))[:, None]
    lines = []
    for colour in np.unique(pixels):
        codes = ((pixels == colour) * weights).sum(axis=0) + 63
        text = codes.astype(np.uint8).tobytes().decode("ascii").rstrip("?")
        lines.append(f"#{colour}{RUN.sub(_run, text)}")
    return "$".join(lines)


def _run(match: re.Match[str]) -> str:
    return f"!{len(match[0])}{match[1]}"


def _blocks(canvas: Canvas, *, true_color: bool) -> str:
    """Each character is two pixels: its own colour is the upper one's, its background the lower one's."""
    names = _names(canvas, true_color=true_color)
    if len(names) % 2:
        names.append([""] * len(names[0]))
    lines = []
    for upper, lower in zip(names[::2], names[1::2], strict=True):
        colours = [
            f"\x1b[38;{over}{f';48;{under}' if under else ''}m" for over, under in zip(upper, lower, strict=True)
        ]
        before = ["", *colours]
        line = "".join("▀" if now == last else f"{now}▀" for now, last in zip(colours, before, strict=False))
        lines.append(f"{line}\x1b[0m\n")
    return "".join(lines)


def _names(canvas: Canvas, *, true_color: bool) -> list[list[str]]:
    """What the terminal calls each pixel's colour."""
    if true_color:
        return [[f"2;{r};{g};{b}" for r, g, b in row] for row in canvas.tolist()]
    return [[f"5;{number}" for number in row] for row in _nearest_of_256(canvas).tolist()]


def _nearest_of_256(canvas: Canvas) -> npt.NDArray[np.int64]:
    """(height, width, 3) -> (height, width): the nearest colour of the cube, or a grey where that is nearer."""
    values = canvas.astype(np.int64)
    levels = np.abs(values[..., None] - CUBE).argmin(axis=-1)  # (height, width, 3)
    greys = np.clip(np.rint((values.mean(axis=-1) - 8) / 10), 0, 23).astype(np.int64)  # (height, width)
    cube_error = ((CUBE[levels] - values) ** 2).sum(axis=-1)
    grey_error = ((8 + 10 * greys[..., None] - values) ** 2).sum(axis=-1)
    numbers: npt.NDArray[np.int64] = np.where(grey_error < cube_error, 232 + greys, 16 + levels @ np.array([36, 6, 1]))
    return numbers
