"""clipkit: ask a folder of pictures, classify it without training, and see what a few labels buy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipkit.classify.head import UNKNOWN as UNKNOWN
    from clipkit.classify.head import Head as Head
    from clipkit.classify.zeroshot import ZeroShotClassifier as ZeroShotClassifier
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
    from clipkit.index.image_index import ImageIndex as ImageIndex
    from clipkit.learn.linear_probe import LinearProbe as LinearProbe
    from clipkit.models.openclip import Encoder as Encoder
    from clipkit.models.openclip import load_encoder as load_encoder
    from clipkit.models.vit import ViTClassifier as ViTClassifier
    from clipkit.store.records import Hit as Hit
    from clipkit.store.records import Hits as Hits
    from clipkit.store.records import IndexReport as IndexReport
    from clipkit.store.records import PixelRecipe as PixelRecipe

__version__ = "0.1.0"

# Where each public name lives. They are imported when first used (PEP 562), so that `import clipkit` costs nothing.
_HOMES = {
    "Encoder": "models.openclip",
    "load_encoder": "models.openclip",
    "BadIndex": "errors",
    "ClipkitError": "errors",
    "ImageError": "errors",
    "IndexDamaged": "errors",
    "IndexLocked": "errors",
    "IndexNotFound": "errors",
    "IndexTooNew": "errors",
    "ModelError": "errors",
    "ModelMismatch": "errors",
    "QueryError": "errors",
    "ShapeError": "errors",
    "UNKNOWN": "classify.head",
    "Head": "classify.head",
    "ImageIndex": "index.image_index",
    "Hit": "store.records",
    "Hits": "store.records",
    "IndexReport": "store.records",
    "PixelRecipe": "store.records",
    "LinearProbe": "learn.linear_probe",
    "ViTClassifier": "models.vit",
    "ZeroShotClassifier": "classify.zeroshot",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipkit' has no attribute {name!r}")
    value = getattr(import_module(f"clipkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
