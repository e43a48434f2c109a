"""Choices that a search offers, as words; importing them is cheap."""

from __future__ import annotations

from typing import Literal

from clipkit.search.hits import Relevance

Level = Literal["exact", "near", "similar"]

RELEVANCES: tuple[Relevance, ...] = ("strong", "likely", "weak")  # the strongest first
SHAPES = ("landscape", "portrait", "square")
LEVELS: tuple[Level, ...] = ("exact", "near", "similar")  # of duplicates; each has what the one before has
