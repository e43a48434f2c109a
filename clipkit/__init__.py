"""clipkit: ask a folder of pictures, classify it without training, and see what a few labels buy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports
from clipkit.core.version import __version__ as __version__

if TYPE_CHECKING:
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
    from clipkit.images.recipe import PixelRecipe as PixelRecipe
    from clipkit.index.image_index import ImageIndex as ImageIndex
    from clipkit.index.update import IndexReport as IndexReport
    from clipkit.learn.fine_tuning import finetune as finetune
    from clipkit.learn.linear_probe import LinearProbe as LinearProbe
    from clipkit.models.encoder import Encoder as Encoder
    from clipkit.models.load import load_encoder as load_encoder
    from clipkit.models.vit import ViTClassifier as ViTClassifier
    from clipkit.search.hits import Hit as Hit
    from clipkit.search.hits import Hits as Hits

_HOMES = {
    "BadIndex": "errors",
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
    "compare": "evaluate.comparison",
    "finetune": "learn.fine_tuning",
    "load_dataset": "datasets.load",
    "load_encoder": "models.load",
}

__all__ = [*sorted(_HOMES), "__version__"]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
