"""Peak memory of `clipkit index`, parent and child: odd files of CLIPKIT_TEST_DATA, and one small picture."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from common import MB, Target, clipkit_command, photographs, print_table, private_cache, read_arguments, scratch, write
from PIL import Image

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.01


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    private_cache("odd-files-cache")
    if (data := photographs()) is None:
        return
    one, odd = scratch("one-picture"), scratch("odd-files")
    Image.new("RGB", (64, 64), "red").save(one / "red.png")
    files = sorted((data / "hostile" / "files").iterdir())[: 20 if arguments.quick else None]
    for file in files:
        shutil.copyfile(file, odd / file.name)
    results: dict[str, Any] = {"files": len(files)}
    kinds = {"one picture": (one, "auto"), "odd files": (odd, "auto"), "odd files with torch": (odd, "torch")}
    for name, (folder, engine) in kinds.items():
        place = str(scratch("odd-files-index"))
        options = ["--model", "starter", "--engine", engine, "--index", place]
        results[name] = _peak([clipkit_command(), "index", str(folder), *options])
    rows = [[name, results[name] / MB] for name in kinds]
    print_table([["what", "peak MB of the process tree"], *rows])
    write(
        "odd_files",
        results,
        [Target("peak of the tree with odd files, MB", results["odd files"] / MB, 1200)],
        arguments,
    )


def _peak(command: list[str]) -> int:
    """The most bytes that the command and all below it had in memory at one moment."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_resident_bytes, _tree(process.pid))))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"it ended with {process.returncode}")
    return peak


def _tree(process: int) -> list[int]:
    found = [process]
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    except OSError:  # it has ended
        pass
    return found


def _resident_bytes(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


if __name__ == "__main__":
    main()
