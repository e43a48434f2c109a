"""Conversion of models that transformers' `CLIPModel` and `SiglipModel` saved to open_clip's layout."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from clipkit.core import folder_cache
from clipkit.core.cache import cache_key
from clipkit.core.files import digest
from clipkit.core.folders import cache_folder
from clipkit.errors import ModelError
from clipkit.models.hub import CONFIG, SAFE_WEIGHTS, TOKENIZER_FILES, Notify
from clipkit.models.vit import CONFIG as TRANSFORMERS_CONFIG
from clipkit.models.vit import INTERPOLATIONS, PROCESSORS, find_saved, read_configs, weight_files

if TYPE_CHECKING:
    import torch

    State: TypeAlias = dict[str, torch.Tensor]

Config: TypeAlias = Mapping[str, Any]

FORM = "clipkit conversion 1"
SUPPORTED = ("CLIPModel", "SiglipModel")
MOST = 4  # conversions that stay: each is as large as the model
TRUNK = "trunk"  # of a SigLIP: the image tower as timm builds it from a config beside the weights
TRUNK_CONFIG = f"{TRUNK}/config.json"
CLIP_VOCABULARY = 49_408  # of the tokenizer that open_clip brings
CLIP_EPS, SIGLIP_EPS = 1e-5, 1e-6
GELUS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}  # timm's names
_SAVE = 'AutoProcessor.from_pretrained("NAME").save_pretrained("FOLDER") writes it'
_HINT = "CLIPModel and SiglipModel of transformers are converted; others: clipkit models"


def is_pretrained_clip(folder: Path) -> bool:
    """Whether this is a folder that one of SUPPORTED was saved in, and none of open_clip's layout."""
    return not (folder / CONFIG).is_file() and architecture_of(folder) in SUPPORTED


def architecture_of(folder: Path) -> str:
    """The class of transformers that a folder was saved from; "" where its config names none."""
    with suppress(OSError, ValueError, KeyError, IndexError, TypeError):
        return str(json.loads((folder / TRANSFORMERS_CONFIG).read_bytes())["architectures"][0])
    return ""


def check_architecture(folder: Path) -> None:
    """ModelError for a folder of transformers that is no model of pictures and texts, or one of another kind."""
    name = architecture_of(folder)
    if name not in SUPPORTED:
        fact = f"a {name} of transformers" if name else "a model of transformers whose config names no architecture"
        raise ModelError(f"{folder} holds {fact}, which cannot be converted to open_clip", hint=_HINT)


def converted_folder(folder: Path) -> Path:
    """Where the conversion of a saved model is kept, by its content; any other folder is its own."""
    if not is_pretrained_clip(folder):
        return folder
    names = (TRANSFORMERS_CONFIG, *PROCESSORS, *TOKENIZER_FILES)
    digests = [digest(str(folder / name)) for name in names if (folder / name).is_file()]
    return _place() / cache_key(FORM, find_saved(folder).seal, digests)[:32]


def as_open_clip_folder(folder: Path, notify: Notify | None = None) -> Path:
    """The folder in open_clip's layout: itself, or what is made of a saved model, once."""
    place = converted_folder(folder)
    if place == folder or (place / CONFIG).is_file():
        with suppress(OSError):
            os.utime(place / CONFIG) if place != folder else None
        return place
    if notify:
        notify(f"converting {folder} to open_clip's layout: once")
    beside = place.with_name(f".{place.name}-{secrets.token_hex(4)}.part")
    try:
        _convert(folder, beside)
        with suppress(OSError):  # another process was first
            os.replace(beside, place)
        _trim(place)
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be converted: {error}", hint="set CLIPKIT_CACHE to a folder with room for it"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def trunk_folder(vision_cfg: Config, folder: Path) -> Path | None:
    """The folder of timm's config that an image tower is built from; None where timm knows it by name."""
    name = str(vision_cfg.get("timm_model_name") or "")
    return folder / TRUNK if name == f"local-dir:{TRUNK}" else None


def _place() -> Path:
    return cache_folder() / "converted"


