"""Edge of the decoders: whatever a library raises over foreign bytes becomes an ImageError."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from clipkit.errors import ImageError

_ANOTHER_KIND = "not identified by this driver"  # as Pillow says it
_NO_WORDS = re.compile(r"unpack_from requires|index out of range|could not create decoder|.*\bobject\b")


@contextmanager
def decoder_edge(name: str) -> Iterator[None]:
    """Within it: ImageError, which names the file, for whatever a decoder raises."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error.message}", hint=error.hint) from error
    except Exception as error:  # the one such place: OSError, ValueError, TypeError, RuntimeError, SyntaxError came
        raise ImageError(f"{name}: cannot be decoded ({_in_words(error)})") from error


def attempt(read: Callable[[], Any]) -> Any:
    """What `read` makes of foreign bytes; None where it stumbles over them."""
    try:
        with decoder_edge(""):
            return read()
    except ImageError:
        return None


def _in_words(error: Exception) -> str:
    """What a library says of a file, where it says something; its own mistakes on the way are damage of the file."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    if text == _ANOTHER_KIND:
        return "it is not of the kind that its first bytes say"
    is_said = isinstance(error, OSError | ValueError | RuntimeError | SyntaxError) and text
    return text if is_said and not _NO_WORDS.match(text) else "its content is damaged"
