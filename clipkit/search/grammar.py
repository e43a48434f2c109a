"""Grammar of AND, OR, NOT and parentheses between the parts of a query."""

from __future__ import annotations

from functools import cache
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from clipkit.errors import QueryError

GRAMMAR = r"""
?start: any_of
?any_of: all_of (OR all_of)*
?all_of: part (AND part | none_of)*
?part: none_of | "(" any_of ")" | words
none_of: NOT part
words: (WORD | QUOTED)+

AND.2: /AND(?![^\s()])/
OR.2: /OR(?![^\s()])/
NOT.2: /NOT(?![^\s()])/
WORD: /[^\s()"][^\s()]*/
QUOTED: /"[^"]*"/
%ignore /\s+/
"""
SHOWN = 40  # characters of a mistake
EXAMPLE = "clipkit search '(a dog OR a cat) AND a beach'"


def parse_operators(text: str) -> Tree[Token]:
    """The tree of a query with operators: `any_of`, `all_of`, `none_of`, and `words` as leaves.

    QueryError, with the place of the mistake, where it cannot be read.
    """
    try:
        return _parser().parse(text)
    except UnexpectedInput as error:
        place = error.pos_in_stream if error.pos_in_stream is not None else len(text)
        rest = text[place:].strip() if place >= 0 else ""
        if not rest or getattr(getattr(error, "token", None), "type", "") == "$END":
            raise QueryError(
                f"the query ends where more was expected: {text.strip()[-SHOWN:]}", hint=EXAMPLE
            ) from error
        raise QueryError(
            f"the query cannot be read from character {place + 1}: {rest[:SHOWN]}", hint=EXAMPLE
        ) from error


def words_of(text: str, leaf: Tree[Token]) -> str:
    """What a leaf of the tree of `text` says, as it was typed; without the quotes where it is one quotation."""
    first, last = _tokens(leaf)[0], _tokens(leaf)[-1]
    said = text[first.start_pos : last.end_pos]
    return said[1:-1] if first is last and first.type == "QUOTED" else said


def _tokens(leaf: Tree[Token]) -> list[Any]:
    return [token for token in leaf.children if isinstance(token, Token)]


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="basic")  # an operator is one wherever it stands
