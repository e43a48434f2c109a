"""Nouns and pairs of nouns that captions mention, as queries with several right answers: words as people search."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captioned_cells import tokenize
from picture_sets import photographs
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))  # what is a noun is said there alone
from nouns import AND, ONE, Mentions, find_mentions, together

from clipkit.metrics import auroc

FORMS = {1: ("a photo of a {}", "a {}", "{}", "a picture of a {}")}
FORMS |= {2: ("a photo of a {} and a {}", "a {} and a {}", "{} and {}", "a {} with a {}")}
SCALE = 30.0  # of the cosines


@dataclass(frozen=True)
class Mentioned:
    """The nouns, and which share (photographs, nouns) of the captions of each photograph mentions each of them."""

    nouns: tuple[str, ...]
    shares: Tensor

    def queries(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Tokens (2 * count, 32) of nouns and of pairs, and the shares of the rows (2 * count, b) that mention them.

        Nouns that two rows mention, each with the same chance; and two nouns of a row, for which the smaller share
        counts. There are fewer nouns where the rows mention fewer.
        """
        shares = self.shares[rows].float()
        often = torch.nonzero((shares > 0).sum(0) >= 2)
        chosen = [*often[torch.randperm(len(often))[:count]]]
        several = torch.nonzero((shares > 0).sum(1) >= 2).flatten()
        for row in several[torch.randint(len(several), (count,))]:
            mentioned = torch.nonzero(shares[row]).flatten()
            chosen.append(mentioned[torch.randperm(len(mentioned))[:2]])
        return tokenize([self._text(nouns) for nouns in chosen]), torch.stack([shares[:, n].amin(1) for n in chosen])

    def _text(self, nouns: Tensor) -> str:
        forms = FORMS[len(nouns)]
        return forms[int(torch.randint(len(forms), ()))].format(*(self.nouns[noun] for noun in nouns.tolist()))


def load_mentions(names: list[str]) -> Mentioned:
    """Of the captioned sets in this order."""
    groups = [group for name in names for group in photographs(name).captions]
    found = find_mentions(groups)
    counts = np.array([max(len(group), 1) for group in groups])
    return Mentioned(found.nouns, torch.from_numpy(found.captions / counts[:, None]).half())


def mean_aurocs(mentions: Mentions, images: Tensor, words: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Of nouns and pairs of nouns on images (n, d), as benchmarks/nouns.py has them; words: of tokens."""
    pairs = list(together(mentions))
    asked = [ONE.format(noun) for noun in mentions.nouns] + [AND.format(*names) for names, _, _ in pairs]
    scores = (words(tokenize(asked)) @ images.T).numpy()
    of_nouns, of_pairs = np.split(scores, [len(mentions.nouns)])
    alone = [auroc(row, shown) for row, shown in zip(of_nouns, mentions.present.T, strict=True)]
    both = [auroc(row[rows], truth) for row, (_, rows, truth) in zip(of_pairs, pairs, strict=True)]
    return {"nouns": float(np.mean(alone)), "pairs": float(np.mean(both))}


def mention_loss(images: Tensor, texts: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy both ways of queries (q, d) on images (b, d) to the shares (q, b) of captions that mention them."""
    logits = SCALE * texts @ images.T
    return (_cross_entropy(logits, shares) + _cross_entropy(logits.T, shares.T)) / 2


def _cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """Of the rows that have any share."""
    total = shares.sum(1, keepdim=True)
    has_any = total[:, 0] > 0
    return F.cross_entropy(logits[has_any], shares[has_any] / total[has_any])
