"""A cluster on this machine and a bucket on loopback, for all tests of this folder."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.flaky_bucket import FlakyBucket, flaky_bucket
from tests.support.paths import REPOSITORY

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "2",  # botocore's own, beside s3fs's and ours: the tests do not wait for all three
}


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def bucket() -> Iterator[FlakyBucket]:
    """An S3 server; s3:// is there, in this process and in those it starts."""
    pytest.importorskip("s3fs", reason="pip install s3fs 'moto[server]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with flaky_bucket() as (url, server), environment({**KEYS, "AWS_ENDPOINT_URL": url}):
        yield server


@pytest.fixture(scope="session")
def cluster(bucket: FlakyBucket) -> Iterator[None]:
    """Ray in this process, with two CPUs whatever there are; `embed` finds it."""
    pytest.importorskip("ray", reason="pip install 'clipkit[ray]'")
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    with environment({**QUIET, "PYTHONPATH": path}):  # workers find tests.support
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray

            ray.init(
                "local",
                num_cpus=2,
                include_dashboard=False,
                logging_level="error",
                log_to_driver=False,
                object_store_memory=200 * 2**20,
                runtime_env={"worker_process_setup_hook": "tests.support.bulk_run.prepare"},
            )
        yield
        ray.shutdown()
