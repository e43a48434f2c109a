"""Folders that a person names, and messages that name them as they were typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit.cli.main import main
from tests.support.colours import COLOURS, ColourEncoder, paint


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def load(name: str, *, exact_pixels: bool = False, **options: object) -> ColourEncoder:
        return ColourEncoder(exact=exact_pixels)

    monkeypatch.setattr("clipkit.models.load.load_encoder", load)
    monkeypatch.setattr("clipkit.index.image_index.load_encoder", load)
    monkeypatch.chdir(photos.parent)
    paint(photos / "raw" / "a.png", COLOURS["red"])
    assert main(["index", "photos"]) == 0
    return photos.parent


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(list(arguments))
    return code, *capfd.readouterr()


@pytest.mark.parametrize("typed", ["nothere", "./nothere", "photos/nothere/", "~/nothere", "no*here"])
@pytest.mark.parametrize(
    "command", [["index", "photos"], ["index", "photos", "--dry-run"], ["search", "red", "photos"]]
)
@pytest.mark.usefixtures("here")
def test_an_exclusion_that_matches_nothing_is_said_as_it_was_typed(
    capfd: pytest.CaptureFixture[str], command: list[str], typed: str
) -> None:
    code, _, err = run(capfd, *command, "--exclude-dir", typed, "--exclude-dir", "raw")
    assert code == 0
    assert f"--exclude-dir {typed} matches no folder\n" in err
    assert "--exclude-dir raw" not in err


@pytest.mark.parametrize("typed", ["raw", "./photos/raw", "photos/raw", "/raw*", "r?w"])
@pytest.mark.parametrize("more", [[], ["--shape", "square"]])
@pytest.mark.usefixtures("here")
def test_a_search_leaves_out_what_is_named(capfd: pytest.CaptureFixture[str], typed: str, more: list[str]) -> None:
    if typed.startswith("/"):
        typed = f"{Path.cwd()}/photos{typed}"
    code, out, err = run(capfd, "search", "red", "photos", "-f", "-t", "99", "--exclude-dir", typed, *more)
    assert (code, err) == (0, "")
    assert "raw" not in out
    assert len(out.splitlines()) == len(COLOURS)


@pytest.mark.parametrize("typed", ["/", "~", "../elsewhere"])
@pytest.mark.usefixtures("here")
def test_a_folder_outside_is_named_as_it_was_typed(capfd: pytest.CaptureFixture[str], typed: str) -> None:
    code, out, err = run(capfd, "search", "red", "photos", "--in", typed)
    assert (code, out) == (1, "")
    assert f"error: {typed} lies outside of photos, which is indexed\n" in err


@pytest.mark.usefixtures("here")
def test_a_picture_is_no_folder(capfd: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capfd, "search", "red", "photos", "--in", "red.png")
    assert err == "error: red.png is a file, not a folder\n  hint: leave --in out: it lies in the root of the index\n"
    _, _, err = run(capfd, "search", "red", "photos", "--in", "raw/a.png")
    assert err == "error: raw/a.png is a file, not a folder\n  try: --in raw\n"


@pytest.mark.parametrize("is_there", [False, True])
def test_a_built_in_list_of_classes_is_said_where_a_folder_has_its_name(
    here: Path, capfd: pytest.CaptureFixture[str], is_there: bool
) -> None:
    if is_there:
        for split in ("train", "test"):
            for name in ("red", "blue"):
                paint(here / "pets" / split / name / "a.png", COLOURS[name])
    code, _, err = run(capfd, "classify", "photos", "--classes", "pets", "--templates", "red {}")
    assert code == 0
    said = "classes: the built-in list of 37, pets; for the folder: --classes ./pets\n"
    assert (said in err) == is_there
    if is_there:
        _, out, err = run(capfd, "classify", "photos", "--classes", "./pets", "--templates", "{}")
        assert "built-in" not in err
        assert {line.split("\t")[0] for line in out.splitlines()} == {"red", "blue"}
