"""Relevance with the starter: is what the words say right, and do they tell what is not there?

Three kinds of questions: names of things, against photographs with a label; nouns, against photographs whose captions
mention them (a noun that one caption of five mentions counts neither way); captions, against their own photograph.
`before` is the rule that this one replaces: a lead over neutral texts in spreads of the collection's scores.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from captioned import Captions, captioned, embedded
from common import photographs, print_table, read_arguments, write
from sklearn.metrics import roc_auc_score

from clipkit.classify.words import neutral_mean
from clipkit.core.arrays import Embeddings
from clipkit.explore.relevance import RelevanceScale, embed_vocabulary
from clipkit.metrics import wilson
from clipkit.models.encoder import Encoder

# Labels with enough photographs to fill a folder, none of which is part of another.
TOPICS = (
    "dog", "cat", "mountain", "elephant", "kitchen", "bedroom", "horse", "guitar", "panda", "rowing", "giraffe",
    "basketball", "yoga", "bathroom", "kangaroo", "swimming", "auditorium", "sunflower", "windmill", "library",
    "waterfall", "desert", "laundromat", "highway", "raccoon", "excavator",
)  # fmt: skip
SENSELESS = (
    "asdfgh", "quantum chromodynamics tensor", "qwertz uiop", "xkcd zzyzx", "the nature of justice",
    "lorem ipsum dolor sit amet", "eigenvalue decomposition", "foo bar baz", "monetary policy", "epistemology",
    "1234567", "recursion", "interest rate", "jwpqk fjdks", "hypotenuse", "democracy", "inflation",
    "null pointer exception", "a better tomorrow", "subjunctive mood",
)  # fmt: skip
LABELLED, PER_TOPIC = 3_000, 60
SHARES = (0.01, 0.1, 0.25, 0.5, 1.0)
FOLDER, DRAWS = 100, 20
SIZES = (50, 200, 400)


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    data = photographs()
    if data is None:
        return
    encoder, captions = captioned(data)
    labelled = Labelled(data, encoder)
    found = {
        "pairs": pairs(encoder, captions, labelled),
        "words by share of the topic": by_share(encoder, labelled),
        "nouns": noun_words(encoder, captions),
        "verdicts": verdicts(encoder, captions, data),
    }
    write("relevance", found, [], arguments)


class Labelled:
    """Photographs with a label each: PER_TOPIC of each topic at most, and others, LABELLED in all."""

    def __init__(self, data: Path, encoder: Encoder) -> None:
        with (data / "starter_train" / "manifest.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["label"]]
        rng, taken = np.random.default_rng(0), Counter[str]()
        chosen = []
        for row in (rows[i] for i in rng.permutation(len(rows))):
            label = row["label"]
            taken[label] += 1
            if taken[label] <= (PER_TOPIC if label in TOPICS else 20):
                chosen.append(row)
        chosen = sorted(chosen[:LABELLED], key=lambda row: row["file"])
        self.labels = np.array([row["label"] for row in chosen])
        self.rows = embedded(encoder, [data / "starter_train" / row["file"] for row in chosen])

    def others(self, label: str) -> np.ndarray:
        """Places of photographs whose label has nothing of this one."""
        return np.flatnonzero([label not in other and other not in label for other in self.labels])


# ---- the two rules: words for pictures of a folder (n, d) ---

Judge = Callable[[Embeddings, Embeddings], tuple[list[str], str]]


def judges(encoder: Encoder) -> dict[str, Judge]:
    """The rule of before, and the one of now: query (1, d) and folder (n, d) to words and a verdict."""
    neutral, phrases = neutral_mean(encoder), embed_vocabulary(encoder)

    def before(query: Embeddings, folder: Embeddings) -> tuple[list[str], str]:
        scores = folder @ query[0]
        spread = max(1.4826 * float(np.median(np.abs(scores - np.median(scores)))), 0.01)
        count = max(2, min(len(folder), 1000))
        strong, likely = (NormalDist().inv_cdf((1 - chance) ** (1 / count)) for chance in (0.0005, 0.2))
        lead = (scores - folder @ neutral) / spread
        words = ["strong" if one >= strong else "likely" if one >= likely else "weak" for one in lead]
        return words, "nothing" if words[int(scores.argmax())] == "weak" else "fits"

    def now(query: Embeddings, folder: Embeddings) -> tuple[list[str], str]:
        judged = RelevanceScale.of(phrases, folder, len(folder)).judge(query, folder)
        return list(judged.words), judged.verdict

    return {"before": before, "now": now}


# ---- what is measured ---


def pairs(encoder: Encoder, captions: Captions, labelled: Labelled) -> dict[str, Any]:
    """AUROC of right against wrong pairs of text and picture, over all texts at once: cosine, and standard score."""
    phrases = embed_vocabulary(encoder)
    scale = RelevanceScale.of(phrases, captions.rows, len(captions.rows))
    nouns = list(captions.shown)
    sets = {
        "nouns": (nouns, captions.rows, np.array([captions.shown[noun] for noun in nouns])),
        "labels": (TOPICS, labelled.rows, _label_table(labelled)),
        "captions": ([captions.texts[name][0] for name in captions.names], captions.rows, np.eye(len(captions.names))),
    }
    found = {}
    for name, (texts, rows, table) in sets.items():
        queries = encoder.encode_texts(list(texts))
        standing = np.stack([scale.standing(query[None], rows) for query in queries])
        sure = table >= 0
        found[name] = {
            "texts": len(texts),
            "right pairs": int((table == 1).sum()),
            "cosine": round(float(roc_auc_score(table[sure], (queries @ rows.T)[sure])), 3),
            "standard score": round(float(roc_auc_score(table[sure], standing[sure])), 3),
        }
    print_table(
        [("AUROC", "cosine", "standard score")] + [(k, v["cosine"], v["standard score"]) for k, v in found.items()]
    )
    return found


def _label_table(labelled: Labelled) -> np.ndarray:
    """1 where the label is the topic, -1 where it may be part of it, 0 elsewhere: (topics, n)."""
    table = np.full((len(TOPICS), len(labelled.labels)), -1)
    for place, topic in enumerate(TOPICS):
        table[place, labelled.others(topic)] = 0
        table[place, labelled.labels == topic] = 1
    return table


def by_share(encoder: Encoder, labelled: Labelled) -> dict[str, Any]:
    """Words for right pictures, and how often each word is right, in folders of FOLDER with that share of the topic."""
    rng, rules = np.random.default_rng(1), judges(encoder)
    queries = encoder.encode_texts(list(TOPICS))
    found: dict[str, Any] = {name: {} for name in rules}
    for share in SHARES:
        counts = {name: Counter[tuple[str, bool]]() for name in rules}
        wrong = Counter[str]()
        count = max(1, round(share * FOLDER))
        for place, topic in enumerate(TOPICS):
            right, others = np.flatnonzero(labelled.labels == topic), labelled.others(topic)
            for _ in range(DRAWS if share < 0.1 else 4):
                some = rng.choice(right, min(count, len(right)), replace=False)
                rest = rng.choice(others, FOLDER - count, replace=False)
                folder = labelled.rows[np.concatenate([some, rest])]
                for name, judge in rules.items():
                    words, verdict = judge(queries[place : place + 1], folder)
                    counts[name].update((word, i < len(some)) for i, word in enumerate(words))
                    wrong[name] += verdict == "nothing"
        for name in rules:
            found[name][f"{share:.0%}"] = _summed(counts[name])
            found[name][f"{share:.0%}"]["nothing fits"] = wrong[name] / (len(TOPICS) * (DRAWS if share < 0.1 else 4))
    for name, rows in found.items():
        head = ("", "strong", "likely", "weak", "strong is right", "likely is right", "nothing fits")
        print(name)
        print_table([head, *((share, *(f"{value:.2f}" for value in _values(row))) for share, row in rows.items())])
    return found


def _summed(counts: Counter[tuple[str, bool]]) -> dict[str, Any]:
    right = sum(n for (_, is_right), n in counts.items() if is_right)
    summed: dict[str, Any] = {"n": right, "right pictures": {}, "precision": {}}
    for word in ("strong", "likely", "weak"):
        good, bad = counts[word, True], counts[word, False]
        summed["right pictures"][word] = good / right
        low, high = wilson(good / (good + bad), good + bad) if good + bad else (0.0, 1.0)
        summed["precision"][word] = {"value": good / max(1, good + bad), "n": good + bad, "ci95": [low, high]}
    return summed


def _values(row: dict[str, Any]) -> list[float]:
    shares = [row["right pictures"][word] for word in ("strong", "likely", "weak")]
    return [*shares, row["precision"]["strong"]["value"], row["precision"]["likely"]["value"], row["nothing fits"]]


def noun_words(encoder: Encoder, captions: Captions) -> dict[str, Any]:
    """The same for nouns, in the folder of all captioned photographs."""
    found = {}
    queries = dict(zip(captions.shown, encoder.encode_texts(list(captions.shown)), strict=True))
    for name, judge in judges(encoder).items():
        counts = Counter[tuple[str, bool]]()
        for noun, shows in captions.shown.items():
            words, _ = judge(queries[noun][None], captions.rows)
            counts.update((word, bool(is_right)) for word, is_right in zip(words, shows, strict=True) if is_right >= 0)
        found[name] = _summed(counts)
    print({name: row["right pictures"] for name, row in found.items()})
    return found


def verdicts(encoder: Encoder, captions: Captions, data: Path) -> dict[str, Any]:
    """Verdicts in random folders, on nouns that are there, names of which no caption has a word, and senseless text."""
    rng, rules = np.random.default_rng(2), judges(encoder)
    scale = RelevanceScale.of(embed_vocabulary(encoder), captions.rows, FOLDER)
    absent = _absent(data, captions, rng)
    texts = {"there": list(captions.shown), "not there": absent, "senseless": SENSELESS}
    queries = {kind: encoder.encode_texts(some) for kind, some in texts.items()}
    found: dict[str, Any] = {}
    for size in SIZES:
        counts = {(name, kind): Counter[str]() for name in rules for kind in texts}
        best: dict[str, list[float]] = {kind: [] for kind in texts}
        for _ in range(4 if size < len(captions.rows) else 1):
            some = rng.choice(len(captions.rows), size, replace=False)
            folder = captions.rows[some]
            for kind, rows in queries.items():
                for text, query in zip(texts[kind], rows, strict=True):
                    if kind == "there" and not (captions.shown[text][some] == 1).any():
                        continue
                    best[kind].append(float(scale.standing(query[None], folder).max()))
                    for name, judge in rules.items():
                        counts[name, kind][judge(query[None], folder)[1]] += 1
        found[str(size)] = _told(counts, best)
    for size, row in found.items():
        print(size, row)
    return found


def _told(counts: dict[tuple[str, str], Counter[str]], best: dict[str, list[float]]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for (name, kind), verdict in counts.items():
        total = sum(verdict.values())
        told.setdefault(name, {})[kind] = {"n": total} | {
            v: round(verdict[v] / total, 3) for v in ("fits", "unsure", "nothing")
        }
    gone = best["not there"] + best["senseless"]
    truth = [1] * len(best["there"]) + [0] * len(gone)
    told["AUROC, there against not"] = round(float(roc_auc_score(truth, best["there"] + gone)), 3)
    return told


def _absent(data: Path, captions: Captions, rng: np.random.Generator) -> list[str]:
    """150 names of ImageNet's classes that have no word in common with any caption."""
    known = {word for photograph in captions.words for caption in photograph for word in caption}
    known |= {word + "s" for word in known} | {word.removesuffix("s") for word in known}
    with (data / "imagenet_sample" / "labels.csv").open() as file:
        names = [row["label"] for row in csv.DictReader(file)]
    absent = [name for name in names if not known & set(re.findall(r"[a-z]+", name.lower()))]
    return [absent[i] for i in rng.choice(len(absent), 150, replace=False)]


if __name__ == "__main__":
    main()