def _trim(newest: Path) -> None:
    """Remove the least recently used conversions beyond MOST."""
    with suppress(OSError):
        folder_cache.trim((file.parent for file in _place().glob(f"[!.]*/{CONFIG}")), newest, CONFIG, most=MOST)


def _convert(folder: Path, target: Path) -> None:
    from safetensors.torch import save_file

    try:
        config, processor = read_configs(folder)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{folder} cannot be converted: {reason}", hint=_SAVE) from error
    is_siglip = architecture_of(folder) == "SiglipModel"
    model_cfg, trunk = _siglip_config(folder, config) if is_siglip else (_clip_config(folder, config), None)
    size = config["vision_config"]["image_size"]
    preprocess = _preprocess(folder, processor, size)
    state = _renamed(folder, _siglip_names if is_siglip else _clip_names)
    target.mkdir(parents=True)
    _write_tokenizer(folder, target, model_cfg["text_cfg"], is_siglip=is_siglip)
    save_file(state, target / SAFE_WEIGHTS)
    if trunk:
        (target / TRUNK).mkdir()
        (target / TRUNK_CONFIG).write_text(json.dumps(trunk), encoding="utf-8")
    (target / CONFIG).write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}), encoding="utf-8")


def _refuse(folder: Path, fact: str, hint: str = _HINT) -> ModelError:
    return ModelError(f"{folder} cannot be converted to open_clip: {fact}", hint=hint)


def _clip_config(folder: Path, config: Config) -> dict[str, Any]:
    text, vision = config["text_config"], config["vision_config"]
    acts = {text["hidden_act"], vision["hidden_act"]}
    if len(acts) > 1 and "quick_gelu" in acts:
        raise _refuse(folder, "one of its towers has QuickGELU and the other has not")
    end = text["eos_token_id"]
    pool = {"pool_type": "argmax"} if end == 2 else {"pool_type": "eos", "eos_id": end}  # 2: of configs before 2023
    return {
        "embed_dim": config["projection_dim"],
        "quick_gelu": "quick_gelu" in acts,
        "vision_cfg": {
            **_tower(folder, vision, CLIP_EPS),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
        },
        "text_cfg": {**_text_tower(folder, text, CLIP_EPS), **pool},
    }


