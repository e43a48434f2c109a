"""Ray engine: decode tasks on the CPUs of a cluster feed encoder actors, and the driver publishes whole shards.

Ray computes, and keeps nothing: what an encoder gave lies in the driver's memory until its shard is published, so that
a machine which dies costs only the chunks it had at hand.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from clipkit.bulk.plan import PlannedShard
from clipkit.bulk.readers import Item
from clipkit.bulk.shards import Row
from clipkit.bulk.storage import Storage
from clipkit.bulk.worker import EncodedChunk, EncoderFacts, EncoderWorker, dead_row, decode_chunk, finished_rows
from clipkit.core.progress import Progress
from clipkit.core.system import usable_cores
from clipkit.errors import ClipkitError, ModelMismatch
from clipkit.images.recipe import PixelRecipe
from clipkit.models.encoder import Encoder, embeddings_agree

LOCAL = "local"
STORE_BYTES = 512 * 2**20  # of a cluster on this machine: some chunks of pixels; what is more goes to the disk
STARTS = 3  # a machine with much else to do can be too slow for Ray's own patience with itself
CHUNK_BYTES = 64 * 2**20  # of files that one decode task holds; a larger file comes alone
CHUNK = {False: 64, True: 256}  # pictures a chunk, by whether encoders have GPUs
WAITING = 2  # chunks of pixels that wait for each encoder
STORE_SHARE = 0.3  # of the object store that pixels in flight may take
ALONE = 2  # times that a picture may take down what decodes it, alone, before it is blamed for a third
TRIES = 5  # of a chunk, before the run ends
PATIENCE_SECONDS = 300.0  # without any encoder
TOLD_SECONDS = 30.0  # of waiting for the first encoder, before somebody is told
RESTART_SECONDS = 0.5  # between two questions to an encoder that is gone
PUBLISHERS = 4  # shards written side by side

Publish = Callable[[PlannedShard, Sequence[Row]], None]


@dataclass(frozen=True)
class Layout:
    """Encoders of a run. workers: how many; None: one a GPU, or one a machine where there is none.

    gpus: of each; None: 1 where the cluster has any.
    """

    workers: int | None = None
    gpus: float | None = None
    device: str = "auto"


@dataclass
class _Chunk:
    """Some pictures of a shard, from `start` of it. rows: once they are decoded."""

    shard: _Shard
    start: int
    items: Sequence[Item]
    tries: int = 0
    rows: Sequence[Row] = ()


@dataclass
class _Shard:
    planned: PlannedShard
    rows: list[Row | None]
    left: int


@dataclass
class _Actor:
    """An encoder on the cluster. ready: the answer that says so, until it has come."""

    handle: Any
    ready: Any
    chunks: dict[Any, _Chunk] = field(default_factory=dict)


class Cluster:
    """A connection to Ray. Made by `connected`."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        resources = ray.cluster_resources()
        self.cpus, self.gpus = int(resources.get("CPU", 0)), float(resources.get("GPU", 0))
        self.store_bytes = int(resources.get("object_store_memory", STORE_BYTES))
        if not self.cpus:
            hint = "a node with CPUs: ray start --address HEAD:6379"
            raise ClipkitError("this cluster has no CPU for the decoding of pictures", hint=hint)

    def count(self, layout: Layout) -> int:
        """How many encoders there will be."""
        gpus = self.gpus_of(layout)
        return layout.workers or (max(1, int(self.gpus / gpus)) if gpus else len(self.nodes))

    def encoder(self, number: int, layout: Layout, load: Callable[[], Encoder], pictures: int) -> Any:
        """An encoder actor. pictures: that it may expect.

        It reserves no CPU, whatever it uses: two that took the last CPUs of a cluster that had lost a machine would
        leave none for the decoding that they wait for. Those without a GPU are spread over the machines.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        gpus = self.gpus_of(layout)
        node = self.nodes[number % len(self.nodes)]["NodeID"]
        place = {} if gpus else {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}
        kind = self.ray.remote(num_cpus=0, num_gpus=gpus, max_restarts=-1, max_task_retries=0, **place)
        return kind(EncoderWorker).remote(load, pictures)

    def gpus_of(self, layout: Layout) -> float:
        """GPUs of each encoder."""
        if layout.device == "cpu":
            return 0.0
        return (1.0 if self.gpus else 0.0) if layout.gpus is None else layout.gpus


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """A cluster: the one at `address`; for "local" or None one of this machine, which ends with the block."""
    ray = _ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _start(ray, address or LOCAL)
    try:
        yield Cluster(ray)
    finally:
        if is_ours:
            ray.shutdown()


def embed_shards(
    cluster: Cluster,
    storage: Storage,
    shards: Sequence[PlannedShard],
    *,
    load: Callable[[str], Encoder],
    model: str,
    layout: Layout,
    check: Callable[[EncoderFacts], None],
    publish: Publish,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> None:
    """Embed every picture of these shards and publish each shard when it is complete.

    load: makes the encoder of a name, on a worker. check: may refuse what the first encoder is; called before anything
    is decoded. publish: called in a thread, once a shard, with its rows.
    """
    count = cluster.count(layout)
    pictures = -(-sum(len(shard.items) for shard in shards) // count)
    with _end_of(cluster.ray) as actors:
        actors.append(cluster.encoder(0, layout, partial(load, model), pictures))
        facts = _facts(cluster, actors[0], notify)
        check(facts)
        again = partial(load, facts.source)  # the same for all, whatever "auto" means on their machine
        actors.extend(cluster.encoder(number, layout, again, pictures) for number in range(1, count))
        run = _Run(cluster, storage, facts, actors, has_gpus=cluster.gpus_of(layout) > 0)
        with ThreadPoolExecutor(PUBLISHERS, "clipkit-publish") as pool:
            run.run(shards, lambda shard, rows: pool.submit(publish, shard, rows), progress)


class _Run:
    """Chunks on their way: waiting, being decoded, being encoded, and then rows of a shard."""

    def __init__(
        self, cluster: Cluster, storage: Storage, facts: EncoderFacts, handles: Sequence[Any], *, has_gpus: bool
    ) -> None:
        self._ray, self._facts = cluster.ray, facts
        self._storage, self._recipe = cluster.ray.put(storage), cluster.ray.put(facts.recipe)
        kind = cluster.ray.remote(num_cpus=1, num_returns=2, max_retries=0, scheduling_strategy="SPREAD")
        self._decode = kind(decode_chunk)  # what fails is sent again here, where it is known what it was
        self._actors = [_Actor(handle, handle.facts.remote()) for handle in handles]
        self._chunk_rows = CHUNK[has_gpus]
        self._most = _window(cluster, len(handles), facts.recipe, self._chunk_rows)
        self._decoding: dict[Any, tuple[_Chunk, Any]] = {}
        self._again: deque[_Chunk] = deque()
        self._decoded: deque[tuple[_Chunk, Any]] = deque()
        self._published: list[Future[None]] = []
        self._last_encoder = time.monotonic()

    def run(
        self,
        shards: Sequence[PlannedShard],
        publish: Callable[[PlannedShard, Sequence[Row]], Future[None]],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        waiting = chunks_of(shards, self._chunk_rows)
        done, total = 0, sum(len(shard.items) for shard in shards)
        while self._fill(waiting) or self._in_flight or self._published:
            for chunk in self._advance():
                shard = chunk.shard
                shard.rows[chunk.start : chunk.start + len(chunk.items)] = chunk.rows
                shard.left -= len(chunk.items)
                done += len(chunk.items)
                if not shard.left:
                    self._published.append(publish(shard.planned, [row for row in shard.rows if row is not None]))
                    shard.rows = []
                if progress:
                    progress(Progress(done, total, chunk.items[-1].path))
            self._published = _unfinished(self._published, self._in_flight)

    @property
    def _in_flight(self) -> int:
        """Chunks that take memory of the cluster."""
        return len(self._decoding) + len(self._decoded) + sum(len(actor.chunks) for actor in self._actors)

    def _fill(self, waiting: Iterator[_Chunk]) -> bool:
        """Send off as many chunks as may be in flight, and none while shards wait for a slow disk."""
        while self._in_flight < self._most and len(self._published) < PUBLISHERS:
            chunk = self._again.popleft() if self._again else next(waiting, None)
            if chunk is None:
                return False
            rows, pixels = self._decode.remote(self._storage, chunk.items, self._recipe)
            self._decoding[rows] = (chunk, pixels)
        return True

    def _advance(self) -> Iterator[_Chunk]:
        """Wait a moment for any answer, and give the chunks that are complete."""
        pending = [*self._decoding, *(answer for actor in self._actors for answer in self._awaited(actor))]
        ready = self._ray.wait(pending, num_returns=len(pending), timeout=0)[0] if pending else []
        if pending and not ready:
            ready = self._ray.wait(pending, num_returns=1, timeout=1)[0]
        for answer in ready:
            if answer in self._decoding:
                yield from self._take_rows(answer)
            for actor in self._actors:
                if answer in self._awaited(actor):
                    yield from self._take_answer(actor, answer)
        self._hand_out()

    @staticmethod
    def _awaited(actor: _Actor) -> list[Any]:
        return [actor.ready, *actor.chunks] if actor.ready is not None else list(actor.chunks)

    def _take_rows(self, answer: Any) -> Iterator[_Chunk]:
        chunk, pixels = self._decoding.pop(answer)
        errors = self._ray.exceptions
        try:
            chunk.rows = self._get(answer)
        except errors.WorkerCrashedError:
            yield from self._isolated(chunk)
        except (errors.RayError, OSError) as error:  # a machine or its memory is gone, a bucket does not answer
            self._once_more(chunk, error)
        else:
            if any(row.error is None for row in chunk.rows):
                self._decoded.append((chunk, pixels))
            else:
                yield chunk

    def _isolated(self, chunk: _Chunk) -> Iterator[_Chunk]:
        """A chunk that has taken down what decoded it is cut, until it is clear which picture does."""
        if len(chunk.items) == 1 and chunk.tries < ALONE:
            self._again.append(_Chunk(chunk.shard, chunk.start, chunk.items, chunk.tries + 1))
        elif len(chunk.items) > 1:
            half = -(-len(chunk.items) // 2)
            for start in (0, half):
                self._again.append(_Chunk(chunk.shard, chunk.start + start, chunk.items[start : start + half]))
        else:
            chunk.rows = [dead_row(chunk.items[0], "the process that decoded it died, alone with it")]
            yield chunk

    def _take_answer(self, actor: _Actor, answer: Any) -> Iterator[_Chunk]:
        chunk = actor.chunks.pop(answer, None)
        try:
            found = self._get(answer)
        except self._ray.exceptions.RayError as error:
            if chunk is None:
                time.sleep(RESTART_SECONDS)
            if chunk is None or actor.ready is None:
                actor.ready = actor.handle.facts.remote()  # it starts again, and says when it is there
            if chunk is not None:
                self._once_more(chunk, error)
            return
        self._last_encoder = time.monotonic()
        if chunk is None:
            actor.ready = None
            _check_same(self._facts, found)
            return
        encoded: EncodedChunk = found
        chunk.rows = list(finished_rows(chunk.rows, encoded))
        yield chunk

    def _hand_out(self) -> None:
        """Give decoded chunks to the encoders that are there, each to the one with the least to do."""
        there = [actor for actor in self._actors if actor.ready is None]
        if not there and time.monotonic() - self._last_encoder > PATIENCE_SECONDS:
            hint = "ray status; what is published is kept, and the same command goes on"
            raise ClipkitError(f"no encoder has answered for {PATIENCE_SECONDS:.0f} seconds", hint=hint)
        while there and self._decoded:
            chunk, pixels = self._decoded.popleft()
            actor = min(there, key=lambda one: len(one.chunks))
            actor.chunks[actor.handle.encode.remote(pixels)] = chunk

    def _once_more(self, chunk: _Chunk, error: Exception) -> None:
        chunk.tries, chunk.rows = chunk.tries + 1, ()
        if chunk.tries > TRIES:
            where = chunk.items[0].path
            hint = "what is published is kept, and the same command goes on"
            raise ClipkitError(f"the pictures from {where} on failed {TRIES} times: {_first_line(error)}", hint=hint)
        self._again.append(chunk)

    def _get(self, answer: Any) -> Any:
        """An answer of a worker; what our own code raised there as itself."""
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ClipkitError | OSError):
                raise error.cause from None
            raise


def chunks_of(shards: Sequence[PlannedShard], rows: int) -> Iterator[_Chunk]:
    """Runs of at most `rows` pictures and, but for a single large one, CHUNK_BYTES of files."""
    for planned in shards:
        shard = _Shard(planned, [None] * len(planned.items), len(planned.items))
        start, size_bytes = 0, 0
        for i, item in enumerate(planned.items):
            if i > start and (i - start == rows or size_bytes + item.size > CHUNK_BYTES):
                yield _Chunk(shard, start, planned.items[start:i])
                start, size_bytes = i, 0
            size_bytes += item.size
        yield _Chunk(shard, start, planned.items[start:])


def _window(cluster: Cluster, encoders: int, recipe: PixelRecipe, chunk_rows: int) -> int:
    """How many chunks may be in flight: enough to keep all busy, within a share of the object store."""
    chunk_bytes = 3 * recipe.size[0] * recipe.size[1] * chunk_rows
    wanted = cluster.cpus + (1 + WAITING) * encoders
    return max(2, min(wanted, int(STORE_SHARE * cluster.store_bytes) // chunk_bytes))


def _unfinished(published: list[Future[None]], in_flight: int) -> list[Future[None]]:
    """Those that still write; what one of the others raised is raised here. Waits where nothing else is to be done."""
    if published and not in_flight:
        published[0].result()
    for future in published:
        if future.done():
            future.result()
    return [future for future in published if not future.done()]


def _facts(cluster: Cluster, actor: Any, notify: Callable[[str], None]) -> EncoderFacts:
    """What the first encoder is, as soon as there is one."""
    ray, answer = cluster.ray, actor.facts.remote()
    is_told = False
    while not ray.wait([answer], timeout=TOLD_SECONDS)[0]:
        if not is_told:
            notify(f"waiting for an encoder: the cluster has {cluster.cpus} CPUs and {cluster.gpus:g} GPUs")
        is_told = True
    try:
        facts: EncoderFacts = ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClipkitError):
            raise error.cause from None
        raise ClipkitError(
            f"the model does not load on a worker: {_first_line(error)}", hint="clipkit models"
        ) from error
    except ray.exceptions.RayError as error:
        raise ClipkitError(f"a worker died of loading the model: {_first_line(error)}", hint="ray status") from error
    return facts


def _check_same(first: EncoderFacts, other: EncoderFacts) -> None:
    made, here = (first.engine, first.precision), (other.engine, other.precision)
    if (first.fingerprint, first.recipe) != (other.fingerprint, other.recipe):
        hint = "one version of clipkit, and the same weights, on every machine"
        raise ModelMismatch(f"the workers have different weights of {first.model}", hint=hint)
    if not embeddings_agree(made, here):
        fact = (
            f"{first.model} is computed in {made[1]} by {made[0]} on one worker, in {here[1]} by {here[0]} on another"
        )
        raise ModelMismatch(fact, hint="--precision float32")


@contextmanager
def _end_of(ray: Any) -> Iterator[list[Any]]:
    """The actors that are put into this list end with the block: in a cluster of others they would hold their GPUs."""
    actors: list[Any] = []
    try:
        yield actors
    finally:
        for actor in actors:
            with suppress(ray.exceptions.RayError, RuntimeError):
                ray.kill(actor)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what will be Ray's way, and else a warning
    try:
        import ray
    except ImportError as error:
        raise ClipkitError("embedding on a cluster needs Ray", hint="pip install 'clipkit[ray]'") from error
    return ray


def _start(ray: Any, address: str) -> None:
    quiet = {"logging_level": "error", "log_to_driver": False}
    own = {"num_cpus": usable_cores(), "include_dashboard": False, "object_store_memory": STORE_BYTES}
    for number in range(STARTS if address == LOCAL else 1):
        try:
            ray.init(address, **quiet, **(own if address == LOCAL else {}))
            return
        except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
            ray.shutdown()
            if number == STARTS - 1 or address != LOCAL:
                hint = "start one, as docs/scale.md says, or leave the address out, for this machine alone"
                raise ClipkitError(f"no Ray at {address}: {_first_line(error)}", hint=hint) from error


def _first_line(error: BaseException) -> str:
    error = getattr(error, "cause", None) or error  # of a RayTaskError
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
