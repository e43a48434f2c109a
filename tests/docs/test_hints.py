"""Hints of errors: what each of them tells to type is typed here, and understood."""

from __future__ import annotations

from tests.support.hints import complaints, hints


def test_every_hint_in_the_source_is_understood_when_it_is_typed() -> None:
    found = list(hints())
    assert len(found) > 180
    wrong = [f"{place}: {text!r}: {complaint}" for place, text in found for complaint in complaints(text)]
    assert not wrong, "\n" + "\n".join(wrong)
