"""Turns what stands in a label column into class numbers: missing values, variants of one name, numbers.

All decisions are made about the different values, of which there are few; rows are only mapped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hfssl.data.formats.base import counted, listed
from hfssl.data.label_cells import LabelValue, different_values
from hfssl.data.label_column import UNLABELED
from hfssl.data.label_names import DOUBTFUL, MISSING_LABELS, invisible_stripped, name_key, one_edit
from hfssl.errors import DataError, near_matches

__all__ = ["LabelOptions", "decode_labels"]

# pandas writes "1.0" for integers in a column with missing values; "007" is a code, not a number.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.0*)?")
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?(?<=[0-9.])")
_COMMA = re.compile(r"[+-]?(0|[1-9][0-9]*),[0-9]+")
MAX_NUMBERS = 20  # different numbers from which on they may be scores
MIN_DOUBTED = 3  # rows
LARGE_CLASS = 5  # rows of a class of which a one-row class may be a slip
SHOWN = 4  # examples in a notice


@dataclass(frozen=True)
class LabelOptions:
    """Holds what a user says about labels.

    Args:
        missing (`Sequence[str]`, *optional*): Values that mean "no label", in any case. Default: `MISSING_LABELS`.
        keep_variants (`bool`, defaults to `False`): Whether names that differ in case, space, Unicode form or
            invisible characters stay apart.
        decimal (`str`, *optional*): Decimal mark. Default: what all labels that are numbers have.
    """

    missing: Sequence[str] | None = None
    keep_variants: bool = False
    decimal: str | None = None

    @cached_property
    def missing_keys(self) -> frozenset[str]:
        return frozenset(map(name_key, MISSING_LABELS if self.missing is None else self.missing)) - {""}


def decode_labels(
    values: Sequence[Any],
    at: Callable[[int], str],
    source: str,
    *,
    own_names: Sequence[str] | None = None,
    given_names: Sequence[str] | None = None,
    names_file: Sequence[str] | None = None,
    is_dataset: bool = False,
    options: LabelOptions | None = None,
) -> tuple[list[int], list[str], list[str]]:
    """Returns the class number of each row (-1 = unlabeled), the names of the classes, and what was assumed.

    Args:
        values (`Sequence[Any]`): `[N]` labels as they stand in the table.
        at (`Callable[[int], str]`): Function from the number of a row to its place, for messages.
        source (`str`): Name of the table, for messages.
        own_names (`Sequence[str]`, *optional*): Names that the column defines (`ClassLabel`); integers are positions.
        given_names (`Sequence[str]`, *optional*): Names that the user gives, or another table has. They are the
            classes; integers that are not names are positions.
        names_file (`Sequence[str]`, *optional*): Names in `labels.json`, used if all labels are positions or names.
        is_dataset (`bool`, defaults to `False`): Whether the integer -1 means unlabeled, as in a `Dataset`.
        options (`LabelOptions`, *optional*): What the user says.

    Raises:
        DataError: if a label is none, many numbers look like scores, a value may be a class or missing, or a label is
            not one of the given names.
    """
    options = options or LabelOptions()
    codes, found = different_values(values, at, own_names)
    names = list(given_names) if given_names is not None else list(own_names) if own_names is not None else None
    if names is not None and len(set(names)) != len(names):
        raise DataError(f"expected each label name once for '{source}', got {listed(names)}: remove the repetition.")
    decoder = _Decoder(found, at, source, options, is_dataset or own_names is not None)
    classes = decoder.classes(names, names_file)
    index = {name: number for number, name in enumerate(classes)}
    number_of = [UNLABELED if value.name is None else index[value.name] for value in found]
    return [UNLABELED if code < 0 else number_of[code] for code in codes], classes, decoder.notices


class _Decoder:
    """Decides about the different values of a column, and collects what it assumes."""

    def __init__(
        self,
        values: list[LabelValue],
        at: Callable[[int], str],
        source: str,
        options: LabelOptions,
        minus_one_is_missing: bool,
    ):
        self.values, self.at, self.source, self.options = values, at, source, options
        self.minus_one_is_missing = minus_one_is_missing
        self.notices: list[str] = []
        for value in values:
            value.name = value.text if value.named else invisible_stripped(value.text)

    def classes(self, names: list[str] | None, names_file: Sequence[str] | None) -> list[str]:
        """Sets the class of each value and returns the names of all classes."""
        self._take_minus_one(names, names_file)
        doubtful = self._take_missing([*(names or []), *(names_file or [])], fixed=names is not None)
        if names is None and names_file is not None and self._fits(names_file):
            names = list(names_file)
        if names is not None:
            self._match(names)
            return names
        self._refuse_scores()
        if not self._take_numbers() and not self.options.keep_variants:
            self._join_variants()
        counts = self._counts()
        self._ask_about(doubtful, counts)
        self._warn(counts)
        return sorted(counts, key=_numeric_order if all(map(_NUMBER.fullmatch, counts)) else None)

    def _left(self) -> list[LabelValue]:
        return [value for value in self.values if value.name is not None]

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for value in self._left():
            counts[value.name] = counts.get(value.name, 0) + value.count  # pyright: ignore[reportArgumentType]
        return counts

    def _take_minus_one(self, names: list[str] | None, names_file: Sequence[str] | None) -> None:
        """Decides about -1: unlabeled in a `Dataset` or where the classes are named, a class in other tables."""
        here = [
            v for v in self._left() if not v.named and _INTEGER.fullmatch(v.name or "") and _whole(v.name or "") == -1
        ]
        by_convention = self.minus_one_is_missing and all(value.number for value in here)
        if not here or ("-1" in (names or []) and not by_convention):
            return
        rows = counted(sum(value.count for value in here), "row")
        listed_missing = self.options.missing is not None and "-1" in self.options.missing_keys
        positions = names is not None or (names_file is not None and self._fits(names_file))
        if by_convention or positions or listed_missing:
            for value in here:
                value.name = None
            self.notices.append(f"the label -1 means unlabeled in {rows} of '{self.source}'.")
        else:
            self.notices.append(
                f"the label -1 is a class in {rows} of '{self.source}'; if it means unlabeled, say "
                "--missing-labels=-1 (missing_labels=)."
            )

    def _take_missing(self, protected: Sequence[str], fixed: bool) -> list[LabelValue]:
        """Makes values that mean "none" unlabeled; returns those that may be a class."""
        keys = self.options.missing_keys - set(map(name_key, protected)) - {"-1"}
        gone = [v for v in self._left() if not v.named and name_key(v.name or "") in keys]
        if gone:
            rows = counted(sum(value.count for value in gone), "row")
            named = ", ".join(f"'{v.name}' ({v.count:,})" for v in sorted(gone, key=lambda v: -v.count)[:SHOWN])
            more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
            self.notices.append(
                f"in {rows} of '{self.source}' the label means unlabeled: {named}{more}; --missing-labels "
                "(missing_labels=) sets the list of such values."
            )
        for value in gone:
            value.name = None
        doubtful = set(map(name_key, DOUBTFUL))
        return [] if fixed or self.options.missing is not None else [v for v in gone if name_key(v.text) in doubtful]

    def _ask_about(self, doubtful: list[LabelValue], counts: dict[str, int]) -> None:
        by_key: dict[str, list[LabelValue]] = {}
        for value in doubtful:
            by_key.setdefault(name_key(value.text), []).append(value)
        for same in by_key.values():
            rows, name = sum(value.count for value in same), invisible_stripped(same[0].text)
            if counts and rows >= max(MIN_DOUBTED, min(counts.values())):
                everything = ",".join([*sorted(counts), name])
                raise DataError(
                    f"expected to know whether '{name}' is a class or means unlabeled, because {rows:,} rows of "
                    f"'{self.source}' have it, as many as a class: if it means unlabeled, say --missing-labels={name} "
                    f'(missing_labels=), if it is a class, --class-names="{everything}" (class_names=).'
                )

    def _fits(self, names: Sequence[str]) -> bool:
        """Returns whether every label is a position in that list, or one of its names."""
        labels = [value.name or "" for value in self._left()]
        if all(label in names for label in labels):
            return True
        numbers = [_whole(label) for label in labels if _INTEGER.fullmatch(label)]
        return len(numbers) == len(labels) and all(-1 <= number < len(names) for number in numbers)

    def _match(self, names: list[str]) -> None:
        """Finds the class of each value among the given names."""
        left = self._left()
        keys: dict[str, list[str]] = {}
        for name in names:
            keys.setdefault(name_key(name), []).append(name)
        numbers: dict[float, list[str]] = {}
        for name in names:
            if _NUMBER.fullmatch(name):
                numbers.setdefault(float(name), []).append(name)
        joined, unknown, known = [], [], set(names)
        for value in left:
            label = value.name or ""
            same = [] if self.options.keep_variants else keys.get(name_key(label), [])
            equal = numbers.get(float(label), []) if _NUMBER.fullmatch(label) and not value.named else []
            if label in known:
                continue
            if len(same) == 1:
                value.name = same[0]
                joined.append(value)
            elif len(equal) == 1:
                value.name = equal[0]
            else:
                unknown.append(value)
        if unknown and not numbers and all(_INTEGER.fullmatch(v.name or "") and not v.named for v in left):
            for value in left:
                value.name = names[self._position(value, names)]
        elif unknown:
            raise self._unknown(unknown[0], names)
        self._tell_joined(joined)

    def _position(self, value: LabelValue, names: list[str]) -> int:
        number = _whole(value.name or "")
        if not 0 <= number < len(names):
            raise DataError(
                f"expected integer labels from 0 to {len(names) - 1} (positions in {listed(names)}) or -1 for "
                f"unlabeled, got {number} at {self.at(value.row)}: correct or remove the row."
            )
        return number

    def _unknown(self, value: LabelValue, names: list[str]) -> DataError:
        return DataError(
            f"expected one of the labels {listed(names)}, got '{value.name}' at {self.at(value.row)}."
            f"{near_matches(value.name or '', names)} Correct or remove the row, or add training rows with that label."
        )

    def _take_numbers(self) -> bool:
        """Gives numbers one spelling each; returns whether all labels are numbers."""
        left = self._left()
        comma = self._decimal_comma(left)
        spelled = [(value.name or "").replace(",", ".") if comma else value.name or "" for value in left]
        if not left or not all(_NUMBER.fullmatch(text) for text in spelled):
            return False
        changed = []
        for value, text in zip(left, spelled, strict=True):
            name = str(_whole(text)) if _INTEGER.fullmatch(text) else _short(text)
            if name != value.name:
                changed.append(replace(value))
            value.name = name
        if changed:
            shown = ", ".join(f"'{v.name}'" for v in changed[:SHOWN])
            mark = " with a decimal comma (--decimal sets the mark)" if comma else ""
            self.notices.append(f"labels of '{self.source}' are read as numbers{mark}, for example {shown}.")
        return True

    def _decimal_comma(self, left: list[LabelValue]) -> bool:
        if self.options.decimal is not None:
            return self.options.decimal == ","
        numbers = [value.name or "" for value in left]
        commas = [bool(_COMMA.fullmatch(text)) for text in numbers]
        return any(commas) and all(
            c or _INTEGER.fullmatch(t) and "." not in t for c, t in zip(commas, numbers, strict=True)
        )

    def _refuse_scores(self) -> None:
        left = [value for value in self._left() if not value.named]
        comma = self._decimal_comma(left)
        spelled = [(value.name or "").replace(",", ".") if comma else value.name or "" for value in left]
        if len(left) <= MAX_NUMBERS or not all(_NUMBER.fullmatch(text) for text in spelled):
            return
        numbers = {float(text) for text in spelled}
        whole = all(number.is_integer() for number in numbers)
        # Numbers of classes start at 0 or 1 and leave few gaps.
        if len(numbers) <= MAX_NUMBERS or (
            whole and min(numbers) in (0, 1) and len(numbers) >= 0.9 * (max(numbers) - min(numbers) + 1)
        ):
            return
        raise DataError(
            f"expected classes as labels of '{self.source}', got {len(numbers):,} different numbers from "
            f"{_short(str(min(numbers)))} to {_short(str(max(numbers)))}, which look like scores: cut them into a few "
            "ranges and give each a name (pandas.cut), or, if they are classes, list them with --class-names "
            "(class_names=)."
        )

    def _join_variants(self) -> None:
        groups: dict[str, list[LabelValue]] = {}
        for value in self._left():
            name = value.name or ""
            # "1.0" beside "1" and a code such as "01", which makes names of all of them
            key = str(_whole(name)) if _INTEGER.fullmatch(name) else name_key(name)
            groups.setdefault(f"\0{name}" if value.named else key, []).append(value)
        joined = []
        for same in groups.values():
            counts: dict[str, int] = {}
            for value in same:
                counts[value.name or ""] = counts.get(value.name or "", 0) + value.count
            # The most frequent one; of equals a plain form ("1", not a wide one), then the first.
            name = max(counts, key=lambda n: (counts[n], unicodedata.is_normalized("NFKC", n)))
            for value in same:
                value.name = name
            if len({value.text for value in same}) > 1:
                joined += [value for value in same if value.text != name]
        self._tell_joined(joined)

    def _tell_joined(self, joined: list[LabelValue]) -> None:
        if not joined:
            return
        rows = counted(sum(value.count for value in joined), "row")
        shown = ", ".join(f"{value.text!r} with {value.name!r}" for value in joined[:SHOWN])
        more = f" and {len(joined) - SHOWN} more" if len(joined) > SHOWN else ""
        self.notices.append(
            f"variants of label names are joined in {rows} of '{self.source}' ({shown}{more}); --keep-label-variants "
            "(keep_label_variants=) keeps them apart."
        )

    def _warn(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            large = [other for other, rows in counts.items() if rows >= LARGE_CLASS and one_edit(name, other)]
            if count == 1 and large:
                self.notices.append(
                    f"the class '{name}' has one row and is one letter away from '{large[0]}' "
                    f"({counts[large[0]]:,} rows); correct it if it is a slip."
                )
        digits = [name for name in counts if any(unicodedata.decimal(c, None) is not None for c in name if c > "9")]
        if digits:
            self.notices.append(
                f"labels of '{self.source}' have digits that are not 0 to 9 ({listed(digits, SHOWN)}); they are kept "
                "as names."
            )
        padded = [n for n in counts if re.fullmatch(r"0+[0-9]+", n) and (n.lstrip("0") or "0") in counts]
        if padded:
            bare = padded[0].lstrip("0") or "0"
            self.notices.append(
                f"the labels '{padded[0]}' and '{bare}' are two classes; correct them if they are one."
            )
        rows = sum(counts.values())
        if len(counts) > 50 and len(counts) > 0.5 * rows:
            self.notices.append(
                f"the label column of '{self.source}' has {len(counts):,} different values in {rows:,} labeled rows; "
                "check that it is the right one."
            )


def _whole(text: str) -> int:
    return int(text.split(".")[0])


def _short(number: str) -> str:
    return repr(float(number)).removesuffix(".0")


def _numeric_order(name: str) -> float:
    return float(name)
