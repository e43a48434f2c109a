"""Contact sheet: search results as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from pathlib import Path

from clipkit.core.files import replacing
from clipkit.core.text import printable
from clipkit.errors import ClipkitError, ImageError
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.search.hits import Hit, Hits

SIZE = 320  # pixels of the longer side: sharp at the 220 or so that a column has, also where pixels are small
HEAD = "<!doctype html>\n<!-- clipkit contact sheet -->\n"  # how a sheet of ours is known
STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --line: #ddd; --ink: #1c1c1c; --faint: #62625e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161618; --card: #212124; --line: #37373b; --ink: #ececea; --faint: #a3a3a0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.4 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.4rem; overflow-wrap: anywhere; }
p { margin: .2rem 0 1.2rem; color: var(--faint); }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); gap: .9rem;
  margin: 0; padding: 0; list-style: none; }
li { display: flex; flex-direction: column; overflow: hidden; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); break-inside: avoid; }
.frame { position: relative; flex: none; aspect-ratio: 1; }
.frame > * { position: absolute; inset: .5rem; width: calc(100% - 1rem); height: calc(100% - 1rem); }
.frame img { object-fit: scale-down; }
.broken { display: grid; place-items: center; overflow: hidden; margin: 0; padding: .7rem; border-radius: .3rem;
  background: var(--paper); color: var(--faint); font-size: .85rem; text-align: center; overflow-wrap: anywhere; }
.words { padding: .5rem .7rem .6rem; border-top: 1px solid var(--line); font-size: .85rem; }
.score { display: flex; justify-content: space-between; color: var(--faint); font-variant-numeric: tabular-nums; }
.path { overflow-wrap: anywhere; }
@media print { body { padding: 0; } }
"""


def write_sheet(hits: Hits, file: Path, *, title: str) -> None:
    """Each picture small, with its score and its path, best first; a picture that cannot be read with its reason.

    An earlier sheet is replaced, in one step; anything else that has the name is left, and a ClipkitError raised, as
    where the sheet cannot be written.
    """
    file = Path(os.path.realpath(file))  # the sheet that a link points to, not the link
    try:
        _refuse_to_overwrite(file)
        with replacing(file) as part:
            with open(part, "x", encoding="utf-8", newline="\n") as stream:
                stream.writelines(_lines(hits, title))
            _refuse_to_overwrite(file)  # pictures take a while
    except OSError as error:
        raise ClipkitError(f"{file} cannot be written: {error.strerror or error}") from error


def _refuse_to_overwrite(file: Path) -> None:
    with suppress(FileNotFoundError):
        is_ours = stat.S_ISREG(file.stat().st_mode) and _begins_as_ours(file)
        if not is_ours:
            raise ClipkitError(
                f"{file} is there already, and no contact sheet; it was left as it is",
                hint="another name: --html sheet.html",
            )


def _begins_as_ours(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(HEAD)) == HEAD.encode()


def _lines(hits: Hits, title: str) -> Iterator[str]:
    name = _text(title)
    yield (
        f'{HEAD}<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
        f"<p>{len(hits):,} {'picture' if len(hits) == 1 else 'pictures'}, best first</p>\n<ol>\n"
    )
    for rank, hit in enumerate(hits, 1):
        yield (
            f'<li><div class="frame">{_picture(hit)}</div>\n'
            f'<div class="words"><div class="score"><span>{rank:,}</span><span>{hit.score:.4f}</span></div>\n'
            f'<div class="path">{_text(hit.path).replace("/", "/<wbr>")}</div></div></li>\n'
        )
    yield "</ol>\n</body>\n</html>\n"


def _picture(hit: Hit) -> str:
    try:
        small = thumbnail(hit.file, SIZE)
    except ImageError as error:
        return f'<p class="broken">{_text(error.message.removeprefix(f"{hit.file}: "))}</p>'
    data = b64encode(to_jpeg(small.canvas)).decode("ascii")
    about = f'alt="{_text(hit.path)}" title="{small.width:,} x {small.height:,} pixels"'
    return f'<img {about} src="data:image/jpeg;base64,{data}">'


def _text(text: str) -> str:
    """Safe between tags and in quotes; control characters and undecodable bytes as backslash escapes."""
    return escape(printable(text))
