"""Captioned pictures in three parts: texts of each, embeddings computed once, near copies in one part."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipkit.classify.prompts import TEMPLATES, Template, make_prompts
from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.files import digest
from clipkit.core.progress import Progress
from clipkit.core.text import counted
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import Dataset
from clipkit.errors import ClipkitError, DatasetError, ImageError
from clipkit.images.decode import read_file
from clipkit.images.guarded_decoder import decode
from clipkit.images.perceptual_hash import ALIKE, Hashes, are_near_copies, have_structure
from clipkit.images.recipe import PixelRecipe
from clipkit.index.image_index import ImageIndex
from clipkit.index.model_check import is_same_model
from clipkit.index.places import FOLDER
from clipkit.index.scan import find_images
from clipkit.metrics import BoolArray
from clipkit.models.encoder import Encoder, embeddings_agree
from clipkit.search.language import ENGLISH_ONLY, is_foreign
from clipkit.store.database import FILE

LEAST = 20  # pictures: five of them are then the test
SHARES = (0.6, 0.15, 0.25)  # of pictures: learned from, chosen on, tested on
FOREIGN_SHARE = 1 / 3  # of texts that are plainly not English
TOKENS_A_LETTER = 0.6  # tokens a letter above which a tokenizer has no words of a language: English has .2 to .3
ROWS = 1024  # of a block of cosines


@dataclass(frozen=True, eq=False)
class Captioned:
    """Pictures and what may be said of each.

    files: (n,). embeddings: (n, d). texts: (m,) things to say, each with its wordings: a caption has one, a class as
    many as there are templates. right: (n, m), which of them are right for which picture. copies: (n,), pictures that
    are near copies of each other have one number.
    """

    files: tuple[str, ...]
    embeddings: Embeddings
    texts: tuple[tuple[str, ...], ...]
    right: BoolArray
    copies: IntArray
    are_classes: bool

    def __len__(self) -> int:
        return len(self.files)

    @property
    def wordings(self) -> int:
        """Pairs of a picture and a wording of it."""
        counts = np.array([len(words) for words in self.texts], dtype=np.int64)
        return int((self.right * counts).sum())

    def only(self, places: IntArray) -> Captioned:
        """These pictures, and the texts that are right for any of them; of classes all stay."""
        kept = np.arange(len(self.texts)) if self.are_classes else np.flatnonzero(self.right[places].any(axis=0))
        return replace(
            self,
            files=tuple(self.files[i] for i in places.tolist()),
            embeddings=self.embeddings[places],
            texts=tuple(self.texts[i] for i in kept.tolist()),
            right=self.right[np.ix_(places, kept)],
            copies=self.copies[places],
        )

    def contents(self) -> list[str]:
        """SHA-256 of each picture."""
        return [digest(file) or "unreadable" for file in self.files]


@dataclass(frozen=True, eq=False)
class ThreeParts:
    """What is learned from, what chooses, and what neither has seen. notes: sentences for people."""

    train: Captioned
    validation: Captioned
    test: Captioned
    notes: tuple[str, ...] = ()


def three_parts(
    dataset: Dataset,
    encoder: Encoder,
    *,
    tokens: Callable[[Sequence[str]], int],
    templates: Sequence[Template] = TEMPLATES["simple"],
    seed: int = 42,
    progress: Callable[[Progress], None] | None = None,
) -> ThreeParts:
    """Embed a dataset and split it; DatasetError where there is too little, or nothing that the model could read.

    tokens: how many tokens the model makes of texts.
    """
    found, rows, is_indexed = _embedded(dataset, encoder, progress)
    check_size(found)
    texts, right = texts_of(found, templates)
    check_language(texts, encoder.model, tokens)
    copies = _copies(found.files, rows, encoder.recipe)
    whole = Captioned(found.files, rows, texts, right, copies, bool(found.labels))
    notes = tuple(_notes(dataset, found, copies, is_indexed))
    train, validation, test = (whole.only(places) for places in split_by_copies(whole, seed))
    return ThreeParts(train, validation, test, notes)


def split_by_copies(whole: Captioned, seed: int) -> tuple[IntArray, ...]:
    """Places of three parts in their shares; near copies stay together, and classes are spread evenly."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(whole.copies.max() + 1)
    if whole.are_classes:  # the groups of one class follow each other
        firsts = np.unique(whole.copies, return_index=True)[1]
        order = order[np.argsort(whole.right[firsts[order]].argmax(axis=1), kind="stable")]
    members = [np.flatnonzero(whole.copies == group) for group in order.tolist()]
    taken: tuple[list[IntArray], ...] = ([], [], [])
    counts, shares, total = np.zeros(3), np.array(SHARES), 0
    for places in members:
        total += len(places)
        part = int((shares * total - counts).argmax())  # the one that lacks most
        taken[part].append(places)
        counts[part] += len(places)
    if not counts.all():
        raise DatasetError(
            "nearly all pictures are copies of each other: nothing is left to test on", hint="other pictures"
        )
    return tuple(np.sort(np.concatenate(part)) for part in taken)


