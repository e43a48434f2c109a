"""CLIP features for scikit-learn's pipelines: pictures to embeddings, each file encoded once."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
import sklearn.exceptions
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from clipkit.core.arrays import Embeddings
from clipkit.datasets.embed import embed_files
from clipkit.errors import ImageError, QueryError, ShapeError
from clipkit.learn.base import NotFitted
from clipkit.models.encoder import SPACES, Encoder
from clipkit.models.load import load_encoder
from clipkit.models.tensors import is_tensor

if TYPE_CHECKING:
    from typing import TypeAlias

    import pandas as pd

    from clipkit.images.recipe import PictureSource

    Pictures: TypeAlias = Sequence[PictureSource] | npt.NDArray[Any] | pd.Series | pd.DataFrame

LEAVE_OUT = "leave it out, and its label with it"


class ClipTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """CLIP features: turns pictures into their embeddings; a transformer of scikit-learn.

    The first step of a pipeline that begins with paths of files. A file is encoded once: the embeddings are kept on
    this disk by the bytes of the file and by the model, so that the folds of a cross-validation and later runs find
    them there.

    Parameters
    ----------
    model : str, path or Encoder, default "auto"
        What `load_encoder` takes, loaded by each `fit`; or an encoder that is loaded already, which copies share.
    engine : {"auto", "torch", "onnx"}, default "auto"
        As for `load_encoder`, like the next three.
    device : str, default "auto"
        "cpu", "cuda", "mps"; "auto" takes the fastest.
    precision : {"auto", "float32", "bfloat16", "float16", "int8"}, default "auto"
        Of the towers.
    batch_size : int, optional
        Pictures through the image tower at once.
    space : {"projected", "backbone"}, default "projected"
        The space of the texts, or the features before the projection, which often classify better.
    cache : bool, default True
        Keep the embeddings of files. Pictures that are no files are always encoded.

    Attributes
    ----------
    encoder_ : Encoder
        What encodes. Pickles by name.

    See Also
    --------
    LinearProbe : Logistic regression that chooses its strength.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import Pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> animals = clipkit.load_dataset("animals")
    >>> clip = clipkit.ClipTransformer("starter")
    >>> pipeline = Pipeline([("clip", clip), ("scale", StandardScaler()), ("probe", LogisticRegression())])
    >>> pipeline.fit(animals.files, animals.labels).predict(["photos/chelsea.png"]).tolist()
    ['cat']
    """

    encoder_: Encoder

    def __init__(
        self,
        model: str | os.PathLike[str] | Encoder = "auto",
        *,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        space: str = "projected",
        cache: bool = True,
    ) -> None:
        self.model, self.engine, self.device, self.precision = model, engine, device, precision
        self.batch_size, self.space, self.cache = batch_size, space, cache

    def fit(self, X: Pictures, y: object = None) -> Self:  # noqa: N803  scikit-learn's name
        """Load the model; nothing is learned.

        Parameters
        ----------
        X : sequence of pictures, Series, or table of one column
            Paths, Pillow images, uint8 arrays (h, w, 3), tensors as `encode_images` takes them. Not read.
        y : object, optional
            Not used.

        Returns
        -------
        ClipTransformer
            Itself.

        Raises
        ------
        ModelError
            If the model cannot be had.
        QueryError
            If parameters do not go together.
        """
        if self.space not in SPACES:
            raise QueryError(f"the space is {self.space!r}, not one of {', '.join(SPACES)}", hint="leave space out")
        as_pictures(X)
        self.encoder_ = self._load()
        return self

    def transform(self, X: Pictures) -> Embeddings:  # noqa: N803
        """Embeddings of pictures.

        Parameters
        ----------
        X : sequence of pictures, Series, or table of one column
            Paths, Pillow images, uint8 arrays (h, w, 3), tensors as `encode_images` takes them.

        Returns
        -------
        ndarray of shape (n, d), float32
            In order; rows of length 1. A table after `set_output(transform="pandas")`.

        Raises
        ------
        ImageError
            Names the first picture that cannot be read.
        NotFittedError
            Before `fit`.
        ShapeError
            If X is no list of pictures.
        """
        self._check_fitted()
        pictures = as_pictures(X)
        is_file = np.array([self.cache and isinstance(picture, str | os.PathLike) for picture in pictures], dtype=bool)
        files, others = np.flatnonzero(is_file), np.flatnonzero(~is_file)
        rows = np.empty((len(pictures), self._n_features_out), np.float32)
        try:
            paths = [os.fspath(cast("str", pictures[i])) for i in files]
            rows[files] = embed_files(paths, self.encoder_, space=self.space)
            rows[others] = self.encoder_.encode_images([pictures[i] for i in others], space=self.space)
        except ImageError as error:
            raise ImageError(error.message, hint=LEAVE_OUT) from error
        return rows

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[Any]:
        """Names of the embedding's columns.

        Parameters
        ----------
        input_features : object, optional
            Not used.

        Returns
        -------
        ndarray of shape (d,), str
            "cliptransformer0" and so on.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        self._check_fitted()
        return np.asarray(super().get_feature_names_out(input_features))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "encoder_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.transformer_tags.preserves_dtype = []
        return tags

    @property
    def _n_features_out(self) -> int:
        self._check_fitted()
        if self.space == "projected":
            return self.encoder_.dim
        return int(self.encoder_.encode_images([], space=self.space).shape[1])

    def _check_fitted(self) -> None:
        try:
            check_is_fitted(self)
        except sklearn.exceptions.NotFittedError as error:
            raise NotFitted("this ClipTransformer has no model loaded yet", hint="fit(paths)") from error

    def _load(self) -> Encoder:
        ways: dict[str, Any] = {"engine": self.engine, "device": self.device, "precision": self.precision}
        if isinstance(self.model, str | os.PathLike):
            return load_encoder(os.fspath(self.model), batch_size=self.batch_size, **ways)
        if not hasattr(self.model, "encode_images"):
            raise QueryError(f"model is {self.model!r}, no name and no encoder", hint='ClipTransformer("starter")')
        if self.batch_size is not None or set(ways.values()) != {"auto"}:
            raise QueryError(
                "an encoder that is loaded has its engine, device, precision and batch size already",
                hint="give them to load_encoder, or give the name of the model here",
            )
        return self.model


def as_pictures(given: Pictures) -> list[PictureSource]:
    """Pictures in a list, whatever holds them; ShapeError names the first that is none."""
    if isinstance(given, str | os.PathLike) or not hasattr(given, "__len__"):
        raise ShapeError("this takes a list of pictures", hint=f"transform([{given!r}])")
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OUTu":
        raise ShapeError(
            f"an array of {given.dtype} holds no pictures", hint="paths, Pillow images or uint8 arrays (h, w, 3)"
        )
    shape: tuple[int, ...] = getattr(given, "shape", (len(given),))
    is_table = len(shape) == 2
    if (is_table and shape[-1] != 1) or len(shape) == 3:
        raise ShapeError(
            f"pictures of shape {shape} are no list of them", hint="one column of paths, or one picture each"
        )
    values = np.asarray(given, dtype=object).ravel() if is_table else given
    pictures = list(values)
    for place, picture in enumerate(pictures):
        is_picture = isinstance(picture, str | os.PathLike | np.ndarray) or hasattr(picture, "getbands")
        if not (is_picture or is_tensor(picture)):
            hint = "its paths: DATASET.files" if isinstance(picture, tuple) else LEAVE_OUT
            raise ShapeError(
                f"{reprlib.repr(picture)}, number {place} of {len(pictures)}, is no path and no picture", hint=hint
            )
    return pictures
