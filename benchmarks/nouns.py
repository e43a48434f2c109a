"""Nouns present or absent, in a photograph and in a folder, and queries of two nouns, on the captions of captions/."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import REPOSITORY, photographs, print_table, read_arguments, work_folder, write

from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import load_dataset
from clipkit.metrics import auroc, bootstrap
from clipkit.models.encoder import Encoder
from clipkit.models.load import load_encoder
from clipkit.search.query import embed, parse

EARLIER = ("distilled", "captioned")  # starters of training/work: before captions tuned it, and before nouns did
LEAST, LEAST_TOGETHER = 8, 5  # photographs that mention a noun, and both of a pair
MOST = 3  # captions of the five, for a photograph that most people say shows it
FOLDER, FOLDERS = 50, 200  # photographs, and folders with and as many without the noun
K = 10
ONE, AND = "a photo of a {}", "a photo of a {} and a {}"
ARTICLE = re.compile("an?|the|his|her|its|their|some|two|three|several|many|another")
# What follows a noun phrase, as words in -ing do; an adjective is followed by its noun.
AFTER = re.compile(
    "[.,]|and|or|in|on|at|with|of|to|from|by|near|next|is|are|has|have|while|that|who|which|as|for|over|into|through|behind|"
    "under|during|down|up|off|against|around|along|across|beside|between|outside|inside|past"
)
PHRASE_END, PHRASE_START = 0.5, 0.3  # shares of a noun's uses
ADJECTIVE_END, ADJECTIVE_START = 0.3, 0.5
IRREGULAR = {"men": "man", "women": "woman", "children": "child", "people": "person", "kids": "kid"}


@dataclass(frozen=True)
class Mentions:
    """How many captions (photographs, nouns) of each photograph mention each noun."""

    nouns: tuple[str, ...]
    captions: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(photographs, nouns): whether any caption mentions it."""
        return self.captions > 0


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    data = photographs()
    if data is None:
        return
    os.environ.setdefault("CLIPKIT_CACHE", str(work_folder() / "zeroshot-cache"))
    work = REPOSITORY / "training" / "work"
    models = ["starter", *(str(work / name) for name in EARLIER if (work / name).is_dir())]
    found = {Path(name).name: measure(data, load_encoder(name), quick=arguments.quick) for name in models}
    for name in (name for name in EARLIER if name in found):
        found[f"starter - {name}"] = differences(found["starter"], found[name])
    columns = [name for name in found["starter"]["summary"] if not name.endswith("ci95")]
    print_table([("", *found), *((name, *(_cell(of["summary"], name) for of in found.values())) for name in columns)])
    write("nouns", _rounded(found), [], arguments)


def measure(data: Path, encoder: Encoder, *, quick: bool = False) -> dict[str, Any]:
    """Everything of one model, each noun and each pair with its numbers."""
    embedded = embed_once(load_dataset(data / "captions"), encoder)
    mentions = find_mentions(embedded.dataset.captions)
    scores = embedded.embeddings @ encoder.encode_texts([ONE.format(noun) for noun in mentions.nouns]).T
    in_folders = folder_scores(scores, mentions.present, folders=10 if quick else FOLDERS)
    nouns = {
        noun: {
            "photographs": int(mentions.present[:, j].sum()),
            "auroc": auroc(scores[:, j], mentions.present[:, j]),
            "auroc_of_most_captions": _auroc_of_most(scores[:, j], mentions.captions[:, j]),
            "auroc_folders": auroc(*in_folders[j]),
        }
        for j, noun in enumerate(mentions.nouns)
    }
    pairs = pair_quality(embedded.embeddings, mentions, encoder)
    summary = summarize(nouns, pairs) | {"nouns_auroc_folders_one_cut": _auroc_of_all(in_folders)}
    return {"photographs": len(scores), "summary": summary, "nouns": nouns, "pairs": pairs}


