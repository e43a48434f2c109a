"""Required packages: which of them a missing module belongs to, and what to type for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clipkit.errors import MissingPackage

# Modules whose package has another name.
PACKAGES = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "open_clip": "open_clip_torch",
    "sklearn": "scikit-learn",
}


def requirement_of(module: str) -> str:
    """The requirement of clipkit that brings a module, as pip takes it ("scikit-learn>=1.6"); "" for none of ours."""
    from importlib import metadata  # a third of the time that `import clipkit` took with it

    top = module.partition(".")[0]
    wanted = _plain(PACKAGES.get(top, top))
    for line in metadata.requires("clipkit") or ():
        requirement = line.partition(";")[0].strip()
        if _plain(requirement.partition(">")[0].partition("[")[0]) == wanted and "extra ==" not in line:
            return requirement
    return ""


def missing_package(error: ImportError) -> MissingPackage | None:
    """What to say where a module of a requirement is missing, as after the light path of docs/install.md; else None."""
    requirement = requirement_of(error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if not requirement:
        return None
    name = requirement.partition(">")[0]
    return MissingPackage(f"this needs {name}, which is not installed", hint=f"pip install '{requirement}'")


@contextmanager
def missing_packages_named() -> Iterator[None]:
    """MissingPackage instead of ModuleNotFoundError, in a block or, as a decorator, in a function."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = None if isinstance(error, MissingPackage) else missing_package(error)
        if missing is None:
            raise
        raise missing from error


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")
