"""Every error a user can meet: what happened, and what to type next."""

from __future__ import annotations


class ClipkitError(Exception):
    """The root of clipkit's errors: `message` names the thing and the fact, `hint` is what to type next.

    `exit_code` is what the command line ends with: 1 error, 3 damaged index, 11 locked.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ImageError(ClipkitError):
    """A picture could not be read; the message names the file and the reason."""


class ModelError(ClipkitError):
    """A model could not be found, fetched or loaded."""


class DatasetError(ClipkitError):
    """A dataset's folder, table or labels do not fit together."""


class NotFittedError(ClipkitError):
    """An estimator was asked before it was fitted."""


class ShapeError(ClipkitError):
    """Embeddings of a wrong width, or with a row that is zero, NaN or infinite."""


class QueryError(ClipkitError):
    """A query that cannot be understood, or names a file that is not there."""


class BadIndex(ClipkitError):
    """An index that cannot be used as it is."""


class IndexNotFound(BadIndex):
    """No index in this folder or above it."""


class ModelMismatch(BadIndex):
    """The index was made with another model or another way of reading pixels."""


class IndexTooNew(BadIndex):
    """The index was written by a newer clipkit."""


class IndexLocked(BadIndex):
    """Another process is writing this index."""

    exit_code = 11


class IndexDamaged(BadIndex):
    """The index file is not what clipkit wrote."""

    exit_code = 3
