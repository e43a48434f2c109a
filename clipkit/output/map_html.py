"""Map page: a collection's map as one HTML file with its thumbnails, to zoom and look around in."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clipkit.core.files import replacing
from clipkit.core.html import Markup, stream
from clipkit.core.progress import Progress
from clipkit.core.system import usable_cores
from clipkit.core.text import printable
from clipkit.errors import ClipkitError, ImageError
from clipkit.explore.mapping import Map
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.output.contact_sheet import refuse_to_overwrite

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = Path(__file__).with_name("map.js")
SIZE = 48  # pixels of a thumbnail
MAX_BYTES = 50_000_000  # of all thumbnails, as the file has them
HEAD = "<!doctype html>\n<!-- clipkit map -->\n"
UNIT = 65_535  # steps of a position
MOST_OUTLIERS = 60  # listed
AT_A_TIME = 256  # thumbnails between two looks at the limit
WORKERS = 8


def write_map(
    found: Map,
    root: Path,
    file: Path,
    *,
    title: str,
    most: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> int:
    """Write a map as one HTML file that needs nothing else; how many pictures have a thumbnail in it.

    Parameters
    ----------
    found : Map
        What `map_collection` made.
    root : Path
        Where its pictures lie.
    file : Path
        An earlier map is replaced, in one step; anything else of that name is left as it is.
    title : str
        Of the page.
    most : int, optional
        Thumbnails at most; by default as many as 50 MB hold. The other pictures are points.
    progress : callable, optional
        Given a `Progress` after each thumbnail.

    Returns
    -------
    int
        Number of thumbnails.

    Raises
    ------
    ClipkitError
        If the file cannot be written, or is something else than a map.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.explore import map_collection
    >>> from clipkit.output import write_map
    >>> index = clipkit.ImageIndex.open("photos")
    >>> write_map(map_collection(index), index.root, Path("map.html"), title="photos")
    4
    """
    file = Path(os.path.realpath(file))
    hint = "another name: --out map.html"
    try:
        refuse_to_overwrite(file, HEAD, "map", hint)
        thumbs = make_thumbnails(found, root.joinpath, most=most, progress=progress)
        with replacing(file) as part:
            with open(part, "x", encoding="utf-8", newline="\n") as out:
                out.writelines(map_page(found, thumbs, title=title))
            refuse_to_overwrite(file, HEAD, "map", hint)  # thumbnails take a while
    except OSError as error:
        raise ClipkitError(f"{file} cannot be written: {error.strerror or error}", hint=hint) from error
    return len(thumbs)


def map_page(found: Map, thumbs: dict[int, str], *, title: str, search: str = "") -> Iterator[str]:
    """The page in pieces. thumbs: JPEGs in base64, by row.

    search: address of a search page, to which `&set=` and ids are added for the pictures that a lasso selects; without
    one nothing of the page leads elsewhere.
    """
    places = np.round(found.positions * UNIT).astype(int)
    data = {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "cluster": found.clusters.tolist(),
        "names": [printable(name) for name in found.names],
        "search": search,
        "ids": found.ids.tolist() if search else [],
        "paths": [printable(path) for path in found.paths],
        "outliers": list(found.outliers[:MOST_OUTLIERS]),
        "thumb_rows": list(thumbs),
        "thumbs": list(thumbs.values()),
    }
    return stream(
        TEMPLATES / "map.html",
        title=title,
        count=len(found),
        names=found.names,
        shown=len(thumbs),
        has_all=len(thumbs) == len(found),
        program=_program(data),
    )


def _program(data: Mapping[str, object]) -> Markup:
    """The page's own script, and what it reads: JSON in which nothing can end the element that it is in."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    script = SCRIPT.read_text("utf-8")
    return Markup(f'<script type="application/json" id="data">{text}</script>\n<script>\n{script}</script>')


def make_thumbnails(
    found: Map,
    place_of: Callable[[str], Path | None],
    *,
    most: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[int, str]:
    """JPEGs in base64 by row, of outliers first, then from all over the map, until they are too many or too large.

    place_of: the file of a path, or None where it may not be shown.
    """
    listed = list(found.outliers[:MOST_OUTLIERS])
    others = np.setdiff1d(np.arange(len(found)), listed)
    order = [*listed, *np.random.default_rng(0).permutation(others).tolist()][:most]
    thumbs: dict[int, str] = {}
    used = 0
    with ThreadPoolExecutor(min(WORKERS, usable_cores() + 1), thread_name_prefix="clipkit-map") as pool:
        for start in range(0, len(order), AT_A_TIME):
            rows = order[start : start + AT_A_TIME]
            made = pool.map(_thumbnail, [place_of(found.paths[row]) for row in rows])
            for done, (row, text) in enumerate(zip(rows, made, strict=True), start + 1):
                used += len(text)
                if text and used <= MAX_BYTES:
                    thumbs[row] = text
                if progress:
                    progress(Progress(done, len(order), found.paths[row]))
            if used > MAX_BYTES:
                break
    return thumbs


def _thumbnail(file: Path | None) -> str:
    try:
        return b64encode(to_jpeg(thumbnail(file, SIZE).canvas)).decode("ascii") if file else ""
    except ImageError:
        return ""
