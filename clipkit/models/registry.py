"""Model names: which weights they mean, where on this disk they are, and how they are fetched."""

from __future__ import annotations

import importlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from clipkit.core.tables import read_table
from clipkit.errors import ModelError
from clipkit.models.conversion import as_open_clip_folder, is_pretrained_clip
from clipkit.models.hub import CONFIG as CONFIG
from clipkit.models.hub import SAFE_WEIGHTS as SAFE_WEIGHTS
from clipkit.models.hub import TOKENIZER_FILES as TOKENIZER_FILES
from clipkit.models.hub import Hub, Notify, signed, why_not_fetched
from clipkit.models.vit import CONFIG as SAVED_CONFIG
from clipkit.models.vit import PROCESSORS as SAVED_PROCESSORS
from clipkit.models.vit import SHARDS, WEIGHTS, weight_files

PICKLE_WEIGHTS = "open_clip_pytorch_model.bin"
# In a folder, open_clip loads the first of these that is there; we must name the same file, since we sign it.
FOLDER_WEIGHTS = (SAFE_WEIGHTS, "open_clip_pytorch_model.safetensors", PICKLE_WEIGHTS, "open_clip_pytorch_model.pth")
SAVED_WEIGHTS = (WEIGHTS, SHARDS)  # as transformers saves them, in one file or several
# Weights to advise where only an architecture is named, by how their tags begin: the best of open_clip's result tables
# among those whose licence allows everything, then what else there is.
ADVISED = ("datacomp_xl", "datacomp", "webli", "laion2b", "laion", "dfn", "metaclip", "openai", "")


@dataclass(frozen=True)
class Alias:
    """A short name with what was published about the model behind it, in percent; None where nothing was.

    imagenet: zero-shot top-1. flickr: Flickr30k text to image, R@1. pictures_per_second: measured by us, on one core.
    """

    name: str
    model: str
    repo: str | None
    tokenizer_repo: str | None
    dim: int | None
    million_parameters: float | None
    size_mb: int | None
    imagenet: float | None
    flickr: float | None
    pictures_per_second: float | None
    source: str
    purpose: str


_OPEN_CLIP_TABLES = "open_clip docs/openclip_classification_results.csv, openclip_retrieval_results.csv"
_SIGLIP = "timm/ViT-B-16-SigLIP"

