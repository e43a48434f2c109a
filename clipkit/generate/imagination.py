"""Imagining: pictures of a prompt, kept as files, and the photographs nearest to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipkit.core.arrays import Embeddings
from clipkit.core.progress import Progress
from clipkit.core.text import counted, described
from clipkit.errors import QueryError
from clipkit.generate.diffusion import DEFAULT_MODEL, DiffusionGenerator
from clipkit.generate.pictures import GeneratedPicture, PictureGenerator, check_folder, check_request, write_picture
from clipkit.index.image_index import ImageIndex, find
from clipkit.models.encoder import Encoder
from clipkit.search.hits import Hits, check_count

Show = Callable[[Progress], None] | None


@dataclass(frozen=True)
class Imagined:
    """Pictures of a prompt, and what they found.

    Attributes
    ----------
    prompt, model : str
        What was asked, and of which model.
    pictures : tuple of GeneratedPicture
        In the order of their seeds.
    files : tuple of str
        Where they are kept; empty where they are not.
    hits : Hits or None
        The photographs nearest to the mean of the pictures' embeddings; None where none were searched.
    word_hits : Hits or None
        Those nearest to the words.

    Examples
    --------
    >>> imagined = clipkit.imagine("red", "photos", model="tiny-pipeline", n=2)
    >>> imagined
    Imagined('red', 2 pictures, tiny-pipeline)
    >>> len(imagined.hits) == len(imagined.word_hits)
    True
    """

    prompt: str
    model: str
    pictures: tuple[GeneratedPicture, ...]
    files: tuple[str, ...] = ()
    hits: Hits | None = None
    word_hits: Hits | None = None

    def __repr__(self) -> str:
        return described(self, repr(self.prompt), counted(len(self.pictures), "picture"), self.model)


def imagine(
    prompt: str,
    photos: str | os.PathLike[str] | ImageIndex | None = None,
    *,
    model: str | os.PathLike[str] | PictureGenerator = DEFAULT_MODEL,
    n: int = 4,
    seed: int = 0,
    k: int = 10,
    out: str | os.PathLike[str] | None = None,
    progress: Show = None,
) -> Imagined:
    """Make pictures of a prompt, and find the photographs that are most like them. Experimental.

    The pictures become one query: the mean of their embeddings, by the index's own model, made length 1 again. Whether
    that finds more than the words has not been measured; `clipkit evaluate retrieval --imagine` does on your data.

    Parameters
    ----------
    prompt : str
        What the pictures show.
    photos : str, path or ImageIndex, optional
        An indexed folder to search; by default none.
    model : str, path or PictureGenerator
        A pipeline of diffusers by name or folder, or what makes pictures: `DiffusionGenerator` has settings.
    n : int, default 4
        How many pictures.
    seed : int, default 0
        Of the first; picture i has seed + i.
    k : int, default 10
        Photographs of each answer.
    out : str or path, optional
        A folder that keeps the pictures as PNG files with prompt, seed and model in them; nothing is overwritten.
    progress : callable, optional
        Given a `Progress` after each picture.

    Returns
    -------
    Imagined
        The pictures, their files, and the hits of the pictures and of the words.

    Raises
    ------
    QueryError
        If the prompt is empty or too long, n or k is less than 1, or a safety checker has refused every picture.
    IndexNotFound
        If the folder has no index.
    ModelError
        If the pipeline cannot be loaded.

    References
    ----------
    .. [1] R. Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022.

    Examples
    --------
    >>> imagined = clipkit.imagine("a red bicycle", "photos", model="tiny-pipeline", n=1, k=2, out="imagined")
    >>> imagined.pictures[0].pixels.shape, len(imagined.hits)
    ((32, 32, 3), 2)
    >>> imagined.files
    ('imagined/a-red-bicycle-0.png',)
    """
    check_request(prompt, n=n, seed=seed)
    check_count(k)
    index = find(Path(photos))[0] if isinstance(photos, str | os.PathLike) else photos
    if out is not None:
        check_folder(out)
    generator = model if isinstance(model, PictureGenerator) else DiffusionGenerator(model)
    pictures, files = _make(generator, prompt, range(seed, seed + n), out, progress)
    made = Imagined(prompt, generator.model, tuple(pictures), tuple(files))
    return made if index is None else _searched(made, index, k)


def _make(
    generator: PictureGenerator, prompt: str, seeds: range, out: str | os.PathLike[str] | None, progress: Show
) -> tuple[list[GeneratedPicture], list[str]]:
    """Each picture, kept as soon as it is made."""
    pictures, files = list[GeneratedPicture](), list[str]()
    facts = getattr(generator, "facts", {"model": generator.model})
    for done, seed in enumerate(seeds, 1):
        pictures += generator.generate(prompt, n=1, seed=seed)
        if out is not None:
            files.append(str(write_picture(pictures[-1], Path(out), prompt=prompt, facts=facts)))
        if progress:
            progress(Progress(done, len(seeds), files[-1] if files else ""))
    return pictures, files


def _searched(made: Imagined, index: ImageIndex, k: int) -> Imagined:
    encoder = index.query_encoder
    (hits,) = index.search_embeddings(mean_query(made.pictures, encoder), k)
    (word_hits,) = index.search_embeddings(encoder.encode_texts([made.prompt]), k)
    return replace(made, hits=hits, word_hits=word_hits)


def mean_query(pictures: Sequence[GeneratedPicture], encoder: Encoder) -> Embeddings:
    """Several pictures as one query: the mean of their embeddings, made length 1 again.

    Parameters
    ----------
    pictures : sequence of GeneratedPicture
        Those that a safety checker has refused do not count.
    encoder : Encoder
        Of the index.

    Returns
    -------
    ndarray of shape (1, d), float32
        Length 1.

    Raises
    ------
    QueryError
        If none is left.

    Examples
    --------
    >>> from clipkit.generate import DiffusionGenerator, mean_query
    >>> pictures = DiffusionGenerator("tiny-pipeline", steps=2).generate("red", n=2)
    >>> mean_query(pictures, clipkit.load_encoder("starter")).shape[0]
    1
    """
    shown = [picture.pixels for picture in pictures if not picture.is_refused]
    if not shown:
        raise QueryError("the safety checker has refused every picture", hint="other words, or --seed 1")
    mean = encoder.encode_images(shown).mean(axis=0, keepdims=True)  # (1, d)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
