"""Tags in XMP sidecars: written beside pictures, never into them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

from clipkit.core.files import replace_file
from clipkit.core.text import counted, printable
from clipkit.errors import ClipkitError, QueryError
from clipkit.images.formats import file_of
from clipkit.images.metadata import MAX_TAG, MAX_TAGS, MAX_XMP, clean
from clipkit.index.sidecars import SUFFIX, sidecar_names

META, RDF = "adobe:ns:meta/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
NAMESPACES = {"x": META, "rdf": RDF, "dc": DC}
_SUBJECT, _BAG, _ITEM = f"{{{DC}}}subject", f"{{{RDF}}}Bag", f"{{{RDF}}}li"
Written = Mapping[Path, bytes | None]  # sidecars, and what they held before; None where there was none


def read_tag_list(text: str) -> list[str]:
    """Tags between commas, each once; QueryError where there is none.

    Examples
    --------
    >>> from clipkit.output.sidecar_tags import read_tag_list
    >>> read_tag_list("beach, family , beach")
    ['beach', 'family']
    """
    tags = [tag for part in text.split(",") if (tag := clean(part.replace('"', "'"), MAX_TAG))]
    if not tags:
        raise QueryError("no tag is named", hint="tags between commas: beach, family")
    return list(dict.fromkeys(tags))[:MAX_TAGS]


def add_tags(files: Iterable[Path], tags: Sequence[str]) -> Written:
    """Add tags to the sidecars of pictures, whole or not at all; what else they say stays.

    Parameters
    ----------
    files : iterable of Path
        Pictures; a frame of a video stands for the video. `photo.jpg` has the sidecar `photo.jpg.xmp`, or `photo.xmp`
        where that is there already.
    tags : sequence of str
        What to add.

    Returns
    -------
    mapping of Path to bytes or None
        The sidecars, and what they held before, as `put_back` takes it.

    Raises
    ------
    ClipkitError
        If a sidecar cannot be read or written; then all are as they were.

    References
    ----------
    .. [1] ISO 16684-1:2019, "Extensible metadata platform (XMP)", Part 1.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.output import add_tags
    >>> [sidecar.name for sidecar in add_tags([Path("photos/chelsea.png")], ["cat"])]
    ['chelsea.png.xmp']
    """
    written: dict[Path, bytes | None] = {}
    try:
        for picture in dict.fromkeys(Path(file_of(str(file))) for file in files):
            sidecar = _sidecar_of(picture)
            before = sidecar.read_bytes() if sidecar.exists() else None
            content = _with_tags(before, tags, sidecar)
            written[sidecar] = before
            replace_file(sidecar, content)
    except (ClipkitError, OSError) as error:
        put_back(written)
        if isinstance(error, ClipkitError):
            raise
        raise ClipkitError(f"tags cannot be written: {error}", hint="is the folder read-only?") from error
    return written


def put_back(written: Written) -> None:
    """Make sidecars what they were before; ClipkitError where some could not."""
    remaining = 0
    for sidecar, before in written.items():
        try:
            if before is None:
                sidecar.unlink(missing_ok=True)
            else:
                replace_file(sidecar, before)
        except OSError:
            remaining += 1
    if remaining:
        raise ClipkitError(f"{counted(remaining, 'sidecar')} could not be put back")


def _sidecar_of(picture: Path) -> Path:
    there = (Path(name) for name in sidecar_names(os.fspath(picture)) if os.path.isfile(name))
    return next(there, picture.with_name(picture.name + SUFFIX))


def _with_tags(before: bytes | None, tags: Sequence[str], sidecar: Path) -> bytes:
    """The sidecar's content with the tags added."""
    root = _parse(before, sidecar) if before else ElementTree.Element(f"{{{META}}}xmpmeta")
    bag = _bag(root)
    known = {(item.text or "").casefold() for item in bag}
    for tag in tags:
        if tag.casefold() not in known:
            ElementTree.SubElement(bag, _ITEM).text = tag
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def _parse(content: bytes, sidecar: Path) -> ElementTree.Element:
    """Its root; ClipkitError where it is no XMP. A document type is refused: bombs are made of them."""
    refused = ClipkitError(f"{printable(str(sidecar))} is no XMP that can be added to", hint="move it away, then again")
    if len(content) > MAX_XMP or b"<!DOCTYPE" in content.upper() or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise refused
    try:
        for prefix, uri in _namespaces(content):
            with suppress(ValueError):  # ns0 and the like are ElementTree's own
                ElementTree.register_namespace(prefix, uri)
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise refused from error


def _namespaces(content: bytes) -> Iterator[tuple[str, str]]:
    yield from NAMESPACES.items()
    for _, pair in ElementTree.iterparse(BytesIO(content), events=["start-ns"]):
        prefix, uri = cast("tuple[str, str]", pair)  # of this event it is no element
        yield prefix, uri


def _bag(root: ElementTree.Element) -> ElementTree.Element:
    """The list of tags, made where it is not there."""
    for prefix, uri in NAMESPACES.items():
        ElementTree.register_namespace(prefix, uri)
    for subject in root.iter(_SUBJECT):
        if (bag := subject.find(_BAG)) is not None:
            return bag
    rdf = root if root.tag == f"{{{RDF}}}RDF" else root.find(f"{{{RDF}}}RDF")
    if rdf is None:
        rdf = ElementTree.SubElement(root, f"{{{RDF}}}RDF")
    description = rdf.find(f"{{{RDF}}}Description")
    if description is None:
        description = ElementTree.SubElement(rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    return ElementTree.SubElement(ElementTree.SubElement(description, _SUBJECT), _BAG)
