"""Tokenizer of an exported text tower: open_clip's cleaning of texts, and the `tokenizers` library; no torch."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.core.arrays import IntArray
from clipkit.models.byte_pairs import PLAIN, BytePairs

FEW_TEXTS = 8  # loading the `tokenizers` library's model takes 50 ms
LONG_BYTES = 60  # shorter texts of words fit a context of 32 tokens; probing all 80,000 would double the time
# What ftfy and html.unescape leave as it is: printable ASCII without "&".
_PLAIN = re.compile(r"[ -%'-~]*")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # of the CLIP paper's tokenizer


@dataclass(frozen=True)
class Tokenizer:
    """Texts to token ids, as open_clip's own tokenizers make them.

    Attributes
    ----------
    model : str or Path
        The tokenizer as JSON of the `tokenizers` library, or the file of it.
    context : int
        Tokens in a row.
    clean : {"lower", "whitespace", "canonicalize"}
        How texts are cleaned, in open_clip's words.
    begin, end : int or None
        Ids around each text; None where the model adds its own.
    pad : int
        Id behind the end.
    pad_left : bool
        Whether it is in front instead.
    merges : str or Path
        What encodes a few plain texts without that library, or the file of it; "" where nothing does.
    """

    model: str | Path
    context: int
    clean: str = "lower"
    begin: int | None = None
    end: int | None = None
    pad: int = 0
    pad_left: bool = False
    merges: str | Path = ""

    def __call__(self, texts: Sequence[str]) -> IntArray:
        """Token ids (n, context), int64; what does not fit is cut off."""
        cleaned = [clean_text(text, self.clean) for text in texts]
        if self._is_simple(cleaned):
            rows = [self._byte_pairs(text) for text in cleaned]
        else:
            rows = [found.ids for found in self._model.encode_batch(cleaned, add_special_tokens=self.begin is None)]
        return np.array([self._framed(row) for row in rows], np.int64).reshape(len(rows), self.context)

    def options(self) -> dict[str, Any]:
        """All of it but the model and the merges."""
        return {name: value for name, value in asdict(self).items() if name not in ("model", "merges")}

    def _is_simple(self, cleaned: Sequence[str]) -> bool:
        can_be = bool(self.merges) and self.clean == "lower" and len(cleaned) <= FEW_TEXTS
        return can_be and all(map(PLAIN.fullmatch, cleaned))

    @cached_property
    def _byte_pairs(self) -> BytePairs:
        return BytePairs(_content(self.merges))

    @cached_property
    def _model(self) -> Any:
        import tokenizers

        model = tokenizers.Tokenizer.from_str(_content(self.model))
        model.no_padding()
        if self.begin is None:
            model.enable_truncation(self.context)
        else:
            model.no_truncation()
        return model

    def _framed(self, row: list[int]) -> list[int]:
        if self.begin is not None and self.end is not None:
            row = [self.begin, *row[: self.context - 2], self.end]
        rest = [self.pad] * (self.context - len(row))
        return rest + row if self.pad_left else row + rest


def _content(text: str | Path) -> str:
    return text.read_text(encoding="utf-8") if isinstance(text, Path) else text


def byte_pairs(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], special: Sequence[str]) -> str:
    """CLIP's byte-pair encoding as JSON of the `tokenizers` library."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    model = models.BPE(dict(vocabulary), list(merges), end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.add_special_tokens(list(special))
    return str(tokenizer.to_str())


def clean_text(text: str, how: str) -> str:
    """A text as open_clip's tokenizers clean it: mojibake and HTML entities mended, white space single.

    how: "whitespace" does no more, "lower" also lowers, "canonicalize" also drops punctuation.
    """
    if not _PLAIN.fullmatch(text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if how == "canonicalize":
        text = text.strip().replace("_", " ").translate(_WITHOUT_PUNCTUATION)
    text = " ".join(text.split())
    return text if how == "whitespace" else text.lower()


def lengths(tokens: IntArray, end: str | int | None) -> IntArray:
    """(n,): up to and with the end of each text (n, context); the whole row where a tower reads more than that.

    end: the id that ends a text, "argmax" for the greatest one, None where nothing may be cut.
    """
    if end is None:
        return np.full(len(tokens), tokens.shape[1])
    ends = tokens if end == "argmax" else tokens == end
    return np.asarray(ends.argmax(axis=1) + 1, np.int64)
