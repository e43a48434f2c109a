"""Prompts for zero-shot classes: class names, templates, ImageNet's published ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from clipkit.core.tables import read_header, read_table
from clipkit.core.text import counted, described, some
from clipkit.datasets.load import class_folders
from clipkit.errors import DatasetError, QueryError
from clipkit.models.openclip import published_class_names

Classes: TypeAlias = str | os.PathLike[str] | Sequence[str] | Mapping[str, Sequence[str]]
Template: TypeAlias = str | Callable[[str], str]  # with a slot for the class, or what makes a prompt of its name
Templates: TypeAlias = str | os.PathLike[str] | Callable[[str], str] | Sequence[Template]

TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "simple": (  # the seven that OpenAI's notebook found to do nearly as well as all eighty
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "pets": ("a photo of a {}, a type of pet.",),
    "dclip": ("{c}, which has {d}.",),
}
PETS = (  # as CLIP_benchmark and torchvision write them
    *("Abyssinian", "American Bulldog", "American Pit Bull Terrier", "Basset Hound", "Beagle", "Bengal"),
    *("Birman", "Bombay", "Boxer", "British Shorthair", "Chihuahua", "Egyptian Mau", "English Cocker Spaniel"),
    *("English Setter", "German Shorthaired", "Great Pyrenees", "Havanese", "Japanese Chin", "Keeshond"),
    *("Leonberger", "Maine Coon", "Miniature Pinscher", "Newfoundland", "Persian", "Pomeranian", "Pug"),
    *("Ragdoll", "Russian Blue", "Saint Bernard", "Samoyed", "Scottish Terrier", "Shiba Inu", "Siamese"),
    *("Sphynx", "Staffordshire Bull Terrier", "Wheaten Terrier", "Yorkshire Terrier"),
)
# What a picture may be said to show without naming anything in it: the measure of "none of these".
NEUTRAL = (
    *("a photo.", "a picture.", "an image.", "a photograph of something.", "a snapshot.", "a close-up photo."),
    *("an object.", "a thing.", "a photo of an object.", "some things.", "a photo of many things.", "a tool."),
    *("a person.", "a photo of people.", "a crowd.", "an animal.", "a plant.", "a tree.", "a flower.", "some food."),
    *("a vehicle.", "a machine.", "a piece of furniture.", "a piece of clothing.", "a toy.", "a device."),
    *("a building.", "a room.", "a photo taken indoors.", "a photo taken outdoors.", "a street.", "a city."),
    *("a landscape.", "the sky.", "water.", "a field of grass.", "a forest.", "a mountain.", "a beach.", "snow."),
    *("a wall.", "a floor.", "a texture.", "a pattern.", "a background.", "nothing.", "an empty scene.", "darkness."),
    *("wood.", "metal.", "stone.", "fabric.", "glass.", "paper.", "text.", "a sign.", "a drawing.", "a diagram."),
)
SETS = {"pets": PETS}
_SLOT = re.compile(r"\{c?\}")
_TABLES = (".txt", ".csv", ".json")
_COLUMNS = ("class", "label", "name", "classname")


SLOT_HINT = 'write {} where the class goes: "a photo of a {}."'
FUNCTION_HINT = 'a function from a name to a prompt: lambda name: f"a photo of a {name}."'
CLASSES_HINT = "a text file, one a line, or a CSV with a column class: --classes FILE"
JSON_HINT = '["cat", "dog"], or {"cat": ["a photo of a cat."], "dog": ["a photo of a dog."]}'


@dataclass(frozen=True)
class ClassPrompts:
    """Classes and the prompts of each.

    Attributes
    ----------
    classes : tuple of str
        Names, each once.
    prompts : tuple of tuple of str
        prompts[i] belong to classes[i].

    Examples
    --------
    >>> from clipkit.classify import ClassPrompts
    >>> ClassPrompts(("cat",), (("a photo of a cat.",),)).prompts[0]
    ('a photo of a cat.',)
    """

    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        classes = f"{counted(len(self.classes), 'class')}: {some(self.classes)}"
        return described(self, classes, counted(sum(map(len, self.prompts)), "prompt"))


def make_prompts(
    classes: Mapping[str, Sequence[str]] | Sequence[str],
    templates: Sequence[Template],
    *,
    words: Mapping[str, str] | None = None,
) -> ClassPrompts:
    """Fill every template with every class.

    A mapping brings phrases of its own. Where a template has `{d}`, each phrase goes there (DCLIP); otherwise the
    phrases are the prompts (CuPL), their `{}` filled with the class, and the templates are not used.

    Parameters
    ----------
    classes : sequence of str, or mapping of str to sequence of str
        Names, or phrases by name.
    templates : sequence of str or callable
        Each with `{}` or `{c}` where the class goes, or a function from the class's name to the prompt.
    words : mapping of str to str, optional
        What is filled in instead of a class's name.

    Returns
    -------
    ClassPrompts
        In the order of `classes`.

    Raises
    ------
    QueryError
        If a template has no slot, there is no class, or a class is repeated or has no name or prompt.

    References
    ----------
    .. [1] S. Menon and C. Vondrick, "Visual Classification via Description from Large Language Models", ICLR 2023.
    .. [2] S. Pratt et al., "What does a platypus look like? Generating customized prompts for zero-shot image
       classification", ICCV 2023.

    Examples
    --------
    >>> from clipkit.classify import make_prompts
    >>> make_prompts(["cat", "dog"], ["a photo of a {}."]).prompts
    (('a photo of a cat.',), ('a photo of a dog.',))
    >>> make_prompts(["cat"], [lambda name: f"a photo of a {name.upper()}"]).prompts
    (('a photo of a CAT',),)
    >>> make_prompts({"cat": ["whiskers", "a tail"]}, ["{c}, which has {d}."]).prompts
    (('cat, which has whiskers.', 'cat, which has a tail.'),)
    """
    names = [str(name).strip() for name in classes]
    _check_names(names)
    words = words or {}
    if not isinstance(classes, Mapping):
        check_templates(templates)
        if any(isinstance(template, str) and "{d}" in template for template in templates):
            raise QueryError("a template with {d} needs descriptions", hint='a JSON file {"cat": ["whiskers", ...]}')
        return ClassPrompts(tuple(names), tuple(_fill(templates, words.get(name, name)) for name in names))
    described = [template for template in templates if isinstance(template, str) and "{d}" in template]
    prompts = []
    for name, phrases in zip(names, classes.values(), strict=True):
        texts = [phrase.strip() for phrase in phrases]
        if not texts or not all(texts):
            raise QueryError(f"{name!r} has no prompt, or an empty one", hint=JSON_HINT)
        filled = [t.replace("{d}", text) for t in described for text in texts] if described else texts
        prompts.append(_fill(filled, words.get(name, name)))
    return ClassPrompts(tuple(names), tuple(prompts))


def read_templates(templates: Templates) -> tuple[Template, ...]:
    """The templates of a set's name, a text file (one a line), one template, or a list of them; all with a slot.

    A function from a name to a prompt is a template, too.
    """
    if isinstance(templates, str) and templates in TEMPLATES:
        return TEMPLATES[templates]
    if isinstance(templates, str) and _SLOT.search(templates):
        found: Sequence[Template] = [templates]
    elif callable(templates):
        found = [templates]
    elif isinstance(templates, str | os.PathLike):
        if not Path(templates).is_file():
            sets = ", ".join([*TEMPLATES, "imagenet"])
            raise QueryError(f"{os.fspath(templates)!r} is no set of templates, no file, and has no {{}}", hint=sets)
        found = _lines(Path(templates))
    else:
        found = [template.strip() if isinstance(template, str) else template for template in templates]
    check_templates(found)
    return tuple(found)


def check_templates(templates: Sequence[Template]) -> None:
    """QueryError for none at all, or one without a place for the class."""
    if not templates:
        raise QueryError("there are no templates", hint=SLOT_HINT)
    for template in templates:
        if isinstance(template, str) and not _SLOT.search(template):
            raise QueryError(f"the template {template!r} has no slot for the class", hint=SLOT_HINT)
        if not isinstance(template, str):
            _check_function(template)


def _check_function(template: Callable[[str], str]) -> None:
    """QueryError for one that makes no text of a name, or the same of two."""
    if not callable(template):
        raise QueryError(f"the template {template!r} is neither a text nor a function", hint=SLOT_HINT)
    first, second = template("cat"), template("dog")
    if not isinstance(first, str) or not first.strip() or first == second:
        raise QueryError(f"a template makes {first!r} of cat and {second!r} of dog", hint=FUNCTION_HINT)


def as_text(template: Template) -> str:
    """A template with `{}` where the class goes, for people; a function's as near as it can be written."""
    return template if isinstance(template, str) else template("{}")


