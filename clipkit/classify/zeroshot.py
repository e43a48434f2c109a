"""Zero-shot classification: classes from words, as an estimator of scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin

from clipkit.classify.head import Head, as_decision, in_name_order
from clipkit.classify.prompts import Classes, ClassPrompts, Templates
from clipkit.classify.words import adapted, calibrated, head_from_words, known_names, label_names
from clipkit.core.arrays import Embeddings, FloatArray, check_embeddings, unit_rows
from clipkit.errors import QueryError, ShapeError
from clipkit.models.encoder import Encoder
from clipkit.models.hub import Notify
from clipkit.models.tensors import is_tensor

if TYPE_CHECKING:
    from typing import TypeAlias

    from clipkit.images.recipe import PictureSource

    Pictures: TypeAlias = Sequence[PictureSource] | npt.NDArray[Any]


class ZeroShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Zero-shot classifier: names the class of a picture from words alone; an estimator of scikit-learn.

    A class is the mean embedding of its prompts. Wherever the methods take X, it is a list of pictures (paths, Pillow
    images, uint8 arrays), a column of a table, or their embeddings (n, d). It answers without `fit`, which is there for
    scikit-learn's tools.

    Parameters
    ----------
    encoder : Encoder
        Encodes prompts and pictures.
    classes : str, path, sequence of str, mapping of str to sequence of str, or Head
        What `read_classes` takes, or "imagenet". A mapping gives each class its own phrases. Or a saved `Head`.
    templates : str, path, callable, or sequence of str or callable, default "simple"
        A set ("plain", "simple", "imagenet", "pets", "dclip"), a template such as "a photo of a {}." or
        `lambda name: f"a photo of a {name}."`, a list of them, or a text file with one a line.
    unknown : bool, default False
        Answer "unknown" where no class is right; see `adapt` and `calibrate`.
    multi_label : bool, default False
        Each class is a question of its own: none, one or several may be right.
    normalize : bool, default False
        Divide each embedding by its length first. Without it a row of another length than 1 is an error.
    notify : callable, optional
        Given a sentence when a prompt is longer than the model reads.

    Attributes
    ----------
    classes_ : ndarray of shape (c,), str
        Names, in the order given; after `fit` sorted.
    n_features_in_ : int
        Width of the embeddings, after `fit`.
    head : Head
        What is computed with, and what may be saved.
    prompts : ClassPrompts or None
        The prompts of each class; None where the head came from a file.
    encoder : Encoder
        As given.

    Raises
    ------
    QueryError
        If classes or templates cannot be used.

    See Also
    --------
    LinearProbe : Learns from labels.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    .. [2] S. Menon and C. Vondrick, "Visual Classification via Description from Large Language Models", ICLR 2023.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> classifier = clipkit.ZeroShotClassifier(encoder, ["cat", "cup of coffee", "rocket"])
    >>> classifier.predict(["photos/chelsea.png", "photos/rocket.jpg"])
    array(['cat', 'rocket'], dtype='<U13')
    >>> index = clipkit.ImageIndex.open("photos")
    >>> classifier.predict_proba(index.embeddings).shape
    (4, 3)
    """

    head: Head
    prompts: ClassPrompts | None

    def __init__(
        self,
        encoder: Encoder,
        classes: Classes | Head,
        *,
        templates: Templates = "simple",
        unknown: bool = False,
        multi_label: bool = False,
        normalize: bool = False,
        notify: Notify | None = None,
    ) -> None:
        self.encoder, self.classes, self.templates = encoder, classes, templates
        self.unknown, self.multi_label, self.normalize, self.notify = unknown, multi_label, normalize, notify
        self._make(in_order=False)

    @classmethod
    def from_head(cls, encoder: Encoder, head: Head) -> ZeroShotClassifier:
        """A classifier with a head that was saved.

        Parameters
        ----------
        encoder : Encoder
            The model that the head was made with.
        head : Head
            Over projected embeddings.

        Returns
        -------
        ZeroShotClassifier
            Without prompts.

        Raises
        ------
        ModelMismatch
            If the head is of another model, or reads backbone features.

        Examples
        --------
        >>> encoder = clipkit.load_encoder("starter")
        >>> clipkit.ZeroShotClassifier(encoder, ["cat", "rocket"]).head.save("head.safetensors")
        >>> classifier = clipkit.ZeroShotClassifier.from_head(encoder, clipkit.Head.load("head.safetensors"))
        >>> classifier.predict(["photos/chelsea.png"]).tolist()
        ['cat']
        """
        return cls(encoder, head)

    @property
    def classes_(self) -> npt.NDArray[np.str_]:
        """Names (c,), in the order given; after `fit` sorted."""
        return np.array(self.head.classes)

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, and make the head anew.

        Parameters
        ----------
        **params : dict
            Of the constructor. What `adapt`, `calibrate` and `fit` did is undone.

        Returns
        -------
        ZeroShotClassifier
            Itself.
        """
        super().set_params(**params)
        if params:
            self._make(in_order=False)
        return self

    def fit(self, X: Pictures, y: Sequence[str | None] | npt.NDArray[Any] | None = None) -> Self:  # noqa: N803
        """Make the head from the words once more; nothing is learned.

        For `cross_val_score`, `GridSearchCV` (over templates, say) and the like. As these expect it, classes are sorted
        by name from then on, and what `adapt` and `calibrate` did is undone. With `multi_label` they keep their order,
        which is that of the columns of y.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Embeddings are checked, pictures not read.
        y : sequence of shape (n,), or bool of shape (n, c) with `multi_label`, optional
            Checked: each label must be a class, None, "unknown" or, as scikit-learn counts them, a class's position.

        Returns
        -------
        ZeroShotClassifier
            Itself.

        Raises
        ------
        QueryError
            If a label is no class.
        ShapeError
            If there are not as many labels as pictures, or X holds no embeddings.

        Examples
        --------
        >>> from sklearn.model_selection import cross_val_score
        >>> classifier = clipkit.ZeroShotClassifier(clipkit.load_encoder("starter"), ["rocket", "cat"])
        >>> files = ["photos/chelsea.png", "photos/rocket.jpg"] * 2
        >>> cross_val_score(classifier, files, ["cat", "rocket"] * 2, cv=2).tolist()
        [1.0, 1.0]
        """
        self._make(in_order=not self.multi_label)
        X = _of_table(X) if hasattr(X, "iloc") else X  # noqa: N806
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            self._checked(X)
        if y is not None and not self.head.multi_label:
            if not self._are_places(y):
                known_names(self.head, y, len(X))
        elif y is not None and np.asarray(y).shape != (len(X), len(self.head.classes)):
            raise ShapeError(
                f"{len(X)} pictures of {len(self.head.classes)} classes, and labels of shape {np.asarray(y).shape}",
                hint="with multi_label: a row a picture and a column a class, True where it is there",
            )
        self.n_features_in_ = self.encoder.dim
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.classifier_tags.multi_label = self.multi_label
        return tags

    def logits(self, X: Pictures) -> FloatArray:  # noqa: N803  scikit-learn's name
        """Logits of the classes, a column for each.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        return self.head.logits(self._embeddings(X))

    def decision_function(self, X: Pictures) -> FloatArray:  # noqa: N803
        """Logits of the classes, of two of them by how much the second is above the first.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n, c), or of shape (n,) for two classes of which one is right, float32
            In the order of `classes_`.
        """
        table = self.logits(X)
        return table if self.head.multi_label else as_decision(table)

    def predict_proba(self, X: Pictures) -> FloatArray:  # noqa: N803
        """Probabilities of the classes, given that one is right; with `multi_label`, of each by itself.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        return self.head.probabilities(self._embeddings(X))

    def predict(self, X: Pictures) -> npt.NDArray[Any]:  # noqa: N803
        """Names of the classes.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n,), str, or of shape (n, c), bool
            "unknown" where all classes are rejected; with `multi_label`, which classes are there.

        Raises
        ------
        ImageError
            Names the first picture that cannot be read.
        ShapeError
            If X is one path instead of a list, or no array of embeddings.
        """
        return self.head.predict(self._embeddings(X))

    def known_score(self, X: Pictures) -> FloatArray:  # noqa: N803
        """How surely one of the classes is right; `predict` rejects what lies below `head.rejection.cut`.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.

        Returns
        -------
        ndarray of shape (n,), float32
            Larger is surer.

        Raises
        ------
        NotFittedError
            If the classifier was made without `unknown`.
        """
        return self.head.known(self._embeddings(X))

    def score(
        self,
        X: Pictures,  # noqa: N803
        y: Sequence[str | None] | npt.NDArray[Any],
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Share of right answers.

        Parameters
        ----------
        X : sequence of pictures, or ndarray of shape (n, d), float32
            Paths, Pillow images, uint8 arrays (h, w, 3); or embeddings.
        y : sequence of shape (n,), or bool of shape (n, c) with `multi_label`
            None or "unknown" is right where all classes are rejected.
        sample_weight : array_like of shape (n,), optional
            What each answer weighs.

        Returns
        -------
        float
            From 0 to 1.
        """
        found = self.predict(X)
        if self.head.multi_label:
            is_right = (found == np.asarray(y, dtype=bool)).all(axis=1)
        else:
            is_right = found == np.array(label_names(y, len(found)))
        return float(np.average(is_right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def adapt(self, embeddings: Embeddings) -> ZeroShotClassifier:
        """Set where "unknown" begins, from a collection without labels.

        What is ordinary in the collection is taken out of each class's score; the cut splits the scores into two
        groups.

        Parameters
        ----------
        embeddings : ndarray of shape (n, d), float32
            Of two pictures or more, some of the classes and some not.

        Returns
        -------
        ZeroShotClassifier
            Itself.

        Raises
        ------
        NotFittedError
            If the classifier was made without `unknown`.
        ShapeError
            If there are fewer than two rows.

        References
        ----------
        .. [1] N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Trans. SMC 1979.

        Examples
        --------
        >>> index = clipkit.ImageIndex.open("photos")
        >>> classifier = clipkit.ZeroShotClassifier(index.encoder, ["cat"], unknown=True)
        >>> predicted = classifier.adapt(index.embeddings).predict(index.embeddings)
        >>> dict(zip(index.paths, predicted.tolist()))["chelsea.png"]
        'cat'
        """
        self.head = adapted(self.head, embeddings)
        return self

    def calibrate(self, embeddings: Embeddings, labels: Sequence[str | None] | npt.NDArray[Any]) -> ZeroShotClassifier:
        """Fit the temperature to labelled pictures; with labelled unknowns, the cut too.

        Parameters
        ----------
        embeddings : ndarray of shape (n, d), float32
            Of the pictures.
        labels : sequence of shape (n,)
            Names of classes; None or "unknown" for pictures of no class.

        Returns
        -------
        ZeroShotClassifier
            Itself.

        Raises
        ------
        QueryError
            If a label is no class, no picture is of a class, or the classifier is `multi_label`.
        NotFittedError
            If there are unknowns, and the classifier was made without `unknown`.

        References
        ----------
        .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        """
        self.head = calibrated(self.head, embeddings, labels)
        return self

    def _make(self, *, in_order: bool) -> None:
        if not hasattr(self.encoder, "encode_texts"):
            hint = f'clipkit.load_encoder("{self.encoder if isinstance(self.encoder, str) else "starter"}") makes one'
            raise QueryError(f"{self.encoder!r} is no encoder", hint=hint)
        if isinstance(self.classes, Head):
            if self.unknown or self.multi_label:
                raise QueryError(
                    "a head brings its own way of answering", hint="leave unknown and multi_label out, or give names"
                )
            self.classes.check(self.encoder, space="projected")
            self.head, self.prompts = in_name_order(self.classes) if in_order else self.classes, None
            return
        made = head_from_words(
            self.encoder,
            self.classes,
            templates=self.templates,
            unknown=self.unknown,
            multi_label=self.multi_label,
            notify=self.notify,
            in_order=in_order,
        )
        self.head, self.prompts = made.head, made.prompts

    def _embeddings(self, pictures: Pictures) -> Embeddings:
        if hasattr(pictures, "iloc"):  # a Series is asked by its index, and a table by its columns
            pictures = _of_table(pictures)
        if is_tensor(pictures):
            pictures = pictures.detach().cpu().float().numpy() if pictures.ndim == 2 else list(pictures)
        if isinstance(pictures, np.ndarray) and pictures.dtype.kind == "f":
            return self._checked(pictures)
        if isinstance(pictures, np.ndarray) and pictures.ndim < 4 and pictures.dtype == np.uint8:
            raise ShapeError("this takes a list of pictures", hint="predict([picture])")
        if isinstance(pictures, str | os.PathLike) or not hasattr(pictures, "__len__"):
            raise ShapeError("this takes a list of pictures", hint=f"predict([{pictures!r}])")
        if len(pictures) and isinstance(pictures[0], np.ndarray) and pictures[0].dtype.kind == "f":
            return self._checked(np.stack([np.asarray(row) for row in pictures]))
        return self.encoder.encode_images(list(pictures))

    def _are_places(self, y: Sequence[str | None] | npt.NDArray[Any]) -> bool:
        """Whether these are positions of the sorted classes: scikit-learn counts them where it needs probabilities."""
        values = np.asarray(y)
        is_whole = values.dtype.kind in "iu" and values.size > 0
        return is_whole and int(values.min()) >= 0 and int(values.max()) < len(self.head.classes)

    def _checked(self, rows: npt.NDArray[Any]) -> Embeddings:
        is_table = rows.ndim == 2 and rows.shape[1] == self.encoder.dim
        return check_embeddings(unit_rows(rows) if self.normalize and is_table else rows, self.encoder.dim)


def _of_table(table: Any) -> npt.NDArray[Any]:
    """Values of a Series or of a pandas table: embeddings (n, d), or the one column of pictures (n,)."""
    values = np.asarray(table)
    return values[:, 0] if values.shape[1:] == (1,) else values
