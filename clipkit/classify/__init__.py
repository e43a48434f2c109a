"""Classification without training: classes from words, heads, labels of an index.

- `ZeroShotClassifier`: classes from words alone.
- `explain_prediction`: which prompts spoke for a class.
- `make_prompts`: templates filled with classes.
- `read_classes`: classes from a list, a file or a set's name.
- `ClassPrompts`: classes and the prompts of each.
- `Head`: a classifier over embeddings, in one small file.
- `label_index`: labels of an index's pictures, from stored embeddings.
- `label_pictures`: labels of an index's pictures, which are read again.
- `UNKNOWN`: the answer where no class is right: "unknown".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.classify.head import UNKNOWN as UNKNOWN
    from clipkit.classify.head import Head as Head
    from clipkit.classify.labels import label_index as label_index
    from clipkit.classify.labels import label_pictures as label_pictures
    from clipkit.classify.prompts import ClassPrompts as ClassPrompts
    from clipkit.classify.prompts import make_prompts as make_prompts
    from clipkit.classify.prompts import read_classes as read_classes
    from clipkit.classify.words import explain_prediction as explain_prediction
    from clipkit.classify.zeroshot import ZeroShotClassifier as ZeroShotClassifier

_HOMES = {
    "ClassPrompts": "prompts",
    "Head": "head",
    "UNKNOWN": "head",
    "ZeroShotClassifier": "zeroshot",
    "explain_prediction": "words",
    "label_index": "labels",
    "label_pictures": "labels",
    "make_prompts": "prompts",
    "read_classes": "prompts",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
