"""Previews: each escape sequence is read again, as a terminal would, and its pixels compared."""

from __future__ import annotations

import os
import re
import struct
from base64 import b64decode
from fcntl import ioctl
from io import BytesIO
from pathlib import Path
from termios import TIOCSWINSZ

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ClipkitError
from clipkit.images.thumbnails import thumbnail
from clipkit.output.terminal_preview import (
    CELL,
    PROTOCOLS,
    Protocol,
    cell_size,
    choose_protocol,
    has_true_color,
    render,
)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """400 x 300 pixels that change smoothly, with some noise."""
    across, down = np.meshgrid(np.linspace(0, 215, 400), np.linspace(0, 215, 300))
    noise = np.random.default_rng(0).integers(0, 40, (300, 400))
    pixels = np.stack([across + noise, down + noise, 215 - across + noise], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"}, "kitty"),
        ({"TERM": "xterm-kitty"}, "kitty"),  # through ssh
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230805"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210800"}, "blocks"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "new"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),  # through ssh
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm", "TERM_PROGRAM": "mintty"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm"}, "sixel"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "blocks"),
        ({"TERM": "linux"}, "blocks"),
        ({"WT_SESSION": "0ff1ce"}, "blocks"),  # the environment does not say whether it knows sixel
        ({"TERM": "dumb"}, None),
        ({}, None),
        # one terminal started from another
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode", "LC_TERMINAL": "iTerm2"}, "blocks"),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "alacritty", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "foot", "TERM_PROGRAM": "WezTerm"}, "sixel"),
        # a multiplexer between the two
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "tmux", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "screen.xterm-256color", "LC_TERMINAL": "iTerm2"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, "blocks"),
        ({"TERM": "xterm-kitty", "ZELLIJ": "0"}, "blocks"),
        # the user knows better
        ({"TERM": "tmux-256color", "CLIPKIT_PREVIEW": "sixel"}, "sixel"),
        ({"CLIPKIT_PREVIEW": "kitty"}, "kitty"),
        ({"TERM": "xterm-kitty", "CLIPKIT_PREVIEW": "none"}, None),
        ({"TERM": "xterm-kitty", "CLIPKIT_PREVIEW": ""}, "kitty"),
    ],
)
def test_the_protocol_is_one_that_the_terminal_surely_has(environ: dict[str, str], expected: str | None) -> None:
    assert choose_protocol(environ, True) == expected
    assert choose_protocol(environ, False) is None  # never into a file or a pipe


def test_a_wish_that_does_not_exist_is_said() -> None:
    with pytest.raises(ClipkitError, match="CLIPKIT_PREVIEW is jpeg") as caught:
        choose_protocol({"TERM": "xterm", "CLIPKIT_PREVIEW": "jpeg"}, True)
    assert caught.value.hint == "one of kitty, iterm2, sixel, blocks, none"


def test_24_bit_colours_are_used_where_the_terminal_says_so() -> None:
    assert has_true_color({"COLORTERM": "truecolor"})
    assert has_true_color({"COLORTERM": "24bit"})
    assert has_true_color({"WT_SESSION": "0ff1ce"})
    assert not has_true_color({"COLORTERM": "yes", "TERM": "xterm-256color"})


@pytest.mark.parametrize(
    ("columns", "rows", "keys"), [(30, 30, "c=30"), (80, 10, "r=10"), (4, 10, "c=4"), (200, 200, "c=40")]
)
def test_kitty_gets_a_png_in_chunks_of_4096(photo: str, columns: int, rows: int, keys: str) -> None:
    text = render(photo, "kitty", columns=columns, rows=rows)
    chunks = re.findall("\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\\\", text)
    assert "".join(f"\x1b_G{control};{data}\x1b\\" for control, data in chunks) + "\n" == text
    assert [control for control, _ in chunks[1:-1]] == ["m=1"] * (len(chunks) - 2)
    assert all(len(data) == 4096 for _, data in chunks[:-1])
    assert 0 < len(chunks[-1][1]) <= 4096
    more = int(len(chunks) > 1)
    assert chunks[0][0] == f"a=T,f=100,q=2,{keys},m={more}"
    assert chunks[-1][0].endswith("m=0")
    with Image.open(BytesIO(b64decode("".join(data for _, data in chunks)))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), thumbnail(photo, (columns * 10, rows * 20)).canvas)


