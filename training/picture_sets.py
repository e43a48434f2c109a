"""The photographs and phrases of CLIPKIT_TEST_DATA that the starter learns from, and those it is measured on."""

import gzip
import os
import random
import re
from pathlib import Path

import open_clip
import pandas as pd

WORK = Path(__file__).parent / "work"  # every intermediate result; may be deleted at any moment
STARTER = Path(__file__).parent.parent / "data" / "starter"
DISTILLED_STARTER = WORK / "distilled"  # the open_clip folder that package.py writes before captions tune it
TRAINING_SETS = ("imagenet", "captioned", "labelled", "unlabelled")
CAPTION_WEIGHTS = {"captioned": 1.0, "flickr8k": 1.0, "visual7w": 0.3}  # visual7w: made from questions and answers
BURSTS = ("186890601_8a6b0f1769.jpg",)  # of one burst with a photograph of captions/
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}",
    "a photo of a {}, a type of pet.",
    "{}",
    "a {}",
    "the {}",
    "a close-up photo of a {}.",
    "two {}s",
    "a person with a {}",
)
QUESTIONS = TEMPLATES[:4]  # the ways people phrase a label, averaged into one target
HELD_OUT_TEXTS = 4000
SHARD = 40_000  # phrases a teacher file; training can start on the first ones


def data_folder() -> Path:
    """The folder of real photographs; a KeyError when CLIPKIT_TEST_DATA is not set."""
    return Path(os.environ["CLIPKIT_TEST_DATA"])


def photographs(name: str) -> pd.DataFrame:
    """One set as rows of (file, label, captions): a label is "" and captions is [] where there is none.

    `validation` is captions/, `pets_trainval` and `pets_test` are Oxford-IIIT Pet; none of the three is ever fitted.
    `flickr8k` and `visual7w` are more_captions/, squashed to a square.
    """
    root = data_folder()
    if name == "imagenet":
        rows = pd.read_csv(root / "imagenet_sample" / "labels.csv")
        return _frame(root / "imagenet_sample" / "images", rows.image, rows.label)
    if name == "validation":
        rows = pd.read_csv(root / "captions" / "captions.csv").groupby("image").caption.apply(list).reset_index()
        return _frame(root / "captions" / "images", rows.image, captions=rows.caption)
    if name.startswith("pets_"):
        lines = (root / "oxford-iiit-pet" / "annotations" / f"{name[5:]}.txt").read_text().split("\n")
        images = pd.Series([line.split()[0] for line in lines if line and not line.startswith("#")])
        return _frame(root / "oxford-iiit-pet" / "images", images + ".jpg", images.map(_breed))
    if name in ("flickr8k", "visual7w"):
        rows = pd.read_csv(root / "more_captions" / "manifest.csv")
        rows = rows[rows.source == name]
        return _frame(root / "more_captions", rows.file, captions=rows.captions.map(_split_captions))
    rows = pd.read_csv(root / "starter_train" / "manifest.csv")
    rows = rows[~rows.file.str.endswith(BURSTS)]
    captioned, labelled = rows.captions.notna(), rows.label.notna()
    wanted = {"captioned": captioned, "labelled": labelled & ~captioned, "unlabelled": ~labelled & ~captioned}[name]
    rows = rows[wanted]
    captions = rows.captions.fillna("").map(_split_captions)
    return _frame(root / "starter_train", rows.file, rows.label.fillna(""), captions)


def phrases() -> list[str]:
    """Every training phrase in a fixed shuffled order; the first HELD_OUT_TEXTS are never trained on.

    The file's own phrases, the whole words of the CLIP vocabulary, and templates over labels and short phrases.
    """
    chance = random.Random(0)
    path = data_folder() / "starter_train" / "texts.txt.gz"
    given = gzip.decompress(path.read_bytes()).decode().splitlines()
    tokens = open_clip.get_tokenizer("ViT-B-32").encoder
    words = [t[:-4] for t in tokens if re.fullmatch(r"[a-z]{3,}</w>", t)]
    names = sorted({name for s in ("imagenet", "labelled") for name in photographs(s).label})
    short = [text for text in given if len(text.split()) <= 3 and len(text) <= 30]
    templated = [template.format(name) for name in names for template in TEMPLATES]
    templated += [chance.choice(TEMPLATES).format(name) for name in short]
    templated += [chance.choice(TEMPLATES).format(name) for name in words]
    extra = sorted({*words, *templated} - set(given))
    chance.shuffle(given)
    rest = given[HELD_OUT_TEXTS:] + extra
    chance.shuffle(rest)
    return given[:HELD_OUT_TEXTS] + rest


def _frame(
    folder: Path, files: pd.Series, labels: pd.Series | None = None, captions: pd.Series | None = None
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "file": [str(folder / file) for file in files],
            "label": list(labels) if labels is not None else "",
            "captions": list(captions) if captions is not None else [[] for _ in files],
        }
    )


def _split_captions(text: str) -> list[str]:
    return [part.strip() for part in text.split("|") if part.strip()]


def _breed(image: str) -> str:
    return image.rsplit("_", 1)[0].replace("_", " ").lower()
