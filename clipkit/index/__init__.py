"""Index of a folder: scan, update, search, check, import and export.

- `ImageIndex`: a folder of pictures that can be searched.
- `IndexReport`: what one update did.
- `export`: write embeddings as other tools lay them out.
- `import_`: take embeddings that another tool made.
- `prune`: forget pictures that are missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.index.check import prune as prune
    from clipkit.index.image_index import ImageIndex as ImageIndex
    from clipkit.index.import_export import export as export
    from clipkit.index.import_export import import_ as import_
    from clipkit.index.update import IndexReport as IndexReport

_HOMES = {
    "ImageIndex": "image_index",
    "IndexReport": "update",
    "export": "import_export",
    "import_": "import_export",
    "prune": "check",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
