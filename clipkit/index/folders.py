"""From a folder that somebody names to the index that it has, lies under, or should get."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import nullcontext, suppress
from pathlib import Path

from clipkit.errors import BadIndex, IndexNotFound
from clipkit.index.image_index import FOLDER, ImageIndex, Loader, index_folder, real_folder
from clipkit.index.scan import Changes, compare, find_images
from clipkit.models.registry import find_weights
from clipkit.store.database import FILE, Store


def open_or_create(
    root: str | Path,
    load: Loader,
    *,
    model: str | None = None,
    exact_pixels: bool = False,
    rebuild: bool = False,
    at: str | Path | None = None,
) -> ImageIndex:
    """What `clipkit index` works on: an index keeps its model; a new one gets `model`, or "auto"."""
    place = real_folder(root)
    recorded = None
    if (index_folder(place, at) / FILE).exists():
        with suppress(BadIndex) if rebuild else nullcontext():
            recorded = ImageIndex.open(place, at=at, load=load)
    if recorded is not None and not (model or exact_pixels or rebuild):
        _refuse_another_starter(recorded)
        return recorded
    name = model or (recorded.info.model_source if recorded else "auto")
    return ImageIndex.create(place, load(name, exact_pixels), at=at, rebuild=rebuild)


def plan(
    root: str | Path,
    *,
    at: str | Path | None = None,
    rebuild: bool = False,
    exclude_dirs: Collection[str] = (),
    include_hidden: bool = False,
    checksum: bool = False,
    retry_failed: bool = False,
) -> Changes:
    """What `clipkit index` would do, by stat alone; nothing is written."""
    place = real_folder(root)
    store = Store(index_folder(place, at) / FILE)
    known = store.known() if store.file.exists() and not rebuild else {}
    scan = find_images(str(place), exclude_dirs=exclude_dirs, include_hidden=include_hidden)
    unreadable = [failure.path for failure in scan.unreadable]
    return compare(scan.found, known, unreadable=unreadable, checksum=checksum, retry_failed=retry_failed)


def model_for(root: str | Path, model: str | None, *, at: str | Path | None = None) -> tuple[str, bool]:
    """The model of the index of `root` and whether its pixels are exact; for a new one `model`, or "auto"."""
    place = real_folder(root)
    if model or not (index_folder(place, at) / FILE).exists():
        return model or "auto", False
    info = ImageIndex.open(place, at=at).info
    return info.model_source, info.pixel_recipe.startswith("exact")


def place_of(root: str | Path, at: str | Path | None) -> Path:
    """Where the files of the index of `root` are, or would be; ClipkitError if `root` is no folder."""
    return index_folder(real_folder(root), at)


def find(
    start: str | Path, *, below: str = "", at: str | Path | None = None, load: Loader | None = None
) -> tuple[ImageIndex, str]:
    """The index that the folder `start` has or lies under, and `below` (relative to `start`) as seen from its root."""
    here = Path(os.path.abspath(start))
    if not here.is_dir():
        raise IndexNotFound(
            f"{start} is not a folder", hint='name one; several words need quotes: clipkit search "red bicycle" FOLDER'
        )
    root = _root_above(here) if at is None else _recorded_root(here, Path(at), is_default=str(start) == ".")
    index = ImageIndex.open(root, at=at, load=load)
    above = here if here.is_relative_to(root) else root
    inside = os.path.normpath(os.path.join(os.path.relpath(above, root), below))
    return index, "" if inside == "." else inside.replace(os.sep, "/")


def _refuse_another_starter(index: ImageIndex) -> None:
    """ModelMismatch where the model that comes with clipkit is not the one of this index any more.

    Any other model is compared when it is loaded; but a run that finds nothing new loads none, and would say that
    pictures can be found which no search finds. This costs one hash of 44 MB, and is remembered.
    """
    info = index.info
    if info.model == "starter" and find_weights("starter", {}).fingerprint != info.weights_sha256:
        index.encoder  # noqa: B018  says so


def _root_above(here: Path) -> Path:
    return next((folder for folder in (here, *here.parents) if (folder / FOLDER / FILE).exists()), here)


def _recorded_root(here: Path, at: Path, *, is_default: bool) -> Path:
    """An index that lies elsewhere says what it is of; a folder that the user names wins, since it may have moved."""
    recorded = Path(Store(at / FILE).info().root or here)
    return recorded if is_default or here.is_relative_to(recorded) else here