def _siglip_config(folder: Path, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's config, and timm's for the image tower."""
    text, vision = config["text_config"], config["vision_config"]
    width = vision["hidden_size"]
    tower = _tower(folder, vision, SIGLIP_EPS)
    if not {text["hidden_act"], vision["hidden_act"]} <= set(GELUS):
        raise _refuse(folder, f"its towers have {text['hidden_act']} and {vision['hidden_act']}")
    if "norm_kwargs" in tower or not vision.get("vision_use_head", True) or text["projection_size"] != width:
        raise _refuse(folder, "its image tower is not one of SigLIP's", "a model as google/siglip-base-patch16-224 is")
    model_cfg = {
        "embed_dim": width,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision["image_size"],
            "timm_model_name": f"local-dir:{TRUNK}",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **{"norm_kwargs": {"eps": SIGLIP_EPS}, **_text_tower(folder, text, SIGLIP_EPS)},
            **{"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        },
    }
    return model_cfg, _trunk(vision, tower)


def _trunk(vision: Config, tower: Config) -> dict[str, Any]:
    """timm's config of a SigLIP's image tower."""
    size = vision["image_size"]
    args = {"img_size": size, "patch_size": vision["patch_size"], "embed_dim": tower["width"]}
    args |= {"mlp_ratio": tower["mlp_ratio"], "depth": tower["layers"], "num_heads": vision["num_attention_heads"]}
    return {
        "architecture": "vit_base_patch16_siglip_224",  # whose sizes `model_args` replace
        "num_classes": 0,
        "model_args": {**args, "act_layer": GELUS[vision["hidden_act"]]},
        "pretrained_cfg": {"input_size": [3, size, size], "fixed_input_size": True, "num_classes": 0},
    }


def _text_tower(folder: Path, text: Config, eps: float) -> dict[str, Any]:
    sizes = {"context_length": text["max_position_embeddings"], "vocab_size": text["vocab_size"]}
    return {**_tower(folder, text, eps), **sizes, "heads": text["num_attention_heads"]}


def _tower(folder: Path, config: Config, eps: float) -> dict[str, Any]:
    """What both towers say of their transformer."""
    width, inner, act = config["hidden_size"], config["intermediate_size"], config["hidden_act"]
    if act not in (*GELUS, "quick_gelu") or config.get("num_channels", 3) != 3:
        raise _refuse(folder, f"it has {act} and {config.get('num_channels', 3)} channels")
    ratio = inner / width if int(width * (inner / width)) == inner else (inner + 0.5) / width  # it is cut to an integer
    tower: dict[str, Any] = {"width": width, "layers": config["num_hidden_layers"], "mlp_ratio": ratio}
    if config["layer_norm_eps"] != eps:
        tower["norm_kwargs"] = {"eps": config["layer_norm_eps"]}
    if GELUS.get(act) == "gelu_tanh":
        tower["act_kwargs"] = {"approximate": "tanh"}
    return tower


def _preprocess(folder: Path, processor: Config, size: int) -> dict[str, Any]:
    """open_clip's preprocess_cfg; ModelError for what a resize and a crop to one size does not say."""
    steps = ("do_resize", "do_rescale", "do_normalize")
    sides = {name: value for name, value in dict(processor["size"]).items() if value}
    crop = dict(processor["crop_size"] or {}) if processor.get("do_center_crop") else {}
    mode = {1: "shortest", 2: "squash"}[len(sides)] if set(sides) <= {"shortest_edge", "height", "width"} else ""
    is_plain = all(processor.get(step) for step in steps) and abs(processor["rescale_factor"] * 255 - 1) < 1e-6
    is_whole = set(sides.values()) == {size} and set(filter(None, crop.values())) <= {size} and (crop or len(sides) > 1)
    interpolation = INTERPOLATIONS.get(int(processor["resample"]))
    if not (mode and is_plain and is_whole and interpolation):
        fact = f"its processor does not resize and crop pictures to {size}x{size} by bicubic or bilinear"
        raise _refuse(folder, fact, f"in {PROCESSORS[0]}: size and crop_size {size}, resample 3")
    return {
        **{"size": [size, size], "mean": list(processor["image_mean"]), "std": list(processor["image_std"])},
        **{"interpolation": interpolation, "resize_mode": mode},
    }


def _write_tokenizer(folder: Path, target: Path, text_cfg: dict[str, Any], *, is_siglip: bool) -> None:
    """The tokenizer's files, and what `text_cfg` says of it; a CLIP without them has open_clip's own."""
    files = [folder / name for name in TOKENIZER_FILES[:-1] if (folder / name).is_file()]
    names = {file.name for file in files}
    if not names & {"tokenizer.json", "merges.txt"}:
        if not is_siglip and not names and text_cfg["vocab_size"] == CLIP_VOCABULARY:
            return
        raise _refuse(
            folder, "it has no tokenizer.json", 'AutoTokenizer.from_pretrained("NAME").save_pretrained(FOLDER)'
        )
    for file in files:
        shutil.copyfile(file, target / file.name)
    config: dict[str, Any] = {"tokenizer_class": "CLIPTokenizer"}
    with suppress(OSError, ValueError):
        config |= json.loads((folder / TOKENIZER_FILES[0]).read_bytes())
    if "tokenizer.json" in names and is_siglip:  # what it says is enough; SiglipTokenizer wants sentencepiece
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (target / TOKENIZER_FILES[0]).write_text(json.dumps(config), encoding="utf-8")
    text_cfg["hf_tokenizer_name"] = folder.name
    if is_siglip:
        text_cfg["tokenizer_kwargs"] = {"clean": "canonicalize"}


def _renamed(folder: Path, names: Any) -> State:
    """The weights under open_clip's names, in float32; ModelError where some are missing or left over."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = {name: value for file in weight_files(folder) for name, value in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder} has damaged weights: {error}", hint="fetch or copy it again") from error
    saved = {name: value.float() for name, value in saved.items() if not name.endswith("position_ids")}
    try:
        found: State = names(saved)
    except KeyError as error:
        raise _refuse(folder, f"its weights lack {error.args[0]}", "fetch or copy it again") from error
    if saved:
        raise _refuse(folder, f"its weights have {min(saved)}, which open_clip has no place for")
    return {name: value.to(torch.float32).contiguous() for name, value in found.items()}


def _clip_names(saved: State) -> State:
    found = {
        "logit_scale": saved.pop("logit_scale").reshape(()),
        "text_projection": saved.pop("text_projection.weight").T,
        "visual.proj": saved.pop("visual_projection.weight").T,
        "positional_embedding": saved.pop("text_model.embeddings.position_embedding.weight"),
        "token_embedding.weight": saved.pop("text_model.embeddings.token_embedding.weight"),
        "visual.class_embedding": saved.pop("vision_model.embeddings.class_embedding"),
        "visual.positional_embedding": saved.pop("vision_model.embeddings.position_embedding.weight"),
        "visual.conv1.weight": saved.pop("vision_model.embeddings.patch_embedding.weight"),
    }
    found |= _pair(saved, "vision_model.pre_layrnorm", "visual.ln_pre")
    found |= _pair(saved, "vision_model.post_layernorm", "visual.ln_post")
    found |= _pair(saved, "text_model.final_layer_norm", "ln_final")
    found |= _blocks(saved, "vision_model", "visual.transformer.resblocks")
    return found | _blocks(saved, "text_model", "transformer.resblocks")


def _siglip_names(saved: State) -> State:
    import torch

    head, pool = "vision_model.head", "visual.trunk.attn_pool"
    found = {
        "logit_scale": saved.pop("logit_scale").reshape(()),
        "logit_bias": saved.pop("logit_bias").reshape(()),
        "text.positional_embedding": saved.pop("text_model.embeddings.position_embedding.weight"),
        "text.token_embedding.weight": saved.pop("text_model.embeddings.token_embedding.weight"),
        "visual.trunk.pos_embed": saved.pop("vision_model.embeddings.position_embedding.weight")[None],
        f"{pool}.latent": saved.pop(f"{head}.probe"),
    }
    for kind in ("weight", "bias"):
        query, *key_value = saved.pop(f"{head}.attention.in_proj_{kind}").chunk(3)
        found |= {f"{pool}.q.{kind}": query, f"{pool}.kv.{kind}": torch.cat(key_value)}
    inner = {"attention.out_proj": "proj", "layernorm": "norm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for name, other in inner.items():
        found |= _pair(saved, f"{head}.{name}", f"{pool}.{other}")
    found |= _pair(saved, "vision_model.embeddings.patch_embedding", "visual.trunk.patch_embed.proj")
    found |= _pair(saved, "vision_model.post_layernorm", "visual.trunk.norm")
    found |= _pair(saved, "text_model.final_layer_norm", "text.ln_final")
    found |= _pair(saved, "text_model.head", "text.text_projection")
    found |= _blocks(saved, "vision_model", "visual.trunk.blocks", of=TIMM)
    return found | _blocks(saved, "text_model", "text.transformer.resblocks")


OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "": "attn.in_proj_",  # query, key and value in one
}
TIMM = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "": "attn.qkv.",
}


def _blocks(saved: State, source: str, target: str, of: Mapping[str, str] = OPEN_CLIP) -> State:
    """The blocks of a transformer."""
    import torch

    found: State = {}
    number = 0
    while f"{source}.encoder.layers.{number}.layer_norm1.weight" in saved:
        old, new = f"{source}.encoder.layers.{number}", f"{target}.{number}"
        for kind in ("weight", "bias"):
            three = [saved.pop(f"{old}.self_attn.{name}_proj.{kind}") for name in "qkv"]
            found[f"{new}.{of['']}{kind}"] = torch.cat(three)
        for name, other in of.items():
            found |= _pair(saved, f"{old}.{name}", f"{new}.{other}") if name else {}
        number += 1
    return found


def _pair(saved: State, source: str, target: str) -> State:
    return {f"{target}.{kind}": saved.pop(f"{source}.{kind}") for kind in ("weight", "bias")}
