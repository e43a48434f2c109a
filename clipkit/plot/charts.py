"""Charts of results: confusion matrix, learning curves, reliability diagram, map of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray, check_embeddings
from clipkit.core.text import counted
from clipkit.datasets.embed import EmbeddedDataset
from clipkit.datasets.load import Dataset
from clipkit.errors import ShapeError
from clipkit.evaluate.results import Comparison
from clipkit.explore.mapping import LANDMARKS, Map, lay_out, map_collection
from clipkit.index.image_index import ImageIndex
from clipkit.learn.contrastive import TrainedClip
from clipkit.learn.fine_tuning import FineTuned
from clipkit.learn.trainer import Epoch, best_epoch
from clipkit.metrics import BINS, confusion, ece
from clipkit.output.figures import (
    COLOURS,
    LIGHT,
    add_title,
    axes_for,
    confusion_side,
    draw_confusion,
    draw_curves,
    plainly,
    short,
)

if TYPE_CHECKING:
    from clipkit.output.figures import Axes

SQUARE, WIDE = (5.2, 5.2), (6.4, 4.2)  # inches
TRAINING, VALIDATION, ACCURACY = COLOURS["probe"], COLOURS["tip-adapter"], COLOURS["blend"]
NAMED = 12  # labels of a map that have a colour of their own


def confusion_matrix(
    actual: Sequence[str] | npt.NDArray[np.str_],
    predicted: Sequence[str] | npt.NDArray[np.str_],
    *,
    classes: Sequence[str] | None = None,
    percent: bool = False,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw which class was given which: colours are shares of each class's pictures, numbers are counts.

    A class without pictures that was never given is left out. Up to 60 classes are named.

    Parameters
    ----------
    actual : sequence of str
        The n right classes.
    predicted : sequence of str
        The n classes that were given.
    classes : sequence of str, optional
        Their order; by default by name.
    percent : bool, default False
        Write shares into the cells, instead of counts.
    title : str, optional
        By default the share that is right, and n.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the matrix: what was given across, the right classes down.

    Raises
    ------
    ShapeError
        If there are not as many predictions as labels, none at all, or a name that is no class.

    Examples
    --------
    >>> from clipkit import plot
    >>> axes = plot.confusion_matrix(["cat", "cat", "dog"], ["cat", "dog", "dog"])
    >>> axes.get_title(loc="left")
    '66.7 % of 3 right'
    """
    right, given = [str(name) for name in actual], [str(name) for name in predicted]
    if len(right) != len(given) or not right:
        raise ShapeError(f"{len(given)} predictions for {len(right)} labels", hint="one for each picture, in order")
    names = [str(name) for name in classes] if classes is not None else sorted({*right, *given})
    if len(set(names)) < len(names):
        raise ShapeError("a class is named twice", hint="classes=None takes all that occur")
    place = {name: i for i, name in enumerate(names)}
    if unknown := [name for name in [*right, *given] if name not in place]:
        raise ShapeError(f"{unknown[0]!r} is not among the classes", hint="classes=None takes all that occur")
    matrix = confusion([place[name] for name in given], [place[name] for name in right], len(names))
    side = confusion_side(matrix)
    axes = axes_for(ax, side + 0.5, side)
    share = 100 * np.trace(matrix) / matrix.sum()
    said = title or f"{share:.1f} % of {len(right):,} right"
    draw_confusion(axes, matrix, names, percent=percent, title=said)
    return axes


def learning_curves(results: FineTuned | TrainedClip | Comparison | Sequence[Epoch], *, ax: Axes | None = None) -> Axes:
    """Draw loss and accuracy by epoch; of a comparison accuracy by labelled pictures a class.

    Parameters
    ----------
    results : FineTuned, TrainedClip, sequence of Epoch, or Comparison
        What `finetune`, `train_clip` or `compare` gave.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the losses, and the validation accuracy on a second axis at the right; the best epoch is marked. Of a
        contrastive training the loss alone.

    Raises
    ------
    ShapeError
        If there is no epoch.

    Examples
    --------
    >>> from clipkit import plot
    >>> from clipkit.learn import Recipe
    >>> vit = clipkit.ViTClassifier("tiny-vit")
    >>> tuned = clipkit.finetune(vit, clipkit.load_dataset("animals"), recipe=Recipe(epochs=3, views=0))
    >>> axes = plot.learning_curves(tuned)
    >>> [line.get_label() for line in axes.lines][:2]
    ['training loss', 'validation loss']
    """
    if isinstance(results, Comparison):
        axes = axes_for(ax, 9.4, 5.6)
        draw_curves(axes, results)
        return axes
    if isinstance(results, TrainedClip):
        axes = axes_for(ax, *WIDE)
        axes.plot(range(1, len(results.losses) + 1), results.losses, marker="o", label="training loss")
        axes.set(xlabel="epoch", ylabel="contrastive loss")
        return axes
    history = results.history if isinstance(results, FineTuned) else results
    if not history or not isinstance(history, Sequence) or not all(isinstance(epoch, Epoch) for epoch in history):
        raise ShapeError("there is no epoch to draw", hint="the history of a fine-tuned model")
    axes = axes_for(ax, *WIDE)
    _draw_history(axes, list(history))
    return axes


