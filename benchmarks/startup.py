"""Start-up time: `--help`, `import clipkit`, and one whole search."""

from __future__ import annotations

import sys
from functools import partial

from common import (
    Target,
    clipkit_command,
    command_seconds,
    interleaved,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    summary,
    write,
)
from fixtures import photographs

ROUNDS = 7
HELP, IMPORT, PYTHON, SEARCH = "clipkit --help", "import clipkit", "python alone", "clipkit search, starter"


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    private_cache("startup-cache")
    commands = {
        HELP: [clipkit_command(), "--help"],
        IMPORT: [sys.executable, "-c", "import clipkit"],
        PYTHON: [sys.executable, "-c", "pass"],
    }
    if _has_starter():
        photos, at = photographs(32, (500, 375)), str(scratch("startup-index"))
        command_seconds([clipkit_command(), "index", str(photos), "--model", "starter", "--index", at])
        commands[SEARCH] = [clipkit_command(), "search", "a cat", str(photos), "--index", at]
    for command in commands.values():
        command_seconds(command)  # the files of the first start come from the disk
    runs = {name: partial(command_seconds, command) for name, command in commands.items()}
    times = interleaved(runs, rounds=2 if arguments.quick else ROUNDS)
    results = {name: summary(raw) for name, raw in times.items()}
    lines = [(name, taken["median"], taken["lowest"], taken["highest"]) for name, taken in results.items()]
    print_table([("seconds", "median", "lowest", "highest"), *lines])
    target = Target("clipkit --help, seconds", results[HELP]["median"], 0.15)
    write("startup", results, [target], arguments)


def _has_starter() -> bool:
    from clipkit.models.registry import is_cached

    return is_cached("starter")


if __name__ == "__main__":
    main()
