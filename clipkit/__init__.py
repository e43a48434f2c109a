"""clipkit: search a folder of pictures with CLIP, classify it without training, and see what a few labels buy.

Search:

- `load_encoder`: a model by name.
- `ImageIndex`: a folder of pictures that can be searched.
- `Hit`: one search result.
- `Hits`: search results, best first.
- `IndexReport`: what one update of an index did.

Classify:

- `ZeroShotClassifier`: classes from words alone.
- `LinearProbe`: logistic regression on embeddings.
- `ClipTransformer`: embeddings of pictures in pipelines of scikit-learn.
- `Head`: a classifier over embeddings, in one small file.
- `UNKNOWN`: the answer where no class is right.
- `ViTClassifier`: a trained image classifier of transformers.

Learn and compare:

- `load_dataset`: labelled or captioned pictures.
- `finetune`: a new head by gradient descent, perhaps with the tower.
- `adapt`: a model tuned to one's own pictures and words, and proven better.
- `train_clip`: both towers of a CLIP model on pairs of pictures and texts.
- `compare`: methods on one dataset, with intervals.

Imagine (experimental):

- `imagine`: pictures of a prompt, and the photographs nearest to them.

Interfaces:

- `Encoder`: protocol of what makes embeddings.
- `PixelRecipe`: how a model wants its pictures.

Errors (clipkit.errors):

- `ClipkitError`: the root of them all.
- `ImageError`: a picture could not be read.
- `ModelError`: a model could not be had.
- `QueryError`: a query that cannot be understood.
- `ShapeError`: an array that is not embeddings of the right width.
- `BadIndex`: an index that cannot be used; the root of the next five.
- `IndexNotFound`: there is none.
- `ModelMismatch`: it is of another model.
- `IndexTooNew`: it is of a newer clipkit.
- `IndexLocked`: another process is writing it.
- `IndexDamaged`: it is not what clipkit wrote.

More is in the packages models, index, datasets, classify, learn, generate, explore, evaluate, output, plot and bulk,
and in metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports
from clipkit.core.version import __version__ as __version__

if TYPE_CHECKING:
    from clipkit import bulk as bulk
    from clipkit import classify as classify
    from clipkit import datasets as datasets
    from clipkit import evaluate as evaluate
    from clipkit import explore as explore
    from clipkit import generate as generate
    from clipkit import index as index
    from clipkit import learn as learn
    from clipkit import metrics as metrics
    from clipkit import models as models
    from clipkit import output as output
    from clipkit import plot as plot
    from clipkit.classify.head import UNKNOWN as UNKNOWN
    from clipkit.classify.head import Head as Head
    from clipkit.classify.zeroshot import ZeroShotClassifier as ZeroShotClassifier
    from clipkit.datasets.load import load_dataset as load_dataset
    from clipkit.errors import BadIndex as BadIndex
    from clipkit.errors import ClipkitError as ClipkitError
    from clipkit.errors import ImageError as ImageError
    from clipkit.errors import IndexDamaged as IndexDamaged
    from clipkit.errors import IndexLocked as IndexLocked
    from clipkit.errors import IndexNotFound as IndexNotFound
    from clipkit.errors import IndexTooNew as IndexTooNew
    from clipkit.errors import ModelError as ModelError
    from clipkit.errors import ModelMismatch as ModelMismatch
    from clipkit.errors import QueryError as QueryError
    from clipkit.errors import ShapeError as ShapeError
    from clipkit.evaluate.comparison import compare as compare
    from clipkit.generate.imagination import imagine as imagine
    from clipkit.images.recipe import PixelRecipe as PixelRecipe
    from clipkit.index.image_index import ImageIndex as ImageIndex
    from clipkit.index.update import IndexReport as IndexReport
    from clipkit.learn.adaptation import adapt as adapt
    from clipkit.learn.contrastive import train_clip as train_clip
    from clipkit.learn.fine_tuning import finetune as finetune
    from clipkit.learn.linear_probe import LinearProbe as LinearProbe
    from clipkit.learn.transformer import ClipTransformer as ClipTransformer
    from clipkit.models.encoder import Encoder as Encoder
    from clipkit.models.load import load_encoder as load_encoder
    from clipkit.models.vit import ViTClassifier as ViTClassifier
    from clipkit.search.hits import Hit as Hit
    from clipkit.search.hits import Hits as Hits

_HOMES = {
    "BadIndex": "errors",
    "ClipTransformer": "learn.transformer",
    "ClipkitError": "errors",
    "Encoder": "models.encoder",
    "Head": "classify.head",
    "Hit": "search.hits",
    "Hits": "search.hits",
    "ImageError": "errors",
    "ImageIndex": "index.image_index",
    "IndexDamaged": "errors",
    "IndexLocked": "errors",
    "IndexNotFound": "errors",
    "IndexReport": "index.update",
    "IndexTooNew": "errors",
    "LinearProbe": "learn.linear_probe",
    "ModelError": "errors",
    "ModelMismatch": "errors",
    "PixelRecipe": "images.recipe",
    "QueryError": "errors",
    "ShapeError": "errors",
    "UNKNOWN": "classify.head",
    "ViTClassifier": "models.vit",
    "ZeroShotClassifier": "classify.zeroshot",
    "adapt": "learn.adaptation",
    "compare": "evaluate.comparison",
    "finetune": "learn.fine_tuning",
    "imagine": "generate.imagination",
    "load_dataset": "datasets.load",
    "load_encoder": "models.load",
    "train_clip": "learn.contrastive",
}

_PACKAGES = (
    "bulk",
    "classify",
    "datasets",
    "evaluate",
    "explore",
    "generate",
    "index",
    "learn",
    "metrics",
    "models",
    "output",
    "plot",
)
__all__ = [*sorted(_HOMES), "__version__"]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES, _PACKAGES)
