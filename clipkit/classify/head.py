"""Classifier heads: one row of weights a class, perhaps behind a hidden layer, in one small file."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray, IntArray
from clipkit.core.tensor_files import read_tensors, write_tensors
from clipkit.core.text import counted, described, some
from clipkit.errors import ModelError, ModelMismatch, NotFittedError, ShapeError
from clipkit.models.encoder import SPACES

if TYPE_CHECKING:
    import pandas as pd

    from clipkit.models.encoder import Encoder


# What a reader of 1 would not see: 2 has a hidden layer, 3 a cut for each class.
FORMATS = ("clipkit head 1", "clipkit head 2", "clipkit head 3")
MAKE = "make one: clipkit probe DATASET --out head.safetensors"
BLOCK_SCORES = 1 << 22  # 16 MB of scores at a time, whatever the number of pictures
CLOSE = 1e-5  # relative: float32 sums of products differ by less when their order does
_TINY = 1e-12
_FIELDS = ("classes", "temperature", "model", "fingerprint", "space", "multi_label", "notes")

UNKNOWN = "unknown"
BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Rejection:
    """Where "none of these" begins.

    Attributes
    ----------
    neutral : ndarray of shape (d,), float32
        Mean embedding of neutral texts, taken out of pictures and classes before they are compared: any text says that
        much.
    typical : ndarray of shape (c,), float32
        What is ordinary for each class, subtracted from its cosine: zeros, or half of the class's mean over a
        collection.
    cut : float
        A picture whose best class scores less is rejected.
    cuts : ndarray of shape (c,), float32, or None
        In place of `cut`, one for the pictures of each class.
    """

    neutral: FloatArray
    typical: FloatArray
    cut: float
    cuts: FloatArray | None = None

    def __repr__(self) -> str:
        return described(self, f"cut={self.cut:.4f}" if self.cuts is None else f"a cut for each of {len(self.cuts)}")


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier over the embeddings of one model, in one small file.

    `len(head)` is the number of its classes, iteration gives their names, and `"cat" in head` asks for one. Logits are
    `temperature * (embeddings @ weight.T + bias)`.

    Attributes
    ----------
    classes : tuple of str
        Names, each once.
    weight : ndarray of shape (c, d), float32
        One row a class; (c, h) behind a hidden layer of h units.
    bias : ndarray of shape (c,), float32
        One number a class.
    temperature : float
        The logit scale; larger is surer.
    model, fingerprint : str
        Whose embeddings these are: canonical name, and SHA-256 of the weights.
    space : {"projected", "backbone"}, default "projected"
        Embeddings as an index holds them, or the features before the projection.
    multi_label : bool, default False
        Each class is a question of its own, answered by a sigmoid; otherwise one is right, by softmax.
    rejection : Rejection or None
        For "none of these": `neutral` (d,), `typical` (c,) and `cut`, or `cuts` (c,).
    notes : tuple of str
        What whoever uses it should know, a sentence each.
    hidden : Hidden or None
        A layer with GELU that embeddings pass first.

    Raises
    ------
    ShapeError
        If these do not fit together.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> head = clipkit.ZeroShotClassifier(encoder, ["cat", "rocket"]).head
    >>> head.predict(encoder.encode_images(["photos/chelsea.png"])).tolist()
    ['cat']
    >>> head.save("head.safetensors")
    >>> clipkit.Head.load("head.safetensors").classes
    ('cat', 'rocket')
    """

    classes: tuple[str, ...]
    weight: FloatArray
    bias: FloatArray
    temperature: float
    model: str
    fingerprint: str
    space: str = "projected"
    multi_label: bool = False
    rejection: Rejection | None = None
    notes: tuple[str, ...] = ()
    hidden: Hidden | None = None

    def __post_init__(self) -> None:
        count = len(self.classes)
        if not count or len(set(self.classes)) < count or not all(self.classes):
            raise ShapeError(f"a head of {count} classes, which must be one or more, each with a name of its own")
        if self.weight.ndim != 2 or len(self.weight) != count or self.bias.shape != (count,):
            raise ShapeError(f"weight {self.weight.shape} and bias {self.bias.shape} are not those of {count} classes")
        if self.weight.dtype != np.float32 or self.bias.dtype != np.float32:
            raise ShapeError(f"weight is {self.weight.dtype} and bias {self.bias.dtype}, not float32")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ShapeError("weight or bias is NaN or infinite")
        if not 0 < self.temperature < math.inf:
            raise ShapeError(f"the temperature is {self.temperature}, not a positive number")
        if self.space not in SPACES:
            raise ShapeError(f"the space is {self.space!r}, not one of {', '.join(SPACES)}")
        if self.hidden is not None and self.hidden.units != self.weight.shape[1]:
            raise ShapeError(f"weight {self.weight.shape} does not read the {self.hidden.units} hidden units")
        if self.rejection is not None:
            self._check_rejection(self.rejection)

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __contains__(self, name: object) -> bool:
        return name in self.classes

    def __repr__(self) -> str:
        return described(self, f"{counted(len(self), 'class')}: {some(self.classes)}", *self._facts())

    def _repr_html_(self) -> str:
        """Its classes and what it is made for, as notebooks show them."""
        from clipkit.images.notebook import MOST_ROWS, notebook_html, rest

        table = self.to_frame()
        more = rest(len(self), "classes", "to_frame()", most=MOST_ROWS)
        rows = ((name, f"{bias:+.3f}", f"{norm:.3f}") for name, bias, norm in table.itertuples(index=False))
        title = f"Head: {counted(len(self), 'class')}"
        return notebook_html(title, self._facts(), columns=list(table.columns), rows=rows, more=more)

    def to_frame(self) -> pd.DataFrame:
        """The classes as a pandas table.

        Returns
        -------
        pandas.DataFrame
            With the columns class, bias, and norm, the length of the class's row of weights.

        Examples
        --------
        >>> head = clipkit.ZeroShotClassifier(clipkit.load_encoder("starter"), ["cat", "rocket"]).head
        >>> head.to_frame()["class"].tolist()
        ['cat', 'rocket']
        """
        import pandas as pd

        norms = np.linalg.norm(self.weight, axis=1)
        return pd.DataFrame({"class": self.classes, "bias": self.bias, "norm": norms})

    @property
    def dim(self) -> int:
        """Width of the embeddings it reads."""
        return self.hidden.dim if self.hidden else int(self.weight.shape[1])

    def check(self, encoder: Encoder, *, space: str | None = None) -> None:
        """Raise ModelMismatch if the head cannot read the embeddings of an encoder.

        Parameters
        ----------
        encoder : Encoder
            Its fingerprint is compared.
        space : {"projected", "backbone"}, optional
            The space at hand, if it matters.
        """
        self.check_model(encoder.model, encoder.fingerprint, space=space)

    def check_model(self, model: str, fingerprint: str, *, space: str | None = None) -> None:
        """Raise ModelMismatch as `check`, where only a name and a fingerprint are at hand, as in an index.

        Parameters
        ----------
        model : str
            Canonical name.
        fingerprint : str
            SHA-256 of the weights.
        space : {"projected", "backbone"}, optional
            The space at hand, if it matters.
        """
        if fingerprint != self.fingerprint:
            name = "other weights of the same name" if model == self.model else model
            raise ModelMismatch(f"this head was made with {self.model}, not {name}", hint=self._of_this_model())
        if space is not None and space != self.space:
            raise ModelMismatch(
                f"this head reads {self.space} features, and these are {space}",
                hint="read the pictures again: clipkit classify PHOTOS --head FILE"
                if self.space == "backbone"
                else "clipkit probe DATASET --out FILE --space backbone",
            )

    def _of_this_model(self) -> str:
        model = shlex.quote(self.model)
        return f"clipkit index PHOTOS --rebuild --model {model}; or a new head: clipkit probe DATASET --out FILE"

    def logits(self, embeddings: npt.ArrayLike) -> FloatArray:
        """Logits of the classes.

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            In the head's space.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes`.

        Raises
        ------
        ShapeError
            If the width is another, or a value is NaN or infinite.
        """
        rows = self._checked(embeddings)
        table = np.empty((len(rows), len(self.classes)), np.float32)
        for block, scores in self._blocks(rows):
            np.multiply(scores, np.float32(self.temperature), out=table[block])
        return table

    def probabilities(self, embeddings: npt.ArrayLike) -> FloatArray:
        """Probabilities of the classes: by softmax, or with `multi_label` by a sigmoid for each.

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            In the head's space.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes`.
        """
        table = self.logits(embeddings)
        for block in self._places(len(table)):
            table[block] = _sigmoid(table[block]) if self.multi_label else softmax(table[block])
        return table

    def best(self, embeddings: npt.ArrayLike) -> IntArray:
        """Position of the best class.

        Where the two best lie within rounding they are summed again in double precision, row by row, so that neither
        the size of a block nor the order of the classes changes an answer; equal ones go by name.

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            In the head's space.

        Returns
        -------
        ndarray of shape (n,), int64
            Positions in `classes`.
        """
        rows = self._checked(embeddings)
        chosen = np.empty(len(rows), np.int64)
        for block, scores in self._blocks(rows):
            chosen[block] = self._choose(rows[block], scores)
        return chosen

    def ranked(self, embeddings: npt.ArrayLike, k: int = 1) -> tuple[IntArray, FloatArray]:
        """The k best classes of each row, best first as `best` has it, and their probabilities.

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            In the head's space.
        k : int, default 1
            Cut to the number of classes.

        Returns
        -------
        tuple of ndarray
            Positions, int64, and probabilities, float32: both of shape (n, k).
        """
        rows, k = self._checked(embeddings), min(k, len(self.classes))
        places, sure = np.empty((len(rows), k), np.int64), np.empty((len(rows), k), np.float32)
        for block, scores in self._blocks(rows):
            chosen = self._choose(rows[block], scores)[:, None]
            places[block] = chosen if k == 1 else _first_then(chosen, scores, k)
            scores *= np.float32(self.temperature)
            table = _sigmoid(scores) if self.multi_label else softmax(scores)
            sure[block] = np.take_along_axis(table, places[block], axis=1)
        return places, sure

    def known(self, embeddings: npt.ArrayLike) -> FloatArray:
        """How surely each row shows one of the classes: below `rejection.cut` it is "none of these".

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            In the head's space.

        Returns
        -------
        ndarray of shape (n,), float32
            Cosine with the best class, without what neutral texts say.

        Raises
        ------
        NotFittedError
            If the head has no rejection.
        """
        rule = self.rejection
        if rule is None:
            raise NotFittedError("this head cannot say 'none of these'", hint="make the classifier with unknown=True")
        classes, rows = self.distinct(), self._checked(embeddings)
        best = np.empty(len(rows), np.float32)
        for block in self._places(len(rows)):
            scores = beyond(rows[block], rule.neutral) @ classes.T
            scores -= rule.typical
            best[block] = scores.max(axis=1)
        return best

    def rejects(self, embeddings: npt.ArrayLike, best: IntArray) -> npt.NDArray[np.bool_]:
        """Which rows are "none of these".

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            In the head's space.
        best : ndarray of shape (n,), int64
            The best class of each, as `best` has it.

        Returns
        -------
        ndarray of shape (n,), bool
            False everywhere for a head without a rejection.
        """
        rule = self.rejection
        if rule is None:
            return np.zeros(len(best), np.bool_)
        return np.asarray(self.known(embeddings) < (rule.cut if rule.cuts is None else rule.cuts[best]))

    def distinct(self) -> FloatArray:
        """What each class says beyond neutral texts, at length 1; the weight where there is no rejection.

        Returns
        -------
        ndarray of shape (c, d), float32
            One row a class.
        """
        return _unit(self.weight - self.rejection.neutral) if self.rejection else self.weight

    def predict(self, embeddings: npt.ArrayLike) -> npt.NDArray[Any]:
        """Names of the classes.

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            In the head's space.

        Returns
        -------
        ndarray of shape (n,), str, or of shape (n, c), bool
            "unknown" where a row is rejected; with `multi_label`, which classes are there.
        """
        if self.multi_label:
            return np.asarray(self.logits(embeddings) > 0)
        names = np.array([*self.classes, UNKNOWN])
        chosen = self.best(embeddings)
        chosen[self.rejects(embeddings, chosen)] = -1
        return names[chosen]

    def save(self, file: str | os.PathLike[str]) -> None:
        """Save as one safetensors file, written whole or not at all.

        Parameters
        ----------
        file : str or path
            Replaced if it exists.
        """
        arrays = {"weight": np.ascontiguousarray(self.weight), "bias": np.ascontiguousarray(self.bias)}
        payload: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        if (rule := self.rejection) is not None:
            arrays |= {"neutral": rule.neutral, "typical": rule.typical}
            arrays |= {} if rule.cuts is None else {"cuts": rule.cuts}
            payload["cut"] = rule.cut
        if self.hidden is not None:
            payload["hidden"] = self.hidden.units
            arrays |= {"hidden_weight": np.ascontiguousarray(self.hidden.weight), "hidden_bias": self.hidden.bias}
        write_tensors(file, arrays, payload, form=FORMATS[2 if "cuts" in arrays else self.hidden is not None])

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Head:
        """Load a head that `save` wrote.

        Parameters
        ----------
        file : str or path
            Nothing in it is unpickled.

        Returns
        -------
        Head
            As it was saved.

        Raises
        ------
        ModelError
            If there is no file, or it is not what `save` wrote.
        """
        stored = read_tensors(file, forms=FORMATS, kind="head", hint=MAKE)
        try:
            return _from(stored.payload, stored.arrays)
        except (ValueError, KeyError, TypeError, ShapeError) as error:
            raise ModelError(f"{file} is damaged: {error}", hint=MAKE) from error

    def _facts(self) -> list[str]:
        facts = [f"model {self.model!r}", f"{self.dim} {self.space}"]
        facts += [f"{self.hidden.units} hidden units"] if self.hidden else []
        facts += ["multi-label"] if self.multi_label else []
        return facts + (["can say unknown"] if self.rejection else [])

    def _checked(self, embeddings: npt.ArrayLike) -> FloatArray:
        rows = np.ascontiguousarray(embeddings, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ShapeError(f"embeddings of shape {rows.shape} are not (n, {self.dim})")
        if not np.isfinite(rows).all():
            raise ShapeError("there are embeddings with a NaN or an infinity")
        return self.hidden.apply(rows) if self.hidden else rows

    def _blocks(self, rows: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
        """Logits in pieces, each with its place, before the temperature: (b, c)."""
        for block in self._places(len(rows)):
            scores = rows[block] @ self.weight.T
            if self.bias.any():
                scores += self.bias
            yield block, scores

    def _places(self, count: int) -> list[slice]:
        step = max(1, BLOCK_SCORES // len(self.classes))
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]

    def _check_rejection(self, rule: Rejection) -> None:
        fits = rule.neutral.shape == (self.dim,) and rule.typical.shape == (len(self.classes),)
        if not fits or self.multi_label or self.hidden:
            raise ShapeError("the rejection does not fit the head")
        if rule.neutral.dtype != np.float32 or rule.typical.dtype != np.float32:
            raise ShapeError("the rejection is not float32")
        if rule.cuts is not None and (rule.cuts.shape != rule.typical.shape or rule.cuts.dtype != np.float32):
            raise ShapeError("the cuts do not fit the head")
        numbers = (rule.neutral, rule.typical, rule.cut, 0.0 if rule.cuts is None else rule.cuts)
        if not all(np.isfinite(part).all() for part in numbers):
            raise ShapeError("the rejection is NaN or infinite")

    def _choose(self, rows: FloatArray, scores: FloatArray) -> IntArray:
        chosen = scores.argmax(axis=1)
        highest = np.take_along_axis(scores, chosen[:, None], axis=1)
        reach = np.linalg.norm(rows, axis=1) * np.linalg.norm(self.weight, axis=1).max() + np.abs(self.bias).max()
        is_close = scores >= highest - CLOSE * reach[:, None]
        for i in np.flatnonzero(np.count_nonzero(is_close, axis=1) > 1):
            chosen[i] = self._decide(rows[i], is_close[i])
        return np.asarray(chosen, dtype=np.int64)

    def _decide(self, row: FloatArray, is_close: npt.NDArray[np.bool_]) -> int:
        places = np.flatnonzero(is_close)
        exact = (self.weight[places].astype(np.float64) * row).sum(axis=1) + self.bias[places]
        return int(min(places[exact == exact.max()], key=lambda place: self.classes[place]))


def beyond(embeddings: FloatArray, neutral: FloatArray) -> FloatArray:
    """Embeddings (n, d) without what they share with `neutral` (d,), at length 1 again."""
    share = embeddings @ neutral / max(float(neutral @ neutral), _TINY)
    return _unit(embeddings - share[:, None] * neutral)


def _from(payload: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Head:
    texts = (payload["model"], payload["fingerprint"], *payload["classes"], *payload["notes"])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name is not text")
    rule = None
    if "cut" in payload:
        rule = Rejection(arrays["neutral"], arrays["typical"], float(payload["cut"]), arrays.get("cuts"))
    return Head(
        classes=tuple(payload["classes"]),
        weight=arrays["weight"],
        bias=arrays["bias"],
        temperature=float(payload["temperature"]),
        model=payload["model"],
        fingerprint=payload["fingerprint"],
        space=payload["space"],
        multi_label=bool(payload["multi_label"]),
        rejection=rule,
        notes=tuple(payload["notes"]),
        hidden=Hidden(arrays["hidden_weight"], arrays["hidden_bias"]) if "hidden" in payload else None,
    )


def _first_then(chosen: IntArray, scores: FloatArray, k: int) -> IntArray:
    """`chosen` (n, 1) and the best of the others in scores (n, c), equal ones in class order: (n, k)."""
    keys = -scores
    np.put_along_axis(keys, chosen, -np.inf, axis=1)
    if k < keys.shape[1]:  # every class that is no worse than the k-th, and only then in order
        last = np.partition(keys, k - 1, axis=1)[:, k - 1 : k]
        keys[keys > last] = np.inf
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


def _unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _TINY), dtype=np.float32)


def in_name_order(head: Head) -> Head:
    """The same head with its classes sorted by name."""
    order = sorted(range(len(head.classes)), key=lambda place: head.classes[place])
    rule = head.rejection
    if rule is not None:
        rule = replace(rule, typical=rule.typical[order], cuts=None if rule.cuts is None else rule.cuts[order])
    names = tuple(head.classes[place] for place in order)
    return replace(head, classes=names, weight=head.weight[order], bias=head.bias[order], rejection=rule)


def softmax(logits: npt.ArrayLike) -> FloatArray:
    """Probabilities (n, c) of logits (n, c)."""
    table = np.asarray(logits, dtype=np.float32)
    table = np.asarray(np.exp(table - table.max(axis=1, keepdims=True)))
    table /= table.sum(axis=1, keepdims=True)
    return table


def as_decision(logits: FloatArray) -> FloatArray:
    """Logits (n, c) as `decision_function` gives them: of two classes how far the second is above the first (n,)."""
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits


def _sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float32)  # never overflows


