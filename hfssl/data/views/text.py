"""Changes a text in a small way: words, characters, casing. Pure functions of the text and a random generator.

| name | what it changes | source |
|---|---|---|
| `word_drop` | leaves out words | Wei & Zou 2019 (EDA), random deletion |
| `word_swap` | swaps pairs of words | Wei & Zou 2019, random swap |
| `window_shuffle` | moves each word by at most a few places | Lample et al. 2018, section 2.3 |
| `typos` | replaces letters by keyboard neighbours, doubles, drops or swaps them | Belinkov & Bisk 2018 |
| `ocr` | replaces characters by ones that scanners confuse | Ma 2019 (nlpaug) |
| `casing` | changes the case of words | |

Words are separated by white space. A text in a script without spaces is one word: use `token_cutoff` or `span_cutoff`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

__all__ = ["TEXT_VIEWS", "TextFunction", "casing", "ocr", "typos", "window_shuffle", "word_drop", "word_swap"]

TextFunction = Callable[[str, np.random.Generator, float], str]

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
CONFUSIONS = {"0": "oO", "1": "lI", "5": "S", "8": "B", "l": "1I", "I": "l1", "o": "0", "O": "0", "S": "5", "B": "8"}
CONFUSIONS |= {"e": "c", "c": "e", "m": "n", "n": "m", "u": "v", "v": "u", "a": "o", "h": "b", "b": "h", "t": "f"}


def _neighbours() -> dict[str, str]:
    """Letter -> the letters next to it on a keyboard, in its own row and in the rows above and below."""
    places = {letter: (row, column) for row, keys in enumerate(KEYBOARD) for column, letter in enumerate(keys)}
    return {
        letter: "".join(
            other for other, (r, c) in places.items() if other != letter and abs(r - row) <= 1 and abs(c - column) <= 1
        )
        for letter, (row, column) in places.items()
    }


NEIGHBOURS = _neighbours()


def word_drop(text: str, generator: np.random.Generator, rate: float = 0.1) -> str:
    """Leaves out each word with probability `rate`; one word always stays.

    Args:
        text (`str`): Text.
        generator (`np.random.Generator`): Source of all randomness.
        rate (`float`, defaults to 0.1): Probability, in [0, 1).

    Example:
        >>> word_drop("one two three", np.random.default_rng(0), 0.5)
        'one'
    """
    words = text.split()
    draws = generator.random(len(words))
    kept = [word for word, draw in zip(words, draws, strict=True) if draw >= rate]
    return " ".join(kept) or (words[int(draws.argmax())] if words else text)


def word_swap(text: str, generator: np.random.Generator, rate: float = 0.1) -> str:
    """Swaps two random words, `rate` x number of words times and at least once.

    Args:
        text (`str`): Text.
        generator (`np.random.Generator`): Source of all randomness.
        rate (`float`, defaults to 0.1): Swaps per word.
    """
    words = text.split()
    if len(words) < 2:
        return text
    for _ in range(max(1, round(rate * len(words)))):
        first, second = generator.choice(len(words), size=2, replace=False)
        words[first], words[second] = words[second], words[first]
    return " ".join(words)


def window_shuffle(text: str, generator: np.random.Generator, distance: float = 3) -> str:
    """Sorts the words by position + U(0, distance + 1), so that a word moves by at most `distance` places.

    Args:
        text (`str`): Text.
        generator (`np.random.Generator`): Source of all randomness.
        distance (`float`, defaults to 3): Largest number of places.
    """
    words = text.split()
    keys = np.arange(len(words)) + generator.random(len(words)) * (distance + 1)
    return " ".join(words[i] for i in np.argsort(keys, kind="stable")) or text


def typos(text: str, generator: np.random.Generator, rate: float = 0.05) -> str:
    """Changes letters with probability `rate`: a keyboard neighbour, a letter twice, none, or two letters swapped.

    Letters outside a-z stay as they are.

    Args:
        text (`str`): Text.
        generator (`np.random.Generator`): Source of all randomness.
        rate (`float`, defaults to 0.05): Probability for each letter.
    """
    draws, kinds = generator.random(len(text)), generator.random(len(text))
    letters, skip = [], False
    for i, letter in enumerate(text):
        if skip:
            skip = False
        elif draws[i] >= rate or letter.lower() not in NEIGHBOURS:
            letters.append(letter)
        elif kinds[i] < 0.5:
            near = NEIGHBOURS[letter.lower()]
            other = near[int(kinds[i] * 2 * len(near))]
            letters.append(other.upper() if letter.isupper() else other)
        elif kinds[i] < 0.7:
            letters.append(letter * 2)
        elif kinds[i] < 0.85 and i + 1 < len(text) and text[i + 1].isalpha():
            letters.append(text[i + 1] + letter)
            skip = True
    return "".join(letters) if "".join(letters).strip() else text


def ocr(text: str, generator: np.random.Generator, rate: float = 0.05) -> str:
    """Replaces characters that a scanner confuses, with probability `rate` each.

    Args:
        text (`str`): Text.
        generator (`np.random.Generator`): Source of all randomness.
        rate (`float`, defaults to 0.05): Probability for each such character.
    """
    draws, kinds = generator.random(len(text)), generator.random(len(text))
    return "".join(
        CONFUSIONS[letter][int(kinds[i] * len(CONFUSIONS[letter]))]
        if draws[i] < rate and letter in CONFUSIONS
        else letter
        for i, letter in enumerate(text)
    )


def casing(text: str, generator: np.random.Generator, rate: float = 0.1) -> str:
    """Writes words in capitals, in small letters or capitalised, with probability `rate` each; white space stays.

    Args:
        text (`str`): Text.
        generator (`np.random.Generator`): Source of all randomness.
        rate (`float`, defaults to 0.1): Probability for each word.
    """
    pieces = re.split(r"(\s+)", text)
    draws, kinds = generator.random(len(pieces)), generator.integers(0, 3, len(pieces))
    ways = (str.upper, str.lower, str.capitalize)
    return "".join(ways[kinds[i]](piece) if draws[i] < rate else piece for i, piece in enumerate(pieces))


TEXT_VIEWS: dict[str, tuple[TextFunction, float]] = {
    "word_drop": (word_drop, 0.1),
    "word_swap": (word_swap, 0.1),
    "window_shuffle": (window_shuffle, 3),
    "typos": (typos, 0.05),
    "ocr": (ocr, 0.05),
    "casing": (casing, 0.1),
}
"""Name -> function of (text, generator, amount) and its default amount."""
