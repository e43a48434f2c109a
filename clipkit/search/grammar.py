"""Grammar of AND, OR, NOT and parentheses between the parts of a query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

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
EXAMPLE = "as in (a dog OR a cat) AND a beach"


@dataclass(frozen=True)
class Part:
    """A part of a query. kind: "words", of which `text` is what was typed; else "all_of", "any_of" or "none_of"."""

    kind: str
    text: str = ""
    parts: tuple[Part, ...] = ()


def parse_operators(text: str) -> Part:
    """A query with operators as a tree; QueryError, with the place of the mistake, where it cannot be read."""
    try:
        return _part(_parser().parse(text), text)
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


def _part(tree: Tree[Token], text: str) -> Part:
    if tree.data != "words":
        return Part(
            str(tree.data), parts=tuple(_part(child, text) for child in tree.children if isinstance(child, Tree))
        )
    tokens = [child for child in tree.children if isinstance(child, Token)]
    typed = text[tokens[0].start_pos : tokens[-1].end_pos]
    return Part("words", typed[1:-1] if [token.type for token in tokens] == ["QUOTED"] else typed)


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="basic")  # an operator is one wherever it stands
