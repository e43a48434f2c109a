"""Saved searches: queries by name, as `@name` asks for them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clipkit.core.text import printable
from clipkit.errors import QueryError
from clipkit.search.query import is_filters

MOST_SEARCHES = 1_000  # of one index
LIST = "clipkit search --saved"
_NAME = re.compile(r"\w[\w.-]{0,63}")


def is_saved_name(query: str) -> bool:
    """Whether a query is the name of a saved one, `@beaches`, with nothing but filters behind it."""
    name, *rest = query.split(maxsplit=1) or [""]
    return name.startswith("@") and bool(_NAME.fullmatch(name[1:])) and all(map(is_filters, rest))


def expand(query: str, searches: Mapping[str, str]) -> str:
    """The query that was saved under that name, and the filters; another query as it is. QueryError where none was."""
    if not is_saved_name(query):
        return query
    first, *filters = query.split(maxsplit=1)
    name = first[1:]
    if name not in searches:
        known = ", ".join(f"@{printable(one)}" for one in sorted(searches)[:5])
        raise QueryError(f"no search is saved as @{name}" + (f"; there are {known}" if known else ""), hint=LIST)
    return " ".join([searches[name], *filters])


def check_name(name: str) -> str:
    """The name without its @; QueryError where it cannot be one."""
    bare = name.strip().removeprefix("@")
    if not _NAME.fullmatch(bare):
        fact = f"{printable(name[:80])} is no name for a search: letters, digits, dots and dashes are"
        raise QueryError(fact, hint='clipkit search --save beaches "a sandy beach"')
    return bare
