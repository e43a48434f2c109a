"""Models: names to weights, encoders, devices, attention maps.

- `load_encoder`: an open_clip encoder by name: alias, open_clip name, hub repository or folder.
- `load_model`: the same, or a classifier of transformers.
- `Encoder`: protocol of what turns pictures and texts into embeddings.
- `OpenClipEncoder`: the encoder that `load_encoder` gives.
- `Preprocess`: one picture to the tensor that a model reads; `encoder.preprocess`.
- `ViTClassifier`: a trained image classifier of transformers.
- `explain_attention`: attention maps of a vision transformer for one picture.
- `AttentionMaps`: what `explain_attention` gives.
- `starter_folder`: folder of the model that comes with clipkit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.models.attention import AttentionMaps as AttentionMaps
    from clipkit.models.attention import explain_attention as explain_attention
    from clipkit.models.base import Preprocess as Preprocess
    from clipkit.models.encoder import Encoder as Encoder
    from clipkit.models.load import load_encoder as load_encoder
    from clipkit.models.load import load_model as load_model
    from clipkit.models.openclip import OpenClipEncoder as OpenClipEncoder
    from clipkit.models.registry import starter_folder as starter_folder
    from clipkit.models.vit import ViTClassifier as ViTClassifier

_HOMES = {
    "AttentionMaps": "attention",
    "Encoder": "encoder",
    "OpenClipEncoder": "openclip",
    "Preprocess": "base",
    "ViTClassifier": "vit",
    "explain_attention": "attention",
    "load_encoder": "load",
    "load_model": "load",
    "starter_folder": "registry",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