def _draw_history(axes: Axes, history: list[Epoch]) -> None:
    numbers, best = [epoch.number for epoch in history], best_epoch(history)
    at_right = axes.twinx()
    marker = "o" if len(history) < 20 else ""  # so that a single epoch is seen
    losses = ("training loss", [epoch.loss for epoch in history], TRAINING, axes)
    held_out = ("validation loss", [epoch.val_loss for epoch in history], VALIDATION, axes)
    accuracy = ("validation accuracy, %", [100 * epoch.val_acc1 for epoch in history], ACCURACY, at_right)
    lines = [
        one.plot(numbers, values, label=label, color=colour, marker=marker, markersize=4, linewidth=1.6)[0]
        for label, values, colour, one in (losses, held_out, accuracy)
    ]
    for one, words in ((axes, "loss"), (at_right, "validation accuracy, %")):
        plainly(one, LIGHT)
        one.set_ylabel(words, color=LIGHT.ink, fontsize=9)
    at_right.grid(visible=False)
    at_right.patch.set_visible(False)
    at_right.set_ylim(0, 102)
    axes.set_ylim(bottom=0)
    axes.axvline(best, color=LIGHT.faint, linestyle=(0, (2, 2)), linewidth=1)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("epoch", color=LIGHT.ink, fontsize=9)
    axes.legend(handles=lines, frameon=False, fontsize=8, loc="center right")
    add_title(axes, f"best epoch {best}: {100 * history[numbers.index(best)].val_acc1:.1f} % on validation", LIGHT)


def reliability_diagram(
    confidence: npt.ArrayLike, is_right: npt.ArrayLike, *, bins: int = BINS, ax: Axes | None = None
) -> Axes:
    """Draw how often answers are right, by how sure they were: on the diagonal probabilities are what they say.

    Parameters
    ----------
    confidence : array_like of shape (n,)
        Probability of the class that was given.
    is_right : array_like of shape (n,), bool
        Whether it was right.
    bins : int, default 15
        Bins of equal width, open on the left.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        A bar for each bin that has pictures; its width is the bin's, and the number of pictures stands in it.

    Raises
    ------
    ShapeError
        If the two are of other lengths, empty, or not probabilities.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Examples
    --------
    >>> from clipkit import plot
    >>> axes = plot.reliability_diagram([0.9, 0.9, 0.6], [True, False, True], bins=10)
    >>> [round(float(bar.get_height()), 2) for bar in axes.patches]
    [1.0, 0.5]
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(is_right)
    if right.dtype.kind not in "biuf" or not np.isin(right, (0, 1)).all():
        raise ShapeError("is_right is not True or False for each", hint="is_right=predicted == labels")
    right = right.astype(np.float64)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        raise ShapeError(f"confidence {sure.shape} and is_right {right.shape} are not both (n,)")
    if bins < 1 or bins != int(bins):
        raise ShapeError(f"{bins} bins cannot be drawn", hint=f"bins={BINS}, as it is by default")
    if not np.all((sure >= 0) & (sure <= 1)):
        raise ShapeError("confidence is not between 0 and 1", hint="probabilities, as predict_proba gives them")
    axes, bins = axes_for(ax, *SQUARE), int(bins)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)  # as `ece` has them
    counts = np.bincount(place, minlength=bins)
    there = np.flatnonzero(counts)
    shares = np.bincount(place, weights=right, minlength=bins)[there] / counts[there]
    means = np.bincount(place, weights=sure, minlength=bins)[there] / counts[there]
    axes.bar((there + 0.5) / bins, shares, width=0.92 / bins, color=TRAINING, alpha=0.75)
    axes.plot([0, 1], [0, 1], color=LIGHT.ink, linestyle=(0, (5, 3)), linewidth=1)
    axes.plot(means, shares, "o", color=LIGHT.ink, markersize=3)
    for at, share, count in zip(there, shares, counts[there], strict=True):
        axes.text((at + 0.5) / bins, share, f"{count:,}", ha="center", va="bottom", fontsize=6.5, color=LIGHT.ink)
    plainly(axes, LIGHT)
    axes.set(xlim=(0, 1), ylim=(0, 1.04), aspect="equal")
    axes.set_xlabel("how sure", color=LIGHT.ink, fontsize=9)
    axes.set_ylabel("how often right", color=LIGHT.ink, fontsize=9)
    add_title(axes, f"ECE {ece(sure, right, bins=bins):.3f}, n = {len(sure):,}", LIGHT)
    return axes


def embedding_map(
    embeddings: FloatArray | EmbeddedDataset | ImageIndex | Map,
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw embeddings in two dimensions, alike ones near one another: UMAP where it is installed, else t-SNE.

    Distances between far groups mean little. Of more than 5,000 rows of an array a sample is drawn.

    Parameters
    ----------
    embeddings : ndarray of shape (n, d), EmbeddedDataset, ImageIndex or Map
        An index and a `Map` have clusters with names.
    labels : sequence of str, optional
        One a row; the twelve commonest have colours of their own. By default those of the dataset, or the clusters.
    seed : int, default 0
        Of the layout and the sample.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With a point a picture.

    Raises
    ------
    ShapeError
        If these are no embeddings, or there are not as many labels.

    Examples
    --------
    >>> from clipkit import plot
    >>> from clipkit.datasets import embed_once
    >>> embedded = embed_once(clipkit.load_dataset("animals"), clipkit.load_encoder("starter"))
    >>> axes = plot.embedding_map(embedded)
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['cat', 'other']
    """
    positions, names = _laid_out(embeddings, labels, seed)
    axes = axes_for(ax, *SQUARE)
    if names is None:
        axes.scatter(positions[:, 0], positions[:, 1], s=12, color=TRAINING, alpha=0.7, linewidths=0)
    else:
        _scatter(axes, positions, names)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color(LIGHT.grid)
    add_title(axes, counted(len(positions), "picture"), LIGHT)
    return axes


