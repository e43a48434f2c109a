"""`make docs`: the documentation as a site in build/site, with the API from the docstrings; a broken link ends it.

Pages link to each other as files of the repository, so they are laid out as they lie there.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "data/starter/README.md",
    "training/README.md",
)
PUBLIC = (
    *("clipkit", "models", "index", "datasets", "classify", "learn", "generate", "explore", "evaluate", "output"),
    "bulk",
)
_FENCE = re.compile(r"^(```\w+) \w+$", re.MULTILINE)  # "```python old": what the tests read, and Markdown does not
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "site")
    out = parser.parse_args().out.resolve()
    pages = out.parent / f"{out.name}-pages"
    shutil.rmtree(pages, ignore_errors=True)
    for file in (*map(REPOSITORY.joinpath, PAGES), *(REPOSITORY / "docs").glob("*.md")):
        _lay_out(file, pages)
    described: set[str] = set()
    for package in PUBLIC:
        _write(pages / "api" / f"{package}.md", "\n".join(_api(package, described)))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    configured = pages.parent / f"{out.name}.yml"
    configured.write_text((REPOSITORY / "docs" / "site.yml").read_text().replace("PAGES", str(pages)))
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command += ["--config-file", str(configured)]
    done = subprocess.run(command, cwd=REPOSITORY, env=quiet, capture_output=True, text=True)
    print(done.stdout + done.stderr if done.returncode else out / "index.html")
    return done.returncode


def _lay_out(file: Path, pages: Path) -> None:
    """Copy a page, and what of the repository it links to and is no page."""
    relative = file.relative_to(REPOSITORY)
    _write(pages / relative, _FENCE.sub(r"\1", file.read_text()))
    for link in _LINK.findall(file.read_text()):
        target = (file.parent / link).resolve()
        if target.is_file() and target.suffix != ".md" and target.is_relative_to(REPOSITORY):
            place = pages / target.relative_to(REPOSITORY)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, place)


def _api(package: str, described: set[str]) -> Iterator[str]:
    """A page with every public name of a package; of one that another page describes a link to it."""
    module = "clipkit" if package == "clipkit" else f"clipkit.{package}"
    exported = importlib.import_module(module)
    homes = {name: f"{getattr(getattr(exported, name), '__module__', module)}.{name}" for name in exported.__all__}
    yield f"# {module}\n"
    if known := [f"[{name}][{home}]" for name, home in homes.items() if home in described]:
        yield f"Described elsewhere: {', '.join(known)}.\n"
    for home in homes.values():
        if home not in described:
            yield f"::: {home}\n"
    described |= set(homes.values())


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
