"""Duplicates: pictures of an index whose files have the same content."""

from __future__ import annotations

from clipkit.explore.metadata import Catalogue, Fact
from clipkit.index.image_index import ImageIndex
from clipkit.index.paths import filter_for


def find_duplicates(index: ImageIndex, *, below: str = "") -> list[tuple[Fact, ...]]:
    """Groups of two or more pictures with equal bytes, the largest group first; below: only in that folder.

    QueryError where no picture lies there.
    """
    catalogue = Catalogue.read(index)
    is_chosen = filter_for(catalogue.paths, below)
    groups = ([fact for id_ in ids if (fact := catalogue.fact(id_)) is not None] for ids in catalogue.duplicates())
    chosen = (tuple(fact for fact in facts if is_chosen is None or is_chosen(fact.path)) for facts in groups)
    return sorted((group for group in chosen if len(group) > 1), key=len, reverse=True)
