"""Workers of a cluster: what decodes some pictures, and what encodes them. No cluster in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipkit.bulk.readers import Item, read_beside, read_item
from clipkit.bulk.shards import Row
from clipkit.bulk.storage import Storage
from clipkit.core.arrays import check_embeddings
from clipkit.errors import ClipkitError, ImageError, ShapeError
from clipkit.images import guarded_decoder
from clipkit.images.recipe import Picture, PixelRecipe, Pixels
from clipkit.models.encoder import Encoder
from clipkit.models.onnx import OnnxEncoder

READERS = 8  # files of a chunk that are fetched side by side; decoded are they one after the other

Half = npt.NDArray[np.float16]


@dataclass(frozen=True)
class EncoderFacts:
    """What an encoder on a worker is; all of them must be the same."""

    model: str
    source: str
    fingerprint: str
    engine: str
    precision: str
    dim: int
    recipe: PixelRecipe


@dataclass(frozen=True)
class EncodedChunk:
    """Embeddings of the pictures that have pixels, in order, (n, dim); a failure is a row of zeros with its reason."""

    embeddings: Half
    errors: dict[int, str]


def decode_chunk(
    storage: Storage, items: Sequence[Item], recipe: PixelRecipe
) -> tuple[list[Row], npt.NDArray[np.uint8]]:
    """A row for each item, still without its embedding, and the pixels of those without an error: (n, 3, h, w).

    A decoder that crashes or hangs costs its picture. OSError where a bucket does not answer.
    """
    if storage.is_local and not storage.is_there():
        hint = "a bucket, or a folder that every machine of the cluster mounts at the same place"
        raise ClipkitError(f"{storage.url} is not there on a worker's machine", hint=hint)
    rows, pixels = [], []
    with ThreadPoolExecutor(READERS) as pool:
        for item, data in zip(items, pool.map(lambda item: _read(storage, item), items), strict=True):
            row, picture = _decoded(storage, item, data, recipe)
            rows.append(row)
            pixels += [picture] if picture is not None else []
    height, width = recipe.size
    return rows, np.stack(pixels) if pixels else np.empty((0, 3, height, width), np.uint8)


def dead_row(item: Item, reason: str) -> Row:
    """A picture that took a whole worker down."""
    return Row(item.path, None, None, None, None, reason, None)


class EncoderWorker:
    """An encoder on a worker, loaded when it is first asked. pictures: that all of them together will get."""

    def __init__(self, load: Callable[[], Encoder], pictures: int) -> None:
        self._load, self._pictures = load, pictures
        self._has_encoded = False

    def facts(self) -> EncoderFacts:
        """What it is. Raises what loading raises."""
        e = self._encoder
        return EncoderFacts(e.model, e.source, e.fingerprint, e.engine, e.precision, e.dim, e.recipe)

    def encode(self, pixels: npt.NDArray[np.uint8]) -> EncodedChunk:
        """float16 as shards have it. A picture of which the model makes no embedding costs itself alone."""
        try:
            rows = check_embeddings(self._encoder.encode_pixels(pixels), self._encoder.dim)
            self._has_encoded = True
            return EncodedChunk(rows.astype(np.float16), {})
        except ShapeError as error:
            alone = [self._encode_alone(pixels[i : i + 1]) for i in range(len(pixels))]
            errors = {i: row for i, row in enumerate(alone) if isinstance(row, str)}
            if len(errors) == len(pixels) > 1 and not self._has_encoded:
                raise ShapeError(f"the model fails on every picture: {error.message}", hint="clipkit models") from error
            nothing = np.zeros(self._encoder.dim, np.float16)
            return EncodedChunk(np.stack([nothing if isinstance(row, str) else row for row in alone]), errors)

    def _encode_alone(self, pixels: npt.NDArray[np.uint8]) -> Half | str:
        try:
            row: Half = check_embeddings(self._encoder.encode_pixels(pixels), self._encoder.dim)[0].astype(np.float16)
        except ShapeError as error:
            return f"the model failed: {error.message}"
        return row

    @cached_property
    def _encoder(self) -> Encoder:
        encoder = self._load()
        if isinstance(encoder, OnnxEncoder):
            encoder.expect(self._pictures)
        return encoder


def finished_rows(rows: Sequence[Row], chunk: EncodedChunk | None) -> Iterator[Row]:
    """Rows with their embeddings. chunk: None where no row has pixels."""
    position = 0
    for row in rows:
        if row.error is not None or chunk is None:
            yield row
            continue
        error = chunk.errors.get(position)
        embedding = None if error else chunk.embeddings[position]
        yield Row(row.path, row.sha256, row.width, row.height, row.taken_at, error, embedding)
        position += 1


def _read(storage: Storage, item: Item) -> bytes | str:
    """The bytes, or why there are none."""
    try:
        return read_item(storage, item)
    except ImageError as error:
        return error.message


def _decoded(storage: Storage, item: Item, data: bytes | str, recipe: PixelRecipe) -> tuple[Row, Pixels | None]:
    if isinstance(data, str):
        return dead_row(item, data), None
    sha256 = hashlib.sha256(data).digest()
    try:
        picture: Picture = guarded_decoder.decode(data, recipe, name=item.path)
    except ImageError as error:
        reason = error.message.removeprefix(f"{item.path}: ")
        return Row(item.path, sha256, None, None, None, reason, None), None
    beside = read_beside(storage, item)
    metadata = beside.over(picture.metadata) if beside else picture.metadata
    return Row(item.path, sha256, picture.width, picture.height, metadata.taken_at, None, None), picture.pixels