def _laid_out(
    embeddings: FloatArray | EmbeddedDataset | ImageIndex | Map, labels: Sequence[str] | None, seed: int
) -> tuple[FloatArray, list[str] | None]:
    """Positions (n, 2), and a name for each where there are names."""
    if isinstance(embeddings, ImageIndex):
        embeddings = map_collection(embeddings, seed=seed)
    if isinstance(embeddings, Map):
        clusters = [name or "outliers" for name in embeddings.to_frame()["cluster"].tolist()]
        return embeddings.positions, _checked(labels if labels is not None else clusters, len(embeddings))
    if isinstance(embeddings, EmbeddedDataset):
        labels = labels if labels is not None else (embeddings.dataset.labels or None)
        embeddings = embeddings.embeddings
    if isinstance(embeddings, Dataset):
        raise ShapeError("a dataset has pictures, and no embeddings", hint="embed_once(dataset, encoder)")
    try:
        values = np.asarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ShapeError("these are no embeddings", hint="rows as encode_images gives them") from error
    rows = check_embeddings(values, values.shape[-1] if values.ndim else 0)
    if not len(rows):
        raise ShapeError("there is no embedding to lay out", hint="one row at least")
    names = None if labels is None else _checked(labels, len(rows))
    if len(rows) > LANDMARKS:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:LANDMARKS])
        rows, names = rows[chosen], names and [names[i] for i in chosen.tolist()]
    return lay_out(rows, seed), names


def _checked(labels: Sequence[str], count: int) -> list[str]:
    if len(labels) != count:
        raise ShapeError(f"{len(labels)} labels for {counted(count, 'embedding')}", hint="one a row, in their order")
    return [str(label) for label in labels]


def _in_legend(name: str) -> str:
    """matplotlib leaves out what begins with an underscore."""
    return f" {short(name)}" if name.startswith("_") else short(name)


def _scatter(axes: Axes, positions: FloatArray, names: list[str]) -> None:
    values, counts = np.unique(names, return_counts=True)
    common = sorted(values[np.argsort(-counts, kind="stable")][:NAMED].tolist())
    if rest := [i for i, name in enumerate(names) if name not in common]:
        xs, ys = positions[rest].T
        axes.scatter(xs, ys, s=12, color=LIGHT.grid, label=f"{len(values) - NAMED} others")
    palette = [*COLOURS.values(), LIGHT.ink, LIGHT.faint]
    for name, colour in zip(common, palette, strict=False):
        xs, ys = positions[[i for i, other in enumerate(names) if other == name]].T
        axes.scatter(xs, ys, s=14, color=colour, alpha=0.8, linewidths=0, label=_in_legend(name))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), labelcolor=LIGHT.ink)
