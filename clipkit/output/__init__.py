"""Output: results as figures, HTML reports, contact sheets and copies.

- `write_sheet`: hits as one HTML file that needs nothing else.
- `copy_hits`: copies of the pictures of hits in a folder.
- `add_tags`: tags in XMP sidecars beside pictures.
- `write_map`: a collection's map as one HTML file that needs nothing else.
- `write_report`: a comparison as an HTML page, figures and data.
- `confusion_png`: a confusion matrix as a PNG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.output.comparison_html import write_report as write_report
    from clipkit.output.contact_sheet import write_sheet as write_sheet
    from clipkit.output.copy_files import copy_hits as copy_hits
    from clipkit.output.figures import confusion_png as confusion_png
    from clipkit.output.map_html import write_map as write_map
    from clipkit.output.sidecar_tags import add_tags as add_tags

_HOMES = {
    "add_tags": "sidecar_tags",
    "confusion_png": "figures",
    "copy_hits": "copy_files",
    "write_map": "map_html",
    "write_report": "comparison_html",
    "write_sheet": "contact_sheet",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
