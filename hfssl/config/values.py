"""Values that Python code passes: numpy scalars and paths made plain, types checked as those of the command line."""

from __future__ import annotations

import os
import types
from typing import Any, Literal, Union, get_args, get_origin

from hfssl.errors import near_matches

__all__ = ["alternatives", "plain_value", "type_problem"]


def alternatives(hint: Any) -> set[Any]:
    """Returns the alternatives of a type hint: `int | None` -> `{int, NoneType}`, `int` -> `{int}`.

    Args:
        hint (`Any`): Type hint of a field.
    """
    return set(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else {hint}


def plain_value(value: Any) -> Any:
    """Returns a path as `str`, a numpy or pandas scalar as Python's own, and any other value unchanged.

    Args:
        value (`Any`): Value of an option.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> plain_value(np.int64(3)), plain_value(Path("a.csv"))
        (3, 'a.csv')
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return None if type(value).__name__ in ("NAType", "NaTType") else value  # pandas' missing values


def type_problem(name: str, value: Any, hint: Any) -> str | None:
    """Returns a sentence if a value is not of the type of its option, in the words of the command line.

    Args:
        name (`str`): Name of the option.
        value (`Any`): Its value, after `plain_value`.
        hint (`Any`): Its type hint: `str`, `int`, `float`, `bool`, `Literal`, or one of them `| None`.

    Example:
        >>> type_problem("rounds", "many", int)
        "rounds: expected a whole number, got 'many'."
    """
    kinds = alternatives(hint)
    if value is None:
        return None if type(None) in kinds else f"{name}: expected a value, got nothing."
    kinds = kinds - {type(None)}
    if len(kinds) != 1:
        return None  # transformers' own options
    kind = next(iter(kinds))
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value in choices and type(value) is type(choices[0]):
            return None
        words = [str(choice) for choice in choices]
        hint_text = near_matches(str(value), words)
        return f"{name}: expected one of {', '.join(words)}; got {_shown(value)}.{hint_text}"
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind)
    if expected is None:
        return None
    number = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        int: number,
        float: number or isinstance(value, float),
        bool: isinstance(value, bool),
        str: isinstance(value, str),
    }[kind]
    return None if fits else f"{name}: expected {expected}, got {_shown(value)}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
