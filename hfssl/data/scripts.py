"""Scripts (alphabets) of texts, by the names of their letters in Unicode."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

__all__ = ["dominant_script"]


def dominant_script(text: str) -> str | None:
    """Returns the script of most letters among the first 300 characters: `"Latin"`; `None` without letters."""
    counts = Counter(script for character in text[:300] if (script := _script(character)) is not None)
    return counts.most_common(1)[0][0] if counts else None


@lru_cache(maxsize=65_536)
def _script(character: str) -> str | None:
    """Returns the script of a letter: the first word of its Unicode name, or one name for Japanese scripts."""
    if not character.isalpha():
        return None
    first = unicodedata.name(character, "UNKNOWN").split(" ")[0].split("-")[0].title()
    return {"Cjk": "Han or Kana", "Hiragana": "Han or Kana", "Katakana": "Han or Kana"}.get(first, first)
