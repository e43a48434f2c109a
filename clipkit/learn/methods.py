"""Methods table: every way to name classes, for `probe`, `compare`, the page and reports. Importing it is cheap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import numpy.typing as npt

    from clipkit.classify.head import Head
    from clipkit.core.arrays import Embeddings
    from clipkit.learn.base import Choice
    from clipkit.models.encoder import Encoder


class Estimator(Protocol):
    """A classifier of embeddings that learns from labels. choice_: what `fit` chose on validation, or None."""

    choice_: Choice[Any] | None

    def fit(
        self,
        X: Embeddings,  # noqa: N803  scikit-learn's name
        y: Sequence[str] | npt.NDArray[Any],
        *,
        validation: tuple[Embeddings, Sequence[str] | npt.NDArray[Any]] | None,
    ) -> Self: ...
    def predict(self, X: Embeddings) -> npt.NDArray[Any]: ...  # noqa: N803


class HeadEstimator(Estimator, Protocol):
    """One whose result is a linear head, perhaps behind a hidden layer."""

    def head(self, encoder: Encoder) -> Head: ...


@dataclass(frozen=True)
class Method:
    """One method of `METHODS`: a way to name classes.

    Attributes
    ----------
    about : str
        In a few words.
    space : str or None
        Of the features it reads in a comparison; None where it reads the pictures.
    estimator : str
        "module:class" in `clipkit.learn`; "" for those that are no estimator on embeddings.
    takes : tuple of str
        Which of space, seed, zeroshot and C it is made with.
    options : mapping
        Further arguments.
    has_head : bool
        Whether `clipkit probe` can save its result.
    most_seeds : int or None
        More would take hours.
    """

    about: str
    space: str | None = "projected"
    estimator: str = ""
    takes: tuple[str, ...] = ("seed",)
    options: Mapping[str, object] = field(default_factory=dict)
    has_head: bool = False
    most_seeds: int | None = None

    @property
    def needs_words(self) -> bool:
        """Whether it starts from the classes' names."""
        return "zeroshot" in self.takes

    def make(self, *, space: str, seed: int, zeroshot: Head | None, C: float | None = None) -> Estimator:  # noqa: N803
        """An estimator that has learned nothing yet. C: inverse regularisation, None lets it choose."""
        module, _, name = self.estimator.partition(":")
        known = {"space": space, "seed": seed, "zeroshot": zeroshot, "C": C}
        made: Estimator = getattr(import_module(f"clipkit.learn.{module}"), name)(
            **{name: known[name] for name in self.takes}, **self.options
        )
        return made


PROBE = "linear_probe:LinearProbe"
TWO_LAYERS = {"hidden": 512}  # units, where nobody says another number
METHODS: dict[str, Method] = {
    "zeroshot": Method("the classes' names alone", takes=("zeroshot",)),
    "probe": Method("logistic regression on embeddings", "projected", PROBE, ("space", "C", "seed"), has_head=True),
    "probe-backbone": Method("logistic regression before the projection", "backbone", PROBE, ("space", "C", "seed")),
    "text-probe": Method(
        "logistic regression that starts from the names",
        estimator=PROBE,
        takes=("zeroshot", "C", "seed"),
        has_head=True,
    ),
    "gelu": Method(
        "two layers with a GELU before the projection", "backbone", PROBE, ("space", "seed"), TWO_LAYERS, has_head=True
    ),
    "knn": Method("the nearest training pictures vote", estimator="neighbors:NearestNeighbours"),
    "prototypes": Method(
        "the nearest class mean", estimator="prototypes:Prototypes", takes=("space", "seed"), has_head=True
    ),
    "tip-adapter": Method(
        "names and a cache of pictures", estimator="tip_adapter:TipAdapter", takes=("zeroshot", "seed")
    ),
    "tip-adapter-f": Method(
        "names and a cache of pictures whose keys are trained",
        estimator="tip_adapter:TipAdapterF",
        takes=("zeroshot", "seed"),
    ),
    "blend": Method(
        "a blend of names and class means",
        estimator="lp_plus_plus:TextBlend",
        takes=("zeroshot", "seed"),
        has_head=True,
    ),
    "finetune": Method("a new head by gradient descent, pictures augmented", None, takes=(), most_seeds=1),
}
HEAD_METHODS = tuple(name for name, method in METHODS.items() if method.has_head)
