"""Learning curve over captioned photographs: ridges to the text tower of the starter, measured on captions/."""

import argparse
import datetime
import json

import numpy as np
import torch
from evaluate import RESULTS, recalls
from feature_maps import pooled_file, stage_file
from picture_sets import CAPTION_WEIGHTS, DISTILLED_STARTER, WORK, photographs
from safetensors.torch import load_file
from shared_space import Ridge, unit
from train_projection import Weights, label_embeddings
from train_text_tower import encode, text_tower
from tune_last_convolution import features, last_convolution

RIDGES = (100.0, 300.0, 1000.0)  # the best on captions/ is reported, for each number of photographs
COUNTS = (800, 1600, 3200)  # of a fixed shuffle of flickr8k


def main() -> None:
    """Prints R@1, 5, 10 both ways for each training set; with --tried, appends them to results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resize", default="squash", help="of the validation photographs")
    parser.add_argument("--views", nargs="+", default=["plain"])
    parser.add_argument("--tried", help="what is new, for results.json")
    options = parser.parse_args()
    curve = Curve(options.resize, options.views)
    rows = []
    for title, chosen in training_sets().items():
        found, ridge = curve.best(chosen)
        tried = f"{options.tried}: ridge {ridge:.0f} on {title}"
        rows.append({"tried": tried, "date": datetime.date.today().isoformat()} | found | {"sha256": None})
        print(json.dumps(rows[-1]), flush=True)
    if options.tried:
        RESULTS.write_text(json.dumps([*json.loads(RESULTS.read_text()), *rows], indent=1) + "\n")


def training_sets() -> dict[str, dict[str, np.ndarray]]:
    """Which rows of which sets, by a title."""
    every = {name: np.arange(len(photographs(name))) for name in CAPTION_WEIGHTS}
    shuffled = np.random.default_rng(0).permutation(every["flickr8k"])
    sets = {"captioned alone (795)": {"captioned": every["captioned"]}}
    sets |= {f"{count} of flickr8k": {"flickr8k": shuffled[:count]} for count in COUNTS}
    sets["captioned and flickr8k (7,876)"] = {name: every[name] for name in ("captioned", "flickr8k")}
    return sets | {"these and visual7w at .3 (9,576)": every}


class Curve:
    """Features and caption embeddings of every set, read once."""

    def __init__(self, resize: str, views: list[str]) -> None:
        names = [*CAPTION_WEIGHTS, "imagenet"]
        self.features = {name: np.mean([load_pooled(name, "squash", view) for view in views], 0) for name in names}
        self.targets = {name: unit(np.array([e.mean(0) for e in caption_embeddings(name)])) for name in CAPTION_WEIGHTS}
        self.names = label_embeddings(list(photographs("imagenet").label), encode_texts)
        self.validation = load_pooled("validation", resize, "plain")
        groups = caption_embeddings("validation")
        self.captions, self.owner = np.concatenate(groups), np.repeat(np.arange(len(groups)), [len(g) for g in groups])

    def best(self, chosen: dict[str, np.ndarray]) -> tuple[dict[str, float], float]:
        """The recalls, rounded, and the ridge that gives the best text -> image R@10."""
        tried = {ridge: self._measure(self.fit(chosen, ridge)) for ridge in RIDGES}
        ridge = max(tried, key=lambda r: tried[r]["text_to_image_r10"])
        return {name: round(value, 4) for name, value in tried[ridge].items()}, ridge

    def fit(self, chosen: dict[str, np.ndarray], ridge: float) -> Ridge:
        """The ridge on the chosen rows of each set, and on ImageNet's names."""
        parts = [
            (self.features[name][rows], self.targets[name][rows], np.full(len(rows), CAPTION_WEIGHTS[name]))
            for name, rows in chosen.items()
        ]
        parts.append((self.features["imagenet"], self.names, np.full(len(self.names), Weights.imagenet)))
        x, y, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        heard = {"mix": Weights.mix, "power": Weights.power, "loudness": Weights.loudness, "earlier": Weights.earlier}
        return Ridge(self.names, ridge, **heard).fit(x, y, weights)

    def _measure(self, model: Ridge) -> dict[str, float]:
        return recalls(unit(model.predict(self.validation)), self.captions, self.owner)


def load_pooled(name: str, resize: str, view: str) -> np.ndarray:
    """(n, 1280 + 352) float32: the mean over the cells after and before the last convolution; cached."""
    cached = pooled_file(name, resize, view)
    if not cached.exists():
        maps, convolution = np.load(stage_file(name, resize, view), mmap_mode="r"), last_convolution()
        parts = []
        for start in range(0, len(maps), 256):
            cells = torch.from_numpy(np.array(maps[start : start + 256])).float().flatten(2).transpose(1, 2)
            parts.append(torch.cat([features(cells, None, *convolution), cells.mean(1)], 1).half().numpy())
        np.save(cached, np.concatenate(parts))
    return np.load(cached).astype(np.float32)


def caption_embeddings(name: str) -> list[np.ndarray]:
    """(captions, 384) for each photograph, by the distilled text tower; cached."""
    cached, groups = WORK / "features" / f"{name}_captions.npy", list(photographs(name).captions)
    if not cached.exists():
        np.save(cached, encode_texts([text for group in groups for text in group]).astype(np.float16))
    return np.split(np.load(cached).astype(np.float32), np.cumsum([len(group) for group in groups])[:-1])


def encode_texts(texts: list[str]) -> np.ndarray:
    """(n, 384), length 1, by the text tower that was distilled from MiniLM."""
    tower = text_tower().eval()
    weights = load_file(DISTILLED_STARTER / "open_clip_model.safetensors")
    wanted = tower.state_dict().keys() & weights.keys()
    tower.load_state_dict({name: weights[name].float() for name in wanted}, strict=False)
    return encode(tower, texts)


if __name__ == "__main__":
    main()
