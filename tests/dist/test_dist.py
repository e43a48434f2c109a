"""Archives that are published: what is in them, and what they do in an environment of their own, without torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from packaging.requirements import Requirement

from tests.support.colours import COLOURS, paint
from tests.support.paths import REPOSITORY

LIGHT, PAGE = REPOSITORY / "requirements-light.txt", REPOSITORY / "requirements-page.txt"
MOST_MB = 500  # of the light path
PAGE_SECONDS = 180.0  # Gradio from a cold disk


def ran(*command: str | Path, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source archive: those of `make dist`, or built here."""
    folder = Path(os.environ["CLIPKIT_DIST"]) if "CLIPKIT_DIST" in os.environ else tmp_path_factory.mktemp("dist")
    if not any(folder.glob("*.whl")):
        clone = folder / "source"  # a build writes beside what it reads
        shutil.copytree(
            REPOSITORY, clone, ignore=shutil.ignore_patterns(".*", "tests", "benchmarks", "training", "build", "dist")
        )
        ran(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, clone, cwd=folder)
    return {"wheel": next(folder.glob("*.whl")), "source": next(folder.glob("*.tar.gz"))}


@pytest.fixture(scope="module")
def light(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what requirements-light.txt names."""
    place = tmp_path_factory.mktemp("light") / "venv"
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin" / "python"
    pip = subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", LIGHT], capture_output=True, text=True)
    if pip.returncode and "No matching distribution" in pip.stderr:
        pytest.skip("no package registry answers")
    assert pip.returncode == 0, pip.stderr
    ran(python, "-m", "pip", "install", "--quiet", "--no-deps", archives["wheel"], cwd=place)
    return place


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        paint(tmp_path / "pictures" / f"{name}.png", colour)
    return tmp_path / "pictures"


def requirements(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith(("#", "-r"))]
    return {one.name: str(one.specifier) for one in map(Requirement, lines)}


@pytest.mark.parametrize("file", [LIGHT, PAGE], ids=lambda file: file.stem)
def test_floors_are_those_of_the_whole(file: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    whole = {one.name: str(one.specifier) for one in map(Requirement, project["dependencies"])}
    listed = requirements(file)
    assert listed
    assert {name: whole.get(name) for name in listed} == listed


def test_the_wheel_has_what_runs_and_nothing_else(archives: dict[str, Path]) -> None:
    names = zipfile.ZipFile(archives["wheel"]).namelist()
    assert {name.split("/")[0] for name in names} - {"clipkit", "clipkit_apps", "clipkit_data"} == {
        f"{archives['wheel'].name.rsplit('-', 3)[0]}.dist-info"
    }
    for part in (
        *("clipkit/py.typed", "clipkit_data/starter/open_clip_model.safetensors", "clipkit_data/starter/image.onnx"),
        *("clipkit_data/starter/NOTICE", "clipkit_apps/static/search/main.js", "clipkit_apps/static/search/search.css"),
        *("clipkit_apps/static/vendor/photoswipe/LICENSE", "clipkit_apps/static/page.css"),
    ):
        assert part in names
    sources = {
        f"{target}/{file.relative_to(REPOSITORY / folder).as_posix()}"
        for folder, target in (("clipkit", "clipkit"), ("apps", "clipkit_apps"), ("data", "clipkit_data"))
        for file in (REPOSITORY / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert sources == {name for name in names if ".dist-info/" not in name}
    assert not [name for name in names if "test" in name.lower()]


def test_the_source_archive_builds_and_names_the_light_path(archives: dict[str, Path]) -> None:
    with tarfile.open(archives["source"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "requirements-light.txt", "Dockerfile", "docs/install.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "training"))]


def test_the_main_job_runs_without_torch(light: Path, pictures: Path, tmp_path: Path) -> None:
    clipkit, cache = light / "bin" / "clipkit", {"CLIPKIT_CACHE": str(tmp_path / "cache")}
    size = sum(file.lstat().st_size for file in light.rglob("*")) / 10**6
    assert size < MOST_MB
    assert "8 pictures can be found" in ran(clipkit, "index", pictures, "--model", "starter", cwd=tmp_path, **cache).stderr
    found = ran(clipkit, "search", "something red", pictures, "--json", "--top", "3", cwd=tmp_path, **cache).stdout
    assert [json.loads(line)["path"] for line in found.splitlines()]
    labels = ran(clipkit, "classify", pictures, "--classes", "red,blue", cwd=tmp_path, **cache).stdout
    assert len(labels.splitlines()) == 8
    shutil.copyfile(pictures / "red.png", pictures / "again.png")
    ran(clipkit, "index", pictures, cwd=tmp_path, **cache)
    assert "again.png" in ran(clipkit, "duplicates", pictures, cwd=tmp_path, **cache).stdout
    assert "usage: clipkit" in ran(clipkit, "--help", cwd=tmp_path).stdout.lower()


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (("map", "PICTURES"), "scikit-learn"),
        (("explain", "PICTURES/red.png", "--model", "starter"), "open_clip_torch"),
        (("index", "PICTURES", "--model", "ViT-B-32/openai", "--rebuild"), "open_clip_torch"),
        (("ui", "PICTURES"), "gradio"),
    ],
)
def test_what_needs_more_says_so(
    light: Path, pictures: Path, tmp_path: Path, arguments: tuple[str, ...], package: str
) -> None:
    clipkit, cache = light / "bin" / "clipkit", {"CLIPKIT_CACHE": str(tmp_path / "cache")}
    ran(clipkit, "index", pictures, "--model", "starter", cwd=tmp_path, **cache)
    words = [word.replace("PICTURES", str(pictures)) for word in arguments]
    said = ran(clipkit, *words, cwd=tmp_path, code=1, **cache).stderr
    assert f"error: this needs {package}, which is not installed\n  try: pip install '{package}>=" in said


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def docker(word: str) -> Iterator[str]:
    """What follows a word of the Dockerfile, with continued lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    return (line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{word} "))


def test_the_dockerfile_is_linted() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed")
    ran(linter, "Dockerfile", cwd=REPOSITORY)


def test_the_dockerfile_copies_what_is_there_and_is_let_through() -> None:
    let_through = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {name for line in docker("COPY") for name in line.split()[:-1]}
    assert copied == let_through
    assert all((REPOSITORY / name).exists() for name in copied)
    assert list(docker("USER")) == ["1000"]


@pytest.mark.skipif("CLIPKIT_DIST" not in os.environ, reason="a minute and 1 GB: make dist")
def test_the_steps_of_the_dockerfile_serve_the_page(light: Path, pictures: Path, tmp_path: Path) -> None:
    """Its pip steps in the light environment, over a copy of what it copies; then its command, at another port."""
    source = tmp_path / "src"
    source.mkdir()
    for name in [name for line in docker("COPY") for name in line.split()[:-1]]:
        (shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copyfile)(REPOSITORY / name, source / name)
    path = f"{light / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for step in [step for step in docker("RUN") if step.startswith("pip ")]:
        ran("bash", "-c", f"python -m {step}", cwd=source, PATH=path)
    port = str(free_port())
    command = [*json.loads(next(docker("ENTRYPOINT"))), *json.loads(next(docker("CMD")))]
    command = [{"/photos": str(pictures), "7860": port, "0.0.0.0": "127.0.0.1"}.get(word, word) for word in command]
    environment = {**os.environ, "PATH": path, "CLIPKIT_CACHE": str(tmp_path / "cache"), "CLIPKIT_AUTH": "ann:long enough"}
    with open(tmp_path / "log", "wb") as log:
        page = subprocess.Popen([light / "bin" / command[0], *command[1:]], env=environment, stdout=log, stderr=log)
    try:
        health = re.search(r"http://127.0.0.1:7860(\S+?)'", next(docker("HEALTHCHECK")))
        assert health
        assert answered(f"http://127.0.0.1:{port}{health[1]}", page) == 200
        asked = Request(f"http://127.0.0.1:{port}/clipkit/search/ask", b"{}", {"Content-Type": "application/json"})
        assert answered(asked, page) == 401  # log in first
    finally:
        page.terminate()
        page.wait(30)


def answered(request: str | Request, page: subprocess.Popen[bytes]) -> int:
    """The status of an answer, as soon as there is one."""
    deadline = time.monotonic() + PAGE_SECONDS
    while time.monotonic() < deadline and page.poll() is None:
        try:
            with urlopen(request, timeout=20) as reply:
                return int(reply.status)
        except URLError as error:
            if (status := getattr(error, "code", None)) is not None:
                return int(status)
            time.sleep(0.5)
    raise AssertionError("the page does not answer")
