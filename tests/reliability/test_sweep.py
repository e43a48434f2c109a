"""A run that dies between any two of its steps on the disk, by a signal or by a power cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.sweeps import (
    IS_FULL,
    check_cut,
    check_next_run,
    check_old_or_new,
    kill_at,
    need_strace,
    power_cuts,
    prepare,
    steps_of,
)

QUICK_STEPS = 3
QUICK_CUTS = 16  # one moment in so many


@pytest.mark.parametrize("mode", ["update", "rebuild", "migrate", "migrate-2"])
def test_a_run_killed_between_two_steps_leaves_the_old_index_or_the_new_one(
    tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    need_strace()
    template = prepare(tmp_path / "template", mode)
    cached = shutil.copytree(private_cache, tmp_path / "cached")
    steps = steps_of(mode, Path(shutil.copytree(template, tmp_path / "recorded")), tmp_path / "log")
    assert len(steps) > 30
    for number, step in enumerate(steps if IS_FULL else steps[number_of(mode) :: len(steps) // QUICK_STEPS]):
        place = tmp_path / str(number)
        root = Path(shutil.copytree(template, place / "photos"))
        cache = Path(shutil.copytree(cached, place / "cache"))
        monkeypatch.setenv("CLIPKIT_CACHE", str(cache))
        kill_at(mode, root, step)
        check_old_or_new(root)
        check_next_run(root, cache, rebuild=bool(number % 2))  # as it was, or another way
        shutil.rmtree(place)


def number_of(mode: str) -> int:
    return len(mode)  # so that the sweeps do not stop at the same steps


@pytest.mark.parametrize("mode", ["update", "rebuild", "migrate", "migrate-2"])
def test_a_power_cut_at_any_moment_leaves_the_old_index_or_the_new_one(
    tmp_path: Path, private_cache: Path, mode: str
) -> None:
    need_strace()
    root = prepare(tmp_path / "photos", mode)
    moments = list(power_cuts(mode, root, private_cache, tmp_path / "log", every=1 if IS_FULL else QUICK_CUTS))
    assert moments[-1].is_done
    for moment in moments:
        check_cut(moment, root, private_cache)
