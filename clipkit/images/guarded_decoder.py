"""Guarded decoding: files are decoded in processes beside this one; one that crashes or hangs costs one file."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from clipkit.core.processes import HANG_SECONDS, cause_of_death
from clipkit.core.system import usable_cores
from clipkit.errors import ClipkitError, ImageError
from clipkit.images import decode as here
from clipkit.images.decode import ScaledRows, resized
from clipkit.images.decoder_process import Answer, Array, SharedBytes
from clipkit.images.recipe import NO_METADATA, Metadata, Picture, PixelRecipe

START_SECONDS = 60.0
MOST = 8  # decoders at a time
UNGUARDED = "CLIPKIT_UNGUARDED"  # set by a person: decode in this process
PROGRAM = (sys.executable, "-P", "-m", "clipkit.images.decoder_process")  # -P: no module from among the photos


def decode(data: bytes, recipe: PixelRecipe, *, name: str, is_hashed: bool = False) -> Picture:
    """As `decode.decode`; a decoder that crashes, hangs or takes all memory is an ImageError too."""
    if not can_guard():
        return here.decode(data, recipe, name=name, is_hashed=is_hashed)
    facts, pixels = _POOL.run("decode", data, name, recipe)
    facts["metadata"] = _metadata(facts["metadata"])
    rows = ScaledRows(pixels, **facts) if "factors" in facts else Picture(pixels, **facts)
    return resized(rows, recipe, name=name, is_hashed=is_hashed)


def decode_whole(data: bytes, *, name: str) -> Array:
    """As `decode.decode_whole`, guarded."""
    if not can_guard():
        return here.decode_whole(data, name=name)
    return _POOL.run("decode_whole", data, name)[1]


def open_image(file: str | os.PathLike[str]) -> Image.Image:
    """A file as Pillow's image: upright, in RGB, at its own size. ImageError where it cannot be read."""
    return Image.fromarray(decode_whole(here.read_file(file), name=os.fspath(file)))


def metadata(data: bytes, *, name: str) -> Metadata:
    """As `decode.metadata`, guarded; none where the decoder dies of it."""
    if not can_guard():
        return here.metadata(data, name=name)
    with suppress(ImageError):
        return _metadata(_POOL.run("metadata", data, name)[0]["metadata"])
    return NO_METADATA


def warm_up() -> None:
    """Start a decoder without waiting for it: a picture will be needed when something slower, as a model, is there."""
    if can_guard():
        _POOL.warm_up()


def can_guard() -> bool:
    """Whether decoders of this process have one of their own; on Windows and in frozen programs they do not."""
    return os.name == "posix" and bool(sys.executable) and not hasattr(sys, "frozen") and UNGUARDED not in os.environ


class DecoderProcess:
    """One decoder beside this process; it does one thing at a time, and is of no use after it has failed."""

    def __init__(self, program: Sequence[str]) -> None:
        self._shared = SharedBytes.create()
        self._is_ready = False
        self._process = subprocess.Popen(
            [*program, str(self._shared.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff and others think aloud
            pass_fds=[self._shared.file],
            env=_environment(),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent
        )

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def run(self, request: Answer, data: bytes, heavy: threading.Lock, hang_seconds: float) -> tuple[Answer, Array]:
        """What became of `data`: facts, and pixels, maybe none. ImageError where it cannot be decoded."""
        name = request["name"]
        if not self._is_ready:
            self._start()
        self._shared.put(data)
        answer = self._ask(request, name, hang_seconds)
        if "is_heavy" in answer:
            with heavy:
                answer = self._ask({}, name, hang_seconds)
        if "error" in answer:
            raise ImageError(answer["error"], hint=answer["hint"])
        shape = answer.pop("shape")
        return answer, self._shared.take_array(tuple(shape))

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._shared.close()

    def _start(self) -> None:
        if self._receive(START_SECONDS) is None:
            hint = f"{UNGUARDED}=1 in front of the same command decodes without one"
            raise ClipkitError("the decoder process does not start", hint=hint)
        self._is_ready = True

    def _ask(self, request: Answer, name: str, hang_seconds: float) -> Answer:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead, as the missing answer will say
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        answer = self._receive(hang_seconds)
        if answer is None:
            raise ImageError(f"{name}: its decoder {self._death(hang_seconds)}")
        return answer

    def _receive(self, seconds: float) -> Answer | None:
        """The next answer; None where it takes longer, or none will come."""
        assert self._process.stdout is not None
        line, end = b"", time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(end - time.monotonic()):
                    return None
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    return None
                line += piece
        answer: Answer = json.loads(line)
        return answer

    def _death(self, hang_seconds: float) -> str:
        try:
            code = self._process.wait(timeout=1)  # its end of the pipe closes a moment before
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"took longer than {hang_seconds:.0f} s"
        return cause_of_death(code) or f"ended with code {code}"


class DecoderPool:
    """Decoders that the threads of this process share: started when needed, and again after they have died."""

    def __init__(self, program: Sequence[str] = PROGRAM, *, hang_seconds: float = HANG_SECONDS) -> None:
        self.program, self.hang_seconds = program, hang_seconds
        self._free: list[DecoderProcess] = []
        self.forget()

    def run(self, operation: str, data: bytes, name: str, recipe: PixelRecipe | None = None) -> tuple[Answer, Array]:
        """What a decoder makes of `data`; ImageError where it cannot, or dies of it."""
        fields = None if recipe is None else asdict(recipe)
        request = {"operation": operation, "size": len(data), "name": name, "recipe": fields}
        with self._slots:
            decoder = self._take()
            try:
                found = decoder.run(request, data, self._heavy, self.hang_seconds)
            except BaseException as error:
                is_answer = isinstance(error, ImageError) and decoder.is_alive
                self._give_back(decoder) if is_answer else decoder.close()
                raise
            self._give_back(decoder)
            return found

    def warm_up(self) -> None:
        """One decoder, if there is none."""
        with self._lock:
            if not self._free:
                self._free.append(DecoderProcess(self.program))

    def close(self) -> None:
        """End the decoders that do nothing; others start when they are needed."""
        with self._lock:
            while self._free:
                self._free.pop().close()

    def forget(self) -> None:
        """Begin anew, as a child of fork must: the decoders are its parent's."""
        self._free = []
        self._lock, self._heavy = threading.Lock(), threading.Lock()
        self._slots = threading.BoundedSemaphore(min(MOST, usable_cores()))

    def _take(self) -> DecoderProcess:
        with self._lock:
            while self._free:
                decoder = self._free.pop()
                if decoder.is_alive:
                    return decoder
                decoder.close()
        return DecoderProcess(self.program)

    def _give_back(self, decoder: DecoderProcess) -> None:
        with self._lock:
            self._free.append(decoder)


def _metadata(fields: Answer) -> Metadata:
    return Metadata(**{**fields, "tags": tuple(fields["tags"])})


def _environment() -> dict[str, str]:
    """With this very clipkit on the path, and no threads for linear algebra, which decoding has not."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


_POOL = DecoderPool()  # one a process, for all of its threads; empty until a file is decoded
atexit.register(_POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.forget)
