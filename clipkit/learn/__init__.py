"""Classifiers that learn from labels: probes, few-shot methods, fine-tuning.

- `LinearProbe`: logistic regression on embeddings.
- `NearestNeighbours`: k-nearest neighbours.
- `Prototypes`: the nearest class mean.
- `TipAdapter`: zero-shot logits and a cache of labelled pictures.
- `TipAdapterF`: Tip-Adapter with trained keys.
- `TextBlend`: LP++: a blend of text and picture prototypes.
- `ClipTransformer`: embeddings of pictures in pipelines of scikit-learn.
- `METHODS`: every method by name, as `compare` and `clipkit probe` take them.
- `fit_head`: a head from a dataset, its settings chosen on pictures held back.
- `finetune`: a new head by gradient descent, perhaps with the tower.
- `Recipe`: hyperparameters of `finetune`.
- `FineTuned`: what `finetune` gives.
- `train_clip`: both towers of a CLIP model on pairs of pictures and texts.
- `ContrastiveRecipe`: hyperparameters of `train_clip`.
- `TrainedClip`: what `train_clip` gives.
- `adapt`: a model tuned to one's own pictures and words, written where it is proven better.
- `AdaptRecipe`: what learns in `adapt`, and how.
- `Adaptation`: what `adapt` gives.
- `Change`: one number of it, before and after.
- `CurvePoint`: its gain for one number of training pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.learn.adaptation import Adaptation as Adaptation
    from clipkit.learn.adaptation import CurvePoint as CurvePoint
    from clipkit.learn.adaptation import adapt as adapt
    from clipkit.learn.contrastive import ContrastiveRecipe as ContrastiveRecipe
    from clipkit.learn.contrastive import TrainedClip as TrainedClip
    from clipkit.learn.contrastive import train_clip as train_clip
    from clipkit.learn.fine_tuning import FineTuned as FineTuned
    from clipkit.learn.fine_tuning import finetune as finetune
    from clipkit.learn.fitting import fit_head as fit_head
    from clipkit.learn.linear_probe import LinearProbe as LinearProbe
    from clipkit.learn.lp_plus_plus import TextBlend as TextBlend
    from clipkit.learn.methods import METHODS as METHODS
    from clipkit.learn.neighbors import NearestNeighbours as NearestNeighbours
    from clipkit.learn.prototypes import Prototypes as Prototypes
    from clipkit.learn.retrieval_change import Change as Change
    from clipkit.learn.tip_adapter import TipAdapter as TipAdapter
    from clipkit.learn.tip_adapter import TipAdapterF as TipAdapterF
    from clipkit.learn.trainer import Recipe as Recipe
    from clipkit.learn.transformer import ClipTransformer as ClipTransformer
    from clipkit.learn.tuning import AdaptRecipe as AdaptRecipe

_HOMES = {
    "AdaptRecipe": "tuning",
    "Adaptation": "adaptation",
    "Change": "retrieval_change",
    "CurvePoint": "adaptation",
    "ClipTransformer": "transformer",
    "ContrastiveRecipe": "contrastive",
    "FineTuned": "fine_tuning",
    "LinearProbe": "linear_probe",
    "METHODS": "methods",
    "NearestNeighbours": "neighbors",
    "Prototypes": "prototypes",
    "Recipe": "trainer",
    "TextBlend": "lp_plus_plus",
    "TipAdapter": "tip_adapter",
    "TipAdapterF": "tip_adapter",
    "TrainedClip": "contrastive",
    "adapt": "adaptation",
    "finetune": "fine_tuning",
    "fit_head": "fitting",
    "train_clip": "contrastive",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
