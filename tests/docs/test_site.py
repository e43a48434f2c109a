"""The documentation as a site: `make docs` builds it, and a link that leads nowhere ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import clipkit
from tests.support.paths import REPOSITORY

pytest.importorskip("mkdocs", reason="pip install mkdocs-material 'mkdocstrings[python]'")


def built(script: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, "--out", out], cwd=REPOSITORY, capture_output=True, text=True)


def test_the_site_has_every_page_and_every_public_name(tmp_path: Path) -> None:
    done = built(REPOSITORY / "docs" / "site.py", tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {file.relative_to(tmp_path / "site").as_posix() for file in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", *(f"docs/{file.stem}.html" for file in (REPOSITORY / "docs").glob("*.md"))} <= pages
    api = (tmp_path / "site" / "api" / "clipkit.html").read_text()
    assert not [name for name in clipkit.__all__ if f">{name}<" not in api.replace("\n", "")]
    assert "http" not in "".join(line for line in api.splitlines() if "<script" in line or "stylesheet" in line)


def test_a_link_that_leads_nowhere_ends_it(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("site.py", "site.yml"):
        (tmp_path / "docs" / name).write_text((REPOSITORY / "docs" / name).read_text())
    script = tmp_path / "docs" / "site.py"
    script.write_text(script.read_text().replace("Path(__file__).parents[1]", f"Path({str(tmp_path)!r})"))
    for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "benchmarks", "data/starter", "training"):
        place = tmp_path / (name if name.endswith(".md") else f"{name}/README.md")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("# A page\n")
    for file in (REPOSITORY / "docs").glob("*.md"):
        (tmp_path / "docs" / file.name).write_text("# A page\n")
    assert built(script, tmp_path / "whole").returncode == 0
    (tmp_path / "docs" / "page.md").write_text("# A page\n\n[another](nowhere.md)\n")
    done = built(script, tmp_path / "broken")
    assert done.returncode != 0
    assert "nowhere.md" in done.stdout + done.stderr
