"""Shards in a bucket: scanned, indexed and merged as those in a folder are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipkit.bulk import Shards, merge
from clipkit.bulk.lance_index import LanceIndex, build
from clipkit.bulk.scan import nearest
from tests.bulk.test_lance_index import WideEncoder, clustered, off_the_manifold
from tests.support.shards import write_vectors

pytest.importorskip("s3fs", reason="pip install s3fs")
moto = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on loopback."""
    import boto3
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,  # of s3fs
        "AWS_ENDPOINT": url,  # of Lance
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="for-shards")
    S3FileSystem.clear_instance_cache()  # of another test's server
    yield "s3://for-shards/out"
    S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_shards_in_a_bucket_are_searched_and_merged(bucket: str, tmp_path: Path) -> None:
    encoder = WideEncoder()
    shards = write_vectors(bucket, clustered(2000), encoder)
    queries = off_the_manifold(20)
    build(shards, queries)
    build(Shards(bucket), queries)
    index = LanceIndex.open(shards)
    assert index is not None
    exact = nearest(shards, queries, 10)
    pairs = zip(index.search(queries, 10), exact, strict=True)
    assert sum(len({*one.ids.tolist()} & {*other.ids.tolist()}) for one, other in pairs) >= 190
    folders = {name.split("/")[2] for name in shards.storage._fs.find("for-shards/out") if "lance-" in name}
    assert folders == {index.built.folder}  # the first index is gone
    assert merge(bucket, at=tmp_path / "index").imported == 2000
