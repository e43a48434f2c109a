"""Prompts: names, files and templates become what is said of each class, or a clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipkit.classify.prompts import (
    NEUTRAL,
    PETS,
    TEMPLATES,
    check_templates,
    imagenet_classes,
    make_prompts,
    name_wnids,
    read_classes,
    read_templates,
)
from clipkit.errors import DatasetError, QueryError
from clipkit.models.openclip import published_templates
from tests.support.colours import COLOURS, paint


def test_every_template_is_filled_with_every_class() -> None:
    made = make_prompts(["cat", "dog"], ["a {}", "two {c}s"])
    assert made.classes == ("cat", "dog")
    assert made.prompts == (("a cat", "two cats"), ("a dog", "two dogs"))


def test_a_class_with_braces_or_backslashes_is_taken_literally() -> None:
    assert make_prompts([r"\1 {}"], ["a {}."]).prompts == ((r"a \1 {}.",),)


def test_prompts_of_a_mapping_are_used_as_they_are() -> None:
    cupl = {"cat": ["A cat has whiskers.", "a {}"], "dog": ["a dog barks"]}
    made = make_prompts(cupl, TEMPLATES["simple"])
    assert made.prompts == (("A cat has whiskers.", "a cat"), ("a dog barks",))


def test_descriptions_go_into_a_template_that_has_a_place_for_them() -> None:
    made = make_prompts({"hen": ["two legs", "red feathers"]}, read_templates("dclip"))
    assert made.prompts == (("hen, which has two legs.", "hen, which has red feathers."),)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "no classes"),
        (["cat", " "], "has no name"),
        (["cat", "dog", " cat"], "'cat' is named twice"),
        ({"cat": []}, "'cat' has no prompt"),
        ({"cat": ["a cat", " "]}, "'cat' has no prompt, or an empty one"),
    ],
)
def test_classes_that_are_wrong(classes: list[str], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        make_prompts(classes, ["a {}"])


@pytest.mark.parametrize("templates", [["a {}", "a photo"], ["a {d}"], ["a {x}"]])
def test_a_template_without_a_slot_is_an_error(templates: list[str]) -> None:
    with pytest.raises(QueryError, match="has no slot for the class"):
        check_templates(templates)


def test_no_template_at_all_is_an_error() -> None:
    with pytest.raises(QueryError, match="there are no templates"):
        read_templates([])


def test_descriptions_are_asked_for_where_a_template_needs_them() -> None:
    with pytest.raises(QueryError, match="needs descriptions"):
        make_prompts(["cat"], TEMPLATES["dclip"])


def test_templates_are_a_set_a_file_a_single_one_or_a_list(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a {}\n\n the {c} \n")
    assert read_templates("plain") == ("{}",)
    assert len(read_templates("simple")) == 7
    assert read_templates("a {c}.") == ("a {c}.",)
    assert read_templates(str(file)) == read_templates(file) == ("a {}", "the {c}")
    assert read_templates(["a {}"]) == ("a {}",)
    with pytest.raises(QueryError, match="'simpel' is no set of templates, no file") as caught:
        read_templates("simpel")
    assert "simple" in (caught.value.hint or "")


def test_classes_are_a_set_a_file_names_with_commas_or_a_list(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffcat\n\ndog \n", encoding="utf-8")
    (tmp_path / "table.csv").write_text('image,Label\na.jpg,cat\nb.jpg,"dog, big"\nc.jpg,cat\n')
    (tmp_path / "single.csv").write_text("cat\ndog\n")
    (tmp_path / "list.json").write_text('["cat", "dog"]')
    assert read_classes("pets") == PETS
    assert len(set(PETS)) == 37
    assert read_classes("cat, dog") == ("cat", "dog")
    assert read_classes(["cat, dog"]) == ("cat, dog",)
    assert read_classes(str(tmp_path / "names.txt")) == ("cat", "dog")
    assert read_classes(tmp_path / "table.csv") == ("cat", "dog, big")
    assert read_classes(tmp_path / "single.csv") == ("cat", "dog")
    assert read_classes(tmp_path / "list.json") == ("cat", "dog")


def test_classes_are_those_of_a_folder_of_class_folders(tmp_path: Path) -> None:
    for name in ("train/red/a.png", "test/red/a.png", "test/blue/b.png", "flat/c.png"):
        paint(tmp_path / name, COLOURS["red"])
    assert read_classes(str(tmp_path)) == ("blue", "red")
    assert read_classes(tmp_path / "train") == ("red",)
    assert read_classes(str(tmp_path / "flat")) == (str(tmp_path / "flat"),)  # words: it holds pictures, no folders


def test_a_json_file_brings_prompts(tmp_path: Path) -> None:
    file = tmp_path / "cupl.json"
    file.write_text(json.dumps({"cat": ["a cat"], "dog": "a dog"}))
    assert read_classes(str(file)) == {"cat": ("a cat",), "dog": ("a dog",)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"cat": ["a"], "cat": ["b"]}', "'cat' is named twice"),
        ("a.json", '{"cat": [1]}', "'cat' has no list of prompts"),
        ("a.json", "3", "neither a list of classes"),
        ("a.json", "{", "is not JSON"),
        ("a.csv", "image,colour\na.jpg,red\n", "has the columns image, colour"),
        ("a.txt", b"\xff\xfe\xfa", "not text in UTF-8"),
        ("a.txt", None, "No such file"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(QueryError, match=message):
        read_classes(str(file))


def test_neutral_texts_are_sentences_of_their_own() -> None:
    assert 30 <= len(NEUTRAL) == len(set(NEUTRAL)) <= 60
    assert all(text.endswith(".") and "{" not in text for text in NEUTRAL)


def test_the_published_words_are_those_of_open_clip() -> None:
    import open_clip

    assert len(published_templates()) == 80
    assert published_templates()[0] == "a bad photo of a {}."
    assert read_templates("simple") == tuple(t("{}") for t in open_clip.SIMPLE_IMAGENET_TEMPLATES)
    classes = imagenet_classes()
    assert list(classes.values()) == list(open_clip.IMAGENET_CLASSNAMES)
    assert [name for name in classes if name.endswith("(2)")] == ["missile (2)", "sunglasses (2)"]
    made = make_prompts(list(classes), ["a {}."], words=classes)
    assert made.prompts[list(classes).index("missile (2)")] == ("a missile.",)


def test_wordnet_ids_get_their_published_names_only_all_together() -> None:
    with pytest.raises(DatasetError, match="2 WordNet ids are not the 1000"):
        name_wnids(["n01440764", "n01443537", "n01440764"])
    assert name_wnids(f"n{i:08}" for i in range(1000))["n00000001"] == "goldfish"


def test_a_function_from_a_name_to_a_prompt_is_a_template() -> None:
    templates = read_templates([lambda name: f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}.", "the {}"])
    assert make_prompts(["cat", "owl"], templates).prompts == (
        ("a photo of a cat.", "the cat"),
        ("a photo of an owl.", "the owl"),
    )
    assert len(read_templates(str.upper)) == 1


@pytest.mark.parametrize("template", [lambda name: "a photo", lambda name: None, lambda name: "", 7])
def test_a_function_that_makes_no_prompt_of_a_name_is_an_error(template: Any) -> None:
    with pytest.raises(QueryError, match=r"a template makes|neither a text nor a function"):
        read_templates([template])
