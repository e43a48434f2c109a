"""Queries, as rclip's users type them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipkit.errors import QueryError
from clipkit.search.query import Term, embed, parse
from tests.support.colours import ColourEncoder, paint


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("a red bicycle", [Term("a red bicycle")]),
        ("horse + stripes", [Term("horse"), Term("stripes")]),
        ("apple - fruit", [Term("apple"), Term("fruit", -1.0)]),
        (
            "2:golden retriever + 0.5:pool - people",
            [Term("golden retriever", 2), Term("pool", 0.5), Term("people", -1)],
        ),
        ("black-and-white photo", [Term("black-and-white photo")]),
        ("C++ book", [Term("C++ book")]),
        ("  padded  ", [Term("padded")]),
    ],
)
def test_a_query_is_read_as_rclip_reads_it(query: str, terms: list[Term]) -> None:
    assert parse(query) == terms


def test_added_terms_are_taken_whole() -> None:
    assert parse("", add=["salt - pepper"], subtract=["2:-x"]) == [Term("salt - pepper"), Term("-x", -2.0)]


@pytest.mark.parametrize("query", ["", "  ", "a + ", "+ a", "a - - b", "0:a", "x" * 1001])
def test_an_empty_part_is_an_error(query: str) -> None:
    with pytest.raises(QueryError):
        parse(query)


@pytest.mark.parametrize("query", ["./no.jpg", "../no.jpg", "/no/such.jpg", "~/no.jpg", "a + ./no.jpg"])
def test_a_missing_picture_is_an_error_and_never_words(query: str) -> None:
    with pytest.raises(QueryError, match="not a file"):
        parse(query)


def test_a_picture_may_have_an_operator_in_its_name(tmp_path: Path) -> None:
    file = paint(tmp_path / "red + blue - 2.png", (255, 0, 0))
    assert parse(str(file)) == [Term(str(file), is_file=True)]


def test_sums_are_weighted_and_brought_to_length_1(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    file = paint(tmp_path / "x.png", (0, 0, 255))
    red, green = encoder.encode_texts(["red", "green"])
    blue = encoder.encode_images([str(file)])[0]
    expected = 2 * red + blue - 0.5 * green
    embedded = embed(parse(f"2:red + {file} - 0.5:green"), encoder)
    np.testing.assert_allclose(embedded, [expected / np.linalg.norm(expected)], atol=1e-6)


def test_terms_that_cancel_out_are_an_error() -> None:
    with pytest.raises(QueryError, match="cancel"):
        embed(parse("red - red"), ColourEncoder())


@pytest.mark.parametrize(
    "text", ["16:9 photo", "7:00 alarm clock", "1:18 scale model car", "at 7:30", "Star Wars: a hope"]
)
def test_a_number_before_a_digit_is_no_weight(text: str) -> None:
    assert parse(text) == [Term(text)]
    assert parse(f"a dog + {text}")[1] == Term(text)
