"""ONNX export of open_clip models: both towers as graphs, the tokenizer as data, each compared with the original."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.files import replace_file, replacing, sync_file
from clipkit.errors import ModelError
from clipkit.images.recipe import PixelRecipe
from clipkit.models.backbone import pooled
from clipkit.models.devices import is_convolutional
from clipkit.models.exports import IMAGE, MERGES, TEXT, VOCABULARY, WEIGHTS, ExportedModel, config_of, model_cfg_sha256
from clipkit.models.hub import fingerprint
from clipkit.models.onnx import open_session, write_folded, write_quantized
from clipkit.models.openclip import causal_tower, end_token, model_config, tokenizer_data
from clipkit.models.registry import Weights
from clipkit.models.tokenizer import Tokenizer, lengths

if TYPE_CHECKING:
    import torch

OPSET = 17
LEAST_COSINE = 0.9999
PICTURES, TEXTS, ODD_TEXTS = 8, 32, 1_000  # that the graphs are compared on
_SUBJECTS = ("a dog", "two red boats", "an old man with a hat", "a street", "nothing", "a plate of food", "snow", "7")
_PLACES = ("", "on a beach", "at night", "in front of a very large house", "under water", "beside a 1950s car!")
_FORMS = ("{}", "a photo of {}.", "a blurry photo of {}", "this is {}, isn't it?", "{} {}")
_ALPHABET = "abcXYZ019  .,'’!?-_&<>#@ äßéñÅœ中文かな한국عربיתहि😀👍🏽﻿\t\n¼ﬁ…—&amp;'s"  # noqa: RUF001


def fold_constants(graph: Path) -> None:
    """Compute once what no input decides, transposed weights above all: a text tower opens in 8 ms instead of 95.

    The weights move to a file beside the graph, which ONNX Runtime maps into memory instead of reading it.
    """
    beside, weights = graph.with_suffix(".folded"), graph.with_suffix(WEIGHTS)
    write_folded(graph, beside, weights.name)
    os.replace(beside, graph)
    if not weights.exists():
        return  # nothing in it is large
    weights.chmod(graph.stat().st_mode)
    sync_file(weights)
    sync_file(graph)


def export_encoder(
    network: Any,
    tokenize: Callable[[list[str]], torch.Tensor],
    weights: Weights,
    recipe: PixelRecipe,
    folder: Path,
    *,
    finish: Callable[[Path], None] = fold_constants,
) -> ExportedModel:
    """Write both towers of a float32 network on the CPU, and its tokenizer, to `folder`.

    finish: what is done to each graph before it is compared.

    A tower that cannot be traced, or answers otherwise than the original (cosine below .9999), is left out, and so is a
    text tower whose tokenizer differs on one of a thousand odd texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, end = _same_tokenizer(tokenize), end_token(causal_tower(network))
    export = ExportedModel(
        folder=folder,
        config=config_of(weights),
        model_cfg_sha256=model_cfg_sha256(model_config(weights)),
        model=weights.model,
        source=weights.source,
        fingerprint=weights.fingerprint,
        dim=_text_width(network, tokenize),
        recipe=recipe,
        logit_scale=float(network.logit_scale.exp()),
        logit_bias=0.0 if network.logit_bias is None else float(network.logit_bias),
        tokenization=tokenizer.options() if tokenizer else {},
        end=end,
        is_convolutional=is_convolutional(network.visual),
        graphs=_write_graphs(folder, network, recipe, tokenizer, finish),
    )
    export.save()
    return export


def _write_graphs(
    folder: Path, network: Any, recipe: PixelRecipe, tokenizer: Tokenizer | None, finish: Callable[[Path], None]
) -> dict[str, str]:
    """SHA-256 of each file that was written, by its name."""
    tower = causal_tower(network)
    files: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tracer warns of branches that do not depend on the values
        images = {"network": network, "recipe": recipe}
        if _write(folder / IMAGE, partial(_trace_images, **images), partial(_images_agree, **images), finish):
            files |= _signed(folder / IMAGE)
        texts = {"network": network, "tokenizer": tokenizer, "tower": tower}
        if tokenizer and _write(folder / TEXT, partial(_trace_texts, **texts), partial(_texts_agree, **texts), finish):
            files |= _signed(folder / TEXT) | _write_tokenizer(folder, tokenizer)
    return files


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> dict[str, str]:
    texts = {VOCABULARY: tokenizer.model, **({MERGES: tokenizer.merges} if tokenizer.merges else {})}
    for name, text in texts.items():
        replace_file(folder / name, str(text).encode())
    return {name: fingerprint(folder / name) for name in texts}


