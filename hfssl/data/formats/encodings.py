"""Detects the encoding of a text file.

In this order: a byte order mark; UTF-16 or UTF-32 by its zero bytes; UTF-8 if the whole file is valid UTF-8; else
a local encoding by its letters. charset-normalizer names the script. Among the encodings of Latin letters it often
takes cp1250 for cp1252, which differ in a few letters only; there the alphabets of languages decide: the text must
consist of the letters of one language.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hfssl.data.formats.base import open_binary
from hfssl.errors import DataError

__all__ = ["Encoding", "detect_encoding"]

CHUNK = 1 << 20
SAMPLE = 1 << 16  # bytes of lines that are not ASCII
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# Letters beyond ASCII of languages, lower case, with the encodings that their users save files in, usual ones first.
WESTERN = ("cp1252", "iso8859_15", "mac_roman", "cp850", "cp437")
CENTRAL = ("cp1250", "iso8859_2", "cp852", "mac_latin2")
ALPHABETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("äöüß", WESTERN),  # German
    ("àâæçéèêëîïôœùûüÿ", WESTERN),  # French
    ("áéíñóúü¿¡ºª", WESTERN),  # Spanish
    ("àáâãçéêíóôõúü", WESTERN),  # Portuguese
    ("àèéìíîòóùú", WESTERN),  # Italian
    ("äåöéæøüà", WESTERN),  # the Nordic languages
    ("áðéíóúýþæö", WESTERN),  # Icelandic
    ("éëïöüèêçñâîôû", WESTERN),  # Dutch, English with its loan words
    ("äöõüšž", ("cp1252", "cp1257")),  # Estonian
    ("ąćęłńóśźż", CENTRAL),  # Polish
    ("áčďéěíňóřšťúůýž", CENTRAL),  # Czech
    ("áäčďéíĺľňóôŕšťúýž", CENTRAL),  # Slovak
    ("áéíóöőúüű", CENTRAL),  # Hungarian
    ("čćđšž", CENTRAL),  # Croatian, Slovenian
    ("ăâîşţ", CENTRAL),  # Romanian
    ("çğıöşüâîû", ("cp1254", "iso8859_9", "cp857")),  # Turkish
    ("ąčęėįšųūž", ("cp1257", "iso8859_13")),  # Lithuanian
    ("āčēģīķļņšūž", ("cp1257", "iso8859_13")),  # Latvian
    ("ăâđêôơưàảãáạèẻéíìóòúùý\u0300\u0301\u0303\u0309\u0323", ("cp1258",)),  # Vietnamese
)
# Signs of any language. What the wrong encoding makes of letters (box drawing, fractions, superscripts) is not here.
SIGNS = frozenset("‘’‚“”„«»‹›–—…•·€£§°©®™\u00a0\u00ad№")
OTHERS = ("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5", "cp1253", "cp1255", "cp1256", "cp874")
EAST_ASIAN = ("cp932", "euc_jp", "gb18030", "big5", "cp949")
JAPANESE = ("cp932", "euc_jp")
_HIGH = re.compile(rb"[\x80-\xff]")
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_KANA = re.compile(r"[\u3041-\u30ff]")
PLAUSIBLE = 0.8  # share of the characters beyond ASCII that must be letters of the language, or signs


@dataclass(frozen=True)
class Encoding:
    """Holds the encoding of a file.

    Args:
        codec (`str`): Python's name.
        guessed (`bool`): Whether another encoding is possible: a local one, found by its letters.
    """

    codec: str
    guessed: bool = False

    @property
    def usual(self) -> bool:
        """Returns whether nothing need be said: UTF-8 with or without a byte order mark."""
        return self.codec in ("utf-8", "utf-8-sig")


def detect_encoding(path: Path, given: str | None = None) -> Encoding:
    """Detects the encoding of a text file, or checks that it has the given one.

    Args:
        path (`Path`): Text file, possibly compressed.
        given (`str`, *optional*): Encoding that the user named.

    Raises:
        DataError: if bytes of the file do not exist in the given encoding, a few bytes of an UTF-8 file are broken,
            or no encoding fits.
    """
    with open_binary(path) as file:
        start = file.read(CHUNK)
    if given is not None:
        return _given(path, given, start)
    for mark, codec in MARKS:
        if start.startswith(mark):
            return _checked(path, codec)
    if _is_wide(start[:4096]):
        return _checked(path, _wide(path, start[:4096]))
    broken = _first_broken(path, "utf-8")
    if broken is None:
        return Encoding("iso2022_jp" if b"\x1b$" in start and _decodes(start, "iso2022_jp") else "utf-8")
    sample = _sample(path)
    valid = len(_UTF8.findall(sample))
    stray = len(_HIGH.findall(_UTF8.sub(b"", sample)))
    if valid > 3 * stray:  # local encodings rarely make valid UTF-8
        line, byte = broken
        raise DataError(
            f"expected UTF-8 text in '{path}', got the byte 0x{byte:02x} on line {line}: correct that line, or save "
            "the file again as UTF-8; if the whole file has another encoding, name it with --encoding (encoding=)."
        )
    for codec in _local_encodings(sample):
        if _first_broken(path, codec) is None:
            return Encoding(codec, guessed=True)
    return Encoding("latin-1", guessed=True)  # has a character for every byte


def _given(path: Path, given: str, start: bytes) -> Encoding:
    codec = codecs.lookup(given).name
    if codec in ("utf-8", "utf-8-sig"):  # with a mark or without
        codec = "utf-8-sig"
    if codec in ("utf-16", "utf-32") and not any(start.startswith(mark) for mark, of in MARKS if of == codec):
        codec = _wide(path, start[:4096])
    return _checked(path, codec)


def _checked(path: Path, codec: str) -> Encoding:
    broken = _first_broken(path, codec)
    if broken is not None:
        line, byte = broken
        raise DataError(
            f"expected {codec} text in '{path}', got the byte 0x{byte:02x} on line {line}, which does not exist there:"
            " save the file again as UTF-8, or name its encoding with --encoding (encoding=)."
        )
    return Encoding(codec)


def _first_broken(path: Path, codec: str) -> tuple[int, int] | None:
    """Returns line and value of the first byte that `codec` cannot decode; `None` if there is none."""
    decoder = codecs.getincrementaldecoder(codec)()
    feeds = returns = 0
    with open_binary(path) as file:
        while True:
            chunk = file.read(CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                feeds, returns = feeds + before.count(b"\n"), returns + before.count(b"\r")
                return (feeds or returns) + 1, error.object[error.start]
            if not chunk:
                return None
            feeds, returns = feeds + text.count("\n"), returns + text.count("\r")


def _decodes(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _is_wide(start: bytes) -> bool:
    """Returns whether most line ends have zero bytes beside them; a stray zero byte does not make a file UTF-16."""
    zeros, ends = start.count(b"\0"), start.count(b"\n") + start.count(b"\r")
    beside = sum(start.count(pair) for pair in (b"\n\0", b"\r\0")) or sum(
        start.count(pair) for pair in (b"\0\n", b"\0\r")
    )
    return zeros > 0 and (2 * beside > ends if ends else 4 * zeros > len(start))


def _wide(path: Path, start: bytes) -> str:
    """Returns the wide encoding without a byte order mark that makes the most ASCII characters of the first bytes."""

    def ascii_share(codec: str) -> float:
        text = start[: len(start) // 4 * 4].decode(codec, errors="replace")
        return sum(" " <= letter <= "~" or letter in "\t\r\n" for letter in text) / max(1, len(text))

    best = max(WIDE, key=ascii_share)
    # Other scripts than Latin have few ASCII characters, but delimiters and line ends.
    if ascii_share(best) < 0.05:
        raise DataError(
            f"expected text in '{path}', got zero bytes, as files that are no text have: save the table as CSV or "
            "name the file by its kind (.xlsx, .parquet)."
        )
    return best


def _sample(path: Path) -> bytes:
    """Returns the first lines with characters beyond ASCII, as many as are needed to see the encoding."""
    kept: list[bytes] = []
    size = 0
    with open_binary(path) as file:
        while size < SAMPLE and (chunk := file.read(CHUNK)):
            for line in re.split(rb"[\r\n]+", chunk):
                if not line.isascii():
                    kept.append(line)
                    size += len(line)
                    if size >= SAMPLE:
                        break
    return b"\n".join(kept)


def _local_encodings(sample: bytes) -> Iterable[str]:
    """Yields encodings that fit the sample, the best first."""
    for codec in JAPANESE:  # its syllables betray it; charset-normalizer takes short Japanese texts for Korean
        text = _decoded(sample, codec)
        high = [letter for letter in text if not letter.isascii()]
        if high and len(_KANA.findall("".join(high))) >= 0.2 * len(high):
            yield codec
    latin = _by_alphabet(sample)
    script = _by_normalizer(sample)
    if latin is not None and (script is None or latin[1] >= 0.95 or script in dict.fromkeys(_latin_codecs())):
        yield latin[0]
    if script is not None:
        yield script
    yield from (codec for codec in ("cp1252", "cp1251") if _decodes(sample, codec))


def _decoded(sample: bytes, codec: str) -> str:
    try:
        return sample.decode(codec)
    except UnicodeDecodeError:
        return ""


def _latin_codecs() -> list[str]:
    return list(dict.fromkeys(codec for _, codecs_of in ALPHABETS for codec in codecs_of))


def _by_alphabet(sample: bytes) -> tuple[str, float] | None:
    """Returns the encoding in which the letters are best explained by one language, and the share explained."""
    order = _latin_codecs()
    best: tuple[float, int, str] | None = None
    for codec in order:
        text = _decoded(sample, codec)
        letters = Counter(letter for letter in text if not letter.isascii())
        if not letters:
            continue
        swapped = sum(len(found) for found in re.findall(r"[a-z][^\W\d_a-z]+(?=[a-z])", text) if found[1:].isupper())
        for alphabet, codecs_of in ALPHABETS:
            if codec in codecs_of:
                known = SIGNS.union(alphabet, alphabet.upper())
                explained = sum(count for letter, count in letters.items() if letter in known) - swapped
                share = explained / letters.total()
                rank = (round(share, 3), -order.index(codec), codec)
                best = rank if best is None or rank > best else best
    return (best[2], best[0]) if best is not None and best[0] >= PLAUSIBLE else None


def _by_normalizer(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes  # 30 ms that UTF-8 files need not pay

    logging.getLogger("charset_normalizer").setLevel(logging.ERROR)
    found = from_bytes(sample, cp_isolation=[*WESTERN, *CENTRAL, "cp1254", "cp1257", *OTHERS, *EAST_ASIAN]).best()
    return None if found is None else found.encoding
