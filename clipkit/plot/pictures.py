"""Pictures on axes: samples with their labels, the patches of a model, and where it looks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from clipkit.core.arrays import FloatArray
from clipkit.datasets.load import Dataset
from clipkit.errors import ImageError, ModelError, ShapeError
from clipkit.images.decode import whole_image
from clipkit.images.thumbnails import Canvas, thumbnail
from clipkit.index.image_index import ImageIndex
from clipkit.models.attention import WITH_ATTENTION, AttentionMaps
from clipkit.models.tensors import as_picture, is_tensor
from clipkit.output.figures import LIGHT, add_scale, add_title, axes_for, short
from clipkit.search.hits import Hits

if TYPE_CHECKING:
    from clipkit.images.recipe import PictureSource
    from clipkit.output.figures import Axes

MOST = 16  # pictures of a grid, unless somebody asks for more
SIDE = 256  # pixels of a picture in a grid
CELL = 1.9  # inches
LINE = 0.085  # of a cell's width: a line of words below a picture
BOX = 0.94  # of a cell's width that a picture fills
RIGHT, WRONG = "#1a7f37", "#c0261c"


@dataclass(frozen=True)
class Cell:
    """A picture of a grid, None where it cannot be read; lines below it, in a colour."""

    canvas: Canvas | None
    lines: tuple[str, ...]
    colour: str = LIGHT.ink


def sample_grid(
    pictures: Dataset | Hits | ImageIndex | Sequence[PictureSource],
    *,
    labels: Sequence[str] | None = None,
    predicted: Sequence[str] | None = None,
    columns: int = 4,
    most: int = MOST,
    ax: Axes | None = None,
) -> Axes:
    """Draw pictures in a grid, each with its label, and with what was predicted.

    A picture that cannot be read costs an empty place.

    Parameters
    ----------
    pictures : Dataset, Hits, ImageIndex, or sequence of path, PIL.Image.Image, ndarray or uint8 tensor (3, h, w)
        Those of a dataset have their labels, hits their scores and paths.
    labels : sequence of str, optional
        One a picture, instead.
    predicted : sequence of str, optional
        What was said of each: green where it is its label, else red.
    columns : int, default 4
        Pictures in a row.
    most : int, default 16
        Pictures that are shown; no other is opened.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the grid.

    Raises
    ------
    ShapeError
        If there are not as many labels or predictions as pictures, or nothing to show.

    Examples
    --------
    >>> from clipkit import plot
    >>> axes = plot.sample_grid(clipkit.load_dataset("animals"), columns=5)
    >>> len(axes.images), axes.texts[0].get_text()
    (10, 'cat')
    >>> hits = clipkit.ImageIndex.open("photos").search("a cat", k=2)
    >>> plot.sample_grid(hits).texts[0].get_text().endswith("chelsea.png")
    True
    """
    sources, own = _sources(pictures)
    words = own if labels is None else [str(label) for label in labels]
    given = None if predicted is None else [str(label) for label in predicted]
    for what, names in (("labels", words), ("predictions", given)):
        if names is not None and len(names) != len(sources):
            raise ShapeError(f"{len(names)} {what} for {len(sources)} pictures", hint="one for each, in their order")
    if not len(sources) or columns < 1 or most < 1:
        raise ShapeError("there is no picture to show", hint="one picture, one column and most=1 at least")
    count = min(most, len(sources))
    cells = [
        Cell(small(source), *_caption(words[i] if words else None, given[i] if given else None))
        for i, source in enumerate(islice(sources, count))
    ]
    return draw_grid(cells, columns, ax)


def _sources(
    pictures: Dataset | Hits | ImageIndex | Sequence[PictureSource],
) -> tuple[Sequence[PictureSource], list[str] | None]:
    """What can be read, and what each has below it."""
    if isinstance(pictures, Dataset):
        return pictures.files, list(pictures.labels) or None
    if isinstance(pictures, Hits):
        return [hit.file for hit in pictures], [f"{hit.score:.3f} {hit.path}" for hit in pictures]
    if isinstance(pictures, ImageIndex):
        paths = pictures.paths
        return [str(pictures.root / path) for path in paths], paths
    if isinstance(pictures, str | os.PathLike):
        raise ShapeError("sample_grid takes a list of pictures", hint=f"a list: [{str(pictures)!r}]")
    return pictures, None


def _caption(label: str | None, predicted: str | None) -> tuple[tuple[str, ...], str]:
    if predicted is None or label is None:
        return tuple(word for word in (label, predicted) if word is not None), LIGHT.ink
    return ((predicted,), RIGHT) if label == predicted else ((predicted, f"is {label}"), WRONG)


def small(source: PictureSource) -> Canvas | None:
    """A picture at the size of a grid; None where it cannot be read."""
    try:
        if isinstance(source, str | os.PathLike):
            return thumbnail(source, SIDE).canvas
        if is_tensor(source):
            source = as_picture(source)
        whole = whole_image(source)
    except ImageError:
        return None
    step = max(1, max(whole.shape[:2]) // SIDE)
    return np.ascontiguousarray(whole[::step, ::step])


def draw_grid(cells: Sequence[Cell], columns: int, ax: Axes | None = None) -> Axes:
    """Cells from left to right and from top to bottom; each row is as high as its most lines."""
    columns = min(columns, len(cells))
    tall = 1 + LINE * max(len(cell.lines) for cell in cells) + 0.05
    rows = -(-len(cells) // columns)
    axes = axes_for(ax, CELL * columns, CELL * rows * tall)
    for i, cell in enumerate(cells):
        _draw_cell(axes, cell, i % columns, tall * (i // columns))
    axes.set(xlim=(0, columns), ylim=(rows * tall, 0), aspect="equal")
    axes.axis("off")
    return axes


def _draw_cell(axes: Axes, cell: Cell, left: float, top: float) -> None:
    middle, centre = left + 0.5, top + 0.5
    if cell.canvas is None:
        axes.text(middle, centre, "cannot be read", ha="center", va="center", fontsize=8, color=LIGHT.faint)
    else:
        height, width = (BOX * side / max(cell.canvas.shape[:2]) / 2 for side in cell.canvas.shape[:2])
        axes.imshow(cell.canvas, extent=(middle - width, middle + width, centre + height, centre - height))
    if cell.lines:
        words = "\n".join(short(line, most=26) for line in cell.lines)
        axes.text(middle, top + 1, words, ha="center", va="top", fontsize=8, color=cell.colour)


def patch_grid(maps: AttentionMaps, *, ax: Axes | None = None) -> Axes:
    """Draw the picture as the model reads it, cut into its patches; of a convolutional tower into its last cells.

    Parameters
    ----------
    maps : AttentionMaps
        What `clipkit.models.explain_attention` gave.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        In pixels of the model.

    Examples
    --------
    >>> from clipkit import plot
    >>> from clipkit.models import explain_attention
    >>> maps = explain_attention(clipkit.ViTClassifier("tiny-vit"), "photos/chelsea.png")
    >>> plot.patch_grid(maps).get_title(loc="left")
    '4 x 4 patches of 8 x 8 pixels'
    """
    axes, grid = axes_for(ax, 4.2, 4.4), maps.grid
    draw_picture(axes, maps.seen)
    height, width = maps.seen.shape[:2]
    axes.hlines([row * height / grid.rows for row in range(1, grid.rows)], 0, width, color="white", linewidth=0.6)
    axes.vlines([column * width / grid.columns for column in range(1, grid.columns)], 0, height, "white", linewidth=0.6)
    what = "patches" if grid.tokens else "cells in the last feature map,"
    add_title(axes, f"{grid.rows} x {grid.columns} {what} of {grid.patch[0]} x {grid.patch[1]} pixels", LIGHT)
    return axes


def attention(
    maps: AttentionMaps, *, layer: int | None = None, head: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw where a model looks over the picture, with a colour scale.

    By default attention through all layers (rollout); with `layer` or `head` that of one layer. Of a tower without
    attention relevance (Grad-CAM), which is another thing, and is named so in the title.

    Parameters
    ----------
    maps : AttentionMaps
        What `clipkit.models.explain_attention` gave.
    layer : int, optional
        From 1; by default the last, where there is a head.
    head : int, optional
        From 1; by default the mean of all.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        In pixels of the model.

    Raises
    ------
    ModelError
        If there is nothing to draw, no such layer, or no such head.

    Examples
    --------
    >>> from clipkit import plot
    >>> from clipkit.models import explain_attention
    >>> maps = explain_attention(clipkit.ViTClassifier("tiny-vit"), "photos/chelsea.png")
    >>> plot.attention(maps, layer=2, head=1).get_title(loc="left")
    'attention: layer 2 of 3, head 1'
    """
    values, title, words = _looks(maps, layer, head)
    axes = axes_for(ax, 4.8, 4.4)
    draw_heat(axes, maps.seen, values, words)
    add_title(axes, title, LIGHT)
    return axes


