"""Whether the backbone's tokenizer knows the language of the texts."""

from __future__ import annotations

import pytest

from hfssl.data.language_fit import LanguageFit, language_warnings, measure_language_fit
from hfssl.data.scripts import dominant_script


class Cutter:
    """A tokenizer that cuts words into pieces of a number of letters; a word with an x is unknown."""

    unk_token_id = 0

    def __init__(self, letters: int):
        self.letters = letters

    def __call__(self, words: list[str], add_special_tokens: bool) -> dict:
        assert not add_special_tokens
        cut = [[0] if "x" in word else [1] * -(-len(word) // self.letters) for word in words]
        return {"input_ids": cut}


def test_letters_per_token_by_hand():
    # "seven" is cut into two tokens of at most three letters, "is" into one; 12:30, a1 and @name are no words.
    found = measure_language_fit(["seven is", "seven 12:30 a1 @name"], Cutter(3))
    assert (found.letters, found.script) == (12, "Latin")
    assert found.letters_per_token == pytest.approx(12 / 5)
    assert found.unknown == 0
    assert measure_language_fit(["exit is"], Cutter(3)).unknown == pytest.approx(1 / 2)
    assert measure_language_fit(["1 2", ""], Cutter(3)).letters == 0


@pytest.mark.parametrize(
    ("letters", "texts", "words"),
    [
        (2, ["Lieferer Kunden"] * 40, "a token holds 2.0 letters of a word, where 3.3 or more are usual"),
        (5, ["text index"] * 40, "100% of the tokens are unknown to it"),
        (1, ["Доставка пришла"] * 40, "Cyrillic letters; a token holds 1.0 letters"),
    ],
)
def test_a_backbone_of_another_language_is_told_with_the_remedy(letters, texts, words):
    (sentence,) = language_warnings(texts, Cutter(letters), "my/encoder")
    assert words in sentence
    assert "'my/encoder'" in sentence
    assert "--backbone" in sentence


def test_nothing_is_said_of_usual_texts_and_of_a_few_letters():
    assert language_warnings(["delivery arrived damaged"] * 40, Cutter(4), "encoder") == []
    assert language_warnings(["Lieferung"] * 3, Cutter(2), "encoder") == []
    assert not LanguageFit("Han or Kana", 1.0, 0.0, 1000).is_hardly_known  # a character is a token


def test_scripts():
    assert [dominant_script(text) for text in ("film", "фильм", "映画 の", "12")] == [
        "Latin",
        "Cyrillic",
        "Han or Kana",
        None,
    ]