@pytest.mark.parametrize(("rows", "sides"), [(30, "width=30;height=auto"), (5, "width=auto;height=5")])
def test_iterm2_gets_one_file(photo: str, rows: int, sides: str) -> None:
    text = render(photo, "iterm2", columns=30, rows=rows)
    match = re.fullmatch("\x1b]1337;File=inline=1;size=([0-9]+);(.*?):([A-Za-z0-9+/=]*)\x07\n", text)
    assert match is not None
    data = b64decode(match[3])
    assert (int(match[1]), match[2]) == (len(data), sides)
    with Image.open(BytesIO(data)) as image:
        expected = thumbnail(photo, (300, rows * 20)).canvas
        assert np.abs(np.asarray(image).astype(int) - expected).mean() < 5


def test_the_system_says_how_large_a_character_is() -> None:
    controller, terminal = os.openpty()
    try:
        for size, expected in {
            (50, 100, 803, 801): (8, 16),
            (50, 100, 0, 0): CELL,
            (0, 0, 800, 800): CELL,
            (1, 1, 800, 800): CELL,
        }.items():
            ioctl(terminal, TIOCSWINSZ, struct.pack("4H", *size))
            assert cell_size(terminal) == expected
    finally:
        os.close(controller)
        os.close(terminal)
    with open(os.devnull) as nothing:
        assert cell_size(nothing.fileno()) == CELL


def test_a_picture_takes_the_room_of_the_characters_there_are(photo: str) -> None:
    assert read_sixel(render(photo, "sixel", columns=20, rows=90, cell=(8, 16))).shape == (120, 160, 3)
    assert read_sixel(render(photo, "sixel", columns=90, rows=6, cell=(8, 16))).shape == (96, 128, 3)
    assert "c=20," in render(photo, "kitty", columns=20, rows=90, cell=(8, 16))
    assert "height=6:" in render(photo, "iterm2", columns=90, rows=6, cell=(8, 16))


def test_sixel_gives_the_pixels_back(photo: str) -> None:
    expected = thumbnail(photo, (300, 310)).canvas
    assert expected.shape[0] % 6 != 0  # the last band is not full
    pixels = read_sixel(render(photo, "sixel", columns=30, rows=16))
    assert pixels.shape == expected.shape
    difference = np.abs(pixels.astype(int) - expected)
    assert difference.mean() < 7  # 256 colours for all
    assert (difference.max(axis=-1) < 40).mean() > 0.999


