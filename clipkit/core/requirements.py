"""Required packages: which of them a missing module belongs to, and what to type for it."""

from __future__ import annotations

from importlib import metadata

# Modules whose package has another name.
PACKAGES = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "open_clip": "open_clip_torch",
    "sklearn": "scikit-learn",
}


def requirement_of(module: str) -> str:
    """The requirement of clipkit that brings a module, as pip takes it ("scikit-learn>=1.6"); "" for none of ours."""
    top = module.partition(".")[0]
    wanted = _plain(PACKAGES.get(top, top))
    for line in metadata.requires("clipkit") or ():
        requirement = line.partition(";")[0].strip()
        if _plain(requirement.partition(">")[0].partition("[")[0]) == wanted and "extra ==" not in line:
            return requirement
    return ""


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")
