"""Lance index beside shards: compressed vectors in lists, whose candidates are always scored anew in float16.

What compression loses is much for texts, which lie far from all pictures; so many more candidates are taken than are
asked for, and how many lists are looked into is chosen by recall on texts, when the index is made.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.bulk.scan import SHIFT, Nearest, nearest
from clipkit.bulk.shards import Shards
from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.arrow import arrow
from clipkit.core.lance_tables import lance, write_table
from clipkit.core.progress import Progress
from clipkit.errors import ClipkitError, IndexDamaged

POINTER = "lance.json"  # which folder beside the shards holds the index, and of which shards it is
KIND = "IVF_RQ"
BITS = 4  # a value, of RaBitQ: with 1, texts found .84 of the 10 nearest where with 4 they found .99; docs/scale.md
K = 10
MOST_K = 100  # more answers are searched exactly: recall is measured at 10
LIST_ROWS = 4096  # rows a list
LEAST_ROWS = 256  # k-means needs some
TARGET = 0.98  # recall@10 on texts that lists and candidates are chosen for
GOOD = 0.95  # below it the index does not answer
REFINE = (10, 20, 50)  # candidates for each answer, which float16 puts in order
_FOLDER = re.compile(r"lance-[0-9a-f]{12}")
_MARGIN = 6  # answers asked for beyond k: equal rows are put in the order of their ids afterwards
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Recall:
    """What an index finds of the 10 nearest rows.

    Attributes
    ----------
    recall : float
        Share of the 10 rows that an exact scan finds, over all queries.
    low, high : float
        Its 95 % interval, by a bootstrap over queries.
    queries : int
        How many texts were asked.
    rows : int
        Pictures that answer.
    nprobes : int
        Lists that a query looks into.
    refine : int
        Candidates for each answer.
    index_seconds, exact_seconds : float
        A query, by the index and by an exact scan: medians.

    Examples
    --------
    >>> from clipkit.bulk import Recall
    >>> Recall(0.97, 0.96, 0.98, 500, 5_000_000, 32, 10, 0.02, 6.0).is_good
    True
    """

    recall: float
    low: float
    high: float
    queries: int
    rows: int
    nprobes: int
    refine: int
    index_seconds: float
    exact_seconds: float

    @property
    def is_good(self) -> bool:
        """Whether the index may answer: recall of .95 or more."""
        return self.recall >= GOOD


@dataclass(frozen=True)
class Built:
    """An index that was made, as POINTER has it. shards: name -> what tells its content, in the order of positions."""

    folder: str
    kind: str
    shards: Mapping[str, str]
    rows: int
    nlist: int
    nprobes: int
    refine: int
    expected: float  # recall when lists and candidates were chosen
    recall: Recall | None = None  # as it was measured afterwards

    @property
    def is_good(self) -> bool:
        """Whether it may answer, by the newest that is known."""
        return self.recall.is_good if self.recall else self.expected >= GOOD


class LanceIndex:
    """An index that fits the shards; made by `open`. fresh: names of shards that are not in it, which are scanned."""

    def __init__(self, shards: Shards, built: Built) -> None:
        names = shards.names
        self.built = built
        self.fresh = [name for name in names if name not in built.shards]
        self._shards = shards
        self._numbers = np.array([names.index(name) for name in built.shards], np.int64)
        self._dataset = lance().dataset(f"{shards.storage.url.rstrip('/')}/{built.folder}")

    @classmethod
    def open(cls, shards: Shards, notify: Notify | None = None, *, is_judged: bool = True) -> LanceIndex | None:
        """None where there is none, or, with a sentence to `notify`, one that may not answer."""
        built = read_built(shards)
        if built is None:
            return None
        reason = _reason_against(shards, built, is_judged)
        try:
            index = None if reason else cls(shards, built)
        except (OSError, RuntimeError, ValueError) as error:  # as Lance says that files are missing or damaged
            index, reason = None, f"the index cannot be opened ({_first_line(error)})"
        if reason and notify:
            notify(f"{reason}: every row is read; anew: clipkit search --build ivf {shards.storage.url}")
        return index

    def search(self, queries: Embeddings, k: int) -> list[Nearest]:
        """The k nearest rows of each of `queries` (q, d): those of the lists, and exactly those of fresh shards."""
        found = [self._rescored(query, k) for query in queries]
        if self.fresh:
            beside = nearest(self._shards, queries, k, names=self.fresh)
            found = [one.joined(other, k) for one, other in zip(found, beside, strict=True)]
        return found

    def with_effort(self, nprobes: int, refine: int) -> LanceIndex:
        """The same, which looks into so many lists, and takes so many candidates for each answer."""
        return LanceIndex(self._shards, replace(self.built, nprobes=nprobes, refine=refine))

    def _rescored(self, query: FloatArray, k: int) -> Nearest:
        effort = {"nprobes": self.built.nprobes, "refine_factor": self.built.refine}
        table = self._ask(query, k + _MARGIN, effort, ["position", "embedding"])
        if len(table) < min(k, self.built.rows):  # lists that are nearly empty
            return nearest(self._shards, query[None], k, names=list(self.built.shards))[0]
        rows = np.asarray(table["embedding"].combine_chunks().flatten()).reshape(-1, len(query))
        scores = np.einsum("kd,d->k", rows.astype(np.float32), query)
        ids = self._ids(table)
        order = np.lexsort((ids, -scores))[:k]
        return Nearest(scores[order], ids[order], rows[order])

    def positions(self, query: FloatArray, k: int, effort: Mapping[str, int]) -> IntArray:
        """Ids (k,) as Lance puts them in order; without a `refine_factor` in `effort` by what is compressed."""
        return self._ids(self._ask(query, k, effort, ["position"]))

    def _ask(self, query: FloatArray, k: int, effort: Mapping[str, int], columns: list[str]) -> Any:
        wanted = {"column": "embedding", "q": query, "k": k, "metric": "dot", **effort}
        try:
            return self._dataset.to_table(columns=[*columns, "_distance"], nearest=wanted)
        except (OSError, RuntimeError, ValueError) as error:
            place = f"{self._shards.storage.url}/{self.built.folder}"
            hint = f"clipkit search --exact; or delete {place}, and build it again"
            raise IndexDamaged(f"{place} cannot be read: {_first_line(error)}", hint=hint) from error

    def _ids(self, table: Any) -> IntArray:
        positions = np.asarray(table["position"])
        ids: IntArray = (self._numbers[positions >> SHIFT] << SHIFT) + (positions & ((1 << SHIFT) - 1))
        return ids


def read_built(shards: Shards) -> Built | None:
    """What POINTER says; None where there is none, or one that cannot be understood."""
    try:
        said = json.loads(shards.storage.read(POINTER))
        known = {field.name: said[field.name] for field in fields(Built) if field.name in said}
        recall = Recall(**said["recall"]) if said.get("recall") else None
        built = Built(**{**known, "recall": recall})
        return built if _FOLDER.fullmatch(built.folder) else None  # it may come from anybody, and is removed one day
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_built(shards: Shards, built: Built) -> None:
    """Let POINTER say so, in one step."""
    shards.storage.write(POINTER, json.dumps(asdict(built), indent=1).encode())


def build(shards: Shards, texts: Embeddings, *, progress: Callable[[Progress], None] | None = None) -> Built:
    """Make the index anew, beside the one that answers until it is whole; `texts` (q, d) choose lists and candidates.

    ClipkitError where there are too few rows, or OUT cannot be written; nothing is changed then.
    """
    lance()
    before, folder = read_built(shards), f"lance-{secrets.token_hex(6)}"
    place = f"{shards.storage.url.rstrip('/')}/{folder}"
    is_whole = False
    try:
        stamps = {name: shards.stamp(name) for name in shards.names}
        dataset = _write(shards, place, list(stamps), progress)
        rows = dataset.count_rows()
        if rows < LEAST_ROWS:
            fact = f"{shards.storage.url} has {rows:,} pictures, and an index needs {LEAST_ROWS}"
            raise ClipkitError(fact, hint="search as before: every row is read, which is as quick")
        lists = max(1, rows // LIST_ROWS)
        dataset.create_index("embedding", index_type=KIND, metric="dot", num_partitions=lists, num_bits=BITS)
        built = Built(folder, KIND, stamps, rows, lists, 1, REFINE[-1], 0.0)
        built = calibrated(LanceIndex(shards, built), texts, exact_ids(shards, texts))
        write_built(shards, built)
        is_whole = True
    except (OSError, RuntimeError) as error:  # as Lance says that a disk is full, or a folder not ours
        raise _not_built(shards, error) from error
    finally:
        if not is_whole:
            _drop(shards, folder)
    if before is not None:
        _drop(shards, before.folder)
    return built


def build_if_due(
    shards: Shards, texts: Callable[[], Embeddings], *, progress: Callable[[Progress], None] | None = None
) -> Built:
    """The index that is there, if it is of all these shards and good; else a new one. texts: asked for only then."""
    index = LanceIndex.open(shards)
    return index.built if index and not index.fresh else build(shards, texts(), progress=progress)


def exact_ids(shards: Shards, texts: Embeddings, k: int = K) -> list[IntArray]:
    """Ids (k,) of the nearest rows of each text, by a scan."""
    return [one.ids for one in nearest(shards, texts, k)]


def shares(found: Sequence[Nearest], exact: Sequence[IntArray]) -> FloatArray:
    """Of each query the share (q,) of its nearest rows that were found."""
    pairs = zip(found, exact, strict=True)
    return np.array([len(set(one.ids.tolist()) & set(ids.tolist())) / max(1, len(ids)) for one, ids in pairs])


def calibrated(index: LanceIndex, texts: Embeddings, exact: Sequence[IntArray]) -> Built:
    """The fewest lists that reach TARGET with the most candidates, then the fewest candidates that still do."""

    def recall(nprobes: int, refine: int) -> float:
        return float(shares(index.with_effort(nprobes, refine).search(texts, K), exact).mean())

    nprobes, reached = 1, 0.0
    for nprobes in _ladder(index.built.nlist):
        reached = recall(nprobes, REFINE[-1])
        if reached >= TARGET:
            break
    refine = REFINE[-1]
    for fewer in REFINE[:-1]:
        if (less := recall(nprobes, fewer)) >= min(TARGET, reached):
            refine, reached = fewer, less
            break
    return replace(index.built, nprobes=nprobes, refine=refine, expected=round(reached, 4), recall=None)


def _ladder(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ...: up to `most`."""
    steps = {min(most, round(2 ** (step / 2))) for step in range(64)}
    return sorted(steps)


