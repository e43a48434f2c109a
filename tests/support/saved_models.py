"""Small random models of transformers' CLIP and SigLIP, saved with processor and tokenizer as transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.tiny_models import WORDS, make_tokenizer

TEXT = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TEXT, "hidden_size": 96, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}


def save_clip(folder: Path, *, act: str = "quick_gelu", eos: int | None = None, **vision: Any) -> Any:
    """A CLIPModel. eos: its `eos_token_id`, by default that of the tokenizer; 2 pools the greatest id."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    end = make_clip_tokenizer(folder)
    text = {**TEXT, "hidden_act": act, "vocab_size": end + 1, "max_position_embeddings": 24}
    config = CLIPConfig(
        text_config={**text, "eos_token_id": end if eos is None else eos, "bos_token_id": end - 1, "pad_token_id": end},
        vision_config={**VISION, "hidden_act": act, **vision},
        projection_dim=48,
    )
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
    return _saved(CLIPModel(config), folder)


def save_siglip(folder: Path, **vision: Any) -> Any:
    """A SiglipModel with a tokenizer of whole words."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    make_tokenizer(folder)
    text = {**TEXT, "hidden_size": 96, "num_attention_heads": 3, "vocab_size": 64, "max_position_embeddings": 16}
    config = SiglipConfig(
        text_config={**text, "eos_token_id": 1, "bos_token_id": 1}, vision_config={**VISION, **vision}
    )
    SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return _saved(SiglipModel(config), folder)


def make_clip_tokenizer(folder: Path) -> int:
    """A tokenizer as CLIP's, of letters and a few words; the id of its end."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?'")
    merges = [(word[:i] or "", word[i] + ("</w>" if i == len(word) - 1 else "")) for word in WORDS
              for i in range(1, len(word))]  # fmt: skip
    merges = list(dict.fromkeys(pair for pair in merges if pair[0]))
    pieces = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)])
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return vocabulary["<|endoftext|>"]


def _saved(network: Any, folder: Path) -> Any:
    """The network, its weights drawn so that embeddings of different pictures and texts differ, in the folder too."""
    import torch

    from clipkit.models.vit import quietly

    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2 and "embedding" not in name:
            gain = 2.0 if "fc1" in name else 0.8  # strong enough that GELU and QuickGELU part
            torch.nn.init.normal_(parameter, std=gain * parameter[0].numel() ** -0.5)
        elif parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.1)
    with quietly():
        network.save_pretrained(folder)
    return network.eval()
