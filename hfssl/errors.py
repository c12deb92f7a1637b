"""Defines the exceptions that a user reads.

Each message is one clear sentence: what was expected, what was found, and how to fix it. The command line prints the
message without a traceback and exits with status 2. In Python the exceptions are `ValueError`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path

__all__ = [
    "ConfigurationError",
    "DamagedFile",
    "DataError",
    "HfsslError",
    "Interrupted",
    "ModelError",
    "TrainingError",
    "near_matches",
]


class HfsslError(ValueError):
    """Is the base of all errors that are caused by the user's input and not by a defect of hfssl."""


class ConfigurationError(HfsslError):
    """Reports unknown keys and bad values. `problems` holds all of them, so that one run shows them all."""

    def __init__(self, problems: str | Sequence[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(HfsslError):
    """Reports a table, a column, a label or a split that cannot be used."""


class ModelError(HfsslError):
    """Reports a backbone or a checkpoint that cannot be used."""


class TrainingError(HfsslError):
    """Reports that training stopped (for example, because a loss is not finite); the last good state remains on
    disk."""


class DamagedFile(HfsslError):
    """Reports a file of hfssl that is not as hfssl wrote it.

    Args:
        path (`str` or `Path`): The file.
        found (`str`): What was found, as a noun phrase.
        remedy (`str`, *optional*): What to do. Default: general advice.
    """

    def __init__(self, path: str | PathLike[str], found: str, remedy: str = ""):
        self.path, self.found = Path(path), found
        remedy = remedy or "restore it from a copy, or make it again"
        super().__init__(f"Expected '{path}' as hfssl wrote it, found {found}: {remedy}.")


def near_matches(name: str, known: Sequence[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the closest known name, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


class Interrupted(KeyboardInterrupt):
    """Reports Ctrl-C after the state was saved; the message names the folder."""
