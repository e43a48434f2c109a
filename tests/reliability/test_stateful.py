"""Anything that people do to a folder, in any order, against a dictionary that says what must be found."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clipkit.core.arrays import Embeddings
from clipkit.index.check import check, prune
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint, shade

# `make faults` asks for 200 runs of 25 steps; `make test` for a few.
RUNS = int(os.environ.get("CLIPKIT_STATEFUL_RUNS", "20"))
NAMES = [f"{folder}{name}.png" for folder in ("", "disk/", "disk/deep/") for name in "abc"]
names = st.sampled_from(NAMES)
contents = st.integers(0, 30)


class Killed(BaseException):
    """What stops a run as hard as a test can without leaving the process."""


class MortalEncoder(ColourEncoder):
    """Dies after `left` batches, if that is a number."""

    left: int | None = None

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed
        return super().encode_pixels(pixels, space=space)


class FolderMachine(RuleBasedStateMachine):
    """files: what the folder holds now. indexed: what the last completed run saw."""

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="clipkit-stateful-"))
        os.environ["CLIPKIT_CACHE"] = str(self.place / "cache")
        self.root = self.place / "photos"
        (self.root / "disk").mkdir(parents=True)
        self.encoder = MortalEncoder(batch_size=2)
        self.index = ImageIndex.create(self.root, self.encoder)
        self.files: dict[str, int] = {}
        self.indexed: dict[str, int] = {}
        self.unplugged: dict[str, int] | None = None
        self.seen: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "place"):
            shutil.rmtree(self.place)

    def is_away(self, name: str) -> bool:
        return self.unplugged is not None and name.startswith("disk/")

    @rule(name=names, content=contents)
    def write(self, name: str, content: int) -> None:
        if not self.is_away(name):
            (self.root / name).unlink(missing_ok=True)  # a new file, as most programs save
            paint(self.root / name, shade(content), (4, 4))
            self.files[name] = content

    @rule(source=names, goal=names)
    def move(self, source: str, goal: str) -> None:
        if source in self.files and not self.is_away(source) and not self.is_away(goal) and source != goal:
            (self.root / goal).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.root / source, self.root / goal)
            self.files[goal] = self.files.pop(source)

    @rule(one=names, other=names)
    def swap(self, one: str, other: str) -> None:
        if {one, other} <= self.files.keys() and one != other and not self.is_away(one) and not self.is_away(other):
            os.rename(self.root / one, self.place / "between")
            os.rename(self.root / other, self.root / one)
            os.rename(self.place / "between", self.root / other)
            self.files[one], self.files[other] = self.files[other], self.files[one]

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name in self.files and not self.is_away(name):
            (self.root / name).unlink()
            del self.files[name]

    @precondition(lambda self: self.unplugged is None)
    @rule()
    def unplug(self) -> None:
        os.rename(self.root / "disk", self.place / "away")
        self.unplugged = {name: self.files.pop(name) for name in list(self.files) if name.startswith("disk/")}

    @precondition(lambda self: self.unplugged is not None)
    @rule()
    def replug(self) -> None:
        os.rename(self.place / "away", self.root / "disk")
        self.files |= self.unplugged or {}
        self.unplugged = None

    @rule()
    def run(self) -> None:
        before = self.encoder.encoded
        self.index.update()
        unseen = set(self.files.values()) - self.seen
        assert self.encoder.encoded - before == len(unseen), "something was encoded twice, or not at all"
        self.seen |= unseen
        self.indexed = dict(self.files)

    @rule(batches=st.integers(0, 3))
    def run_and_be_killed(self, batches: int) -> None:
        self.encoder.left = batches
        try:
            self.run()
        except Killed:
            # What was committed stays, so what is left to encode is known only after the next complete run.
            self.encoder.left = None
            self.index.update()
            self.seen |= set(self.files.values())
            self.indexed = dict(self.files)
        self.encoder.left = None

    @rule()
    def open_again(self) -> None:
        self.index = ImageIndex.open(self.root, encoder=self.encoder)

    @rule()
    def rebuild(self) -> None:
        self.index = ImageIndex.create(self.root, self.encoder, rebuild=True)
        self.index.update()
        self.seen = set(self.files.values())
        self.indexed = dict(self.files)

    @precondition(lambda self: self.unplugged is None and self.indexed)
    @rule()
    def forget(self) -> None:
        prune(self.index, force=True)
        self.run_without_counting()

    def run_without_counting(self) -> None:
        self.index.update()
        self.seen |= set(self.files.values())
        self.seen &= {shade_number for shade_number in self.seen if shade_number in set(self.files.values())}
        self.indexed = dict(self.files)

    @rule()
    def look_over(self) -> None:
        assert check(self.index).damage == ()

    @invariant()
    def answers_are_those_of_the_dictionary(self) -> None:
        if not hasattr(self, "index"):
            return
        assert dict.fromkeys(sorted(self.index.paths)) == dict.fromkeys(sorted(self.indexed))
        for word in ("red", "blue"):
            hits = self.index.search(word, k=100)
            assert sorted(hit.path for hit in hits) == sorted(self.indexed)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            for hit in hits:
                assert abs(hit.score - self.cosine(word, self.indexed[hit.path])) < 2e-3

    def cosine(self, word: str, content: int) -> float:
        rows = np.array([COLOURS[word], shade(content)], dtype=np.float32) / 255
        rows = np.concatenate([rows, np.full((2, 1), 0.1, np.float32)], axis=1)
        one, other = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return float(one @ other)


TestFolder = FolderMachine.TestCase
TestFolder.settings = settings(
    max_examples=RUNS,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
