"""Exploring an index: filters, relevance, metadata, duplicates.

- `search`: the best pictures of an index for a query.
- `ask`: the best pictures for a question, each with its relevance.
- `find_duplicates`: pictures that are there more than once, in groups.
- `read_albums`: albums of an index, by name.
- `change_album`: put pictures into an album, or take them out.
- `forget_album`: forget an album.
- `Album`: its name and contents.
- `map_collection`: pictures in two dimensions, in clusters that have names.
- `Map`: positions, clusters and their names.
- `Question`: words, pictures and filters of one question.
- `Filters`: which pictures may answer.
- `Catalogue`: metadata of an index's pictures.
- `Library`: a folder with its index, model and metadata, for threads to share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.explore.albums import Album as Album
    from clipkit.explore.albums import change_album as change_album
    from clipkit.explore.albums import forget_album as forget_album
    from clipkit.explore.albums import read_albums as read_albums
    from clipkit.explore.duplicates import find_duplicates as find_duplicates
    from clipkit.explore.library import Library as Library
    from clipkit.explore.mapping import Map as Map
    from clipkit.explore.mapping import map_collection as map_collection
    from clipkit.explore.metadata import Catalogue as Catalogue
    from clipkit.explore.metadata import Filters as Filters
    from clipkit.explore.question import Question as Question
    from clipkit.explore.question import ask as ask
    from clipkit.explore.question import search as search

_HOMES = {
    "Album": "albums",
    "Catalogue": "metadata",
    "Filters": "metadata",
    "Library": "library",
    "Map": "mapping",
    "Question": "question",
    "ask": "question",
    "change_album": "albums",
    "find_duplicates": "duplicates",
    "forget_album": "albums",
    "map_collection": "mapping",
    "read_albums": "albums",
    "search": "question",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
