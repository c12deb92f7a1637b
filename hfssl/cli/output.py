"""`--json` and `--log-level`, which every command has: one JSON object on stdout, and how much is told on stderr."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from hfssl.errors import ConfigurationError, near_matches

__all__ = ["HELP", "LEVELS", "Output", "common_options"]

LEVELS = ("debug", "info", "warning", "error")

HELP = """\
options of every command:
  --json              print one JSON object on stdout, and everything else on stderr
  --log-level LEVEL   how much hfssl tells on stderr: debug, info, warning (default) or error"""


class Output:
    """Collects what a command has to say to a program.

    Args:
        json (`bool`, defaults to `False`): Whether to print it, as one JSON object.

    Attributes:
        value (`Any`): The object; commands set it in any case.
    """

    def __init__(self, json: bool = False):
        self.json, self.value = json, None

    def set(self, value: Any) -> None:
        """Takes the object: a dataclass or a mapping."""
        self.value = value

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Prints the object on stdout when the block has ended, whose own lines go to stderr; with `json` only."""
        if not self.json:
            yield
            return
        stdout = sys.stdout
        with redirect_stdout(sys.stderr):
            try:
                yield
            finally:
                _write(self.value, stdout)


def _write(value: Any, file: TextIO) -> None:
    file.write(json.dumps(_plain({} if value is None else value), ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


def _plain(value: Any) -> Any:
    """Returns JSON values: a number that is not finite becomes null, as JSON has none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def common_options(argv: Sequence[str], *, levels: bool = True) -> tuple[list[str], bool, int | None]:
    """Returns the words without `--json` and `--log-level`, whether `--json` is given, and the level of `logging`.

    Args:
        argv (`Sequence[str]`): Words after the command's name.
        levels (`bool`, defaults to `True`): Whether `--log-level` is looked for; recipes have transformers' own.

    Raises:
        ConfigurationError: There is no such level, or none is given.

    Example:
        >>> common_options(["--json", "runs/a", "--log-level", "info"])
        (['runs/a'], True, 20)
    """
    rest, wanted, level = [], False, None
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--json":
            wanted = True
        elif levels and name in ("--log-level", "--log_level"):
            given = value if equals else next(words, "")
            if given not in LEVELS:
                raise ConfigurationError(
                    f"--log-level: expected one of {', '.join(LEVELS)}; got '{given}'.{near_matches(given, LEVELS)}"
                )
            level = getattr(logging, given.upper())
        else:
            rest.append(word)
    return rest, wanted, level
