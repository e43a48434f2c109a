"""Choices that a search offers, as words; importing them is cheap."""

from __future__ import annotations

from clipkit.search.hits import Relevance

RELEVANCES: tuple[Relevance, ...] = ("strong", "likely", "weak")  # the strongest first
SHAPES = ("landscape", "portrait", "square")