def note_of_set(classes: Classes | None) -> str:
    """A sentence where a name means a built-in set though a folder of that name is there; "" where it does not."""
    if not isinstance(classes, str) or classes not in (*SETS, "imagenet") or not os.path.isdir(classes):
        return ""
    count = len(SETS.get(classes, ())) or 1_000
    return f"classes: the built-in list of {count:,}, {classes}; for the folder: --classes ./{classes}"


def read_classes(classes: Classes) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    """Classes from a list, a text, a file or the name of a set.

    Parameters
    ----------
    classes : str, path, sequence of str, or mapping of str to sequence of str
        "pets"; names with commas between; a text file with one a line; a CSV with a column class, label, name or
        classname, or a single one; a JSON list; or phrases by name, as a mapping or a JSON file; a folder of class
        folders, perhaps below train and test ("./pets", where the folder is called as a set is).

    Returns
    -------
    tuple of str, or dict of str to tuple of str
        In the order in which they first appear; a dict where there are phrases.

    Raises
    ------
    QueryError
        If a file cannot be read, or holds no classes.

    Examples
    --------
    >>> from clipkit.classify import read_classes
    >>> read_classes("cat, dog")
    ('cat', 'dog')
    >>> read_classes("classes.txt")
    ('cat', 'cup of coffee', 'rocket')
    >>> len(read_classes("pets"))
    37
    """
    if isinstance(classes, Mapping):
        return _described(classes, "the classes")
    if isinstance(classes, str) and classes in SETS:
        return SETS[classes]
    if not isinstance(classes, str | os.PathLike):
        return tuple(classes)
    file = Path(classes)
    if folders := class_folders(file):
        return folders
    if file.suffix.lower() in _TABLES or isinstance(classes, os.PathLike):
        return _read(file)
    return tuple(name.strip() for name in os.fspath(classes).split(","))


