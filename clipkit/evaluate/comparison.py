"""Comparison of methods on one dataset: same pictures, same draws, test labels read once, at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipkit.classify.prompts import Templates
from clipkit.core.arrays import Embeddings
from clipkit.core.cache import cache_key
from clipkit.core.folders import cache_folder
from clipkit.core.progress import Failure, Progress
from clipkit.core.requirements import missing_packages_named
from clipkit.core.system import machine, versions
from clipkit.datasets.embed import embed_once
from clipkit.datasets.splits import Split, check_classes, read_split
from clipkit.errors import ClipkitError, DatasetError
from clipkit.evaluate.results import INTERVALS, ZERO_SHOT, Comparison, Row, Shots, format_shots
from clipkit.evaluate.scoring import find_mistakes, first_predictions, score_cells, score_rows, score_runs
from clipkit.evaluate.trials import Features, Task, Trial, TrialCache, answer, check_methods, settings_of
from clipkit.learn.methods import METHODS
from clipkit.models.encoder import Encoder, identity, refuse_name

if TYPE_CHECKING:
    from clipkit.learn.trainer import Recipe

SHOTS: tuple[Shots, ...] = (1, 2, 4, 8, 16, None)
SEEDS = 5
PACKAGES = ("clipkit", "torch", "open_clip_torch", "scikit-learn", "numpy", "pillow", "transformers")

Show = Callable[[Progress], None] | None


@dataclass(frozen=True)
class _Plan:
    """What is to be run, and what is not, each with its reason."""

    tasks: tuple[tuple[str, Shots, int], ...]
    left_out: tuple[str, ...]


@missing_packages_named()
def compare(
    path: str | os.PathLike[str],
    encoder: Encoder,
    *,
    methods: Sequence[str] = tuple(METHODS),
    shots: Sequence[Shots] = SHOTS,
    seeds: int = SEEDS,
    templates: Templates | None = None,
    recipe: Recipe | None = None,
    progress: Show = None,
) -> Comparison:
    """Compare methods on one dataset, at several numbers of labelled pictures a class.

    Every method sees the same pictures and the same draws. No label of a test picture is read before the last
    prediction. What is finished is cached, and the same call goes on from there.

    Parameters
    ----------
    path : str or path
        As for `read_split`.
    encoder : Encoder
        Its features are what most methods learn from.
    methods : sequence of str, optional
        Keys of `METHODS`; by default all of them.
    shots : sequence of int or None, default (1, 2, 4, 8, 16, None)
        Labelled pictures a class; None stands for all.
    seeds : int, default 5
        Draws at each number of shots.
    templates : str, path or sequence of str, optional
        As for `ZeroShotClassifier`; by default "pets" for Oxford-IIIT Pet, else "simple".
    recipe : Recipe, optional
        Of the method "finetune".
    progress : callable, optional
        Given a `Progress`; what it raises stops the comparison between two trials or batches.

    Returns
    -------
    Comparison
        Best read through `rows`.

    Raises
    ------
    DatasetError
        If the dataset cannot be split, or has too few pictures for all `shots`.
    ClipkitError
        If a method is unknown, or `shots` or `seeds` are less than 1.

    References
    ----------
    .. [1] K. Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> comparison = clipkit.compare("animals", encoder, methods=["zeroshot", "prototypes"], shots=[1], seeds=2)
    >>> [(row.method, row.shots, row.seeds) for row in comparison.rows]
    [('zeroshot', 0, 1), ('prototypes', 1, 2)]
    >>> comparison.counts
    {'train': 6, 'test': 4}
    """
    refuse_name(encoder)
    methods, shots = check_methods(methods, encoder), check_shots(shots)
    if seeds < 1:
        raise ClipkitError(f"{seeds} seeds are none", hint="--seeds 5")
    split = read_split(path)
    chosen = templates or ("pets" if any(split.groups) else "simple")
    split, task, seconds = _task(split, encoder, methods, chosen, recipe, progress)
    plan = _plan(task, methods, shots, seeds)
    attempts = list(_attempts(plan, task, split, progress))
    comparison = _scored(attempts, split, task, plan, path)
    settings = {"methods": methods, "shots": [format_shots(n) for n in shots], "seeds": seeds}
    return replace(comparison, settings={**settings, **comparison.settings}, feature_seconds=seconds)


def check_shots(shots: Sequence[Shots]) -> tuple[Shots, ...]:
    """Each once, in order, all of them last; ClipkitError for none or less than one."""
    wrong = [number for number in shots if number is not None and number < 1]
    if wrong or not shots:
        raise ClipkitError(f"{wrong[0]} shots are none" if wrong else "how many shots?", hint="--shots 1,4,all")
    return (*sorted({n for n in shots if n is not None}), *({None} & set(shots)))


def _task(
    split: Split,
    encoder: Encoder,
    methods: Sequence[str],
    templates: Templates,
    recipe: Recipe | None,
    progress: Show,
) -> tuple[Split, Task, dict[str, float]]:
    """Features of every picture that can be read; those that cannot leave the split, with their reasons."""
    spaces = {"projected", *(space for name in methods if (space := METHODS[name].space))}
    rows: dict[str, dict[str, Embeddings]] = {}
    seconds = {}
    for space in sorted(spaces, reverse=True):  # projected first
        started, parts = time.perf_counter(), split.parts
        found = {name: embed_once(part, encoder, space=space, progress=progress) for name, part in parts.items()}
        split = check_classes(split.having({name: part.dataset for name, part in found.items()}))
        rows[space] = {name: part.embeddings for name, part in found.items()}
        seconds[space] = round(time.perf_counter() - started, 2)
    features = {space: Features(part["train"], part.get("validation"), part["test"]) for space, part in rows.items()}
    learned = (split.train, split.validation, split.test)
    return split, Task(encoder, split.classes, *learned, features, templates, recipe), seconds


def _plan(task: Task, methods: Sequence[str], shots: Sequence[Shots], seeds: int) -> _Plan:
    """What can be run with the labels that there are; DatasetError where nothing can that needs labels."""
    learners = [name for name in methods if name != ZERO_SHOT]
    possible: list[Shots] = []
    left_out = []
    for number in shots if learners else ():
        try:
            task.draw(number, 0)
            possible.append(number)
        except DatasetError as error:
            left_out.append(f"{format_shots(number)} shots: {error.message}")
    if learners and not possible:
        raise DatasetError(left_out[0], hint="fewer shots: --shots 1,2; or more pictures of each class")
    tasks: list[tuple[str, Shots, int]] = []
    for name in methods:
        if name not in learners:
            tasks.append((name, 0, 0))
            continue
        count = min(seeds, METHODS[name].most_seeds or seeds)
        tasks += [(name, number, seed) for number in possible for seed in range(count)]
    return _Plan(tuple(tasks), tuple(left_out))


def _attempts(plan: _Plan, task: Task, split: Split, progress: Show) -> Iterator[Trial]:
    """Every task's answers: kept ones as they are, the others made and kept at once."""
    digest = split.digest()
    caches = {name: _trial_cache(name, digest, task) for name, _, _ in plan.tasks}
    for done, (name, shots, seed) in enumerate(plan.tasks):
        at_hand = Progress(done, len(plan.tasks), f"{name}, {format_shots(shots)} shots, seed {seed}")
        tick = (lambda now=at_hand: progress(now)) if progress else None
        if tick:
            tick()
        attempt = caches[name].get(name, shots, seed)
        if attempt is None:
            attempt = answer(name, task, shots, seed, tick)
            caches[name].put(attempt)
        yield attempt
    if progress:
        progress(Progress(len(plan.tasks), len(plan.tasks), ""))


