"""Embeddings: their types, and the check that every array passes on its way in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clipkit.errors import ShapeError

LENGTH_TOLERANCE = 1e-3  # the disk keeps float16

Embeddings = npt.NDArray[np.float32]  # (n, d), every row finite and of length 1
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def check_embeddings(embeddings: npt.ArrayLike, dim: int) -> Embeddings:
    """The same as contiguous float32, if (n, dim) with finite rows of length 1; ShapeError names the first bad row."""
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ShapeError(
            f"embeddings of shape {rows.shape} are not (n, {dim})",
            hint="rows as encode_images and encode_texts give them",
        )
    norms = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= LENGTH_TOLERANCE))  # written so that a NaN is wrong
    if wrong.size:
        raise ShapeError(
            f"embedding {wrong[0]} of {len(rows)} has length {norms[wrong[0]]:.4g}, not 1",
            hint="divide each row by its length: rows / np.linalg.norm(rows, axis=1, keepdims=True)",
        )
    return rows


def finite_rows(rows: FloatArray) -> FloatArray:
    """The same; ShapeError names the first row with a NaN or an infinity."""
    lengths = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~np.isfinite(lengths))
    if wrong.size:
        raise ShapeError(
            f"embedding {wrong[0]} of {len(rows)} has length {lengths[wrong[0]]:.4g}: it holds NaN or inf",
            hint="leave such rows out, with their labels",
        )
    return rows


def unit_rows(rows: FloatArray) -> Embeddings:
    """Rows (n, d) divided by their lengths; ShapeError for one that has none, a NaN or an infinity."""
    lengths = np.linalg.norm(finite_rows(rows), axis=1, keepdims=True)
    if not lengths.all():
        raise ShapeError(
            f"embedding {int(np.flatnonzero(lengths == 0)[0])} of {len(rows)} has length 0, and no direction",
            hint="leave such rows out, with their labels",
        )
    return np.asarray(rows / lengths, dtype=np.float32)