# ---- embeddings ------------------------------------------------------------------------------------------------------


def _embedded(
    dataset: Dataset, encoder: Encoder, progress: Callable[[Progress], None] | None
) -> tuple[Dataset, Embeddings, int]:
    """Pictures that can be read and their embeddings (n, d): from an index, from the cache, or made now."""
    indexed = _indexed(dataset.files, encoder)
    places = np.array([i for i, file in enumerate(dataset.files) if file not in indexed], dtype=np.int64)
    made = embed_once(_only(dataset, places), encoder, progress=progress) if len(places) else None
    rows = indexed | (dict(zip(made.dataset.files, made.embeddings, strict=True)) if made else {})
    there = _only(dataset, np.array([i for i, file in enumerate(dataset.files) if file in rows], dtype=np.int64))
    failed = made.dataset.failed if made else dataset.failed
    if not there.files:
        raise DatasetError("no picture can be read", hint="pictures that other programs open, as JPEG or PNG")
    return replace(there, failed=failed), np.stack([rows[file] for file in there.files]), len(indexed)


def _only(dataset: Dataset, places: IntArray) -> Dataset:
    files, labels, captions = dataset.files, dataset.labels, dataset.captions
    chosen = places.tolist()
    return replace(
        dataset,
        files=tuple(files[i] for i in chosen),
        labels=tuple(labels[i] for i in chosen if labels),
        captions=tuple(captions[i] for i in chosen if captions),
    )


def _indexed(files: Sequence[str], encoder: Encoder) -> dict[str, Embeddings]:
    """Rows of those files that an index above them has, made by this model and not changed since."""
    top = Path(os.path.commonpath([os.path.abspath(file) for file in files]))
    root = next((folder for folder in (top, *top.parents) if (folder / FOLDER / FILE).is_file()), None)
    if root is None:
        return {}
    try:
        index = ImageIndex.open(root)
        info = index.info
        made, asked = (info.engine, info.precision), (encoder.engine, encoder.precision)
        if not (is_same_model(encoder, info) and str(encoder.recipe) == info.pixel_recipe):
            return {}
        if not embeddings_agree(made, asked):
            return {}
        rows = dict(zip(index.paths, index.embeddings, strict=True))
        known = index.store.known()
    except ClipkitError:  # an index that cannot be read is no reason not to adapt
        return {}
    names = {file: Path(os.path.abspath(file)).relative_to(root).as_posix() for file in files}
    return {file: rows[name] for file, name in names.items() if name in rows and _is_unchanged(file, known[name])}


def _is_unchanged(file: str, known: object) -> bool:
    stat = os.stat(file)
    return (stat.st_size, stat.st_mtime_ns) == (getattr(known, "size_bytes", -1), getattr(known, "mtime_ns", -1))


# ---- texts -----------------------------------------------------------------------------------------------------------


def texts_of(dataset: Dataset, templates: Sequence[Template]) -> tuple[tuple[tuple[str, ...], ...], BoolArray]:
    """Things to say, each once, and which of them are right for which picture: (m,), (n, m)."""
    if dataset.labels:
        names = tuple(sorted(set(dataset.labels)))
        if len(names) < 2:
            raise DatasetError(f"{dataset.name} has one class: nothing tells it apart", hint="two folders at least")
        prompts = make_prompts(names, templates, words={name: name.replace("_", " ") for name in names}).prompts
        return tuple(prompts), np.array(dataset.labels)[:, None] == np.array(names)
    captions = [tuple(text.strip() for text in texts if text.strip()) for texts in dataset.captions]
    if not captions or not all(captions):
        at = next((file for file, texts in zip(dataset.files, captions, strict=False) if not texts), dataset.name)
        raise DatasetError(f"{at} has no caption", hint="a CSV image,caption with a row for each caption")
    place = {text: i for i, text in enumerate(dict.fromkeys(text for texts in captions for text in texts))}
    if len(place) < 2:
        raise DatasetError(
            f"{dataset.name} has one caption for all: nothing tells pictures apart", hint="their own words"
        )
    right = np.zeros((len(captions), len(place)), dtype=np.bool_)
    for i, texts in enumerate(captions):
        right[i, [place[text] for text in texts]] = True
    return tuple((text,) for text in place), right


