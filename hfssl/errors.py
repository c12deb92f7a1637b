"""Exceptions that a user is meant to read.

Each message is one clear sentence: what was expected, what came, and what to do. The command line prints the message
without a traceback and exits with status 2; from Python the exceptions are ordinary `ValueError`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

__all__ = [
    "ConfigurationError",
    "DataError",
    "HfsslError",
    "Interrupted",
    "ModelError",
    "TrainingError",
    "near_matches",
]


class HfsslError(ValueError):
    """Base of all errors that come from what the user gave us rather than from a defect of ours."""


class ConfigurationError(HfsslError):
    """Unknown keys or bad values. `problems` holds every one of them, so that one run shows all."""

    def __init__(self, problems: str | Sequence[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(HfsslError):
    """A table, a column, a label or a split that cannot be used as given."""


class ModelError(HfsslError):
    """A backbone or checkpoint that cannot be used as given."""


class TrainingError(HfsslError):
    """Training had to stop (a loss that is not finite, for example); the last good state is kept on disk."""


def near_matches(name: str, known: Sequence[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the closest known name, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the state was saved; the message says where."""
