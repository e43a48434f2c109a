"""Lazy package exports (PEP 562): a public name is imported when it is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module

from clipkit.core.requirements import missing_packages_named


def lazy_exports(
    package: str, homes: Mapping[str, str], packages: Collection[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package; homes: the module below `package` in which each name is defined.

    packages: those below it that are its attributes without having been imported.
    """

    def get(name: str) -> object:
        if name in packages:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with missing_packages_named():
            value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*homes, *packages})