def draw_heat(axes: Axes, canvas: Canvas, values: FloatArray, words: str) -> None:
    """Values (rows, columns) over a grey picture, with a colour scale from 0 that says `words`."""
    draw_picture(axes, np.repeat(canvas.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2))
    height, width = canvas.shape[:2]
    top = float(values.max()) or 1.0
    heat = axes.imshow(
        values, extent=(0, width, height, 0), cmap="inferno", alpha=0.6, vmin=0, vmax=top, interpolation="bicubic"
    )
    add_scale(axes, heat, words, LIGHT)


def _looks(maps: AttentionMaps, layer: int | None, head: int | None) -> tuple[FloatArray, str, str]:
    """Values (rows, columns), a title, and what the colour scale says."""
    if maps.rollout is None:
        if maps.relevance is None or layer is not None or head is not None:
            raise ModelError(maps.reason or "there is no attention to draw", hint=WITH_ATTENTION)
        return maps.relevance, f"relevance (Grad-CAM) for {maps.target}", "of the highest"
    if layer is None and head is None:
        return maps.rollout, f"attention of the {maps.speaker}, rolled out over all layers", "share of the attention"
    count = len(maps.layers)
    whose = "mean of its heads" if head is None else f"head {head}"
    return maps.of(layer=layer, head=head), f"attention: layer {layer or count} of {count}, {whose}", "share"


def draw_picture(axes: Axes, canvas: Canvas) -> None:
    """A picture on axes of its pixels, without ticks."""
    height, width = canvas.shape[:2]
    axes.imshow(canvas, extent=(0, width, height, 0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
