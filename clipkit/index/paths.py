"""Selection of pictures by the folders of their paths."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator


def path_filter(below: str = "", exclude_dirs: Collection[str] = ()) -> Callable[[str], bool] | None:
    """Whether a path, relative to the root, lies below a folder and in none of the excluded names; None for all paths.

    below: relative to the root, "" or "." for the root itself. exclude_dirs: names of folders, wherever they stand, or
    their paths relative to the root.
    """
    prefix = "" if below in ("", ".") else below.rstrip("/") + "/"
    excluded = {name.rstrip("/") for name in exclude_dirs}
    if not prefix and not excluded:
        return None
    return lambda path: path.startswith(prefix) and excluded.isdisjoint(_folders(path))


def _folders(path: str) -> Iterator[str]:
    """Names of the folders that a path goes through, and their paths."""
    parts = path.split("/")[:-1]
    yield from parts
    yield from ("/".join(parts[: n + 1]) for n in range(1, len(parts)))
