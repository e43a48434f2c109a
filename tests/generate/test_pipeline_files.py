"""Files of a pipeline: safetensors and nothing else that could run, from a folder or from a hub on loopback."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clipkit.errors import ModelError
from clipkit.generate.diffusion import DiffusionGenerator
from clipkit.generate.pipeline_files import OFFLINE, pipeline_folder
from tests.support.fake_hub import serve

FETCH = """
import sys
from clipkit.errors import ModelError
from clipkit.generate.pipeline_files import pipeline_folder
try:
    print(pipeline_folder("acme/painter"))
except ModelError as error:
    print(error.message, error.hint, sep=" | ")
"""


@pytest.fixture
def folder(pipelines: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipelines("painter"), tmp_path / "painter"))


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "v1-5.ckpt", "vae/x.PT", "text_encoder/a.pickle"])
def test_a_folder_with_a_pickle_is_refused(folder: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / name).write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ModelError, match=f"holds {name}, a pickle") as caught:
        DiffusionGenerator(folder)
    assert "safe_serialization=True" in str(caught.value.hint)
    assert "it ran" not in capfd.readouterr().out


def test_code_that_comes_with_a_pipeline_never_runs(folder: Path) -> None:
    (folder / "unet" / "my_unet.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ModelError, match=r"brings code of its own, unet/my_unet\.py; clipkit does not run it"):
        DiffusionGenerator(folder)


def changed(folder: Path, **fields: object) -> Path:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"_class_name": ["pipeline", "Mine"]}, "names no class of diffusers"),
        ({"unet": ["subprocess", "Popen"]}, "unet of .* is of subprocess, whose code clipkit does not run"),
        ({"unet": ["diffusers"]}, "has a part that cannot be read: unet"),
        ({"../unet": ["diffusers", "UNet2DConditionModel"]}, "has a part that cannot be read"),
        ({"_class_name": "NoSuchPipeline"}, "cannot be loaded"),
    ],
)
def test_an_index_that_asks_for_more_than_diffusers_is_refused(
    folder: Path, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        DiffusionGenerator(changed(folder, **fields))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "has no model_index.json"), ("{", "is no JSON"), ("[]", "names no class of diffusers")]
)
def test_a_folder_that_is_no_pipeline_is_said(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(ModelError, match=said):
        pipeline_folder(str(tmp_path))


def test_neither_a_folder_nor_a_name_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    for model, said in ((tmp_path / "model.ckpt", "is a file"), (tmp_path / "gone", "is not there"), ("sd", "is not")):
        with pytest.raises(ModelError, match=said):
            pipeline_folder(str(model))


def test_offline_a_name_of_the_hub_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"model_index\.json of acme/painter is not on this disk") as caught:
        pipeline_folder("acme/painter")
    assert caught.value.hint == OFFLINE


def fetched(hub_folder: Path, home: Path) -> tuple[str, list[str]]:
    """What a process says that fetches acme/painter from a hub of this folder, and what it asked for."""
    with serve(hub_folder) as hub:
        environment = {**hub.environment(home), "PATH": ""}
        done = subprocess.run([sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), [line.partition("/resolve/main/")[2] for line in hub.requests]


def test_the_hub_is_asked_for_safetensors_and_configs_alone(
    pipelines: Callable[[str], Path], tmp_path: Path, painter: DiffusionGenerator
) -> None:
    place = Path(shutil.copytree(pipelines("painter"), tmp_path / "hub" / "acme" / "painter"))
    for name in ("unet/diffusion_pytorch_model.bin", "pipeline.py", "v1-5.ckpt"):
        (place / name).write_bytes(pickle.dumps(Boom()))
    said, asked = fetched(tmp_path / "hub", tmp_path / "home")
    assert not [name for name in asked if name.endswith((".bin", ".py", ".ckpt"))]
    files = {file.relative_to(said).as_posix() for file in Path(said).rglob("*") if file.is_file()}
    assert files == {
        file.relative_to(pipelines("painter")).as_posix() for file in pipelines("painter").rglob("*") if file.is_file()
    }
    again, nothing = fetched(tmp_path / "hub", tmp_path / "home")
    assert again == said
    assert nothing == []
    copy = DiffusionGenerator(said, device="cpu", steps=3)
    assert (copy.generate("red")[0].pixels == painter.generate("red")[0].pixels).all()


def test_a_repository_without_safetensors_is_refused(pipelines: Callable[[str], Path], tmp_path: Path) -> None:
    place = Path(shutil.copytree(pipelines("painter"), tmp_path / "hub" / "acme" / "painter"))
    (place / "vae" / "diffusion_pytorch_model.safetensors").rename(place / "vae" / "diffusion_pytorch_model.bin")
    said, asked = fetched(tmp_path / "hub", tmp_path / "home")
    assert said.startswith("vae of acme/painter has no weights as safetensors")
    assert not [name for name in asked if name.endswith(".bin")]


@pytest.mark.parametrize("model", ["./nope", "../nope", "nope/", "a..b/c", "a/b.git", "-a/b", f"a/{'b' * 97}"])
def test_a_path_that_is_not_there_is_no_name_of_the_hub(model: str) -> None:
    with pytest.raises(ModelError, match="is not there, and no name of the hub"):
        pipeline_folder(model)