def _trial_cache(name: str, digest: str, task: Task) -> TrialCache:
    key = cache_key(digest, identity(task.encoder), settings_of(name, task), sorted(versions(PACKAGES).items()))
    return TrialCache(cache_folder() / "comparisons", key, count=len(task.test), classes=len(task.classes))


def _scored(
    attempts: Sequence[Trial], split: Split, task: Task, plan: _Plan, path: str | os.PathLike[str]
) -> Comparison:
    """The only place where the labels of test pictures are read."""
    classes = split.classes
    place = {name: i for i, name in enumerate(classes)}
    targets = np.array([place[name] for name in split.answers.open(split.test.files)], np.int64)
    rows = score_rows(attempts, targets, len(classes))
    wanted = _looked_at(rows)
    files = [_relative(file, path) for file in split.test.files]
    learned = zip(split.train.labels, split.train.files, strict=True)
    return Comparison(
        dataset=split.name,
        path=os.fspath(path),
        split=split.description,
        counts={name: len(part) for name, part in split.parts.items()},
        classes=classes,
        groups=split.groups,
        model=_model(task.encoder),
        settings={"templates": str(task.templates), "intervals": INTERVALS},
        rows=rows,
        runs=score_runs(attempts, targets, len(classes)),
        mistakes=find_mistakes(attempts, targets, classes, files, wanted),
        references={label: _relative(file, path) for label, file in dict(reversed(list(learned))).items()},
        notes=split.notes,
        left_out=plan.left_out,
        failed=tuple(_told(failure, path) for part in split.parts.values() for failure in part.failed),
        feature_seconds={},
        machine=machine(),
        versions=versions(PACKAGES),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cells=score_cells(attempts, targets),
        predictions=first_predictions(attempts, targets, files),
    )


def _looked_at(rows: Sequence[Row]) -> list[tuple[str, int | None]]:
    """Whose mistakes are shown: the last row of each method, and the best row."""
    wanted = {row.method: (row.method, row.shots) for row in rows}
    best = max(rows, key=lambda row: row.acc1)
    return list(dict.fromkeys([*wanted.values(), (best.method, best.shots)]))


def _model(encoder: Encoder) -> dict[str, str]:
    return {
        "name": encoder.model,
        "fingerprint": encoder.fingerprint,
        "pixels": str(encoder.recipe),
        "precision": encoder.precision,
    }


def _relative(file: str, path: str | os.PathLike[str]) -> str:
    """As seen from the dataset: a report says nothing of where it lies on this disk."""
    place = Path(path)
    try:
        return os.path.relpath(file, place.parent if place.is_file() else place)
    except ValueError:  # on another drive of Windows
        return file


def _told(failure: Failure, path: str | os.PathLike[str]) -> Failure:
    return Failure(_relative(failure.path, path), failure.reason.removeprefix(f"{failure.path}: "))