def test_sixel_keeps_few_colours_to_a_percent(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(colours.repeat(3, axis=0).repeat(9, axis=1)).save(tmp_path / "few.png")
    pixels = read_sixel(render(str(tmp_path / "few.png"), "sixel", columns=80, rows=24))
    assert np.abs(pixels[1::3, 4::9].astype(int) - colours).max() <= 2  # a percent of 255, rounded


@pytest.mark.parametrize(("columns", "rows"), [(40, 40), (7, 40), (40, 3), (1, 1), (0, 0)])
def test_blocks_in_24_bit_are_the_pixels(photo: str, columns: int, rows: int) -> None:
    pixels = read_blocks(render(photo, "blocks", columns=columns, rows=rows, true_color=True))
    expected = thumbnail(photo, (max(1, columns), max(1, rows) * 2)).canvas
    assert np.array_equal(pixels[: len(expected)], expected)
    assert (pixels[len(expected) :] == -1).all()  # half a character below the last row stays empty
    assert len(pixels) <= max(1, rows) * 2
    assert pixels.shape[1] <= max(1, columns)


def test_blocks_in_256_colours_are_the_nearest_of_them(photo: str) -> None:
    text = render(photo, "blocks", columns=40, rows=40)
    table = np.array([xterm_colour(number) for number in range(16, 256)])
    expected = thumbnail(photo, (40, 80)).canvas.astype(int)
    nearest = ((expected[:, :, None] - table) ** 2).sum(axis=-1).min(axis=-1)
    pixels = read_blocks(text)
    assert np.array_equal(((pixels - expected) ** 2).sum(axis=-1), nearest)


def test_equal_neighbours_are_written_once(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "plain.png")
    text = render(str(tmp_path / "plain.png"), "blocks", columns=40, rows=40, true_color=True)
    assert text == "\x1b[38;2;1;2;3;48;2;1;2;3m▀▀▀▀▀▀\x1b[0m\n" * 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_small_picture_is_not_enlarged(tmp_path: Path, protocol: Protocol) -> None:
    Image.new("RGB", (20, 8), "red").save(tmp_path / "small.png")
    text = render(str(tmp_path / "small.png"), protocol, columns=80, rows=24, true_color=True)
    sign = {"kitty": "c=2,", "iterm2": "width=2;", "sixel": '"1;1;20;8', "blocks": "▀" * 20 + "\x1b[0m\n"}
    assert sign[protocol] in text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_picture_that_cannot_be_read_says_why(tmp_path: Path, protocol: Protocol) -> None:
    bad = tmp_path / "bad\x1b[31m.png"
    bad.write_bytes(b"words")
    text = render(str(bad), protocol, columns=80, rows=24)
    assert text == "no preview: not JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC or JPEG 2000\n"
    assert (
        render(str(tmp_path / "gone.png"), protocol, columns=80, rows=24) == "no preview: No such file or directory\n"
    )


def read_sixel(text: str) -> np.ndarray:
    match = re.fullmatch('\x1bP0;1q"1;1;([0-9]+);([0-9]+)(.*)\x1b\\\\\n', text, re.DOTALL)
    assert match is not None
    pixels = np.full((int(match[2]), int(match[1]), 3), -1)
    palette: dict[int, list[int]] = {}
    colour, x, y = 0, 0, 0
    for token in re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+[?-~]|[?-~]|\$|-", match[3]):
        if token.startswith("#"):
            colour, *values = map(int, token[1:].split(";"))
            if values:
                palette[colour] = [round(value * 255 / 100) for value in values[1:]]
        elif token in "$-":
            x, y = 0, y + 6 * (token == "-")
        else:
            times = int(token[1:-1] or 1) if len(token) > 1 else 1
            for row in range(6):
                if (ord(token[-1]) - 63) >> row & 1:
                    assert (pixels[y + row, x : x + times] == -1).all()  # no pixel is painted twice
                    pixels[y + row, x : x + times] = palette[colour]
            x += times
    assert (pixels >= 0).all()
    return pixels


def read_blocks(text: str) -> np.ndarray:
    """(2 x lines, characters, 3); -1 where the terminal's own background shows."""
    lines: list[list[list[int]]] = []
    for line in text.splitlines():
        assert line.endswith("▀\x1b[0m")
        over, under = [-1] * 3, [-1] * 3
        lines += [[], []]
        for codes, character in re.findall("\x1b\\[([0-9;]*)m|(▀)", line):
            if character:
                lines[-2].append(over)
                lines[-1].append(under)
                continue
            numbers = [int(code) for code in codes.split(";")]
            if numbers == [0]:
                break
            over, numbers = colour_of(numbers, 38)
            under, numbers = colour_of(numbers, 48) if numbers else ([-1] * 3, [])
            assert not numbers
    return np.array(lines)


def colour_of(numbers: list[int], code: int) -> tuple[list[int], list[int]]:
    assert numbers[0] == code
    if numbers[1] == 5:
        return xterm_colour(numbers[2]), numbers[3:]
    assert numbers[1] == 2
    return numbers[2:5], numbers[5:]


def xterm_colour(number: int) -> list[int]:
    if number >= 232:
        return [8 + 10 * (number - 232)] * 3
    levels = [0, 95, 135, 175, 215, 255]
    number -= 16
    return [levels[number // 36], levels[number // 6 % 6], levels[number % 6]]
