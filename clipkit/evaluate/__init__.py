"""Evaluation: zero-shot and retrieval protocols, comparisons of methods.

- `evaluate_zeroshot`: accuracy of classes from words on labelled pictures.
- `evaluate_retrieval`: recall of captions and pictures that search each other.
- `evaluate_imagined`: recall of pictures made of captions, against that of the captions. Experimental.
- `compare`: methods at several numbers of labels, with intervals.
- `Comparison`: what `compare` gives.
- `load_comparison`: a comparison from its results.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.evaluate.comparison import compare as compare
    from clipkit.evaluate.imagined import evaluate_imagined as evaluate_imagined
    from clipkit.evaluate.results import Comparison as Comparison
    from clipkit.evaluate.results import load_comparison as load_comparison
    from clipkit.evaluate.zeroshot import evaluate_retrieval as evaluate_retrieval
    from clipkit.evaluate.zeroshot import evaluate_zeroshot as evaluate_zeroshot

_HOMES = {
    "Comparison": "results",
    "compare": "comparison",
    "evaluate_imagined": "imagined",
    "evaluate_retrieval": "zeroshot",
    "evaluate_zeroshot": "zeroshot",
    "load_comparison": "results",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
