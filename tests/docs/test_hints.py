"""Hints of errors: what each of them tells to type is typed here, and understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from clipkit.cli.main import main
from clipkit.cli.output import say_error
from clipkit.errors import ClipkitError
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.hints import complaints, hints


def test_every_hint_in_the_source_is_understood_when_it_is_typed() -> None:
    found = list(hints())
    assert len(found) > 180
    wrong = [f"{place}: {text!r}: {complaint}" for place, text in found for complaint in complaints(text)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_what_is_said_after_try_can_be_typed_and_advice_is_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    for place, text in hints():
        say_error(ClipkitError("x", hint=text))
        label, _, hint = capfd.readouterr().err.splitlines()[1].strip().partition(": ")
        if label == "try":
            assert hint.startswith(("clipkit ", "--", "pip ", "rm ", "ls ")), place
        elif not re.match(r"7|\w+\(", hint):  # what an expression gives, or a call in Python
            assert len(hint.split()) > 1, f"{place}: {hint!r} says nothing"


# Mistakes whose hint is a whole command, which then works.
MISTAKES = (
    ["search", "red", "empty"],
    ["search", "red", "photos", "--in", "nowhere"],
    ["search", "red", "other"],
    ["index", "photos", "--exact-pixels"],
    ["index", "photos/red.png"],
    ["search", "red", "photoz"],
    ["info", "broken"],
    ["evaluate", "zeroshot", "captions.csv", "--model", "colour"],
    ["finetune", "set", "--out", "tuned", "--lr", "-1"],
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=" ".join)
def test_the_hint_of_a_mistake_works_when_it_is_typed(
    mistake: list[str], photos: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _prepare(photos, monkeypatch)
    assert main(mistake) not in (0, 2)
    said = capfd.readouterr().err
    hint = (said.partition("  try: ")[2] or said.partition("  hint: did you mean photos: ")[2]).strip()
    assert hint, said
    if hint.startswith("clipkit "):
        typed = shlex.split(hint)[1:]
    elif hint.startswith("--lr "):
        return  # training a colour is nothing that could be run; that the option is understood is shown above
    else:
        typed = [*mistake[: mistake.index("--in")], *shlex.split(hint)]
    assert main(typed) == 0, (hint, capfd.readouterr().err)


def _prepare(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes that are whole, of another model, damaged and missing; and a table of captions."""

    def load(name: str, *, exact_pixels: bool = False, **options: object) -> ColourEncoder:
        return ColourEncoder(exact=exact_pixels)

    monkeypatch.setattr("clipkit.models.load.load_encoder", load)
    monkeypatch.setattr("clipkit.index.image_index.load_encoder", load)
    monkeypatch.chdir(photos.parent)
    paint(photos / "trip" / "sea.png", COLOURS["blue"])
    assert main(["index", "photos"]) == 0
    for name, encoder in (("other", ColourEncoder(fingerprint="aa" * 32)), ("broken", ColourEncoder())):
        paint(photos.parent / name / "red.png", COLOURS["red"])
        ImageIndex.create(photos.parent / name, encoder).update()
    (photos.parent / "broken" / ".clipkit" / "index.db").write_bytes(b"no database" * 500)
    (photos.parent / "empty").mkdir()
    (photos.parent / "captions.csv").write_text("image,caption\nphotos/red.png,red\nphotos/blue.png,blue\n")
    paint(photos.parent / "set" / "red" / "a.png", COLOURS["red"])