def check_size(dataset: Dataset) -> None:
    """DatasetError where there are too few pictures to split."""
    if len(dataset) < LEAST:
        raise DatasetError(
            f"{dataset.name} has {counted(len(dataset), 'picture')}: too few to learn from and to prove it on",
            hint=f"{LEAST} pictures at least; some hundreds where anything is to be proven",
        )


def check_language(texts: Sequence[tuple[str, ...]], model: str, tokens: Callable[[Sequence[str]], int]) -> None:
    """DatasetError where many texts are plainly not English and the model has no words for them."""
    foreign = [words[0] for words in texts if is_foreign(words[0])]
    if len(foreign) <= FOREIGN_SHARE * len(texts):
        return
    letters = sum(letter.isalpha() for text in foreign for letter in text)
    rate = tokens(foreign) / max(1, letters)
    if model in ENGLISH_ONLY or rate > TOKENS_A_LETTER:
        raise DatasetError(
            f"{len(foreign):,} of {counted(len(texts), 'text')} are not English, and {model} knows English only "
            f"({rate:.2f} tokens a letter; English has about .25): {foreign[0]!r}",
            hint="captions in English, or a model of many languages: --base multilingual",
        )


# ---- near copies -----------------------------------------------------------------------------------------------------


def _copies(files: Sequence[str], rows: Embeddings, recipe: PixelRecipe) -> IntArray:
    """A number for each picture (n,), the same for near copies: by perceptual hash and cosine, as in `duplicates`."""
    pairs = list(_alike(rows))
    left, right, cosines = (np.concatenate(part) for part in zip(*pairs, strict=True))
    hashes = _hashes(files, np.unique(np.concatenate([left, right])), recipe)
    is_hashed = have_structure(hashes)
    different, are_hashed = hashes[left] ^ hashes[right], is_hashed[left] & is_hashed[right]
    is_copy = are_near_copies(different, cosines, are_hashed=are_hashed)
    root = np.arange(len(files))
    for one, other in zip(left[is_copy].tolist(), right[is_copy].tolist(), strict=True):
        root[root == root[other]] = root[one]
    return np.unique(root, return_inverse=True)[1].astype(np.int64)


def _alike(rows: Embeddings) -> Iterator[tuple[IntArray, IntArray, np.ndarray]]:
    for start in range(0, len(rows), ROWS):
        cosines = rows[start : start + ROWS] @ rows.T
        left, right = np.nonzero(np.triu(cosines >= ALIKE, k=start + 1))
        yield left + start, right, cosines[left, right]


def _hashes(files: Sequence[str], places: IntArray, recipe: PixelRecipe) -> Hashes:
    """Perceptual hashes (n,) of the pictures at these places; 0, which says nothing, of all others."""

    def read(place: int) -> int:
        try:
            found = decode(read_file(files[place]), recipe, name=files[place], is_hashed=True).phash
        except ImageError:
            return 0
        return int.from_bytes(found or b"", "big")

    hashes = np.zeros(len(files), dtype=np.uint64)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as readers:
        hashes[places] = np.array(list(readers.map(read, places.tolist())), dtype=np.uint64)
    return hashes


def _notes(dataset: Dataset, found: Dataset, copies: IntArray, indexed: int) -> Iterator[str]:
    if missing := len(dataset.failed):
        yield f"{counted(missing, 'captioned picture')} not there, and left out: {dataset.failed[0].path}"
    if unread := len(found.failed) - len(dataset.failed):
        yield f"{counted(unread, 'picture')} that cannot be read, and left out: {found.failed[-1].path}"
    if dataset.captions and (bare := _uncaptioned(dataset)):
        yield f"{counted(bare, 'picture')} beside them without a caption, not used"
    sizes = np.bincount(copies)
    if several := int((sizes > 1).sum()):
        copied = counted(int(sizes[sizes > 1].sum()), "picture")
        yield f"{copied} in {counted(several, 'group')} of near copies, each in one part"
    if indexed:
        yield f"{counted(indexed, 'embedding')} taken from the index"


def _uncaptioned(dataset: Dataset) -> int:
    """Pictures in the folder of the captioned ones that no caption names."""
    folder = os.path.dirname(os.path.abspath(dataset.files[0]))
    names = {os.path.abspath(file) for file in dataset.files}
    return sum(os.path.join(folder, found.path) not in names for found in find_images(folder).found)
