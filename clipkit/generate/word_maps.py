"""Word maps: which places of a picture asked which word while a diffusion pipeline made it.

The keys and values of a UNet's cross-attention are the words' hidden states, its queries the places of the latents: the
softmax of their products says how much each place takes of each token. Kept is its mean over heads, layers and steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.core.arrays import FloatArray
from clipkit.core.text import counted, described
from clipkit.errors import ModelError, QueryError
from clipkit.generate.diffusion import DiffusionGenerator
from clipkit.images.thumbnails import Canvas

if TYPE_CHECKING:
    import torch

CROSS_ATTENTION = "attn2"  # as diffusers calls it in every block of a UNet
WITH_UNET = "a pipeline with a UNet, as Stable Diffusion 1, 2 and XL have"


@dataclass(frozen=True)
class WordMaps:
    """Where each word of a prompt was looked at.

    Attributes
    ----------
    prompt, model : str
        What was asked, and of which model.
    seed : int
        Of the picture.
    picture : ndarray of shape (h, w, 3), uint8
        What was made.
    words : tuple of str
        In the order of the prompt.
    maps : ndarray of shape (n_words, rows, columns), float32
        The share of each latent place's attention that went to the word's tokens, mean of heads, layers and steps.
    layers, steps : int
        Of how many.
    is_refused : bool
        Whether a safety checker has blackened the picture.

    Examples
    --------
    >>> from clipkit.generate import DiffusionGenerator, explain_words
    >>> maps = explain_words(DiffusionGenerator("tiny-pipeline", steps=2), "a red bicycle")
    >>> maps.words, maps.maps.shape
    (('a', 'red', 'bicycle'), (3, 16, 16))
    >>> maps.shares["red"] > maps.shares["bicycle"]
    True
    """

    prompt: str
    model: str
    seed: int
    picture: Canvas
    words: tuple[str, ...]
    maps: FloatArray
    layers: int
    steps: int
    is_refused: bool = False

    def __repr__(self) -> str:
        return described(self, repr(self.prompt), counted(len(self.words), "word"), self.model)

    @property
    def shares(self) -> dict[str, float]:
        """The mean of each word's map; of a word that comes twice, the sum of both.

        Returns
        -------
        dict of str to float
            What is left of 1 went to the tokens of begin, end and padding.
        """
        found: dict[str, float] = {}
        for word, share in zip(self.words, self.maps.mean(axis=(1, 2)).tolist(), strict=True):
            found[word] = found.get(word, 0.0) + share
        return found


def explain_words(generator: DiffusionGenerator, prompt: str, *, seed: int = 0) -> WordMaps:
    """Make a picture, and say where each word was looked at while it was made.

    It is made as ever: the weights are computed beside, from what enters each cross-attention. They say where a word's
    state went in, not why the picture shows what it shows.

    Parameters
    ----------
    generator : DiffusionGenerator
        Of a pipeline with a UNet.
    prompt : str
        What the picture shows.
    seed : int, default 0
        Of the picture.

    Returns
    -------
    WordMaps
        The picture and a map a word.

    Raises
    ------
    ModelError
        If the pipeline has no UNet with cross-attention.

    References
    ----------
    .. [1] R. Tang et al., "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", ACL 2023.

    Examples
    --------
    >>> from clipkit.generate import DiffusionGenerator, explain_words
    >>> generator = DiffusionGenerator("tiny-pipeline", steps=2)
    >>> maps = explain_words(generator, "a red bicycle", seed=3)
    >>> (maps.picture == generator.generate("a red bicycle", seed=3)[0].pixels).all()
    np.True_
    """
    generator.check(prompt, seed=seed)
    layers = _layers(generator.pipeline)
    words, owners = _words(generator.pipeline.tokenizer, prompt)
    sums = _Sums(layers)
    with sums.watching(generator.pipeline.unet):
        (picture,) = generator.generate(prompt, seed=seed)
    shares = sums.mean()  # (tokens, rows, columns)
    maps = np.stack(
        [shares[[at for at, owner in enumerate(owners) if owner == word]].sum(0) for word in range(len(words))]
    )
    pixels, is_refused = picture.pixels, picture.is_refused
    return WordMaps(prompt, generator.model, seed, pixels, words, maps, len(layers), sums.steps, is_refused)


def _layers(pipeline: Any) -> dict[str, Any]:
    unet = getattr(pipeline, "unet", None)
    layers = {name: one for name, one in unet.named_modules() if name.endswith(CROSS_ATTENTION)} if unet else {}
    if not layers:
        raise ModelError(f"a {type(pipeline).__name__} has no UNet with cross-attention", hint=WITH_UNET)
    return layers


def _words(tokenizer: Any, prompt: str) -> tuple[tuple[str, ...], list[int]]:
    """The words as the tokenizer has them, and for each token the position of its word, -1 for begin and end."""
    ids: list[int] = tokenizer(prompt, truncation=False).input_ids
    words, owners, is_open = list[list[int]](), list[int](), False
    for token, text in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
        if token in tokenizer.all_special_ids:
            owners.append(-1)
            continue
        if not is_open:
            words.append([])
        words[-1].append(token)
        owners.append(len(words) - 1)
        is_open = not text.endswith("</w>")
    if not words:
        raise QueryError("the prompt has no words", hint='clipkit explain --prompt "a red dog" --model MODEL')
    return tuple(tokenizer.decode(word).strip() for word in words), owners  # tokens are bytes of UTF-8 in disguise


class _Sums:
    """Attention weights of the prompt's half of each batch, summed over layers and steps at the latents' size."""

    def __init__(self, layers: dict[str, Any]) -> None:
        self._layers = layers
        self._size = (1, 1)
        self._sum: Any = 0.0
        self._count = 0

    @property
    def steps(self) -> int:
        return self._count // len(self._layers)

    def mean(self) -> FloatArray:
        """(tokens, rows, columns)."""
        mean: FloatArray = (self._sum / self._count).cpu().numpy().astype(np.float32)
        return mean

    @contextmanager
    def watching(self, unet: Any) -> Iterator[None]:
        with ExitStack() as hooks:
            hooks.callback(unet.register_forward_pre_hook(self._note_size, with_kwargs=True).remove)
            for layer in self._layers.values():
                hooks.callback(layer.register_forward_pre_hook(self._add, with_kwargs=True).remove)
            yield

    def _note_size(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        latents = given[0] if given else named["sample"]
        self._size = (int(latents.shape[-2]), int(latents.shape[-1]))

    def _add(self, layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        import torch

        places = given[0] if given else named["hidden_states"]  # (batch, places, c)
        states = named["encoder_hidden_states"]  # (batch, tokens, d): the keys and the values
        weights = attention_weights(layer, places[-1:], states[-1:])[0].mean(0)  # (places, tokens): mean of the heads
        rows, columns = _grid(len(weights), self._size)
        maps = weights.T.reshape(1, -1, rows, columns)
        self._sum = self._sum + torch.nn.functional.interpolate(maps, self._size, mode="bilinear")[0]
        self._count += 1


def attention_weights(layer: Any, places: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Softmax of queries and keys of one of diffusers' cross-attentions: (batch, heads, places, tokens), float32."""
    queries, keys = layer.to_q(places).float(), layer.to_k(states).float()
    queries, keys = (one.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for one in (queries, keys))
    weights: torch.Tensor = (queries @ keys.transpose(-1, -2) * layer.scale).softmax(-1)
    return weights


def _grid(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer of so many places: the latents, halved as often as it takes, rounded up."""
    rows, columns = size
    while rows * columns > count:
        rows, columns = -(-rows // 2), -(-columns // 2)
    if rows * columns != count:
        raise ModelError(f"a layer of {count} places is none of latents {size[0]} x {size[1]}", hint=WITH_UNET)
    return rows, columns
