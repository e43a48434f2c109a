"""100,000 unchanged pictures: how long the second `index` takes."""

from __future__ import annotations

import json
import time
from pathlib import Path

from common import (
    Target,
    clipkit_command,
    command_seconds,
    fresh,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    summary,
    write,
)
from fixtures import BlockEncoder, tiny_pictures

PICTURES = 100_000


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        _child(*arguments.child)
        return
    private_cache("rescan-cache")
    count = 2000 if arguments.quick else PICTURES
    photos, at = tiny_pictures(count), scratch("rescan-index")
    first = fresh(__file__, "create", photos, at)
    runs = [fresh(__file__, "open", photos, at) for _ in range(3 if arguments.quick else 7)]
    wrong = [run for run in (first | {"unchanged": count}, *runs) if (run["found"], run["unchanged"]) != (count, count)]
    if wrong or first["encoded"] != count:
        raise RuntimeError(f"not all {count} pictures were known: {wrong or first}")
    command = [clipkit_command(), "index", str(photos), "--index", str(at)]
    walls = [command_seconds(command) for _ in range(3 if arguments.quick else 7)]
    results = {
        "pictures": count,
        "first_index_seconds": first["seconds"],
        "first_index_pictures_per_second": count / first["seconds"],
        "second_update_seconds": summary([run["seconds"] for run in runs]),
        "command_seconds": summary(walls),
    }
    updates = results["second_update_seconds"]
    print_table(
        [
            ("seconds", "median", "lowest", "highest"),
            (f"first update of {count}", first["seconds"], "", ""),
            ("second update, after start-up", updates["median"], updates["lowest"], updates["highest"]),
            ("whole `clipkit index`, start-up included", summary(walls)["median"], min(walls), max(walls)),
        ]
    )
    name = f"second update of {count:,} unchanged pictures, seconds"
    write("rescan", results, [Target(name, updates["median"], 2)], arguments)


def _child(verb: str, photos: str, at: str) -> None:
    from clipkit.index.image_index import ImageIndex

    encoder = BlockEncoder(8)
    started = time.perf_counter()
    if verb == "create":
        index = ImageIndex.create(Path(photos), encoder, at=at)
    else:
        index = ImageIndex.open(Path(photos), at=at)  # what `clipkit index` does with an index that is there
    report = index.update()
    taken = time.perf_counter() - started
    counts = {"found": report.found, "encoded": report.encoded, "unchanged": report.unchanged}
    print(json.dumps({"seconds": taken, **counts}))


if __name__ == "__main__":
    main()
