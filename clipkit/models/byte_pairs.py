"""Byte-pair encoding of plain ASCII texts as CLIP does it, ready in a tenth of the time of `tokenizers`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count, pairwise

END = "</w>"  # of the last character of a word
FIRST_MERGE = 512  # the id of the first merge: each of 256 bytes comes before, alone and at the end of a word
PLAIN = re.compile(r"[ -%'-;=-~]*")  # printable ASCII that `clean_text` leaves, and no mark of a special token
_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[a-z]+|[0-9]|[^\sa-z0-9]+")
_NEVER = 1 << 30


class BytePairs:
    """Token ids of texts, by merges in the order in which they were learned: lines of two parts, a space between."""

    def __init__(self, merges: str) -> None:
        self._ranks = dict(zip(merges.split("\n"), count()))

    def __call__(self, text: str) -> list[int]:
        """Of a lower-case text that is PLAIN."""
        return [id_ for word in _WORD.findall(text) for id_ in self._encode(word)]

    def _encode(self, word: str) -> list[int]:
        parts = [*word[:-1], word[-1] + END]
        ids = [ord(letter) - ord("!") for letter in word]
        ids[-1] += FIRST_MERGE // 2
        while len(parts) > 1:
            ranks = [self._ranks.get(f"{first} {second}", _NEVER) for first, second in pairwise(parts)]
            if (best := min(ranks)) == _NEVER:
                break
            pair = parts[ranks.index(best)], parts[ranks.index(best) + 1]
            at = 0
            while at < len(parts) - 1:
                if (parts[at], parts[at + 1]) == pair:
                    parts[at : at + 2], ids[at : at + 2] = ["".join(pair)], [FIRST_MERGE + best]
                at += 1
        return ids


def as_lines(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> str:
    """What BytePairs reads; "" for a vocabulary whose ids are not in CLIP's order."""
    letters = [(chr(code), code - ord("!")) for code in range(ord("!"), ord("~") + 1)]
    ordered = dict(letters) | {letter + END: id_ + FIRST_MERGE // 2 for letter, id_ in letters}
    ordered |= {"".join(pair): FIRST_MERGE + rank for rank, pair in enumerate(merges)}
    is_ordered = all(vocabulary.get(token) == id_ for token, id_ in ordered.items())
    return "\n".join(" ".join(pair) for pair in merges) if is_ordered else ""
