"""Error tree of clipkit: what happened, and what to type next.

- `ClipkitError`: the root of them all.
- `ImageError`: a picture could not be read.
- `ModelError`: a model could not be found, fetched or loaded.
- `MissingPackage`: a package that this needs is not installed.
- `DatasetError`: folder, table or labels of a dataset do not fit together.
- `NotFittedError`: an estimator was asked before it was fitted.
- `ShapeError`: embeddings of a wrong width, or with a zero, NaN or infinite row.
- `QueryError`: a query that cannot be understood.
- `BadIndex`: an index that cannot be used as it is; the root of the next five.
- `IndexNotFound`: there is no index.
- `ModelMismatch`: an index or a head belongs to another model.
- `IndexTooNew`: the index was written by a newer clipkit.
- `IndexLocked`: another process is writing the index.
- `IndexDamaged`: the index file is not what clipkit wrote.
"""

from __future__ import annotations


class ClipkitError(Exception):
    """The root of clipkit's errors.

    Parameters
    ----------
    message : str
        The thing and the fact.
    hint : str, optional
        What to type next.

    Attributes
    ----------
    message : str
        As given.
    hint : str or None
        As given.
    exit_code : int
        What the command line ends with: 1 for an error, 3 for a damaged index, 11 for a locked one.

    Examples
    --------
    >>> try:
    ...     clipkit.ImageIndex.open("animals")
    ... except clipkit.ClipkitError as error:
    ...     print(error.message, "|", error.hint, "|", error.exit_code)
    animals has no index | clipkit index animals | 1
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ImageError(ClipkitError):
    """A picture could not be read; the message names the file and the reason.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> encoder.encode_images(["classes.txt"])
    Traceback (most recent call last):
        ...
    clipkit.errors.ImageError: classes.txt: ...
    """


class ModelError(ClipkitError):
    """A model could not be found, fetched or loaded.

    Examples
    --------
    >>> clipkit.load_encoder("ViT-B-33")
    Traceback (most recent call last):
        ...
    clipkit.errors.ModelError: no model is called ViT-B-33
    """


class MissingPackage(ClipkitError, ModuleNotFoundError):
    """A package that this needs is not installed; the hint installs it.

    It is a ModuleNotFoundError, too.

    Examples
    --------
    >>> issubclass(clipkit.errors.MissingPackage, ModuleNotFoundError)
    True
    """


class DatasetError(ClipkitError, ValueError):
    """A dataset's folder, table or labels do not fit together.

    It is a ValueError, too, as scikit-learn's tools expect.

    Examples
    --------
    >>> clipkit.load_dataset("photos")
    Traceback (most recent call last):
        ...
    clipkit.errors.DatasetError: photos has no folders with pictures, one a class
    """


class NotFittedError(ClipkitError):
    """An estimator was asked before it was fitted.

    What `LinearProbe` and the other estimators raise is scikit-learn's error of that name, too.

    Examples
    --------
    >>> try:
    ...     clipkit.LinearProbe().predict(np.eye(2))
    ... except clipkit.errors.NotFittedError as error:
    ...     print(error.message, "|", error.hint)
    this LinearProbe has learned nothing yet | fit(embeddings, labels)
    """


class ShapeError(ClipkitError, ValueError):
    """Embeddings of a wrong width, or with a row that is zero, NaN or infinite.

    Also raised for one picture or one text where a list of them is asked for. It is a ValueError, too, as
    scikit-learn's tools expect.

    Examples
    --------
    >>> index = clipkit.ImageIndex.open("photos")
    >>> index.search_embeddings(np.eye(2))
    Traceback (most recent call last):
        ...
    clipkit.errors.ShapeError: ...
    """


class QueryError(ClipkitError):
    """A query that cannot be understood, or names a file that is not there.

    Examples
    --------
    >>> index = clipkit.ImageIndex.open("photos")
    >>> index.search("a cat", k=0)
    Traceback (most recent call last):
        ...
    clipkit.errors.QueryError: 0 answers were asked for
    """


class BadIndex(ClipkitError):
    """An index that cannot be used as it is.

    The root of `IndexNotFound`, `ModelMismatch`, `IndexTooNew`, `IndexLocked` and `IndexDamaged`.

    Examples
    --------
    >>> try:
    ...     index = clipkit.ImageIndex.open("animals")
    ... except clipkit.BadIndex as error:
    ...     print(type(error).__name__)
    IndexNotFound
    """


class IndexNotFound(BadIndex):
    """No index in this folder or above it.

    Examples
    --------
    >>> clipkit.ImageIndex.open("animals")
    Traceback (most recent call last):
        ...
    clipkit.errors.IndexNotFound: animals has no index
    """


class ModelMismatch(BadIndex):
    """An index or a head was made with another model, or an index with another way of reading pixels.

    Examples
    --------
    >>> from dataclasses import replace
    >>> encoder = clipkit.load_encoder("starter")
    >>> head = clipkit.ZeroShotClassifier(encoder, ["cat", "dog"]).head
    >>> replace(head, model="ViT-B-32/openai", fingerprint="of other weights").check(encoder)
    Traceback (most recent call last):
        ...
    clipkit.errors.ModelMismatch: this head was made with ViT-B-32/openai, not starter
    """


class IndexTooNew(BadIndex):
    """The index was written by a newer clipkit.

    Examples
    --------
    >>> import sqlite3
    >>> with sqlite3.connect("photos/.clipkit/index.db") as database:
    ...     _ = database.execute("PRAGMA user_version = 99")
    >>> database.close()
    >>> clipkit.ImageIndex.open("photos")
    Traceback (most recent call last):
        ...
    clipkit.errors.IndexTooNew: ...
    """


class IndexLocked(BadIndex):
    """Another process is writing this index.

    Examples
    --------
    >>> from filelock import FileLock
    >>> index = clipkit.ImageIndex.open("photos")
    >>> with FileLock("photos/.clipkit/lock"):  # what a writer holds
    ...     index.update()
    Traceback (most recent call last):
        ...
    clipkit.errors.IndexLocked: another clipkit is writing the index in ...
    """

    exit_code = 11


class IndexDamaged(BadIndex):
    """The index file is not what clipkit wrote.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("photos/.clipkit/index.db").write_bytes(b"not a database" * 1000)
    >>> clipkit.ImageIndex.open("photos")
    Traceback (most recent call last):
        ...
    clipkit.errors.IndexDamaged: ...
    """

    exit_code = 3
