"""Embedding on a cluster: pictures anywhere, in shards of parquet.

- `embed`: embeddings of pictures in a folder, a bucket, tars or tables, by the machines of a Ray cluster.
- `BulkReport`: what one run of it did.
- `Shards`: a folder or URL of shards.
- `search`: the pictures of shards that fit a query.
- `measure_recall`: ask an index beside shards 500 texts, and compare with an exact scan.
- `Recall`: what it finds.
- `prompts`: texts as people may ask.
- `merge`: make an ordinary index of shards.
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
    from clipkit.bulk.run import BulkReport as BulkReport
    from clipkit.bulk.run import embed as embed
    from clipkit.bulk.shards import Shards as Shards

_HOMES = {
    "BulkReport": "run",
    "Recall": "lance_index",
    "Shards": "shards",
    "embed": "run",
    "measure_recall": "recall",
    "merge": "merging",
    "prompts": "recall",
    "search": "queries",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
