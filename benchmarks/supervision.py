"""Cost of the crash-recovery journal to `ImageIndex.update`: the starter on 500x375, with and without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from common import Target, interleaved, print_table, private_cache, read_arguments, scratch, summary, write
from fixtures import photographs

from clipkit.index.crash_recovery import Journal
from clipkit.index.image_index import ImageIndex
from clipkit.models.load import load_encoder


@contextmanager
def _nothing(journal: Journal, path: str, *, tries: int = 0) -> Iterator[None]:
    yield


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    private_cache("supervision")
    folder = photographs(40 if arguments.quick else 400, (500, 375))
    encoder = load_encoder("starter")
    place = scratch("supervision-index")

    def index() -> None:
        shutil.rmtree(place, ignore_errors=True)
        ImageIndex.create(folder, encoder, at=Path(place)).update()

    def index_without() -> None:
        with patch.object(Journal, "entry", _nothing):
            index()

    index()  # the first run of a model is slower
    times = interleaved({"with": index, "without": index_without}, 3 if arguments.quick else 7)
    results = {name: summary(raw) for name, raw in times.items()}
    print_table([["seconds", "median", "lowest", "highest"], *([n, *_three(raw)] for n, raw in times.items())])
    cost = 100 * (results["with"]["median"] / results["without"]["median"] - 1)
    write("supervision", results, [Target("cost of the journal, percent", cost, 2)], arguments)


def _three(raw: list[float]) -> list[float]:
    ordered = sorted(raw)
    return [ordered[len(ordered) // 2], ordered[0], ordered[-1]]


if __name__ == "__main__":
    main()
