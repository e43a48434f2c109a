"""A cluster of a head and two machines on loopback, in which things die: `make scale`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.bulk import embed
from clipkit.bulk.shards import Shards
from clipkit.errors import ClipkitError
from tests.bulk.conftest import QUIET, environment
from tests.support.bulk_run import GpuEncoder, SlowEncoder, expected, failures_of, make_pictures, rows_of
from tests.support.colours import ColourEncoder
from tests.support.paths import REPOSITORY
from tests.support.waiting import until

pytestmark = [
    pytest.mark.skipif("CLIPKIT_SCALE" not in os.environ, reason="make scale: minutes, and all cores"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves pipes of what it has started
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

COUNT, SHARD = 1200, 100
QUICKLY = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}  # a dead machine is missed
MEMORY = 100 * 2**20


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A head without CPUs and two machines with two each; a test that takes one away puts another there."""
    with environment({**QUIET, **QUICKLY, "PYTHONPATH": str(REPOSITORY), "RAY_raylet_start_wait_time_s": "120"}):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(num_cpus=2, object_store_memory=MEMORY)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("source") / "photos", COUNT)


def driver(source: Path, out: Path, address: str, seconds: float = 0.03) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.bulk_run", str(source), str(out), str(SHARD), str(seconds), address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def in_the_middle(out: Path) -> int:
    """Waits until some shards are there; how many pictures they hold."""
    until(lambda: out.is_dir() and len(list(out.glob("part-*"))) >= 2, 120)
    rows = len(rows_of(out))
    assert 0 < rows < COUNT, "it is too late to kill anything"
    return rows


def encoders(out: Path) -> set[int]:
    """Processes that have encoded something."""
    return {int(file.name) for file in Path(f"{out}.started").iterdir()}


def living(pids: set[int]) -> set[int]:
    """Those that are there, and are not merely waiting for somebody to take note of their end."""
    stats = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return {pid for pid, stat in stats.items() if stat.exists() and ") Z " not in stat.read_text()}


def kill_all(raylet: int) -> None:
    """A machine as it loses its power: Ray's process there and its workers, which would go on for a while."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
    for pid in [raylet, *(child for child, parent in parents.items() if parent == raylet)]:
        os.kill(pid, signal.SIGKILL)


def check_all(source: Path, out: Path) -> None:
    found = rows_of(out)
    paths = sorted(file.name for file in source.iterdir())
    assert sorted(found) == paths
    assert failures_of(out) == {}
    assert np.abs(np.stack([found[path] for path in paths]) - expected(source, paths)).max() < 1e-3
    assert sum(Shards(out).count(name) for name in Shards(out).names) == COUNT
    assert not [file for file in out.iterdir() if file.name.startswith(".")], "nothing half is left"


def test_a_machine_that_is_killed_in_the_middle_costs_no_picture(machines: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    with driver(source, out, machines.address, 0.06) as running:  # slowly: it takes Ray a while to miss a machine
        until(lambda: Path(f"{out}.started").is_dir() and len(encoders(out)) == 2, 120)
        in_the_middle(out)
        before = living(encoders(out))
        machine = next(iter(machines.worker_nodes))
        kill_all(machine.all_processes["raylet"][0].process.pid)
        until(lambda: living(before) < before, 60)  # its encoder is gone with it
        assert len(rows_of(out)) < COUNT, "and there is much to be done"
        said = running.communicate(timeout=300)[0]
    assert running.returncode == 0, said
    check_all(source, out)
    machines.remove_node(machine, allow_graceful=False)
    machines.add_node(num_cpus=2, object_store_memory=MEMORY)


def test_an_encoder_that_is_killed_in_the_middle_costs_no_picture(machines: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    with driver(source, out, machines.address) as running:
        in_the_middle(out)
        victims = living(encoders(out))
        assert victims
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        said = running.communicate(timeout=300)[0]
    assert running.returncode == 0, said
    assert encoders(out) - victims, "others went on"
    check_all(source, out)


def test_a_driver_that_is_killed_in_the_middle_is_run_again(machines: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    with driver(source, out, machines.address) as running:
        in_the_middle(out)
        running.kill()
        running.communicate()
    there = {name: (out / name).stat().st_mtime_ns for name in Shards(out).names}
    kept = len(rows_of(out))
    assert 0 < kept < COUNT
    with driver(source, out, machines.address) as again:
        said = again.communicate(timeout=300)[0]
    assert f"embedded={COUNT - kept}, kept={kept}" in said
    assert {name: (out / name).stat().st_mtime_ns for name in there} == there
    check_all(source, out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own, made and grown by its size; only root may."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        again = ["remount,"] if os.path.ismount(place) else [""]
        command = ["mount", "-t", "tmpfs", "-o", f"{again[0]}size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a disk can be mounted by root alone")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def test_a_full_disk_is_said_and_the_next_run_goes_on(
    machines: Any, source: Path, small_disk: Callable[[str], Path]
) -> None:
    out = small_disk("64k")
    with pytest.raises(ClipkitError, match=r"cannot write to .*: No space left on device"):
        embed(source, out, model=ColourEncoder(), shard=SHARD, address=machines.address)
    there = rows_of(out)
    assert 0 < len(there) < COUNT, "it was full in the middle"
    assert not [file for file in out.iterdir() if file.name.startswith(".")]
    small_disk("4m")
    report = embed(source, out, model=ColourEncoder(), address=machines.address)
    assert report.kept == len(there)
    check_all(source, out)


def test_four_encoders_on_two_machines_share_the_work(machines: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    model = SlowEncoder(seconds=0.01, started=tmp_path / "started")
    embed(source, out, model=model, shard=SHARD, workers=4, address=machines.address)
    assert len(list((tmp_path / "started").iterdir())) == 4
    check_all(source, out)


def test_each_encoder_has_a_gpu_of_its_own_and_takes_no_cpu(machines: Any, source: Path, tmp_path: Path) -> None:
    """Ray counts the GPUs that it is told of; there is none here."""
    machine = machines.add_node(num_cpus=1, num_gpus=2, object_store_memory=MEMORY)
    embed(source, tmp_path / "shards", model=GpuEncoder(tmp_path / "said"), shard=SHARD, address=machines.address)
    said = [file.name.split()[1] for file in (tmp_path / "said").iterdir()]
    assert sorted(said) == ["0", "1"]
    check_all(source, tmp_path / "shards")
    machines.remove_node(machine)
