"""Embedding on a cluster: pictures anywhere, in shards of parquet.

- `Shards`: a folder or URL of shards.
- `Recall`: what an index beside shards finds.
- `measure_recall`: ask it 500 texts, and compare with an exact scan.
- `merge`: make an ordinary index of shards.
- `prompts`: texts as people may ask.
- `search`: the pictures of shards that fit a query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.bulk.lance_index import Recall as Recall
    from clipkit.bulk.merging import merge as merge
    from clipkit.bulk.queries import search as search
    from clipkit.bulk.recall import measure_recall as measure_recall
    from clipkit.bulk.recall import prompts as prompts
    from clipkit.bulk.shards import Shards as Shards

_HOMES = {
    "Recall": "lance_index",
    "Shards": "shards",
    "measure_recall": "recall",
    "merge": "merging",
    "prompts": "recall",
    "search": "queries",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