def _read(file: Path) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    if file.suffix.lower() == ".csv":
        return _column(file)
    if file.suffix.lower() != ".json":
        return tuple(_lines(file))
    try:
        content = json.loads(_text(file), object_pairs_hook=_pairs)
    except ValueError as error:
        raise QueryError(f"{file} is not JSON: {error}", hint=JSON_HINT) from error
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return tuple(content)
    if not isinstance(content, Mapping):
        raise QueryError(f"{file} is neither a list of classes nor {{class: [prompts]}}", hint=JSON_HINT)
    return _described(content, str(file))


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _check_names([name for name, _ in pairs])  # json would keep the last of two without a word
    return dict(pairs)


def _described(content: Mapping[str, object], source: str) -> dict[str, tuple[str, ...]]:
    described = {}
    for name, phrases in content.items():
        several = [phrases] if isinstance(phrases, str) else phrases
        if not isinstance(several, list | tuple) or not all(isinstance(phrase, str) for phrase in several):
            raise QueryError(f"{source}: {name!r} has no list of prompts", hint=JSON_HINT)
        described[name] = tuple(several)
    return described


def _column(file: Path) -> tuple[str, ...]:
    try:
        header, rows = read_header(file), read_table(file)
    except (OSError, ValueError) as error:
        raise QueryError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", hint=CLASSES_HINT
        ) from error
    names = [name.strip().lower() for name in header]
    column = next((name for name in _COLUMNS if name in names), None)
    if column is None and len(names) != 1:
        raise QueryError(
            f"{file} has the columns {', '.join(header)}, none of them {', '.join(_COLUMNS)}", hint=CLASSES_HINT
        )
    first = [header[0].strip()] if column is None else []  # a list of names without a header
    cells = [*first, *(row[column or names[0]] for _, row in rows)]
    return tuple(dict.fromkeys(cell for cell in cells if cell))  # a table of pictures names its classes again and again


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in _text(file).splitlines() if line.strip()]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise QueryError(f"{file} cannot be read: {reason}", hint="a text file, one a line") from error


def _check_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise QueryError("one of the classes has no name", hint="name some: cat,dog")
        if name in seen:
            raise QueryError(f"the class {name!r} is named twice", hint="name each class once")
        seen.add(name)
    if not seen:
        raise QueryError("there are no classes", hint="name some: cat,dog")


def _fill(templates: Sequence[Template], name: str) -> tuple[str, ...]:
    return tuple(_SLOT.sub(lambda _: name, one) if isinstance(one, str) else one(name) for one in templates)


def imagenet_classes() -> dict[str, str]:
    """The 1,000 classes in ImageNet's order, each with the words that fill its templates.

    Two names were published for two classes each: the second of a pair is called `missile (2)` here, and its prompts
    say `missile`, as the published protocol has it.
    """
    classes: dict[str, str] = {}
    for name in published_class_names():
        classes[name if name not in classes else f"{name} (2)"] = name
    return classes


def name_wnids(wnids: Iterable[str]) -> dict[str, str]:
    """ImageNet's class for each WordNet id, given all 1,000 of them: the published names stand in their order."""
    ordered, classes = sorted(set(wnids)), imagenet_classes()
    if len(ordered) != len(classes):
        raise DatasetError(
            f"{len(ordered)} WordNet ids are not the {len(classes)} of ImageNet",
            hint="a folder with the 1,000 class folders of ImageNet, or --classes A,B",
        )
    return dict(zip(ordered, classes, strict=True))
