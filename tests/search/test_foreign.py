"""Queries in another language: told where the model knows English only, and no English query is."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from clipkit.cli.main import main
from clipkit.explore import Library, Question, ask
from clipkit.explore.relevance import vocabulary
from clipkit.index.image_index import ImageIndex
from clipkit.search.language import NOTE, foreign_notes, is_foreign
from tests.support.colours import ColourEncoder

FOREIGN = (
    *(
        "ein Hund am Strand",
        "Katze auf dem Sofa",
        "Hund",
        "rotes Auto",
        "Kinder spielen im Schnee",
        "Blumen ohne Garten",
    ),
    *("un perro en la playa", "perro", "una mujer con sombrero", "niños jugando en el parque", "un coche rojo"),
    *("un chien sur la plage", "une femme avec un chapeau", "enfants dans le parc", "coucher de soleil sur la mer"),
    *("un cane sulla spiaggia", "um cachorro na praia", "een hond op het strand", "hund på stranden"),
    *("собака на пляже", "犬", "海滩上的狗", "كلب على الشاطئ", "해변의 개", "σκύλος", "שקיעה בים", "สุนัข"),
)
ENGLISH = (
    *(
        "a dog on a beach",
        "los angeles at night",
        "las vegas strip",
        "le mans",
        "el capitan",
        "café au lait",
        "16:9 photo",
    ),
    *("crème brûlée", "Playa del Carmen", "El Niño", "Dia de los Muertos", "São Paulo skyline", "Champs-Élysées"),
    *("die hard poster", "a kind of strand", "fleur de lis", "🐕 dog", "🐕", "123", "", "naïve façade", "und the dog"),
)


@pytest.mark.parametrize("text", FOREIGN)
def test_a_query_in_another_language_is_foreign(text: str) -> None:
    assert is_foreign(text)
    assert is_foreign(text.upper())


@pytest.mark.parametrize("text", [*ENGLISH, *vocabulary()])
def test_an_english_query_is_not(text: str) -> None:
    assert not is_foreign(text)


def test_only_a_model_that_is_known_to_know_english_alone_gets_a_note() -> None:
    assert foreign_notes(["a dog", "ein Hund am Strand"], "starter") == (NOTE,)
    assert foreign_notes(["a dog"], "starter") == ()
    assert foreign_notes(["ein Hund am Strand"], "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k") == ()


class Starter(ColourEncoder):
    """By its name, English only."""

    model = source = "starter"


def test_the_note_stands_on_the_command_line_and_on_the_page(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Starter()
    index = ImageIndex.create(photos, encoder)
    index.update()
    monkeypatch.setattr("clipkit.cli.options.ModelOptions.query_encoder", lambda *_: encoder)
    for query, is_told in (("ein Hund am Strand", True), ("a dog", False), ("Hund AND Katze", True)):
        assert main(["search", query, str(photos)]) == 0
        assert capsys.readouterr().err.count(NOTE) == is_told
        answer = ask(Library(photos, lambda *_: encoder), Question(query))
        assert answer.notes.count(NOTE) == is_told


@pytest.mark.real
def test_no_caption_of_photographs_is_taken_for_another_language(real_data: Path) -> None:
    with (real_data / "captions" / "captions.csv").open() as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert len(captions) == 2_000
    assert not [caption for caption in captions if is_foreign(caption)]
    with gzip.open(real_data / "starter_train" / "texts.txt.gz", "rt") as file:
        assert [phrase for phrase in file.read().splitlines() if is_foreign(phrase)] == []
