"""Builders of tiny random image classifiers of transformers, each a folder that `save_pretrained` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = ("cat", "dog", "boat")
SIDE = 32
_TRANSFORMER: dict[str, Any] = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SIZES: dict[str, dict[str, Any]] = {
    "vit": _TRANSFORMER,
    "deit": _TRANSFORMER,
    "beit": {**_TRANSFORMER, "use_relative_position_bias": True, "use_mean_pooling": True},
    "swin": {
        "image_size": SIDE,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "convnext": {"image_size": SIDE, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 2, 1]},
}
KINDS = tuple(SIZES)
ARCHITECTURES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "beit": "BeitForImageClassification",
    "swin": "SwinForImageClassification",
    "convnext": "ConvNextForImageClassification",
}


def make_vit(kind: str, folder: Path, *, labels: tuple[str, ...] = LABELS, seed: int = 0, **config: Any) -> Path:
    """A folder with config, random weights and processor. kind: vit, deit, beit, swin or convnext."""
    from clipkit.models.vit import quietly

    with quietly():
        random_vit(kind, labels=labels, seed=seed, **config).save_pretrained(folder)
        make_processor(kind).save_pretrained(folder)
    return folder


def random_vit(kind: str, *, labels: tuple[str, ...] = LABELS, seed: int = 0, **config: Any) -> Any:
    """A network whose answers differ between pictures: its own start values leave them nearly equal."""
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    ours = AutoConfig.for_model(
        kind, **{**SIZES[kind], **config}, id2label=names, label2id={name: i for i, name in names.items()}
    )
    ours.architectures = [ARCHITECTURES[kind]]  # DeiT has two, and from_config asks which
    network = AutoModelForImageClassification.from_config(ours)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2 and "embeddings" not in name:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
        elif "position" in name or name.endswith("cls_token"):
            torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


def make_processor(kind: str, *, side: int = SIDE) -> Any:
    """As the published ones of its kind are: ViT, Swin and BEiT squash, DeiT crops, ConvNeXT keeps proportions."""
    from transformers import BeitImageProcessor, ConvNextImageProcessor, DeiTImageProcessor, ViTImageProcessor

    square = {"height": side, "width": side}
    if kind == "deit":
        return DeiTImageProcessor(size={"height": side + 8, "width": side + 8}, crop_size=square)
    if kind == "convnext":
        return ConvNextImageProcessor(size={"shortest_edge": side})
    return {"beit": BeitImageProcessor}.get(kind, ViTImageProcessor)(size=square)
