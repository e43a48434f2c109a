"""Diffusion pipelines of diffusers as picture generators."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.core.cache import cache_key
from clipkit.core.text import described
from clipkit.errors import ModelError, QueryError
from clipkit.generate.pictures import GeneratedPicture, check_request
from clipkit.generate.pipeline_files import pipeline_folder, read_parts
from clipkit.models.devices import is_out_of_memory, pick_device, pick_dtype
from clipkit.models.hub import Notify, fingerprint
from clipkit.models.vit import quietly

DEFAULT_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
LIBRARIES = ("diffusers", "transformers")  # of a pipeline's parts, beside the modules of diffusers.pipelines
SIDES = range(8, 4097, 8)  # pixels: latents are an eighth, and more than this no machine holds
NEEDS, EXTRA = "pictures are made by diffusers", "pip install 'clipkit[imagine]'"
READS_AT_MOST = 100_000  # tokens; a tokenizer whose limit nobody has set says 1e30

Size = tuple[int, int]


class DiffusionGenerator:
    """A text-to-image pipeline of diffusers: Stable Diffusion and its kind.

    Loaded is what `AutoPipelineForText2Image` knows, from safetensors alone; code that comes with it never runs.
    Pictures are made one by one, each from the noise of its own seed, so that they do not depend on how many are asked
    for. Tested is Stable Diffusion 1's pipeline, of random and of hand-made weights; no trained weights could be had.

    Parameters
    ----------
    model : str or path, default "stable-diffusion-v1-5/stable-diffusion-v1-5"
        A folder that `save_pretrained` wrote, or a name on the hub.
    device : {"auto", "cpu", "cuda", "mps"}, default "auto"
        Where it runs.
    precision : {"auto", "float32", "bfloat16", "float16"}, default "auto"
        How it computes: bfloat16 on GPUs that have it, float32 on a CPU.
    steps : int, optional
        Of the scheduler; by default the pipeline's own.
    guidance : float, optional
        How much the prompt counts against an empty one; by default the pipeline's own.
    size : tuple of int, optional
        Width and height in pixels, multiples of 8; by default what the model was made for.
    negative : str, default ""
        What the pictures are led away from, in place of the empty prompt.
    notify : callable, optional
        Told what is fetched.

    Attributes
    ----------
    model : str
        As it was named.
    pipeline : diffusers.DiffusionPipeline
        With its parts: `pipeline.unet`, `pipeline.vae`, `pipeline.text_encoder`, `pipeline.scheduler`.
    safety : str
        Whether a safety checker looks at the pictures, in a sentence.

    Raises
    ------
    ModelError
        If the extra `imagine` is not installed; if the pipeline is not there, brings a pickle or code, or cannot load.
    QueryError
        If a setting is none.

    Examples
    --------
    >>> from clipkit.generate import DiffusionGenerator
    >>> generator = DiffusionGenerator("tiny-pipeline", steps=2)
    >>> generator
    DiffusionGenerator(tiny-pipeline, StableDiffusionPipeline)
    >>> [picture.seed for picture in generator.generate("a red bicycle in snow", n=2, seed=5)]
    [5, 6]
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: str = "auto",
        steps: int | None = None,
        guidance: float | None = None,
        size: Size | None = None,
        negative: str = "",
        notify: Notify | None = None,
    ) -> None:
        _check_settings(steps, guidance, size)
        self.model = os.fspath(model)
        self._diffusers = _door()
        self._folder = folder = pipeline_folder(self.model, notify=notify)
        self._check_libraries(folder)
        self._place = pick_device(device)
        self._dtype = pick_dtype(self._place, precision, convolutional=True)
        self.pipeline = self._load(folder)
        width, height = size or (None, None)
        given = {"num_inference_steps": steps, "guidance_scale": guidance, "width": width, "height": height}
        self._settings = self._accepted({**given, "negative_prompt": negative or None})
        self.safety = self._safety()

    def __repr__(self) -> str:
        return described(self, self.model, type(self.pipeline).__name__)

    @property
    def facts(self) -> dict[str, str]:
        """What a PNG file says of how it was made, beside its prompt and seed."""
        from clipkit.core.version import __version__

        settings = {name: str(value) for name, value in self._settings.items()}
        name = Path(self.model).name if Path(self.model).is_dir() else self.model  # pictures are given away
        return {"model": name, "Software": f"clipkit {__version__}", **settings}

    @cached_property
    def identity(self) -> str:
        """What decides the pixels beside prompt and seed: content of its files, settings, and how it computes."""
        files = sorted(file for file in self._folder.rglob("*") if file.suffix in (".safetensors", ".json", ".txt"))
        contents = [(file.relative_to(self._folder).as_posix(), fingerprint(file)) for file in files]
        return cache_key(contents, self._settings, str(self._dtype), self._place.type, self._diffusers.__version__)

    def generate(self, prompt: str, *, n: int = 1, seed: int = 0) -> list[GeneratedPicture]:
        """The pictures of n seeds, from `seed` on: the first of four is the one of n=1.

        Parameters
        ----------
        prompt : str
            What they show.
        n : int, default 1
            How many.
        seed : int, default 0
            Of the first; picture i has seed + i.

        Returns
        -------
        list of GeneratedPicture
            In the order of their seeds.

        Raises
        ------
        QueryError
            If the prompt is empty or longer than the model reads, or n is less than 1.
        ModelError
            If the pictures are no numbers, or memory is short.
        """
        self.check(prompt, n=n, seed=seed)
        return [self._one(prompt, seed + i) for i in range(n)]

    def check(self, prompt: str, *, n: int = 1, seed: int = 0) -> None:
        """QueryError for what `generate` would refuse."""
        check_request(prompt, n=n, seed=seed)
        for what, text in (("prompt", prompt), ("negative prompt", self._settings.get("negative_prompt", ""))):
            self._check_length(what, text)

    def _check_length(self, what: str, text: str) -> None:
        """QueryError where no text encoder would read the end."""
        tokenizers = [part for name, part in self.pipeline.components.items() if name.startswith("tokenizer") and part]
        counts = [(self._limit(one), len(one(text, truncation=False, verbose=False).input_ids)) for one in tokenizers]
        most, count = max(counts, default=(0, 0))
        if count > most:
            fact = f"the {what} has {count} tokens with those of begin and end, and {self.model} reads {most}"
            raise QueryError(fact, hint="say it in fewer words: nothing is cut off here")

    def _limit(self, tokenizer: Any) -> int:
        if tokenizer.model_max_length < READS_AT_MOST:
            return int(tokenizer.model_max_length)
        config = getattr(self.pipeline, "text_encoder", None)
        return int(getattr(getattr(config, "config", None), "max_position_embeddings", 77))

    def _one(self, prompt: str, seed: int) -> GeneratedPicture:
        import torch

        noise = torch.Generator("cpu").manual_seed(seed)  # a GPU's own generator would give other pictures
        ways: dict[str, Any] = {**self._settings, "generator": noise, "output_type": "np"}
        try:
            with torch.inference_mode(), np.errstate(invalid="ignore"), _quiet_diffusers(self._diffusers):
                made = self.pipeline(prompt, **ways)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise ModelError(f"{self.model} cannot make a picture: {_reason(error)}", hint="--size 512") from error
            raise ModelError("the device's memory does not hold a picture of that size", hint="--size 256") from error
        except (ValueError, TypeError) as error:  # a setting that this kind of pipeline does not take
            raise QueryError(
                f"{self.model} refuses: {_reason(error)}",
                hint="others, as --steps 30 --size 512, or leave the options out",
            ) from error
        pixels = np.asarray(made.images[0], dtype=np.float32)
        if not np.isfinite(pixels).all():
            fact = f"{self.model} computes no picture in {str(self._dtype).removeprefix('torch.')}: it has NaN in it"
            raise ModelError(fact, hint="--precision float32")
        flags = getattr(made, "nsfw_content_detected", None) or [False]
        return GeneratedPicture(np.rint(pixels * 255).astype(np.uint8), seed, is_refused=bool(flags[0]))

    def _check_libraries(self, folder: Path) -> None:
        """Parts are imported by what the folder says, so that it may name these libraries alone."""
        for part, (library, _) in read_parts(folder).items():
            if library not in LIBRARIES and not hasattr(self._diffusers.pipelines, library):
                fact = f"{part} of {self.model} is of {library}, whose code clipkit does not run"
                raise ModelError(fact, hint="a pipeline of diffusers and transformers alone")

    def _load(self, folder: Path) -> Any:
        from safetensors import SafetensorError

        known = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError, SafetensorError)
        try:
            with quietly(), _quiet_diffusers(self._diffusers), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of configs that an older diffusers saved
                pipeline = self._diffusers.AutoPipelineForText2Image.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, dtype=self._dtype
                )
        except known as error:
            fact = f"{self.model} cannot be loaded: {_reason(error)}"
            raise ModelError(fact, hint="save or fetch the pipeline again") from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self._place)

    def _accepted(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Those that were given; ModelError for one that this kind of pipeline does not have."""
        given = {name: value for name, value in settings.items() if value is not None}
        if missing := [name for name in given if name not in inspect.signature(self.pipeline.__call__).parameters]:
            kind = type(self.pipeline).__name__
            raise ModelError(f"{self.model} is a {kind}, which has no {missing[0]}", hint="leave that option out")
        return given

    def _safety(self) -> str:
        components = self.pipeline.components
        if "safety_checker" not in components:
            return f"safety checker: not part of a {type(self.pipeline).__name__}"
        if components["safety_checker"] is None:
            return f"safety checker: left out of {self.model} by whoever saved it"
        return "safety checker: on; a picture that it refuses is black, and not searched with"


def check_installed() -> None:
    """ModelError where the extra is not; costs no import."""
    if find_spec("diffusers") is None:
        raise ModelError(NEEDS, hint=EXTRA)


def _door() -> Any:
    try:
        import diffusers
        from diffusers import AutoPipelineForText2Image  # noqa: F401  it is imported lazily, and says then what is missing
    except (ImportError, RuntimeError) as error:
        raise ModelError(NEEDS, hint=EXTRA) from error
    return diffusers


@contextmanager
def _quiet_diffusers(diffusers: Any) -> Iterator[None]:
    """diffusers without progress bars and remarks, which are put back as they were."""
    logging = diffusers.utils.logging
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)  # what fails is raised, too
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def _check_settings(steps: int | None, guidance: float | None, size: Size | None) -> None:
    if steps is not None and steps < 1:
        raise QueryError(f"{steps} steps make no picture", hint="1 or more: --steps 30")
    if guidance is not None and not 0 <= guidance < float("inf"):
        raise QueryError(f"{guidance} is no guidance scale", hint="0 or more: --guidance 7.5")
    if size is not None and not all(side in SIDES for side in size):
        (width, height), (near, by) = size, (min(max(round(side / 8) * 8, SIDES[0]), SIDES[-1]) for side in size)
        fact = f"{width} x {height} is no size: both sides are multiples of 8, from {SIDES[0]} to {SIDES[-1]:,} pixels"
        raise QueryError(fact, hint=f"--size {near}x{by}")


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
