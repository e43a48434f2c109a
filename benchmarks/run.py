"""All benchmarks one after another, each in a process of its own, and which targets were met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import Target, read_arguments, result_file

# short ones first
NAMES = (
    "startup",
    "rescan",
    "memory",
    "search",
    "zeroshot",
    "nouns",
    "pets_compare",
    "classify",
    "supervision",
    "guard",
    "odd_files",
    "page",
    "peers",
    "bulk",
    "encode",
    "gpu",
)


def main() -> int:
    arguments = read_arguments(__doc__ or "")
    broken = [name for name in NAMES if not _run(name, quick=arguments.quick)]
    print("\n== summary")
    for name in NAMES:
        record = _read(name, quick=arguments.quick)
        if name in broken or record is None:
            print(f"{name}: {'failed' if name in broken else 'not run'}")
            continue
        print(f"{name}, {record['date']}, load before {record['machine']['load_average_before']}")
        for target in record["targets"]:
            fields = {key: value for key, value in target.items() if key != "is_met"}
            print(f"  {Target(**fields)}")
    return 1 if broken else 0


def _run(name: str, *, quick: bool) -> bool:
    print(f"\n== {name}", flush=True)
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *(["--quick"] if quick else [])]
    return subprocess.run(command, check=False).returncode == 0


def _read(name: str, *, quick: bool) -> dict[str, Any] | None:
    file = result_file(name, quick=quick)
    return json.loads(file.read_text()) if file.exists() else None


if __name__ == "__main__":
    sys.exit(main())