def quantize_graph(graph: Path, target: Path) -> None:
    """A folded graph once more, with its matrix products in int8."""
    import onnx

    model = onnx.load(graph)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # it is folded: no warning
    write_quantized(model, target)
    fold_constants(target)


def share_weights(graph: Path, weights: Path) -> None:
    """Have a graph read its weights from a safetensors file beside it, where they are as float16 or float32.

    The graph shrinks to its structure. Numbers that are not in the file stay where they are.
    """
    import onnx

    model, own = onnx.load(graph, load_external_data=False), graph.with_suffix(WEIGHTS)
    stored = _tensors_of(weights)
    for tensor in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(tensor, base_dir=str(graph.parent))
        place = stored.get((values.shape, values.astype(np.float16).tobytes()) if values.size > 1 else None)
        if place is None:
            continue
        model.graph.initializer.remove(tensor)
        _refer(model.graph, tensor.name, values.shape, weights.name, *place)
    replace_file(graph, model.SerializeToString())
    if not any(entry.value == own.name for tensor in model.graph.initializer for entry in tensor.external_data):
        own.unlink(missing_ok=True)


def _refer(graph: Any, name: str, shape: tuple[int, ...], file: str, offset: int, length: int) -> None:
    """An initializer that lies in another file as float16, and a node that makes it float32."""
    from onnx import TensorProto, helper

    half = TensorProto(name=f"{name}.half", data_type=TensorProto.FLOAT16, dims=shape)
    half.data_location = TensorProto.EXTERNAL
    for key, value in {"location": file, "offset": str(offset), "length": str(length)}.items():
        half.external_data.add(key=key, value=value)
    graph.initializer.append(half)
    readers = [node for node in graph.node if name in node.input]
    gathers = [node for node in readers if node.op_type == "Gather" and node.input[0] == name]
    for node in gathers:  # a table of embeddings: only the rows that are read become float32
        made = node.output[0]
        node.input[0], node.output[0] = half.name, f"{made}.half"
        at = list(graph.node).index(node) + 1
        graph.node.insert(at, helper.make_node("Cast", [f"{made}.half"], [made], to=TensorProto.FLOAT))
    if len(gathers) < len(readers):
        graph.node.insert(0, helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))


def _tensors_of(weights: Path) -> dict[Any, tuple[int, int]]:
    """Offset and length in the file of each float16 tensor, by its shape and bytes."""
    import json

    content = weights.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    found: dict[Any, tuple[int, int]] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F16":
            first, last = (start + offset for offset in entry["data_offsets"])
            found[tuple(entry["shape"]), content[first:last]] = (first, last - first)
    return found


def _signed(graph: Path) -> dict[str, str]:
    """SHA-256 of a graph and of its weights, where it has a file of its own for them, by file name."""
    files = [file for file in (graph, graph.with_suffix(WEIGHTS)) if file.exists()]
    return {file.name: fingerprint(file) for file in files}


def _write(
    file: Path, trace: Callable[[Path], None], agrees: Callable[[Path], bool], finish: Callable[[Path], None]
) -> bool:
    """Whether the graph could be made and answers as the original; if not, no file is left."""
    try:
        with replacing(file, sync=False) as beside:
            trace(beside)
        finish(file)
        if agrees(file):
            return True
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, ModelError, MemoryError):
        pass  # an architecture that torch's exporter cannot trace: torch computes it
    file.unlink(missing_ok=True)
    file.with_suffix(WEIGHTS).unlink(missing_ok=True)
    return False


def _trace(file: Path, module: Any, example: torch.Tensor, name: str, axes: Mapping[int, str]) -> None:
    import torch

    with torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(
            module.eval(),
            (example,),
            file,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,  # weights stay as they are in the file
            input_names=[name],
            output_names=["embeddings"],
            dynamic_axes={name: dict(axes), "embeddings": {0: "n"}},
        )


def _trace_images(file: Path, network: Any, recipe: PixelRecipe) -> None:
    """From uint8 pixels (n, 3, h, w) to rows of length 1."""
    import torch

    class ImageTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = _up_to_class_token(_with_plain_attention(network.visual))
            self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            scaled = (pixels.float() / 255 - self.mean) / self.std
            return torch.nn.functional.normalize(pooled(self.visual(scaled)), dim=-1)

    _trace(file, ImageTower(), torch.zeros((2, 3, *recipe.size), dtype=torch.uint8), "pixels", {0: "n"})


def _trace_texts(file: Path, network: Any, tower: Any, tokenizer: Tokenizer) -> None:
    """From token ids (n, length) to rows of length 1; any length where the tower is causal."""
    import torch

    class TextTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = _with_plain_attention(network)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            if tower is None:
                return torch.nn.functional.normalize(pooled(self.whole.encode_text(tokens)), dim=-1)
            part = self.whole if tower is network else self.whole.text
            short = _cut_to(part, tokens.shape[1])
            rows = short.encode_text(tokens) if tower is network else short(tokens)
            return torch.nn.functional.normalize(pooled(rows), dim=-1)

    tokens = torch.from_numpy(tokenizer(["a photo of a dog", "two"]))
    axes = {0: "n"} if tower is None else {0: "n", 1: "length"}
    _trace(file, TextTower(), tokens if tower is None else tokens[:, : min(7, tokens.shape[1])], "tokens", axes)


def _cut_to(tower: Any, length: Any) -> Any:
    """The tower for `length` tokens, which may be a traced number; it shares all weights."""
    short = copy.copy(tower)
    short._parameters = {name: value for name, value in tower._parameters.items() if name != "positional_embedding"}
    short._buffers = {name: value for name, value in tower._buffers.items() if name != "attn_mask"}
    object.__setattr__(short, "positional_embedding", tower.positional_embedding[:length])
    object.__setattr__(short, "attn_mask", tower.attn_mask[:length, :length])
    return short


def _with_plain_attention(module: Any) -> Any:
    """The same modules with shared weights, torch's attention written out: its own traces one length only."""
    import torch

    if isinstance(module, torch.nn.MultiheadAttention):
        return _plain_attention(module)
    outer = copy.copy(module)
    outer._modules = {name: inner and _with_plain_attention(inner) for name, inner in module._modules.items()}
    return outer


