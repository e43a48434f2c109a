"""Pictures from words. Experimental: whether imagined pictures find more than words has not been measured.

- `imagine`: pictures of a prompt, and the photographs nearest to them.
- `Imagined`: what `imagine` gives.
- `DiffusionGenerator`: a text-to-image pipeline of diffusers.
- `PictureGenerator`: protocol of what makes pictures of words.
- `GeneratedPicture`: one of them.
- `explain_words`: where each word of a prompt was looked at while a picture of it was made.
- `WordMaps`: what `explain_words` gives.
- `mean_query`: several pictures as one query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.generate.diffusion import DiffusionGenerator as DiffusionGenerator
    from clipkit.generate.imagination import Imagined as Imagined
    from clipkit.generate.imagination import imagine as imagine
    from clipkit.generate.imagination import mean_query as mean_query
    from clipkit.generate.pictures import GeneratedPicture as GeneratedPicture
    from clipkit.generate.pictures import PictureGenerator as PictureGenerator
    from clipkit.generate.word_maps import WordMaps as WordMaps
    from clipkit.generate.word_maps import explain_words as explain_words

_HOMES = {
    "DiffusionGenerator": "diffusion",
    "GeneratedPicture": "pictures",
    "Imagined": "imagination",
    "PictureGenerator": "pictures",
    "WordMaps": "word_maps",
    "explain_words": "word_maps",
    "imagine": "imagination",
    "mean_query": "imagination",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
