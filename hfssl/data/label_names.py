"""Names of classes: which values mean "none", which spellings are variants of one name, which are one slip apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["DOUBTFUL", "MISSING_LABELS", "invisible_stripped", "missing_list", "name_key", "one_edit"]

# What spreadsheets, databases and pandas write for "none", in lower case; nobody names a class so.
CERTAIN = (
    *("#n/a", "#n/a n/a", "#na", "n/a", "<na>", "nan", "-nan", "nat", "null", "(null)", "[null]", "\\n"),
    *("#null!", "#ref!", "#value!", "#name?", "#div/0!", "#num!", "#wert!", "#bezug!", "#nv", "#n/d", "#н/д"),
    *("-1.#ind", "1.#ind", "-1.#qnan", "1.#qnan", "(blank)", "(empty)", "(leer)"),
)
# The same, but possible names of classes ("none" of several topics, "-" of a sign): asked for where they are frequent.
DOUBTFUL = ("none", "nil", "na", "-", "--", "---", "–", "—", "?", "??", "???", ".", "..")
MISSING_LABELS = (*CERTAIN, *DOUBTFUL)
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"
MIN_SLIP = 4  # letters of a name, below which one edit makes another word


def invisible_stripped(text: str) -> str:
    """Returns a text without spaces and invisible characters at its ends."""
    before = None
    while before != text:
        before, text = text, text.strip().strip(_INVISIBLE)
    return text


def name_key(name: str) -> str:
    """Returns what variants of a name share: no case, Unicode form, invisible characters or repeated spaces.

    Example:
        >>> name_key("Größe\\u200b ") == name_key("GRO\\u0308SSE")
        True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    digits = "".join(str(unicodedata.decimal(letter, letter)) for letter in visible)
    return " ".join(digits.split())


def one_edit(name: str, other: str) -> bool:
    """Returns whether one inserted, deleted, replaced or swapped letter makes `other` of `name`; not for numbers."""
    if name == other or min(len(name), len(other)) < MIN_SLIP or abs(len(name) - len(other)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other)))
    a, b = name[start:], other[start:]
    swapped = len(a) > 1 and a[:2] == b[1::-1] and a[2:] == b[2:]
    edited = a[1:] == b[1:] or a[1:] == b or a == b[1:] or swapped
    return edited and not any(letter.isdecimal() for letter in a[:1] + b[:1])


def missing_list(words: str | Iterable[str] | None) -> list[str] | None:
    """Reads a list of missing labels: words with commas between them, or a list; one comma alone for no word."""
    if words is None:
        return None
    return [word.strip() for word in (words.split(",") if isinstance(words, str) else words)]