def _reason_against(shards: Shards, built: Built, is_judged: bool) -> str:
    """Why an index may not answer; "" where it may."""
    there = set(shards.names)
    if any(name not in there or shards.stamp(name) != stamp for name, stamp in built.shards.items()):
        return "the index is of other shards than those that are there now"
    if is_judged and not built.is_good:
        recall = built.recall.recall if built.recall else built.expected
        return f"the index finds {recall:.3f} of the 10 nearest, less than {GOOD}"
    return ""


def _write(shards: Shards, place: str, names: Sequence[str], progress: Callable[[Progress], None] | None) -> Any:
    pa, _ = arrow()
    dim = shards.manifest.dim
    schema = pa.schema({"position": pa.int64(), "embedding": pa.list_(pa.float16(), dim)})

    def batches() -> Iterator[Any]:
        for number, name in enumerate(names):
            for block in shards.blocks(name):
                rows = np.flatnonzero(block.is_unit)
                vectors = pa.array(np.ascontiguousarray(block.embeddings[rows]).ravel())
                columns = [(number << SHIFT) + block.start + rows, pa.FixedSizeListArray.from_arrays(vectors, dim)]
                yield pa.record_batch(columns, schema=schema)
            if progress:
                progress(Progress(number + 1, len(names), name))

    return write_table(place, batches(), schema)


def _not_built(shards: Shards, error: Exception) -> ClipkitError:
    fact, text = f"no index was built in {shards.storage.url}, and nothing was changed", str(error)
    if "No space left" in text or "os error 28" in text:
        hint = "free some space, about 3 bytes for each value of an embedding, and build again"
        return ClipkitError(f"{fact}: the disk is full", hint=hint)
    if "ermission denied" in text or "ead-only" in text:
        return ClipkitError(f"{fact}: it cannot be written", hint="clipkit merge OUT --index FOLDER, which reads alone")
    return ClipkitError(f"{fact}: {_first_line(error)}", hint="search as before: every row is read")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _drop(shards: Shards, folder: str) -> None:
    if shards.storage.is_local:
        shutil.rmtree(Path(shards.storage.path) / folder, ignore_errors=True)
        return
    with suppress(OSError, RuntimeError, ValueError):
        lance().LanceDataset.drop(f"{shards.storage.url.rstrip('/')}/{folder}")