def find_mentions(captions: Sequence[Sequence[str]]) -> Mentions:
    """The nouns that at least LEAST photographs mention, by the rule of `find_nouns`; plurals count as singulars."""
    words = [[re.findall(r"[a-z]+|[.,]", text.lower()) for text in group] for group in captions]
    known = {word for group in words for text in group for word in text}
    singular = {word: _singular(word, known) for word in known}
    told = [[[singular[word] for word in text] for text in group] for group in words]
    names = sorted(find_nouns([text for group in told for text in group]))
    place = {name: column for column, name in enumerate(names)}
    counts = np.zeros((len(told), len(names)), dtype=int)
    for row, group in enumerate(told):
        for text in group:
            counts[row, [place[word] for word in set(text) & place.keys()]] += 1
    often = (counts > 0).sum(0) >= LEAST
    return Mentions(tuple(np.array(names)[often].tolist()), counts[:, often])


def find_nouns(texts: Sequence[Sequence[str]]) -> set[str]:
    """Words that captions use as nouns.

    A noun ends a phrase in PHRASE_END of its uses (AFTER, a word in -ing or the caption's end follows) and stands after
    an article, a number or an adjective in PHRASE_START; an adjective seldom ends a phrase, and often begins one.
    """
    uses, ends, before = Counter[str](), Counter[str](), defaultdict[str, Counter[str]](Counter)
    for text in texts:
        for previous, word, following in zip(["", *text], text, [*text[1:], "."], strict=False):
            uses[word] += 1
            ends[word] += bool(AFTER.fullmatch(following)) or following.endswith("ing")
            before[word][previous] += 1
    content = [
        w for w, n in uses.items() if n >= LEAST and len(w) > 2 and not (AFTER.fullmatch(w) or ARTICLE.fullmatch(w))
    ]
    ending = {word: ends[word] / uses[word] for word in content}

    def starting(word: str, openers: Set[str]) -> float:
        return sum(n for previous, n in before[word].items() if previous in openers) / uses[word]

    openers = {word for word in uses if ARTICLE.fullmatch(word)}
    openers |= {w for w in content if ending[w] <= ADJECTIVE_END and starting(w, openers) >= ADJECTIVE_START}
    return {word for word in content if ending[word] >= PHRASE_END and starting(word, openers) >= PHRASE_START}


