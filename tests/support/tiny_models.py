"""Builders of small random open_clip models, each a folder in open_clip's own layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CLIP_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
CLIP_PIXELS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}

CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {
        "model_cfg": {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": CLIP_TEXT},
        "preprocess_cfg": {**CLIP_PIXELS, "interpolation": "bicubic", "resize_mode": "shortest"},
    },
    "quickgelu": {
        "model_cfg": {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": CLIP_TEXT},
        "preprocess_cfg": {**CLIP_PIXELS, "interpolation": "bicubic", "resize_mode": "shortest"},
    },
    "siglip": {
        "model_cfg": {
            "embed_dim": 32,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {**VIT, "pool_type": "avg"},
            "text_cfg": {
                **{**CLIP_TEXT, "context_length": 16, "vocab_size": 64},
                "hf_tokenizer_name": "nobody/siglip-words",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
            },
        },
        "preprocess_cfg": {**HALF, "interpolation": "bicubic", "resize_mode": "squash"},
    },
    "cnn": {
        "model_cfg": {
            "embed_dim": 32,
            "custom_text": True,
            "vision_cfg": {"timm_model_name": "test_efficientnet", "image_size": 64, "timm_pool": "avg"},
            "text_cfg": CLIP_TEXT,
        },
        "preprocess_cfg": {**HALF, "interpolation": "bilinear", "resize_mode": "shortest"},
    },
    "resnet": {
        "model_cfg": {
            "embed_dim": 32,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
            "text_cfg": CLIP_TEXT,
        },
        "preprocess_cfg": {**CLIP_PIXELS, "interpolation": "bicubic", "resize_mode": "shortest"},
    },
}

WORDS = ("a", "the", "of", "on", "photo", "dog", "cat", "boat", "boats", "red", "blue", "small", "two", "lake", "dawn")


def make_model(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """A folder with config, random weights and, where the model wants one, a tokenizer."""
    config = CONFIGS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    write_weights(folder / "open_clip_model.safetensors", random_network(config["model_cfg"], seed=seed))
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        make_tokenizer(folder)
    return folder


def random_network(model_config: dict[str, Any] | str, *, seed: int = 0) -> Any:
    """A network whose embeddings differ between pictures: open_clip's own start values leave them nearly equal."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    config = open_clip.get_model_config(model_config) if isinstance(model_config, str) else model_config
    config = json.loads(json.dumps(config))
    network = (open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP)(**config)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2 and "embedding" not in name:
            gain = 2.0 if "c_fc" in name else 0.8  # strong enough that GELU and QuickGELU part
            torch.nn.init.normal_(parameter, std=gain * parameter[0].numel() ** -0.5)
    return network.eval()


def write_weights(file: Path, network: Any) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous().clone() for name, value in network.state_dict().items()}, file)


def make_tokenizer(folder: Path, *, vocab_size: int = 64) -> None:
    """A tokenizer of whole words, padded and ended as SigLIP's is."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    assert len(vocabulary) <= vocab_size
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    fast.save_pretrained(folder)


def make_multilingual_model(folder: Path, sentences: Sequence[str], *, seed: int = 0) -> Path:
    """SigLIP's kind of model with a tokenizer of pieces of words, as multilingual ones have it, made from sentences."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    config = json.loads(json.dumps(CONFIGS["siglip"]))
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        [sentence.lower() for sentence in sentences],
        trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config["model_cfg"]["text_cfg"]["vocab_size"] = tokenizer.get_vocab_size()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    write_weights(folder / "open_clip_model.safetensors", random_network(config["model_cfg"], seed=seed))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder
