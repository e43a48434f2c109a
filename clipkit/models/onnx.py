"""ONNX Runtime encoder: an exported model without torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings, check_embeddings
from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.system import usable_cores
from clipkit.errors import ModelError
from clipkit.models.base import EncoderBase
from clipkit.models.devices import INT8
from clipkit.models.encoder import Encoder, encoder_repr
from clipkit.models.export_cache import use
from clipkit.models.exports import IMAGE, TEXT, ExportedModel
from clipkit.models.tokenizer import lengths

if TYPE_CHECKING:
    from clipkit.models.openclip import OpenClipEncoder

FEW_TEXTS = 64  # remembered on this disk: queries, and the texts that they are compared with
REMEMBERED = 2_000  # sets of texts
AT_ONCE = {True: 1, False: 4}  # pictures in one run, by whether the tower is convolutional
TEXTS_AT_ONCE = 32
TORCH_PAYS = 15.0  # seconds of work in float32: torch takes 5 to load, and is half as fast again in bfloat16


class OnnxEncoder(EncoderBase):
    """An exported model in ONNX Runtime on the CPU, as an `Encoder`; safe to share between threads.

    Made by `load_encoder`. It loads in a fraction of the time that torch takes to be imported. Each core takes pictures
    of its own, since towers as small as these gain little from several cores on one picture. Backbone features and
    fine-tuning need the network itself, which is loaded when somebody asks for them.

    Parameters
    ----------
    export : ExportedModel
        The graphs, and what belongs to them.
    many : int, optional
        After so many pictures, or earlier if `expect` has said that it pays, torch takes over, which is slow to load
        and faster then; by default it never does.
    batch_size : int
        Pictures read and encoded together.
    load_torch : callable
        Gives the same model as an `OpenClipEncoder`.
    load : callable, optional
        Gives the same encoder from its source in another process: what pickle keeps. Must be picklable itself.

    Attributes
    ----------
    model, source, fingerprint, engine, precision, dim, recipe, logit_scale, logit_bias, batch_size
        As `Encoder` has them.
    model_cfg_sha256 : str
        Of open_clip's `model_cfg`: the same weights read by another are another model.
    export : ExportedModel
        As given.

    References
    ----------
    .. [1] ONNX Runtime, https://onnxruntime.ai

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter", engine="onnx")
    >>> encoder.engine, encoder.precision
    ('onnx', 'float32')
    >>> encoder.encode_texts(["a cat", "a dog"]).shape
    (2, 384)
    """

    def __init__(
        self,
        export: ExportedModel,
        *,
        batch_size: int,
        load_torch: Callable[[], OpenClipEncoder],
        load: Callable[[str], Encoder] | None = None,
        many: int | None = None,
    ) -> None:
        self.export, self.batch_size = export, batch_size
        self._load_torch, self._load = load_torch, load
        self._many, self._encoded, self._expected = many, 0, 0
        self._pace = 0.0  # seconds a picture in ONNX Runtime, of the last batch
        self._has_gone_on = False
        self.engine, self.precision = ("onnx torch", "float32 bfloat16") if many else ("onnx", "float32")
        if export.precision == INT8:
            self.precision = "int8 float32"
        self.model, self.source, self.fingerprint = export.model, export.source, export.fingerprint
        self.model_cfg_sha256 = export.model_cfg_sha256
        self.dim, self.recipe = export.dim, export.recipe
        self.logit_scale, self.logit_bias = export.logit_scale, export.logit_bias
        self._lock = Lock()
        use(export.folder, self)
        self._sessions: dict[tuple[str, bool], Any] = {}

    def __repr__(self) -> str:
        return encoder_repr(self)

    def _encode_pixels(self, pixels: npt.NDArray[np.uint8], space: str) -> Embeddings:
        self._has_gone_on = self._has_gone_on or self._is_torch_worth_it(len(pixels))
        self._encoded += len(pixels)
        if self._has_gone_on or space == "backbone" or IMAGE not in self.export.graphs:
            return self.torch_encoder.encode_pixels(pixels, space=space)
        self._session(IMAGE, False)
        started = time.monotonic()
        rows = self._run(IMAGE, "pixels", pixels, AT_ONCE[self.export.is_convolutional])
        self._pace = (time.monotonic() - started) / max(len(pixels), 1)
        return rows

    def expect(self, pictures: int) -> None:
        """So many pictures will come: where torch would be faster in the end, it takes over soon.

        Parameters
        ----------
        pictures : int
            Beside those that have come.
        """
        self._expected = self._encoded + pictures

    def _is_torch_worth_it(self, pictures: int) -> bool:
        if self._many is None:
            return False
        seconds_left = self._pace * (self._expected - self._encoded)
        return self._encoded + pictures > self._many or seconds_left > TORCH_PAYS

    @cached_property
    def torch_encoder(self) -> OpenClipEncoder:
        """The same model in torch, loaded on first use."""
        return self._load_torch()

    def _encode_unique(self, texts: list[str]) -> Embeddings:
        if len(texts) > FEW_TEXTS:
            return self._encode(texts)
        key = cache_key("onnx", self.model, self.fingerprint, self.export.config, texts)
        cache = ArrayCache("texts", form="clipkit-texts-1", most=REMEMBERED)
        if (found := cache.get(key)) is not None:
            return found[0]["embeddings"]
        rows = self._encode(texts)
        cache.put(key, {"embeddings": rows})
        return rows

    def _encode(self, texts: list[str]) -> Embeddings:
        if TEXT not in self.export.graphs:
            return self.torch_encoder.encode_texts(texts)
        tokens = self.export.tokenizer(texts)
        sizes = lengths(tokens, self.export.end)
        order = np.argsort(sizes, kind="stable")  # short texts together, since each batch is as long as its longest
        rows = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(order), TEXTS_AT_ONCE * usable_cores()):
            part = order[start : start + TEXTS_AT_ONCE * usable_cores()]
            cut = tokens[part, : sizes[part].max()]
            rows[part] = self._run(TEXT, "tokens", cut, TEXTS_AT_ONCE, is_once=len(texts) <= FEW_TEXTS)
        return rows

    def _run(self, graph: str, name: str, inputs: npt.NDArray[Any], step: int, *, is_once: bool = False) -> Embeddings:
        """The rows of a graph's answer, as many runs side by side as there are cores. is_once: for a run or two."""
        if not len(inputs):
            return np.empty((0, self.dim), np.float32)
        session = self._session(graph, is_once)
        parts = [inputs[start : start + step] for start in range(0, len(inputs), step)]

        def run(part: npt.NDArray[Any]) -> Embeddings:
            return np.asarray(session.run(None, {name: part})[0], np.float32)

        try:
            rows = [run(parts[0])] if len(parts) == 1 else list(self._pool.map(run, parts))
        except Exception as error:  # onnxruntime's errors share no base class of their own
            reason = str(error).strip().partition("\n")[0][:200]
            raise ModelError(f"{self.model}: ONNX Runtime failed: {reason}", hint="--engine torch") from error
        return check_embeddings(np.concatenate(rows), self.dim)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(usable_cores(), "clipkit-onnx")

    def _session(self, graph: str, is_once: bool) -> Any:
        with self._lock:
            if (graph, False) in self._sessions:
                return self._sessions[graph, False]
            if (graph, is_once) not in self._sessions:
                file = os.fspath(self.export.graph(graph))
                self._sessions[graph, is_once] = open_session(file, is_once=is_once)
            return self._sessions[graph, is_once]


def open_session(file: str, threads: int = 1, *, is_once: bool = False) -> Any:
    """A session on the CPU; ModelError where ONNX Runtime cannot read the graph.

    is_once: opened in a fraction of the time, because the graph is taken as it is and weights are not laid out anew,
    and slower in each run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if is_once:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    return _open(file, options)


def write_folded(graph: Path, folded: Path, weights: str) -> None:
    """A graph once more, what no input decides computed; large weights go to a file of that name beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # stays plain ONNX
    options.optimized_model_filepath = os.fspath(folded)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    _open(os.fspath(graph), options)


def write_quantized(model: Any, target: Path) -> None:
    """An ONNX model with its matrix products in int8: weights by column, and inputs as each run brings them."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=["MatMul", "Gemm"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,  # 7 bits: where a CPU has no VNNI, two products of 8 bits overflow 16
        extra_options={"MatMulConstBOnly": True},
    )


def _open(file: str, options: Any) -> Any:
    import onnxruntime

    options.log_severity_level = 4  # what fails is raised
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelError(f"ONNX Runtime cannot read {file}: {reason}", hint="--engine torch") from error


def runtime_version() -> str | None:
    """Of ONNX Runtime; None where it is not installed."""
    with suppress(ImportError):
        import onnxruntime

        return str(onnxruntime.__version__)
    return None