def folder_scores(
    scores: np.ndarray, present: np.ndarray, *, folders: int = FOLDERS
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each noun the best cosine in each of 2 x `folders` folders, and which folders hold the noun.

    A folder is FOLDER photographs drawn without replacement: from all, drawn again until a caption of at least one
    mentions the noun; or from those of which no caption does.
    """
    rng = np.random.default_rng(0)
    found = []
    for column, shown in zip(scores.T, present.T, strict=True):
        chosen = [_folder(rng, shown, holds=holds) for holds in (True, False) for _ in range(folders)]
        found.append((column[np.array(chosen)].max(1), np.repeat([True, False], folders)))
    return found


def pair_quality(embeddings: np.ndarray, mentions: Mentions, encoder: Encoder) -> dict[str, dict[str, Any]]:
    """For nouns that LEAST_TOGETHER photographs mention together: those with both against those with one of them.

    Of "a photo of a A and a B", and of the sum `A + B` of clipkit's queries: AUROC, and how many of the first K have
    both; `share` is what chance gives and `most` what is possible.
    """
    found = {}
    for names, rows, truth in together(mentions):
        queries = {"and": encoder.encode_texts([AND.format(*names)])[0]}
        queries["sum"] = embed(parse(" + ".join(names), words_only=True), encoder)[0]
        row: dict[str, Any] = {"photographs": len(rows), "both": int(truth.sum()), "share": float(truth.mean())}
        row["most"] = min(int(truth.sum()), K) / min(K, len(rows))
        for form, query in queries.items():
            scores = embeddings[rows] @ query
            row[f"auroc_{form}"] = auroc(scores, truth)
            row[f"precision_{form}"] = float(truth[np.argsort(-scores, kind="stable")[:K]].mean())
        found[" + ".join(names)] = row
    return found


def together(mentions: Mentions) -> Iterator[tuple[tuple[str, str], np.ndarray, np.ndarray]]:
    """Pairs of nouns that LEAST_TOGETHER photographs mention together, which mention one of the two, and which both."""
    for a, b in itertools.combinations(range(len(mentions.nouns)), 2):
        both = mentions.present[:, a] & mentions.present[:, b]
        rows = np.flatnonzero(mentions.present[:, a] | mentions.present[:, b])
        if both.sum() >= LEAST_TOGETHER and not both[rows].all():
            yield (mentions.nouns[a], mentions.nouns[b]), rows, both[rows]


def summarize(nouns: dict[str, dict[str, Any]], pairs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The means over the nouns, and over the pairs."""
    tables = {"nouns": nouns, "pairs": pairs}
    return {f"{kind}_{name}": value for kind, rows in tables.items() for name, value in means(rows).items()}


def means(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mean of each column and its 95 % interval, by bootstrap over the rows."""
    columns = [name for name, value in next(iter(rows.values())).items() if isinstance(value, float)]
    found: dict[str, Any] = {"n": len(rows)}
    for name in columns:
        values = np.array([row[name] for row in rows.values()])
        found[name], found[f"{name}_ci95"] = float(np.nanmean(values)), _interval(values)
    return found


def differences(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The summary of the paired differences, noun by noun and pair by pair."""
    tables = [
        {
            name: {
                column: value - before[kind][name][column] for column, value in row.items() if isinstance(value, float)
            }
            for name, row in after[kind].items()
        }
        for kind in ("nouns", "pairs")
    ]
    return {"summary": summarize(*tables)}


def _singular(word: str, known: Set[str]) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    forms = (
        [word[:-3] + "y"] * word.endswith("ies") + [word[:-2]] * word.endswith("es") + [word[:-1]] * word.endswith("s")
    )
    return next((form for form in forms if form in known and len(form) > 2 and form[-1] != "s"), word)


def _folder(rng: np.random.Generator, shown: np.ndarray, *, holds: bool) -> np.ndarray:
    """FOLDER positions out of (n,)."""
    if not holds:
        return rng.choice(np.flatnonzero(~shown), FOLDER, replace=False)
    while True:
        chosen = rng.choice(len(shown), FOLDER, replace=False)
        if shown[chosen].any():
            return chosen


def _auroc_of_most(scores: np.ndarray, captions: np.ndarray) -> float:
    """Those that MOST captions mention against those that none does; NaN with fewer than LEAST of them."""
    most, clear = captions >= MOST, (captions >= MOST) | (captions == 0)
    return auroc(scores[clear], most[clear]) if most.sum() >= LEAST else float("nan")


def _auroc_of_all(in_folders: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The folders of all nouns together: what one cut for every noun can tell."""
    scores, holds = (np.concatenate(column) for column in zip(*in_folders, strict=True))
    return auroc(scores, holds)


def _interval(values: np.ndarray) -> tuple[float, float]:
    return bootstrap(lambda rows: float(np.nanmean(values[rows])), len(values))


def _rounded(found: Any) -> Any:
    """Four digits of every number, however deep; None for what is not known."""
    if isinstance(found, dict):
        return {name: _rounded(value) for name, value in found.items()}
    if isinstance(found, tuple):
        return [_rounded(value) for value in found]
    if isinstance(found, float):
        return round(found, 4) if np.isfinite(found) else None
    return found


def _cell(summary: dict[str, Any], name: str) -> str:
    value, ends = summary.get(name, ""), summary.get(f"{name}_ci95")
    shown = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f"{shown} ({ends[0]:.3f} to {ends[1]:.3f})" if ends else shown


if __name__ == "__main__":
    main()
