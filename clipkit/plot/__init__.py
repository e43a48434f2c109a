"""Plots (matplotlib): pictures, results and models on axes of yours, or on a new figure.

- `sample_grid`: pictures with their labels, and with what was predicted.
- `confusion_matrix`: which class was given which.
- `learning_curves`: loss and accuracy by epoch, or accuracy by labelled pictures.
- `reliability_diagram`: whether probabilities are right.
- `embedding_map`: embeddings in two dimensions.
- `patch_grid`: how a model cuts a picture.
- `attention`: where a model looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.plot.charts import confusion_matrix as confusion_matrix
    from clipkit.plot.charts import embedding_map as embedding_map
    from clipkit.plot.charts import learning_curves as learning_curves
    from clipkit.plot.charts import reliability_diagram as reliability_diagram
    from clipkit.plot.pictures import attention as attention
    from clipkit.plot.pictures import patch_grid as patch_grid
    from clipkit.plot.pictures import sample_grid as sample_grid

_HOMES = {
    "attention": "pictures",
    "confusion_matrix": "charts",
    "embedding_map": "charts",
    "learning_curves": "charts",
    "patch_grid": "pictures",
    "reliability_diagram": "charts",
    "sample_grid": "pictures",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
