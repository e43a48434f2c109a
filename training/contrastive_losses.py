"""Contrastive losses: InfoNCE with several captions a photograph, and naming the classes as a teacher does."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def caption_loss(images: Tensor, texts: Tensor, scale: Tensor, weights: Tensor) -> Tensor:
    """InfoNCE both ways; texts (b * k, d): k captions for each of the images (b, d), whose weights are (b,).

    All captions of a photograph are right answers, alike; each caption has one right photograph.
    """
    each = len(texts) // len(images)
    logits = scale * images @ texts.T  # (b, b * k)
    own = torch.arange(len(images)).repeat_interleave(each)  # (b * k,): the photograph of each caption
    of_captions = F.cross_entropy(logits.T, own, reduction="none").unflatten(0, (-1, each)).mean(1)
    right = own == torch.arange(len(images))[:, None]
    of_images = -logits.log_softmax(1)[right].unflatten(0, (-1, each)).mean(1)
    return (weights * (of_captions + of_images)).sum() / (2 * weights.sum())


def mixed_caption_loss(images: Tensor, texts: Tensor, scale: Tensor, weights: Tensor, shares: Tensor) -> Tensor:
    """`caption_loss` of images that hold `shares` (b,) of the one before them: "mixup" (Zhang et al. 2018)."""
    if not shares.any():
        return caption_loss(images, texts, scale, weights)
    before, share = texts.roll(len(texts) // len(images), 0), shares.mean()
    own = caption_loss(images, texts, scale, weights * (1 - shares))
    return (1 - share) * own + share * caption_loss(images, before, scale, weights * shares)


def naming_loss(logits: Tensor, odds: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the named classes, from logits (b, c), to the teacher's odds (b, c)."""
    return F.kl_div(logits.log_softmax(1), odds, reduction="batchmean")
