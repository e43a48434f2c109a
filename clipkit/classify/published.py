"""What open_clip holds of the published protocols: ImageNet's class names and the eighty templates."""

from __future__ import annotations

from collections.abc import Iterable

from clipkit.errors import DatasetError


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates of the CLIP paper, with `{}` where the class goes."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def imagenet_classes() -> dict[str, str]:
    """The 1,000 classes in ImageNet's order, each with the words that fill its templates.

    Two names were published for two classes each: the second of a pair is called `missile (2)` here, and its prompts
    say `missile`, as the published protocol has it.
    """
    from open_clip import IMAGENET_CLASSNAMES

    classes: dict[str, str] = {}
    for name in IMAGENET_CLASSNAMES:
        classes[name if name not in classes else f"{name} (2)"] = name
    return classes


def name_wnids(wnids: Iterable[str]) -> dict[str, str]:
    """ImageNet's class for each WordNet id, given all 1,000 of them: the published names stand in their order."""
    ordered, classes = sorted(set(wnids)), imagenet_classes()
    if len(ordered) != len(classes):
        raise DatasetError(f"{len(ordered)} WordNet ids are not the {len(classes)} of ImageNet")
    return dict(zip(ordered, classes, strict=True))
