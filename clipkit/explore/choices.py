"""Choices that a search offers, as words; importing them is cheap."""

from __future__ import annotations

from typing import Literal

Relevance = Literal["strong", "likely", "weak"]
RELEVANCES: tuple[Relevance, ...] = ("strong", "likely", "weak")  # the strongest first
SHAPES = ("landscape", "portrait", "square")
