"""Zero-shot with the starter: accuracy, calibration, "none of these", retrieval; each twice, to the same digit."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import photographs, print_table, read_arguments, work_folder, write
from unknown import class_sets, measure

from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import load_dataset
from clipkit.evaluate.zeroshot import Result, evaluate_retrieval, evaluate_searched, evaluate_zeroshot, load_labelled
from clipkit.metrics import bootstrap, ece
from clipkit.models.encoder import Encoder
from clipkit.models.load import load_encoder


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    folder = photographs()
    if folder is None:
        return
    os.environ.setdefault("CLIPKIT_CACHE", str(work_folder() / "zeroshot-cache"))  # kept, so that a trial is quick
    os.environ["HF_HUB_OFFLINE"] = "1"
    encoder = load_encoder("starter")
    results = accuracy(folder, encoder)
    results["unknown"] = unknown_table(folder, encoder, quick=arguments.quick)
    write("zeroshot", results, [], arguments)


def accuracy(data: Path, encoder: Encoder) -> dict[str, Any]:
    """Pets, the thousand names, retrieval; each twice, which has to give the same text."""
    pets = load_labelled(data, split="test")
    names = load_labelled(data / "imagenet_sample", classes="imagenet")
    captions = load_dataset(data / "captions")
    runs = {
        **{f"Pets test, {t}": (lambda t=t: evaluate_zeroshot(pets, encoder, templates=t)) for t in ("plain", "simple")},
        "Pets test, pets": lambda: evaluate_zeroshot(pets, encoder, templates="pets"),
        "Pets test, imagenet": lambda: evaluate_zeroshot(pets, encoder, templates="imagenet"),
        "Pets test, searched on trainval": lambda: evaluate_searched(data, pets, encoder),
        "imagenet_sample, simple": lambda: evaluate_zeroshot(names, encoder, classes="imagenet"),
        "imagenet_sample, imagenet": lambda: evaluate_zeroshot(
            names, encoder, classes="imagenet", templates="imagenet"
        ),
        "captions": lambda: evaluate_retrieval(captions, encoder),
    }
    found: dict[str, Any] = {}
    for name, run in runs.items():
        result: Result = run()
        found[name] = json.loads(result.to_json()) | {"same_on_a_second_run": run().to_json() == result.to_json()}
        found[name].pop("per_class", None)
        numbers = {key: value for key, value in result.metrics.items() if isinstance(value, float)}
        print_table([(name, *numbers), (f"n = {result.metrics['n']}", *numbers.values())])
        found[name]["dataset"] = result.dataset.replace(f"{data}{os.sep}", "")  # not where it lies on this disk
        found[name]["metrics"].pop("confusion", None)  # a thousand lines; `--confusion` draws it
        if len(result.classes) > 100:
            found[name].pop("classes")
    found["embedded again, largest difference"] = embedded_again(pets, encoder)
    found["calibration, Pets"] = calibration(data, encoder)
    return found


def embedded_again(pets: Any, encoder: Encoder) -> float:
    """Of the first pictures, from the files once more against what was kept."""
    kept_rows = embed_once(pets, encoder).embeddings[: encoder.batch_size]
    return float(np.abs(encoder.encode_images(list(pets.files[: encoder.batch_size])) - kept_rows).max())


def calibration(data: Path, encoder: Encoder) -> dict[str, Any]:
    """ECE on test before and after a temperature was fitted on trainval."""
    fit, test = (embed_once(load_labelled(data, split=name), encoder) for name in ("trainval", "test"))
    classifier = ZeroShotClassifier(encoder, "pets", templates="pets")
    targets = test.dataset.targets(classifier.head.classes)
    said: dict[str, Any] = {"n": len(targets), "n_fit": len(fit.dataset)}
    for when in ("before", "after"):
        table = classifier.predict_proba(test.embeddings)
        sure, is_right = table.max(axis=1), table.argmax(axis=1) == targets
        said[f"ece_{when}"] = ece(sure, is_right)
        said[f"ece_{when}_ci95"] = bootstrap(lambda rows, s=sure, r=is_right: ece(s[rows], r[rows]), len(targets))
        said[f"temperature_{when}"] = classifier.head.temperature
        classifier.calibrate(fit.embeddings, fit.dataset.labels)
    print_table(
        [("calibration", "ECE", "temperature")]
        + [(w, said[f"ece_{w}"], said[f"temperature_{w}"]) for w in ("before", "after")]
    )
    return said


def unknown_table(data: Path, encoder: Encoder, *, quick: bool) -> dict[str, Any]:
    """Four scores, each at the one cut that was best on other pictures of other classes."""
    choose, report = class_sets(data, encoder, quick=quick)
    table = measure(choose, report, encoder, "simple")
    for name, found in table.items():
        keys = list(found["mean"])
        print_table(
            [
                (name, *keys),
                *((which, *row.values()) for which, row in {**found["sets"], "mean": found["mean"]}.items()),
            ]
        )
    sets = {part.name: {"classes": len(part.classes), "n": len(part.embeddings)} for part in (*choose, *report)}
    return {"chosen_on": [part.name for part in choose], "sets": sets, "scores": table}


if __name__ == "__main__":
    sys.exit(main())