@dataclass(frozen=True, eq=False)
class Hidden:
    """One layer with GELU: gelu(embeddings @ weight.T + bias).

    Attributes
    ----------
    weight : ndarray of shape (h, d), float32
        One row a unit.
    bias : ndarray of shape (h,), float32
        One number a unit.
    """

    weight: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or not self.weight.size or self.bias.shape != (len(self.weight),):
            raise ShapeError(f"hidden weight {self.weight.shape} and bias {self.bias.shape} are not (h, d) and (h,)")
        if self.weight.dtype != np.float32 or self.bias.dtype != np.float32:
            raise ShapeError(f"hidden weight is {self.weight.dtype} and bias {self.bias.dtype}, not float32")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ShapeError("hidden weight or bias is NaN or infinite")

    def __repr__(self) -> str:
        return described(self, f"{self.dim} -> {self.units}")

    @property
    def dim(self) -> int:
        """Width of the embeddings it reads."""
        return int(self.weight.shape[1])

    @property
    def units(self) -> int:
        """Width of what it gives."""
        return len(self.weight)

    def apply(self, embeddings: FloatArray) -> FloatArray:
        """(n, h) of embeddings (n, d)."""
        units = np.empty((len(embeddings), self.units), np.float32)
        for start in range(0, len(embeddings), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            units[block] = gelu(embeddings[block] @ self.weight.T + self.bias)
        return units


def gelu(values: FloatArray) -> FloatArray:
    """x times the normal distribution below x, by tanh (Hendrycks and Gimpel 2016): numpy has no erf."""
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)
    return np.asarray(0.5 * values * (1 + np.tanh(inner)), dtype=np.float32)
