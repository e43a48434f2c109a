"""Figures that commands write: what `explain` saw, in pictures and of words, and what `finetune` learned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clipkit.core.files import replace_file
from clipkit.errors import ClipkitError, ModelError
from clipkit.generate.word_maps import WordMaps
from clipkit.learn.adaptation import FIGURES, Adaptation
from clipkit.learn.fine_tuning import FineTuned
from clipkit.learn.finetune_data import Prediction
from clipkit.models.attention import WITH_ATTENTION, AttentionMaps
from clipkit.output.figures import (
    COLOURS,
    LIGHT,
    add_title,
    blank_figure,
    confusion_figure,
    plain,
    plainly,
    png,
    short,
)
from clipkit.plot.charts import learning_curves
from clipkit.plot.pictures import RIGHT, WRONG, Cell, attention, draw_grid, draw_heat, draw_picture, patch_grid, small

PANEL = 4.6  # inches
COLUMNS, SHOWN = 4, 12  # pictures of the grid before and after
CURVES, CONFUSION, SAMPLES = "curves.png", "confusion.png", "before-after.png"


def explanation_png(maps: AttentionMaps, *, layer: int | None = None, head: int | None = None) -> bytes:
    """Titled panels as PNG: the patches, attention in one layer and rolled out; or the cells and relevance.

    ModelError where there is neither, or no such layer or head.
    """
    if maps.rollout is None and (maps.relevance is None or layer is not None or head is not None):
        raise ModelError(maps.reason or "there is no attention to draw", hint=WITH_ATTENTION)
    count = 2 if maps.rollout is None else 3
    figure = blank_figure(PANEL * count, PANEL + 0.4, LIGHT)
    panels = figure.subplots(1, count)
    patch_grid(maps, ax=panels[0])
    if maps.rollout is not None:
        attention(maps, layer=layer or len(maps.layers), head=head, ax=panels[1])
    attention(maps, ax=panels[-1])
    figure.suptitle(plain(maps.model), color=LIGHT.ink, fontsize=12, x=0.01, ha="left")
    return png(figure)


def words_png(maps: WordMaps) -> bytes:
    """Titled panels as PNG: the picture, and over it where each word was looked at."""
    count = 1 + len(maps.words)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = blank_figure(PANEL * columns, (PANEL + 0.2) * rows + 0.3, LIGHT)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    draw_picture(panels[0], maps.picture)
    add_title(panels[0], f"seed {maps.seed}", LIGHT)
    for axes, word, values in zip(panels[1:], maps.words, maps.maps, strict=False):
        draw_heat(axes, maps.picture, values, "share of the attention")
        add_title(axes, f"{short(word)}: {values.mean():.1%}", LIGHT)
    for axes in panels[count:]:
        axes.axis("off")
    title = f"{short(maps.prompt, most=80)}   {maps.layers} layers, {maps.steps} steps, {short(maps.model)}"
    figure.suptitle(title, color=LIGHT.ink, fontsize=12, x=0.01, ha="left")
    return png(figure)


def write_finetuned(tuned: FineTuned, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Curves, confusion matrix, and pictures before and after, as PNG files; ClipkitError where they cannot be kept."""
    curves = blank_figure(6.8, 4.2, LIGHT)
    learning_curves(tuned, ax=curves.add_subplot())
    matrix, n = np.array(tuned.metrics["confusion"]), tuned.metrics["n"]
    title = f"validation: {100 * tuned.metrics['acc1']:.1f} % of {n:,} right"
    contents = {
        CURVES: png(curves),
        CONFUSION: confusion_figure(matrix, tuned.classes, title=title),
        SAMPLES: _samples_png(tuned),
    }
    return _kept(folder, contents)


def write_adapted(adapted: Adaptation, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Loss of each epoch, and recall before and after with its intervals, as PNG files."""
    loss = blank_figure(6.4, 4.2, LIGHT)
    axes = loss.add_subplot()
    axes.plot(range(1, len(adapted.losses) + 1), adapted.losses, marker="o", color=COLOURS["probe"])
    axes.set(xlabel="epoch", ylabel="contrastive loss")
    plainly(axes, LIGHT)
    return _kept(folder, dict(zip(FIGURES, (png(loss), _changes_png(adapted)), strict=True)))


def _changes_png(adapted: Adaptation) -> bytes:
    """Each difference with its interval, on a line that begins at no change; before and after as numbers beside it."""
    rows = [*adapted.changes, adapted.general]
    figure = blank_figure(8.4, 0.9 + 0.36 * len(rows), LIGHT)
    axes = figure.add_subplot()
    for place, one in enumerate(reversed(rows)):
        colour = RIGHT if one.low >= 0 and one.gain > 0 else WRONG if one.high < 0 else LIGHT.faint
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2)
        axes.plot([one.gain], [place], marker="o", color=colour)
    names = [f"{one.way} {one.measure}   {one.before:.3f} to {one.after:.3f}" for one in reversed(rows)]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_xlabel("difference, with its 95 % interval")
    plainly(axes, LIGHT)
    axes.axvline(0, color=LIGHT.ink, linewidth=1)
    return png(figure)


def _kept(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> tuple[Path, ...]:
    files = tuple(Path(folder) / name for name in contents)
    try:
        for file, content in zip(files, contents.values(), strict=True):
            replace_file(file, content)
    except OSError as error:
        raise ClipkitError(
            f"{folder} cannot be written: {error.strerror or error}", hint="another place: --out FOLDER"
        ) from error
    return files


def _samples_png(tuned: FineTuned) -> bytes:
    """Validation pictures with both answers: those whose answer changed come first."""
    pairs = sorted(tuned.validation, key=lambda pair: pair[0].label == pair[1].label)[:SHOWN]
    rows = -(-len(pairs) // COLUMNS)
    figure = blank_figure(2.0 * min(COLUMNS, len(pairs)), 2.6 * rows, LIGHT)
    draw_grid([_cell(pair) for pair in pairs], COLUMNS, figure.add_subplot())
    return png(figure)


def _cell(pair: Sequence[Prediction]) -> Cell:
    before, after = pair
    lines = (
        f"is {after.actual}",
        *(f"{when} {one.label} {one.probability:.2f}" for when, one in (("before", before), ("after", after))),
    )
    return Cell(small(after.file), lines, RIGHT if after.label == after.actual else WRONG)
