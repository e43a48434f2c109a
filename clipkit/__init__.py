"""clipkit: ask a folder of pictures, classify it without training, and see what a few labels buy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipkit.encoder import Encoder as Encoder
    from clipkit.encoder import load_encoder as load_encoder
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
    from clipkit.head import UNKNOWN as UNKNOWN
    from clipkit.head import Head as Head
    from clipkit.index import ImageIndex as ImageIndex
    from clipkit.probe import LinearProbe as LinearProbe
    from clipkit.records import Hit as Hit
    from clipkit.records import Hits as Hits
    from clipkit.records import IndexReport as IndexReport
    from clipkit.records import PixelRecipe as PixelRecipe
    from clipkit.vit import ViTClassifier as ViTClassifier
    from clipkit.zeroshot import ZeroShotClassifier as ZeroShotClassifier

__version__ = "0.1.0"

# Where each public name lives. They are imported when first used (PEP 562), so that `import clipkit` costs nothing.
_HOMES = {
    "Encoder": "encoder",
    "load_encoder": "encoder",
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
    "UNKNOWN": "head",
    "Head": "head",
    "ImageIndex": "index",
    "Hit": "records",
    "Hits": "records",
    "IndexReport": "records",
    "PixelRecipe": "records",
    "LinearProbe": "probe",
    "ViTClassifier": "vit",
    "ZeroShotClassifier": "zeroshot",
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
