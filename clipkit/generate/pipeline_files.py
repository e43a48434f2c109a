"""Pipeline files: a saved pipeline of diffusers in a folder or on the hub, its weights as safetensors alone.

What could run code is refused or never fetched: pickles, Python files, parts of other libraries.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clipkit.errors import ModelError
from clipkit.models.hub import TOKENIZER_FILES, Hub, Notify

INDEX = "model_index.json"
WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
FOLDER_OR_NAME = "a folder that save_pretrained of diffusers wrote, or OWNER/NAME of the hub"
OFFLINE = "fetch the pipeline on a machine with a network, and name its folder instead"
# As huggingface_hub has it: neither half begins or ends with - or ., and such a name is no path.
_REPOSITORY = re.compile(r"(hf-hub:)?(?!.*(?:--|\.\.|\.git$|/.{97}))(\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?)", re.ASCII)
_PART = re.compile(r"\w+")


def pipeline_folder(model: str, *, notify: Notify | None = None) -> Path:
    """The folder of a pipeline by its path or its name on the hub; ModelError where it is none that is safe to load."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        read_parts(folder)
        return folder
    name = _REPOSITORY.fullmatch(model)
    if name is None or folder.exists():
        what = "is a file" if folder.exists() else "is not there"
        raise ModelError(f"{model} {what}, and no name of the hub", hint=FOLDER_OR_NAME)
    return _fetched(name[2], Hub(notify))


def read_parts(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of each part that is there, from model_index.json; ModelError where it says anything else."""
    try:
        index: Any = json.loads((folder / INDEX).read_bytes())
    except OSError as error:
        raise ModelError(f"{folder} holds no pipeline: it has no {INDEX}", hint=FOLDER_OR_NAME) from error
    except ValueError as error:
        raise ModelError(f"{folder / INDEX} is no JSON", hint="save or fetch the pipeline again") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        fact = f"{folder / INDEX} names no class of diffusers; a pipeline with code of its own is not loaded"
        raise ModelError(fact, hint=FOLDER_OR_NAME)
    parts = {name: value for name, value in index.items() if isinstance(value, list) and not name.startswith("_")}
    for name, value in parts.items():
        if (
            not _PART.fullmatch(name)
            or len(value) != 2
            or not all(one is None or isinstance(one, str) for one in value)
        ):
            raise ModelError(f"{folder / INDEX} has a part that cannot be read: {name}", hint=FOLDER_OR_NAME)
    return {name: (value[0], value[1]) for name, value in parts.items() if value[0] and value[1]}


def _check_folder(folder: Path) -> None:
    """ModelError for weights that are a pickle and for Python code, anywhere in it."""
    found = sorted(file.relative_to(folder) for file in folder.rglob("*") if not file.is_dir())
    if pickles := [file for file in found if file.suffix.lower() in PICKLES]:
        fact = f"{folder} holds {pickles[0].as_posix()}, a pickle, which can run code when it is read"
        raise ModelError(fact, hint="save it with safe_serialization=True, or take the pickles out of a copy")
    if code := [file for file in found if file.suffix.lower() == ".py"]:
        fact = f"{folder} brings code of its own, {code[0].as_posix()}; clipkit does not run it"
        raise ModelError(fact, hint=FOLDER_OR_NAME)


def _fetched(repository: str, hub: Hub) -> Path:
    """The hub's cache of a repository with what its parts need in it; nothing that could run code is asked for."""
    try:
        index = hub.file(repository, INDEX)
        if index is None:
            raise ModelError(f"{repository} is no pipeline of diffusers: it has no {INDEX}", hint=FOLDER_OR_NAME)
        for part in read_parts(index.parent):
            _fetch_part(repository, part, hub)
    except ModelError as error:
        raise ModelError(error.message, hint=error.hint if error.hint == FOLDER_OR_NAME else OFFLINE) from error
    return index.parent


def _fetch_part(repository: str, part: str, hub: Hub) -> None:
    if part.startswith(("scheduler", "tokenizer", "feature_extractor", "image_processor")):
        for name in ("scheduler_config.json", "preprocessor_config.json", *TOKENIZER_FILES):
            hub.file(repository, f"{part}/{name}")
        return
    hub.file(repository, f"{part}/config.json")
    for name in WEIGHTS:
        if hub.file(repository, f"{part}/{name}"):
            return
        if shards := hub.file(repository, f"{part}/{name}.index.json"):
            for shard in _shards(shards):
                hub.file(repository, f"{part}/{shard}")
            return
    raise ModelError(f"{part} of {repository} has no weights as safetensors", hint=FOLDER_OR_NAME)


def _shards(index: Path) -> list[str]:
    """The files that an index of shards names, each in its own folder."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        names = []
    if not names or not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise ModelError(f"{index} names no safetensors", hint=FOLDER_OR_NAME)
    return names
