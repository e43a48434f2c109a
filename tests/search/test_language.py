"""The query language: what each form asks for, and where a bad one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.cli.main import main
from clipkit.errors import QueryError
from clipkit.search.query import AllOf, AnyOf, Condition, NoneOf, Sum, Term, explain, parse, parse_query


def words(*parts: str | tuple[str, float]) -> Sum:
    return Sum(tuple(Term(part) if isinstance(part, str) else Term(*part) for part in parts))


A, B, C = words("a dog"), words("a cat"), words("a beach")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a dog", A),
        ("a dog + 2:a cat - 0.5:a beach", words("a dog", ("a cat", 2.0), ("a beach", -0.5))),
        ("a dog AND a beach", AllOf((A, C))),
        ("a dog OR a cat AND a beach", AnyOf((A, AllOf((B, C))))),
        ("(a dog OR a cat) AND a beach", AllOf((AnyOf((A, B)), C))),
        ("NOT a dog", NoneOf(A)),
        ("a beach AND NOT (a dog OR a cat)", AllOf((C, NoneOf(AnyOf((A, B)))))),
        ("NOT NOT a dog", NoneOf(NoneOf(A))),
        ("a dog NOT a cat", AllOf((A, NoneOf(B)))),
        ("a dog + snow AND a cat", AllOf((words("a dog", "snow"), B))),
        ('"rock AND roll" AND a dog', AllOf((words("rock AND roll"), A))),
        ("((a dog))OR(a cat)", AnyOf((A, B))),
        # what is no operator
        ("a dog and a cat", words("a dog and a cat")),
        ("ANDROID phone, ORANGE juice, NOTHING", words("ANDROID phone, ORANGE juice, NOTHING")),
        ("a dog (brown)", words("a dog (brown)")),
        ('a "red" car', words('a "red" car')),
        ("16:9 photo", words("16:9 photo")),
        ("7:00 alarm clock", words("7:00 alarm clock")),
        ("colour:red car", words("colour:red car")),
        ("path: trip", words("path: trip")),
    ],
)
def test_a_query_is_read_as(text: str, tree: object) -> None:
    query = parse_query(text)
    assert query.tree == tree
    assert query.conditions == ()
    assert query.notes == () or text == "path: trip"  # which is told


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("a street without cars", "a street", ["cars"]),
        ("a man with no hat", "a man", ["hat"]),
        ("a dog not on a leash", "a dog", ["on a leash"]),
        ("a beach but no people", "a beach", ["people"]),
        ("a beach without any people and without dogs", "a beach", ["people", "dogs"]),
        ("A Room EXCEPT FOR a chair", "A Room", ["chair"]),
    ],
)
def test_without_in_plain_english_is_less_of_it_and_said(text: str, wanted: str, unwanted: list[str]) -> None:
    query = parse_query(text)
    assert query.tree == words(wanted, *((one, -0.5) for one in unwanted))
    assert query.notes == (f"searching: {wanted}, less of: {', '.join(unwanted)}",)
    assert parse_query(text, literal=True).tree == words(text)
    assert parse_query("", add=[text]).tree == words(text), "a term of --add is taken as it stands"


@pytest.mark.parametrize(
    "text", ["no cars", "a no parking sign", "sign of no entry", "whether or not", "knots", "without", "a notebook"]
)
def test_a_no_that_belongs_to_a_name_is_a_word(text: str) -> None:
    assert parse_query(text).tree == words(text)
    assert parse_query(text).notes == ()


def test_filters_stand_anywhere() -> None:
    query = parse_query('path:trip/2024 a dog -type:png,gif AND date:2023-05..2023-08 a cat path:"my trip"')
    assert query.tree == AllOf((A, B))
    assert query.conditions == (
        Condition("path", "trip/2024"),
        Condition("type", "png,gif", is_excluded=True),
        Condition("date", "2023-05..2023-08"),
        Condition("path", "my trip"),
    )
    assert parse_query("type:jpeg").tree is None
    assert parse_query('a sign that says "type:jpeg"').conditions == ()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a dog AND type:png",
            "type:png AND a dog",
            "a dog AND Type:png",
            "(a dog) AND type:png",
            "(a dog AND type:png)",
        ),
        *("(type:png AND a dog)", "a dog AND type:png AND type:png"),
    ],
)
def test_and_joins_filters_and_words(text: str) -> None:
    query = parse_query(text)
    assert query.tree == A
    assert set(query.conditions) == {Condition("type", "png")}


def test_and_before_a_filter_still_joins_the_words_behind_it() -> None:
    for text in ("a dog AND type:png AND a cat", "a dog AND type:png a cat", "type:png AND a dog AND a cat"):
        assert parse_query(text).tree == AllOf((A, B))
    assert parse_query("type:png AND -rating:3").conditions == (
        Condition("type", "png"),
        Condition("rating", "3", is_excluded=True),
    )
    assert parse_query("type:png AND -rating:3").tree is None


def test_not_turns_a_filter_round() -> None:
    for text in ("a dog NOT type:png", "a dog AND NOT type:png", "NOT type:png a dog", "NOT type:png AND a dog"):
        assert parse_query(text).tree == A
        assert parse_query(text).conditions == (Condition("type", "png", is_excluded=True),)
    assert parse_query("NOT -type:png").conditions == (Condition("type", "png"),)


@pytest.mark.parametrize("text", ["a dog OR type:png", "type:png OR type:gif", "(type:png OR a dog) AND a cat"])
def test_or_joins_no_filters(text: str) -> None:
    with pytest.raises(QueryError, match="filters hold for the whole query") as caught:
        parse_query(text)
    assert caught.value.hint
    assert parse_query('"a dog OR" type:png').tree == words("a dog OR")


def test_a_filter_with_a_space_is_words_and_a_note_says_so() -> None:
    query = parse_query("camera: canon")
    assert (query.tree, query.conditions) == (words("camera: canon"), ())
    assert query.notes == ("camera: canon is read as words; the filter is camera:canon, without a space",)
    assert parse_query("camera: canon", literal=True).notes == ()
    assert parse_query('"camera: canon"').notes == ()


def test_similar_is_a_picture_beside_the_words(tmp_path: Path) -> None:
    file = tmp_path / "dog.jpg"
    file.write_bytes(b"")
    leaf = Sum((Term(str(file), is_file=True),))
    assert parse_query(f"a dog similar:{file}").tree == AllOf((A, leaf))
    assert parse_query(f"similar:{file}").tree == leaf
    assert parse_query(f"a dog -similar:{file}").tree == AllOf((A, NoneOf(leaf)))
    with pytest.raises(QueryError, match="names a file"):
        parse_query(f"similar:{file}", words_only=True)
    with pytest.raises(QueryError, match="is not a file here"):
        parse_query(f"similar:{tmp_path}/nothing.jpg")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a dog AND", "the query ends where more was expected: a dog AND"),
        ("a dog AND (a cat OR", "the query ends where more was expected"),
        ("(a dog AND a cat", "the query ends where more was expected"),
        ("AND a dog", "from character 1: AND a dog"),
        ("a dog OR OR a cat", "from character 10: OR a cat"),
        ("a dog AND a cat) OR snow", "from character 16: ) OR snow"),
        ("a dog AND () ", "from character 12: )"),
        ("a dog AND + a cat", "is empty or weighs nothing"),
        ("a dog AND 0:a cat", "is empty or weighs nothing"),
        ("", "the query is empty"),
    ],
)
def test_a_bad_query_is_a_sentence_with_the_place(text: str, sentence: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_query(text)
    assert sentence in caught.value.message
    assert caught.value.hint


def test_a_sum_is_all_that_a_search_of_vectors_reads() -> None:
    assert parse("a dog + snow") == [Term("a dog"), Term("snow")]
    for text in ("a dog AND snow", "a dog type:png"):
        with pytest.raises(QueryError, match="for searches of an index"):
            parse(text)
    with pytest.raises(QueryError, match="--add and --sub"):
        parse_query("a dog AND snow", add=["a cat"])


PIECES = st.lists(
    st.one_of(
        st.sampled_from(["AND", "OR", "NOT", "(", ")", '"', "+", "-", "2:", "type:png", "without", "no", "./x"]),
        st.text(max_size=6),
    ),
    max_size=12,
).map(" ".join)


@given(text=PIECES)
def test_any_text_is_a_query_or_a_sentence(text: str) -> None:
    try:
        query = parse_query(text, words_only=True)
    except QueryError as error:
        assert error.message  # noqa: PT017
        assert error.hint  # noqa: PT017
        return
    assert query.tree is not None or query.conditions
    assert list(explain(query))
    assert all(term.text for term in query.terms)


TREES = st.recursive(
    st.sampled_from([A, B, C]),
    lambda inner: st.one_of(st.tuples(inner, inner).map(AllOf), st.tuples(inner, inner).map(AnyOf), inner.map(NoneOf)),
    max_leaves=6,
)


@given(tree=TREES)
def test_what_is_written_with_parentheses_is_read_back(tree: Sum | AllOf | AnyOf | NoneOf) -> None:
    if not isinstance(tree, Sum):
        assert parse_query(_written(tree)).tree == tree


def _written(tree: Sum | AllOf | AnyOf | NoneOf) -> str:
    if isinstance(tree, Sum):
        return tree.terms[0].text
    if isinstance(tree, NoneOf):
        return f"NOT ({_written(tree.part)})"
    return f" {'AND' if isinstance(tree, AllOf) else 'OR'} ".join(f"({_written(part)})" for part in tree.parts)


def test_the_command_says_how_a_query_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--explain-query", "(a dog OR 2:a cat) AND NOT a street without cars -type:png"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "only not type: png",
        "all of",
        "  any of",
        "    words: a dog",
        "    words: a cat  (weight 2)",
        "  not",
        "    words: a street",
        "    words: cars  (weight -0.5)",
    ]
    assert err == "searching: a street, less of: cars\n"
