"""Writes the model card, data/starter/README.md, from its row of results.json and from free queries run now."""

import argparse
import json
from pathlib import Path

import numpy as np
import skimage
import sklearn
from evaluate import RESULTS, Model, fingerprint
from package import MADE_WITH
from picture_sets import STARTER, photographs

ZEROSHOT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "zeroshot.json"
QUERIES = (
    "a dog",
    "a musical instrument",
    "something to drink",
    "a boat on the water",
    "a red vehicle",
    "a church",
    "an animal with stripes",
    "food on a plate",
    "a person wearing a hat",
    "two people laughing",
)
DEMO_QUERIES = (
    ("a cat", "chelsea.png"),
    ("a cup of coffee", "coffee.png"),
    ("a rocket", "rocket.jpg"),
    ("a flower", "flower.jpg"),
    ("an astronaut", "astronaut.png"),
    ("a motorcycle", "motorcycle_left.png"),
    ("a temple", "china.jpg"),
    ("the moon", "moon.png"),
    ("coins", "coins.png"),
    ("a page of text", "page.png"),
    ("a clock", "clock_motion.png"),
    ("a brick wall", "brick.png"),
    ("a man with a camera", "camera.png"),
    ("stars in space", "hubble_deep_field.jpg"),
)
SKIMAGE_EXTRAS = ("grass.png", "gravel.png")  # in the folder, but no question asks for them


def main() -> None:
    """Fills in card.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=STARTER)
    options = parser.parse_args()
    weights, made = fingerprint(options.folder), json.loads((Path(__file__).parent / MADE_WITH).read_text())
    rows = [row for row in json.loads(RESULTS.read_text()) if row["sha256"] == weights]
    if not rows:
        raise ValueError(f"results.json has no row of these weights: evaluate.py --folder {options.folder} --tried ...")
    if made["sha256"] != weights:
        raise ValueError("made_with.json is of other weights: install_starter.py")
    text, head, tuned, asked = (made[step] for step in ("text", "head", "captions", "mentions"))
    features = f"the pooled features, each to the power of {head['power']}"
    others = "14,309 more photographs, without their labels"
    model = Model(options.folder)
    free, demo, right = free_queries(model), *demo_queries(model)
    values = {**rows[-1], **{f"text_{k}": v for k, v in text.items()}, "right": right, "asked": len(DEMO_QUERIES)}
    template = (Path(__file__).parent / "card.md").read_text()
    used = {key: head[key] for key in ("size", "earlier", "tuned_steps")}
    runs = list(tuned["tunings"].values())
    used["rounds"] = " and ".join(str(run["epochs"]) for run in runs)
    used["mentioned"] = " and ".join(str(run["epochs"]) for run in asked["tunings"].values())
    used["share"] = asked["image_share"]
    used["imagenet_now"] = json.loads(ZEROSHOT.read_text())["results"]["imagenet_sample, simple"]["metrics"]["acc1"]
    used["captioned"] = f"{sum(len(photographs(name)) for name in runs[0]['sets'].split()):,}"
    card = template.format(**values, **used, free=free, demo=demo, features=features, others=others)
    (options.folder / "README.md").write_text(card)


def free_queries(model: Model) -> str:
    """A table of the three nearest labels of imagenet_sample for each query."""
    rows = photographs("imagenet")
    scores = model.texts(list(QUERIES)) @ model.pictures(list(rows.file)).T
    best = np.argsort(-scores, axis=1)[:, :3]
    lines = [
        f"| {query} | {' | '.join(rows.label[i] for i in three)} |" for query, three in zip(QUERIES, best, strict=True)
    ]
    return "\n".join(["| query | first | second | third |", "|---|---|---|---|", *lines])


def demo_queries(model: Model) -> tuple[str, int]:
    """The same over photographs that come with scikit-image and scikit-learn, and how many first ones are right."""
    bundled = [Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"]
    names = sorted({name for _, name in DEMO_QUERIES} | set(SKIMAGE_EXTRAS))
    files = [str(folder / name) for folder in bundled for name in names if (folder / name).exists()]
    scores = model.texts([query for query, _ in DEMO_QUERIES]) @ model.pictures(files).T
    lines, right = ["| query | first | second | third |", "|---|---|---|---|"], 0
    for (query, expected), row in zip(DEMO_QUERIES, scores, strict=True):
        three = [Path(files[i]).name for i in np.argsort(-row)[:3]]
        right += three[0] == expected
        lines.append(f"| {query} | {' | '.join(f'**{n}**' if n == expected else n for n in three)} |")
    return "\n".join(lines), right


if __name__ == "__main__":
    main()
