"""Clusters in docs/scale: the launcher's file against Ray's schema, KubeRay's against what can be checked offline."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hints import complaints
from tests.support.paths import REPOSITORY

ray = pytest.importorskip("ray", reason="pip install 'clipkit[ray]'")
yaml = pytest.importorskip("yaml")
jsonschema = pytest.importorskip("jsonschema")

FOLDER = REPOSITORY / "docs" / "scale"
KUBERAY = {"rayjob.yaml": "RayJob", "raycluster.yaml": "RayCluster"}
QUANTITY = re.compile(r"[0-9]+(m|Ki|Mi|Gi|Ti)?")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def cluster_of(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = read(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def groups(name: str) -> Iterator[dict[str, Any]]:
    yield cluster_of(name)["headGroupSpec"]
    yield from cluster_of(name)["workerGroupSpecs"]


def test_every_file_is_checked_here() -> None:
    assert {file.name for file in FOLDER.glob("*.yaml")} == {"aws.yaml", *KUBERAY}


def test_the_launcher_file_fits_the_schema_that_ray_ships() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    found = read("aws.yaml")
    jsonschema.validate(found, schema)
    with pytest.raises(jsonschema.ValidationError):  # the schema does refuse things
        jsonschema.validate({**found, "max_worker": 3}, schema)
    kinds = found["available_node_types"]
    assert found["head_node_type"] in kinds
    assert sum(kind.get("max_workers", 0) for kind in kinds.values()) <= found["max_workers"]
    assert all(Path(REPOSITORY / place).exists() for place in found["file_mounts"].values())


@pytest.mark.parametrize("name", KUBERAY)
def test_a_kuberay_file_has_what_the_operator_needs(name: str) -> None:
    """The schema of these resources is in the operator's repository, and not on this disk."""
    found = read(name)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", KUBERAY[name])
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found["metadata"]["name"])
    assert cluster_of(name)["rayVersion"] == "2.60.0" in (FOLDER / "aws.yaml").read_text()
    assert cluster_of(name)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "the head computes nothing"
    images = set()
    for group in groups(name):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "strings, says the operator"
        [container] = group["template"]["spec"]["containers"]
        images.add(container["image"])
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind])
            assert all(QUANTITY.fullmatch(value) for value in container["resources"][kind].values())
        assert container["resources"]["requests"] == container["resources"]["limits"], "what Ray takes for its own"
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= {one["name"] for one in container["env"]}
    assert len(images) == 1, "the same clipkit everywhere"
    for group in cluster_of(name)["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_commands_in_these_files_are_commands_of_clipkit() -> None:
    text = "\n".join(file.read_text() for file in FOLDER.glob("*.yaml"))
    found = re.findall(r"clipkit index s3\S+ [^\n`]+", text)
    assert len(found) >= 2
    assert [complaint for command in found for complaint in complaints(shlex.join(shlex.split(command)))] == []
