"""Saved searches: queries by name, as `@name` asks for them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clipkit.core.text import printable
from clipkit.errors import QueryError

MOST_SEARCHES = 1_000  # of one index
LIST = "clipkit search --saved"
_NAME = re.compile(r"\w[\w.-]{0,63}")


def is_saved_name(query: str) -> bool:
    """Whether a query is the name of a saved one: `@beaches`, and nothing else."""
    text = query.strip()
    return text.startswith("@") and bool(_NAME.fullmatch(text[1:]))


def expand(query: str, searches: Mapping[str, str]) -> str:
    """The query that was saved under that name; any other query as it is. QueryError where there is none."""
    if not is_saved_name(query):
        return query
    name = query.strip()[1:]
    if name not in searches:
        known = ", ".join(f"@{printable(one)}" for one in sorted(searches)[:5])
        raise QueryError(f"no search is saved as @{name}" + (f"; there are {known}" if known else ""), hint=LIST)
    return searches[name]


def check_name(name: str) -> str:
    """The name without its @; QueryError where it cannot be one."""
    bare = name.strip().removeprefix("@")
    if not _NAME.fullmatch(bare):
        fact = f"{printable(name[:80])} is no name for a search: letters, digits, dots and dashes are"
        raise QueryError(fact, hint='clipkit search --save beaches "a sandy beach"')
    return bare
