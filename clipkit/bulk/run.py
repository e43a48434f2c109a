"""Runs of embedding in bulk: what is there stays, what is missing is made, each picture is there once in the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from clipkit.bulk.places import ABOUT
from clipkit.bulk.plan import Plan, PlannedShard, make_plan
from clipkit.bulk.ray_engine import Layout, connected, embed_shards
from clipkit.bulk.readers import Source, list_source
from clipkit.bulk.shards import Manifest, Row, Shards, shard_bytes, write_manifest
from clipkit.bulk.storage import Storage
from clipkit.bulk.worker import EncoderFacts
from clipkit.core.progress import Failure, Progress
from clipkit.core.text import described
from clipkit.core.version import __version__
from clipkit.errors import ClipkitError, ModelMismatch
from clipkit.models.devices import INT8
from clipkit.models.encoder import Encoder, embeddings_agree
from clipkit.models.load import load_encoder

SHARD_ROWS = 10_000
NAMED = 100  # failures that a report has by name; all of them are in the shards


@dataclass(frozen=True)
class BulkReport:
    """What one run of `embed` did, in pictures and in shards.

    Attributes
    ----------
    found : int
        Pictures in the source.
    embedded : int
        Went through the model in this run.
    kept : int
        In shards that were there.
    failed : int
        Rows of this run that have an error instead of an embedding.
    failures : tuple of Failure
        The first hundred of them.
    written, removed : int
        Shards: made in this run; taken away, because their pictures are gone or in another shard now.
    left_out : int
        Files of the source that are no pictures.
    seconds : float
        Wall time, with the start of the cluster and the loading of the model.
    is_planned : bool, default False
        Nothing was done: `embedded`, `written` and `removed` say what would be.

    Examples
    --------
    >>> from clipkit.bulk import embed
    >>> embed("photos", "embedded", dry_run=True)
    BulkReport(found=4, embedded=4, written=1, is_planned)
    """

    found: int
    embedded: int
    kept: int
    failed: int = 0
    failures: tuple[Failure, ...] = field(default=(), repr=False)
    written: int = 0
    removed: int = 0
    left_out: int = 0
    seconds: float = 0.0
    is_planned: bool = False

    def __repr__(self) -> str:
        names = ("embedded", "kept", "failed", "written", "removed", "left_out")
        shown = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name)]
        end = "is_planned" if self.is_planned else f"seconds={self.seconds:.1f}"
        return described(self, f"found={self.found}", *shown, end)


def embed(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | Encoder | None = None,
    address: str | None = None,
    shard: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    exact_pixels: bool = False,
    allow_pickle: bool = False,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> BulkReport:
    """Embed pictures on a Ray cluster, into shards of parquet; what is there already is kept.

    Needs the extra `ray`. The pictures, sorted by name, are cut into shards; a shard is one file, written whole. A run
    that was interrupted, by whatever, goes on where it stopped. Pictures that cannot be read are rows with a reason.

    Parameters
    ----------
    source : str or path
        A folder, a URL that fsspec knows ("s3://bucket/photos"), tars of webdataset ("photos/*.tar", or a folder of
        them), or a parquet table, or a folder of them, with a column of bytes or of paths.
    out : str or path
        A folder or URL for the shards and their `clipkit.json`. Shards of pictures that the source has not any more
        are removed from it in the end.
    model : str or Encoder, optional
        As `load_encoder` takes it, on each worker. By default that of `out`, and for a new one "auto". An encoder of
        your own must be picklable.
    address : str, optional
        Of a cluster: "auto" or "ray://host:10001". By default a cluster of this machine, for this run.
    shard : int, optional
        Pictures a shard, at most. By default as in `out`, and for a new one 10,000.
    device, precision, batch_size, exact_pixels, allow_pickle
        As `load_encoder` takes them, on each worker.
    workers : int, optional
        Encoders. By default one a GPU, or one a machine where there is none.
    gpus_per_worker : float, optional
        GPUs of each encoder, 0.5 for two on one. By default 1 where the cluster has any.
    retry_failed : bool, default False
        Make shards again that have an error in them.
    dry_run : bool, default False
        Say what would be done, and do nothing.
    progress : callable, optional
        Given a `Progress` now and then.
    notify : callable, optional
        Given a sentence when something takes long.

    Returns
    -------
    BulkReport
        What was done.

    Raises
    ------
    ModelMismatch
        If `out` has shards of another model, or of other pixels.
    ClipkitError
        If the source cannot be listed, there is no cluster, a bucket does not answer, or the disk is full. What is
        published stays, and another run goes on.

    Examples
    --------
    >>> from clipkit.bulk import embed
    >>> embed("photos", "embedded", dry_run=True).found
    4
    >>> report = embed("photos", "embedded", model="starter")  # doctest: +SKIP
    >>> report = embed("s3://bucket/photos", "s3://bucket/shards", address="auto")  # doctest: +SKIP
    """
    started = time.monotonic()
    target, pictures = Storage(os.fspath(out)), list_source(os.fspath(source))
    if not pictures.items:
        raise ClipkitError(f"no pictures in {pictures.url}", hint="a folder, a bucket, tars or tables that have some")
    shards = Shards(target.url) if target.names(ABOUT) else None
    manifest = shards.manifest if shards is not None else None  # not `if shards`: that counts their rows
    if shards is not None:
        _check_place(shards, pictures, shard)
    outcome = _Outcome(target, pictures.url, _rows(manifest, shard), manifest)
    plan = make_plan(pictures.items, outcome.shard_rows, shards, retry_failed=retry_failed)
    if dry_run:
        return _report(pictures, plan)
    if plan.todo:
        ways = _Ways(device, precision, batch_size, exact_pixels, allow_pickle)
        with connected(address) as cluster:
            embed_shards(
                cluster,
                pictures.storage,
                plan.todo,
                load=partial(_load, model, ways.of(outcome.manifest)),
                model=_name(model, outcome.manifest),
                layout=Layout(workers, gpus_per_worker, device),
                check=outcome.begin,
                publish=outcome.publish,
                progress=progress,
                notify=notify or (lambda _: None),
            )
    for name in plan.stale:
        target.delete(name)
    target.sweep()
    return outcome.report(_report(pictures, plan), time.monotonic() - started)


@dataclass(frozen=True)
class _Ways:
    """How each worker loads the model."""

    device: str
    precision: str
    batch_size: int | None
    exact_pixels: bool
    allow_pickle: bool

    def of(self, manifest: Manifest | None) -> _Ways:
        """As what is there was made, where nobody asked for anything else."""
        if manifest is None:
            return self
        is_int8 = self.precision == "auto" and INT8 in manifest.precision.split()
        is_exact = self.exact_pixels or manifest.pixel_recipe.startswith("exact")
        return replace(self, precision=INT8 if is_int8 else self.precision, exact_pixels=is_exact)


class _Outcome:
    """What a run leaves: the manifest, shards, and the count of failures."""

    def __init__(self, target: Storage, source: str, shard_rows: int, manifest: Manifest | None) -> None:
        self._target, self._source, self.shard_rows, self.manifest = target, source, shard_rows, manifest
        self._failed, self._failures = 0, list[Failure]()
        self._dim = 0

    def begin(self, facts: EncoderFacts) -> None:
        """Write the manifest before the first shard. ModelMismatch where that of another model is there."""
        self._dim = facts.dim
        if self.manifest is not None:
            _check_model(self.manifest, facts, self._target.url)
            return
        manifest = Manifest(
            model=facts.model,
            weights_sha256=facts.fingerprint,
            engine=facts.engine,
            precision=facts.precision,
            dim=facts.dim,
            pixel_recipe=str(facts.recipe),
            created_by=f"clipkit {__version__}",
            source=self._source,
            shard_rows=self.shard_rows,
            model_source=facts.source,
        )
        self._write(lambda: write_manifest(self._target, manifest))

    def publish(self, shard: PlannedShard, rows: Sequence[Row]) -> None:
        """Write a shard; called by several threads."""
        content = shard_bytes(rows, self._dim)
        self._write(lambda: self._target.write(shard.name, content))
        failures = [Failure(row.path, row.error) for row in rows if row.error]
        self._failed += len(failures)
        self._failures += failures[: NAMED - len(self._failures)]

    def report(self, planned: BulkReport, seconds: float) -> BulkReport:
        """What became of the plan."""
        failures = tuple(sorted(self._failures, key=lambda failure: failure.path))
        done = replace(planned, embedded=planned.embedded - self._failed, failed=self._failed, failures=failures)
        return replace(done, seconds=seconds, is_planned=False)

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            hint = "room, or the right to write; what is published is kept, and the same command goes on"
            raise ClipkitError(f"cannot write to {self._target.url}: {error.strerror or error}", hint=hint) from error


def _load(given: str | Encoder | None, ways: _Ways, name: str) -> Encoder:
    """On a worker: the encoder of that name, or the one that was given."""
    if given is not None and not isinstance(given, str):
        return given
    return load_encoder(name, **vars(ways))


def _name(model: str | Encoder | None, manifest: Manifest | None) -> str:
    """What the first worker loads."""
    if model is not None:
        return model if isinstance(model, str) else model.model
    return (manifest.model_source or manifest.model) if manifest else "auto"


def _rows(manifest: Manifest | None, shard: int | None) -> int:
    if shard is not None and shard < 1:
        raise ClipkitError(f"a shard of {shard} pictures holds none", hint="--shard 10000")
    return manifest.shard_rows if manifest else shard or SHARD_ROWS


def _report(source: Source, plan: Plan) -> BulkReport:
    return BulkReport(
        found=len(source.items),
        embedded=plan.pictures_todo,
        kept=plan.pictures_kept,
        written=len(plan.todo),
        removed=len(plan.stale),
        left_out=source.left_out,
        is_planned=True,
    )


def _check_place(shards: Shards, source: Source, shard: int | None) -> None:
    """ClipkitError where what is there was made from something else: its shards would be taken for stale."""
    manifest, url = shards.manifest, shards.storage.url
    if manifest.source != source.url:
        raise ClipkitError(f"{url} holds the pictures of {manifest.source}, not of {source.url}", hint="--out ANOTHER")
    if shard not in (None, manifest.shard_rows):
        raise ClipkitError(
            f"{url} has shards of {manifest.shard_rows} pictures, not of {shard}",
            hint=f"--shard {manifest.shard_rows}",
        )


def _check_model(manifest: Manifest, facts: EncoderFacts, url: str) -> None:
    made, asked = (manifest.engine, manifest.precision), (facts.engine, facts.precision)
    if manifest.weights_sha256 != facts.fingerprint:
        hint = f"--model {manifest.model}, or another place: --out ANOTHER"
        is_named_so = manifest.model == facts.model
        what = f"other weights of {facts.model}" if is_named_so else f"{manifest.model}, not {facts.model}"
        raise ModelMismatch(f"{url} was made with {what}", hint=hint)
    if manifest.pixel_recipe != str(facts.recipe):
        fact = f"{url} was made with other pixels ({manifest.pixel_recipe})"
        raise ModelMismatch(fact, hint="--out ANOTHER, or the same with or without --exact-pixels")
    if not embeddings_agree(made, asked):
        fact = f"{url} was made in {made[1]} by {made[0]}, not in {asked[1]} by {asked[0]}"
        raise ModelMismatch(fact, hint="--out ANOTHER, or the precision and the device of before")
