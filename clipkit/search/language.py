"""Language of a query: whether words are plainly not English, for models that know nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

ENGLISH_ONLY = frozenset({"starter"})  # models; of others clipkit does not know what they were trained on
NOTE = "the starter knows English only; clipkit models names multilingual ones"
ENOUGH = 2  # points that make a query foreign
FOREIGN_SCRIPT = 0.5  # share of letters that are not Latin

# Frequent words of German, Spanish, French, Italian, Portuguese and Dutch that no English query has: a point each.
_PLAIN = """
und ein eine einem einen einer eines nicht mit auf ohne zwei drei vom zum zur beim unter über neben hinter hund
hunde katze katzen kinder mädchen berge bäume wasser schnee vogel pferd blumen sonnenuntergang hochzeit geburtstag
straße fahrrad himmel kirche rotes schwarze weiße nacht kerzen weihnachtsbaum eiffelturm una unos unas junto perro
perros gato gatos hombre mujer coche árbol pájaro caballo flores bicicleta cielo barco iglesia boda cumpleaños
jugando montañas comida puesta amarillas une dans avec aux chez sous chien chiens enfants homme voiture arbre neige
oiseau fleurs vélo église mariage anniversaire soleil jouant jaunes gli della nella degli gatto gatti spiaggia
bambino bambina uomo albero uccello cavallo fiori tramonto cachorro criança mulher homem carro montanha árvore een
hond honden kinderen meisje jongen vrouw bergen sneeuw fiets
"""
# Others that also stand in English queries, in names for instance: all of them together are one point.
_MAYBE = """
der das den dem des im am bei von vor nach für el la los las un de en es por para sin al con del le les et sur du au
il lo di da do em um uma na che het op strand mann frau haus stadt playa parque niño niña casa agua montaña nieve
ciudad femme plage maison rue ville noir mer mar cane donna neve praia com auto negro negra mesa sol rojo chat nero
mare
"""
# English words that hold a sentence together: with one of them a query is English.
_ENGLISH = """
the of with and is are at to from by for while their his her its that this two three some near front over wearing
standing sitting holding playing running walking looking
"""
_WORD = re.compile(r"[^\W\d_]+")


def foreign_notes(texts: Iterable[str], model: str) -> tuple[str, ...]:
    """A sentence where words are not English and the model knows nothing else; nothing otherwise."""
    return (NOTE,) if model in ENGLISH_ONLY and any(is_foreign(text) for text in texts) else ()


def is_foreign(text: str) -> bool:
    """Whether a query is plainly not English: another script, or words of other languages and none of English."""
    words = _WORD.findall(unicodedata.normalize("NFC", text).lower())
    letters = "".join(words)
    if not letters:
        return False
    if sum(not _is_latin(letter) for letter in letters) > FOREIGN_SCRIPT * len(letters):
        return True
    plain = sum(word in _words(_PLAIN) for word in words)
    weak = sum(map(_is_perhaps_foreign, words))
    is_whole = plain > 0 and plain + weak == len(words)
    return not _words(_ENGLISH) & set(words) and (is_whole or plain + min(weak, 1) >= ENOUGH)


def _is_perhaps_foreign(word: str) -> bool:
    return word not in _words(_PLAIN) and (word in _words(_MAYBE) or not word.isascii())


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(("LATIN", "MODIFIER"))
