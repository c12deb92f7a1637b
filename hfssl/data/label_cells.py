"""Finds the different values of a label column, in words."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from hfssl.data.formats.base import ABSENT
from hfssl.data.label_names import invisible_stripped
from hfssl.errors import DataError

__all__ = ["LabelValue", "different_values"]


@dataclass
class LabelValue:
    """Is one of the different values of the column.

    Args:
        text (`str`): The value in words, as it is written.
        row (`int`): Number of the first row with it.
        count (`int`): Number of its rows.
        named (`bool`): Whether it is the name that a `ClassLabel` gives; such names are never interpreted.
        number (`bool`): Whether the table holds a number, and not a string.
        name (`str | None`): Its class; `None` if it means "no label".
    """

    text: str
    row: int
    count: int = 0
    named: bool = False
    number: bool = False
    name: str | None = None


def different_values(
    values: Sequence[Any], at: Callable[[int], str], own_names: Sequence[str] | None
) -> tuple[list[int], list[LabelValue]]:
    """Returns for each row the number of its value, -1 for a missing one, and the different values."""
    numbers: dict[Any, int] = {}
    found: dict[tuple[str, bool, bool], int] = {}
    different: list[LabelValue] = []
    codes: list[int] = []
    for row, value in enumerate(values):
        key = value if type(value) is str else (type(value), _hashable(value))  # True == 1 == 1.0
        code = numbers.get(key)
        if code is None:
            named = own_names is not None and type(value) is int and 0 <= value < len(own_names)
            text = own_names[value] if named else _spelled(value, lambda row=row: at(row))  # pyright: ignore[reportOptionalSubscript]
            code = -1
            if text is not None:
                number = type(value) in (int, float)
                code = found.setdefault((text, named, number), len(different))
                if code == len(different):
                    different.append(LabelValue(text, row, named=named, number=number))
            numbers[key] = code
        codes.append(code)
        if code >= 0:
            different[code].count += 1
    return codes, different


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, list | dict | set) else value


def _spelled(value: Any, place: Callable[[], str]) -> str | None:
    """Returns a value in words; `None` if it is missing."""
    if value is None or value is ABSENT or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8") if invisible_stripped(value) else None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, int | float | Decimal | datetime.date | datetime.time | UUID):
        return str(value)
    raise DataError(
        f"expected one label a row, a string or an integer, got a {type(value).__name__} at {place()}: give each row "
        "one label."
    )
