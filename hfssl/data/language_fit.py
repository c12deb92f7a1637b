"""Does the backbone know the language? Its tokenizer answers before anything is trained.

A tokenizer was fitted to the texts that the backbone has read. In another language it cuts words into pieces of two or
three letters, or into unknown tokens, and the backbone has never learned what they mean together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from hfssl.data.scripts import dominant_script

__all__ = ["LanguageFit", "language_warnings", "measure_language_fit"]

SAMPLE = 400  # texts
MIN_LETTERS = 150  # with fewer, the mean depends on a few words
# Fewest letters per token that are usual. With the tokenizer of all-MiniLM-L6-v2, fourteen English data sets have 3.8
# to 5.0, sentences of German, French, Spanish and Dutch 2.3 to 2.8, of Russian 1.0 (benchmarks/NOTES.md, 2026-11-29).
USUAL = {"Latin": 3.3, "Han or Kana": 0.8, "Hangul": 0.8}
USUAL_ELSEWHERE = 2.0
# Words of letters only: numbers, addresses and names of users are cut up in every language.
WORD = re.compile(r"(?<![\w@#/.])[^\W\d_]{2,}(?![\w@/])")
MANY_UNKNOWN = 0.05  # share of the tokens


@dataclass(frozen=True)
class LanguageFit:
    """Holds how a tokenizer cuts texts.

    Attributes:
        script (`str`): Script of most letters, as in Unicode: `"Latin"`.
        letters_per_token (`float`): Mean number of letters in a token, of words that consist of letters only.
        unknown (`float`): Share of the tokens that are unknown, in `[0, 1]`.
        letters (`int`): Number of letters that were looked at.
    """

    script: str
    letters_per_token: float
    unknown: float
    letters: int

    @property
    def is_hardly_known(self) -> bool:
        """Returns whether the backbone hardly knows the language."""
        if self.letters < MIN_LETTERS:
            return False
        usual = USUAL.get(self.script, USUAL_ELSEWHERE)
        return self.letters_per_token < usual or self.unknown > MANY_UNKNOWN


def measure_language_fit(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> LanguageFit:
    """Returns how a tokenizer cuts the words of some texts.

    Args:
        texts (`Sequence[str]`): Texts, of which at most `SAMPLE`, evenly spaced, are looked at.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.

    Example:
        >>> from hfssl.data.language_fit import measure_language_fit
        >>> measure_language_fit(["who was it"], tokenizer).script
        'Latin'
    """
    step = max(1, len(texts) // SAMPLE)
    words = Counter(word for text in texts[::step] for word in WORD.findall(text))
    if not words:
        return LanguageFit("", 0.0, 0.0, 0)
    names = list(words)
    cut = tokenizer(names, add_special_tokens=False)["input_ids"]
    tokens = sum(words[name] * len(ids) for name, ids in zip(names, cut, strict=True))
    lost = tokenizer.unk_token_id
    unknown = sum(words[name] * sum(i == lost for i in ids) for name, ids in zip(names, cut, strict=True))
    letters = sum(len(name) * count for name, count in words.items())
    scripts = Counter()
    for name, count in words.items():
        scripts[dominant_script(name) or ""] += len(name) * count
    return LanguageFit(scripts.most_common(1)[0][0], letters / max(1, tokens), unknown / max(1, tokens), letters)


def language_warnings(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, backbone: str) -> list[str]:
    """Returns one sentence if the backbone hardly knows the language of the texts; else none.

    Args:
        texts (`Sequence[str]`): Texts of the training rows.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.
        backbone (`str`): Its name, for the sentence.
    """
    found = measure_language_fit(texts, tokenizer)
    if not found.is_hardly_known:
        return []
    usual = USUAL.get(found.script, USUAL_ELSEWHERE)
    signs = f"a token holds {found.letters_per_token:.1f} letters of a word, where {usual:g} or more are usual"
    if found.unknown > MANY_UNKNOWN:
        signs = f"{found.unknown:.0%} of the tokens are unknown to it"
    return [
        f"the backbone '{backbone}' hardly knows the language of these texts ({found.script} letters; {signs}): take "
        "an encoder for that language, or a multilingual one such as intfloat/multilingual-e5-small, by --backbone."
    ]
