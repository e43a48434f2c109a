"""Lance: tables of vectors on disk that are searched where they lie; loaded when it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clipkit.core.arrow import arrow
from clipkit.errors import ClipkitError


def lance() -> Any:
    """The library; ClipkitError where the extra is not installed."""
    try:
        import lance as library
    except ImportError as error:
        raise ClipkitError("this needs Lance, which is not installed", hint="pip install 'clipkit[lance]'") from error
    return library


def write_table(place: str, batches: Iterable[Any], schema: Any) -> Any:
    """Write a new table at a path or URL, in bounded memory; OSError where that fails, and what `batches` raises."""
    pa, _ = arrow()
    raised: list[ClipkitError] = []

    def noted() -> Iterator[Any]:
        try:
            yield from batches
        except ClipkitError as error:  # Lance would make text of it
            raised.append(error)
            raise

    try:
        return lance().write_dataset(pa.RecordBatchReader.from_batches(schema, noted()), place)
    except (OSError, RuntimeError, ValueError) as error:
        if raised:
            raise raised[0] from None
        raise error if isinstance(error, OSError) else OSError(str(error)) from error