# OpenAI's weights are not here: in each size, others find pictures better.
ALIASES: Mapping[str, Alias] = {
    alias.name: alias
    for alias in (
        Alias("fast", "ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", None, 512, 151.3, 605,
              66.6, 66.8, 47.0, _OPEN_CLIP_TABLES, "large folders on a CPU"),
        Alias("balanced", "ViT-B-16-SigLIP-256/webli", "timm/ViT-B-16-SigLIP-256", _SIGLIP, 768, 203.2, 813,
              76.5, 75.0, None, _OPEN_CLIP_TABLES, "the default where there is a network"),
        Alias("best", "ViT-SO400M-14-SigLIP-384/webli", "timm/ViT-SO400M-14-SigLIP-384", _SIGLIP, 1152, 878.0, 3512,
              83.1, 83.0, None, _OPEN_CLIP_TABLES, "the best answers; wants a GPU"),
        Alias("multilingual", "ViT-B-16-SigLIP-i18n-256/webli", "timm/ViT-B-16-SigLIP-i18n-256",
              "timm/ViT-B-16-SigLIP-i18n-256", 768, 370.6, 1483, 75.1, 72.2, None, _OPEN_CLIP_TABLES,
              "words in many languages"),
        Alias("starter", "starter", None, None, 384, 22.1, 44, None, None, None, "its model card, data/starter",
              "comes with clipkit: offline use, tests, a first try"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Pretrained:
    """What open_clip knows of one set of weights. file: its name in the repository; "" is open_clip's usual one."""

    repo: str
    file: str = ""
    quick_gelu: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None


Catalogue = Mapping[str, Mapping[str, Pretrained]]  # architecture -> tag -> weights


@dataclass(frozen=True)
class Weights:
    """Weights that are on this disk.

    model: the canonical name. source: what finds them again (the folder itself, where the name is only its last part).
    architecture: open_clip's name, or "local-dir:FOLDER". fingerprint: SHA-256 of `file`.
    pretrained: what open_clip's table says of them; None where the folder says it itself.
    """

    model: str
    source: str
    architecture: str
    file: Path
    fingerprint: str
    pretrained: Pretrained | None = None


def canonical_name(model: str) -> str:
    """The one name of a model: aliases and repositories resolved, `,` and `__` as `/`; "auto" stays.

    Nothing is looked up on a network.
    """
    if alias := ALIASES.get(model):
        return alias.model
    if model == "auto" or model.startswith(("hf-hub:", "local:")):
        return model
    if folder := _as_folder(model):
        return f"local:{folder.name}"
    if name := hub_names().get(model):
        return name
    architecture, separator, tag = _split_name(model)
    return f"{architecture}/{tag}" if separator else architecture


@cache
def hub_names() -> Mapping[str, str]:
    """open_clip's name by repository: of its own weights, and of those that transformers has of the same models."""
    return {row["repository"]: row["model"] for _, row in read_table(Path(__file__).with_name("hub_names.csv"))}


def say_name(model: str, notify: Notify | None) -> None:
    """A line where a repository is given whose weights open_clip has by a name of its own."""
    if notify and (name := hub_names().get(model)) == canonical_name(model):
        notify(f"{model} is {name} in open_clip")


def choose_auto(notify: Notify | None = None) -> str:
    """`balanced` if its weights are on this disk or the hub answers within 3 s, else `starter`, with one line."""
    if is_cached("balanced"):
        return "balanced"
    reason = why_not_fetched(ALIASES["balanced"].repo or "", SAFE_WEIGHTS)
    if reason is None:
        return "balanced"
    if notify:
        notify(f"using the bundled starter model: {reason}; for better answers give --model balanced on a network once")
    return "starter"


def is_cached(alias: str) -> bool:
    """Whether the alias loads without a request; costs no import of torch or open_clip."""
    entry = ALIASES[alias]
    if entry.repo is None:
        return (starter_folder() / SAFE_WEIGHTS).is_file()
    hub = Hub(None)
    needed = [(entry.repo, SAFE_WEIGHTS)]
    if entry.tokenizer_repo:
        needed.append((entry.tokenizer_repo, TOKENIZER_FILES[0]))
    return all(isinstance(hub.look_up(repo, name), Path) for repo, name in needed)


def starter_folder() -> Path:
    """Folder of the model that comes with clipkit.

    Returns
    -------
    Path
        May be empty in a development tree.

    Examples
    --------
    >>> from clipkit.models import starter_folder
    >>> starter_folder().name
    'starter'
    """
    return Path(str(importlib.import_module("clipkit_data").__file__)).parent / "starter"


def find_weights(
    model: str, catalogue: Catalogue, *, allow_pickle: bool = False, notify: Notify | None = None
) -> Weights:
    """The weights behind any name, fetched if need be; ModelError says what is missing and what to type.

    catalogue: the named sets of weights; not looked into for a folder or a repository.
    """
    model = choose_auto(notify) if model == "auto" else model
    if model == "starter":
        return _from_folder(starter_folder(), "starter", "starter", allow_pickle)
    if model.startswith("local:"):
        raise ModelError(f"{model} names no place on this disk", hint="give the model's folder: --model FOLDER")
    if model.startswith("hf-hub:"):
        return _from_repo(model, allow_pickle, Hub(notify), notify)
    if model not in ALIASES and (folder := _as_folder(model)):
        place = as_open_clip_folder(folder, notify)
        return _from_folder(place, f"local:{folder.name}", str(folder), allow_pickle)
    name, architecture, pretrained = _look_up(canonical_name(model), catalogue, written=model)
    hub = Hub(notify)
    try:
        file = _fetch_weights(name, pretrained.repo, pretrained.file, allow_pickle, hub)
    except ModelError as error:
        saved = hub.look_up(model, SAVED_CONFIG) if model in hub_names() else None
        if isinstance(saved, Path) and is_pretrained_clip(saved.parent):  # transformers has fetched the model
            raise ModelError(error.message, hint=f"--model {shlex.quote(str(saved.parent))}") from error
        raise
    return Weights(name, name, architecture, file, signed(file), pretrained)


def fetch_files(repo: str, names: Sequence[str], notify: Notify | None = None) -> Path:
    """The folder that holds those of `names` that `repo` has; ModelError when it has none of them."""
    hub = Hub(notify)
    files = [file for name in names if (file := hub.file(repo, name))]
    if not files:
        raise ModelError(f"{repo} has none of {', '.join(names)}", hint="another model: clipkit models")
    return files[0].parent


def _split_name(model: str) -> tuple[str, str, str]:
    """("ViT-B-32", "/", "laion2b_s34b_b79k") of all the ways people write it; no separator where there is no tag."""
    for separator in ("__", ",", "/"):
        if separator in model:
            architecture, _, tag = model.rpartition(separator)
            return architecture.strip().replace("/", "-"), separator, tag.strip().lower().replace("-", "_")
    return model, "", ""


def _as_folder(model: str) -> Path | None:
    text = model.removeprefix("local-dir:")
    folder = Path(os.path.abspath(os.path.expanduser(text)))
    is_path = (
        text != model or text.startswith((".", "/", "~")) or (folder / CONFIG).is_file() or is_pretrained_clip(folder)
    )
    return folder if is_path else None


def _look_up(model: str, catalogue: Catalogue, *, written: str) -> tuple[str, str, Pretrained]:
    architecture, _, tag = model.partition("/")
    if pretrained := catalogue.get(architecture, {}).get(tag):
        return model, architecture, pretrained
    whole = model.replace("/", "-")  # "ViT-B/32" is how papers write the architecture
    if tags := catalogue.get(architecture) or catalogue.get(whole):
        name = architecture if architecture in catalogue else whole
        fact = f"{name} has no weights called {tag}" if name == architecture and tag else f"{name} names no weights"
        best = f"{name}/{_advised(name, tags)}"
        others = f"--model {best}; {name}/ also takes {', '.join(tags)}"
        raise ModelError(fact, hint=others if len(tags) > 1 else f"--model {best}")
    names = [*ALIASES, *hub_names(), *(f"{name}/{tag}" for name, tags in catalogue.items() for tag in tags)]
    near = get_close_matches(written, names, n=3, cutoff=0.5)
    other = (
        f"a repository of open_clip or transformers: --model hf-hub:{written}" if "/" in written else "clipkit models"
    )
    hint = f"did you mean {', '.join(near)}" if near else other
    raise ModelError(f"no model is called {written}", hint=hint)


def _advised(architecture: str, tags: Iterable[str]) -> str:
    """The tag of an alias of ours, else the first kind of ADVISED; of several the last, which saw the most pictures."""
    ours = [alias.model.partition("/")[2] for alias in ALIASES.values() if alias.model.startswith(f"{architecture}/")]
    kinds = ([tag for tag in tags if tag.startswith(kind)] for kind in ADVISED)
    return next(found[-1] for found in ([*ours], *kinds) if found)


def _from_folder(folder: Path, model: str, source: str, allow_pickle: bool) -> Weights:
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is no model folder: it has no {CONFIG}", hint="clipkit models")
    file = next((folder / name for name in FOLDER_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise ModelError(
            f"{folder} has no {SAFE_WEIGHTS}", hint="a folder that has it beside its config: --model FOLDER"
        )
    if file.suffix != ".safetensors" and not allow_pickle:
        raise _pickle_error(model, file.name)
    return Weights(model, source, f"local-dir:{folder}", file, signed(file))


def _from_repo(model: str, allow_pickle: bool, hub: Hub, notify: Notify | None) -> Weights:
    repo = model.removeprefix("hf-hub:")
    config = _open_clip_config(repo, hub)
    if config is None and repo not in hub_names() and (folder := _saved_in_repo(repo, hub)):
        return _from_folder(as_open_clip_folder(folder, notify), model, model, allow_pickle)
    if config is None:
        name = hub_names().get(repo)
        hint = f"open_clip has the model: --model {name}" if name else "another model: clipkit models"
        raise ModelError(f"{repo} is no open_clip model: it has no {CONFIG}", hint=hint)
    # From here on the same commit, so that a push in between cannot pair one's config with the other's weights.
    file = _fetch_weights(model, repo, "", allow_pickle, hub, revision=config.parent.name)
    return Weights(model, model, f"local-dir:{file.parent}", file, signed(file))


def _open_clip_config(repo: str, hub: Hub) -> Path | None:
    """open_clip's config of a repository; None where it has none, or only what transformers has fetched is there."""
    try:
        return hub.file(repo, CONFIG)
    except ModelError:
        saved = hub.look_up(repo, SAVED_CONFIG)
        if repo in hub_names() or not (isinstance(saved, Path) and is_pretrained_clip(saved.parent)):
            raise
        return None


def _saved_in_repo(repo: str, hub: Hub) -> Path | None:
    """The folder of a repository that transformers' CLIPModel or SiglipModel was saved to; None for any other."""
    config = hub.file(repo, SAVED_CONFIG)
    if config is None or not is_pretrained_clip(config.parent):
        return None
    commit = config.parent.name
    try:
        for name in (*SAVED_WEIGHTS, *SAVED_PROCESSORS, *TOKENIZER_FILES):
            hub.file(repo, name, commit)
        if not any((config.parent / name).is_file() for name in SAVED_WEIGHTS):
            raise ModelError(f"{repo} has no weights as safetensors", hint="another model: clipkit models")
        for file in weight_files(config.parent):
            hub.file(repo, file.name, commit)
    except ModelError:  # no network: what transformers has fetched may be all there is
        if not any((config.parent / name).is_file() for name in SAVED_WEIGHTS):
            raise
    return config.parent


def _fetch_weights(model: str, repo: str, file: str, allow_pickle: bool, hub: Hub, revision: str | None = None) -> Path:
    safe = str(Path(file).with_suffix(".safetensors")) if file else SAFE_WEIGHTS
    if found := hub.file(repo, safe, revision):
        return found
    if not allow_pickle:
        raise _pickle_error(model, file or PICKLE_WEIGHTS)
    if found := hub.file(repo, file or PICKLE_WEIGHTS, revision):
        return found
    raise ModelError(f"{repo} has no weights that open_clip can load", hint="another model: clipkit models")


def _pickle_error(model: str, file: str) -> ModelError:
    return ModelError(
        f"{model} has its weights only as a pickle ({file}), which can run code when it is read",
        hint="--allow-pickle, if you trust where it comes from",
    )