def _up_to_class_token(visual: Any) -> Any:
    """A copy of the tower, less what its last block computes of tokens that nobody reads: 7 % of a ViT-B-32."""
    import torch

    blocks: Any = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or getattr(visual, "pool_type", "") != "tok" or getattr(visual, "attn_pool", None) is not None:
        return visual
    if type(blocks[-1]).__name__ != "ResidualAttentionBlock" or not visual.transformer.batch_first:
        return visual

    class ClassTokenBlock(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = blocks[-1]

        def forward(self, tokens: Any, *, attn_mask: None = None) -> Any:  # (n, tokens, width) -> (n, 1, width)
            block, scaled = self.block, self.block.ln_1(tokens)
            first = tokens[:, :1] + block.ls_1(block.attn(scaled[:, :1], scaled, scaled, need_weights=False)[0])
            return first + block.ls_2(block.mlp(block.ln_2(first)))

    blocks._modules[str(len(blocks) - 1)] = ClassTokenBlock()
    return visual


def _plain_attention(attention: Any) -> Any:
    import torch

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if attention.in_proj_weight is None or attention.bias_k is not None or attention.add_zero_attn:
                raise NotImplementedError("an attention of another kind")
            self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
            self.out_proj = attention.out_proj

        def forward(
            self, query: Any, key: Any, value: Any, *, attn_mask: Any = None, **_: Any
        ) -> tuple[torch.Tensor, None]:
            inputs = (
                (query, key, value) if attention.batch_first else tuple(x.transpose(0, 1) for x in (query, key, value))
            )
            biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            q, k, v = (
                torch.nn.functional.linear(x, weight, bias).view(*x.shape[:2], attention.num_heads, -1).transpose(1, 2)
                for x, weight, bias in zip(inputs, self.in_proj_weight.chunk(3), biases, strict=True)
            )
            scores = q @ k.transpose(-2, -1) * attention.head_dim**-0.5  # (n, heads, to, from)
            if attn_mask is not None:
                scores = (
                    scores.masked_fill(attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
                )
            mixed = self.out_proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
            return (mixed if attention.batch_first else mixed.transpose(0, 1)), None

    return Attention()


def _images_agree(file: Path, network: Any, recipe: PixelRecipe) -> bool:
    import torch

    pixels = _pictures(recipe.size)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    with torch.inference_mode():
        wanted = pooled(network.encode_image((torch.from_numpy(pixels).float() / 255 - mean) / std))
    session = open_session(str(file), threads=0)
    found = np.concatenate([session.run(None, {"pixels": pixels[i : i + 2]})[0] for i in range(0, len(pixels), 2)])
    return _agree(found, wanted.float().numpy())


def _texts_agree(file: Path, network: Any, tower: Any, tokenizer: Tokenizer) -> bool:
    """Also cut at the end of the text, which must change nothing."""
    import torch

    texts = texts_to_compare()
    tokens = tokenizer(["", *texts[:: len(texts) // TEXTS]])
    session, rows = open_session(str(file), threads=0), []
    for row, size in zip(tokens, lengths(tokens, end_token(tower)), strict=True):
        rows.append(session.run(None, {"tokens": row[None, :size]})[0][0])
    with torch.inference_mode():
        wanted = torch.cat([pooled(network.encode_text(part)) for part in torch.from_numpy(tokens).chunk(4)])
    return _agree(np.stack(rows), wanted.float().numpy())


def _agree(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    wanted = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
    return bool(((found * wanted).sum(axis=-1) >= LEAST_COSINE).all())


def _same_tokenizer(tokenize: Callable[[list[str]], torch.Tensor]) -> Tokenizer | None:
    """The tokenizer as data, if it gives the same ids for a thousand odd texts."""
    data = tokenizer_data(tokenize)
    if data is None:
        return None
    try:
        odd = [*texts_to_compare(), *odd_texts()]
        ids = tokenize(odd).numpy()
        alone = np.concatenate([data([text]) for text in odd])  # plain ones by the merges
        return data if np.array_equal(data(odd), ids) and np.array_equal(alone, ids) else None
    except Exception:  # noqa: BLE001  the `tokenizers` library raises Exception itself
        return None


def _text_width(network: Any, tokenize: Callable[[list[str]], torch.Tensor]) -> int:
    import torch

    with torch.inference_mode():
        return int(pooled(network.encode_text(tokenize(["a dog"]))).shape[1])


def texts_to_compare() -> list[str]:
    """Ordinary texts of many lengths."""
    parts = [f"{subject} {place}".strip() for subject in _SUBJECTS for place in _PLACES]
    return [form.format(part, part) for part in parts for form in _FORMS]


def odd_texts() -> list[str]:
    """A thousand texts of letters, marks and spaces of many scripts, empty and long ones among them."""
    rng = np.random.default_rng(0)
    letters = np.array(list(_ALPHABET))
    odd = ["".join(rng.choice(letters, size=int(rng.integers(0, 60)))) for _ in range(ODD_TEXTS - 5)]
    return [*odd, "", " ", "dog " * 200, "&lt;b&gt; &amp;amp;", "It's THE dog's—3rd… “birthday”"]


def _pictures(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(n, 3, h, w): smooth ones, flat ones and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    waves = [
        np.stack([np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(-6, 6, (3, 3))]) * 127.5 + 127.5
        for _ in range(PICTURES - 3)
    ]
    noise, white, black = rng.uniform(0, 255, (3, *size)), np.full((3, *size), 255.0), np.zeros((3, *size))
    return np.stack([*waves, noise, white, black]).astype(np.uint8)
