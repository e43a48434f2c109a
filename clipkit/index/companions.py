"""Companions: files that belong to the picture beside them, as a sidecar, the RAW of a JPEG, a live photo's video.

A *shot* is what they share: the name without its suffixes. `IMG_1.CR2`, `IMG_1.MOV`, `IMG_1.xmp` and `IMG_1.JPG.xmp`
are companions of `IMG_1.JPG`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cached_property

from clipkit.images.formats import CAMERA, is_picture, is_raw

EDITS = (".xmp", ".aae")  # sidecars of editors; Apple's
VIDEO = ".mov"  # what a live photo moves by


class Companions:
    """The names in one folder, and which belongs to which."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    @cached_property
    def _shots(self) -> dict[str, list[str]]:
        shots: dict[str, list[str]] = {}
        for name in self._names:
            for shot in {_shot(name), _shot(_shot(name))}:
                shots.setdefault(shot, []).append(name)
        return shots

    def is_counted_with_another(self, name: str) -> bool:
        """Whether this is a RAW file or a video beside what the camera made of the same shot."""
        if not (is_raw(name) or _suffix(name) == VIDEO):
            return False
        return any(_is_of_camera(other) and _shot(other) == _shot(name) for other in self._beside(name))

    def of(self, name: str) -> list[str]:
        """Names of the companions of a picture."""
        return [other for other in self._beside(name) if self._belongs(other, name)]

    def others(self, name: str, companion: str) -> list[str]:
        """Names of other pictures to which a companion of `name` belongs too."""
        pictures = [other for other in self._beside(name) if is_picture(other) and other != companion]
        return [other for other in pictures if companion in self.of(other) and other not in self.of(name)]

    def _beside(self, name: str) -> list[str]:
        """Names of the same shot, with whatever suffixes."""
        shot = _shot(name)
        return [other for other in self._shots.get(shot, ()) if other != name and other.startswith(f"{shot}.")]

    def _belongs(self, other: str, name: str) -> bool:
        owner, suffix = _shot(other), _suffix(other)
        if suffix in EDITS:
            is_raws = owner != name and is_raw(owner) and self._belongs(owner, name)
            return owner in (name, _shot(name)) or is_raws
        return owner == _shot(name) and (is_raw(other) or suffix == VIDEO) and _is_of_camera(name)


def _shot(name: str) -> str:
    return os.path.splitext(name)[0]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_of_camera(name: str) -> bool:
    return _suffix(name) in CAMERA
