"""Defines `TASKS`, the only list of kinds of prediction, as plain data; classes are imported on use.

A new kind of prediction is a file in `hfssl/tasks/` and a row here.
"""

from __future__ import annotations

from hfssl.errors import near_matches

__all__ = ["DEFAULT_TASK", "TASKS", "TASK_KEY", "unknown_task"]

DEFAULT_TASK = "sequence_classification"

TASK_KEY = "hfssl_task"
"""Entry of a model's `config.json` that names its task; models of the default task do not have it."""

# Name -> import path of the class.
TASKS: dict[str, str] = {
    DEFAULT_TASK: "hfssl.tasks.sequence_classification:SequenceClassification",
}


def unknown_task(name: str) -> str:
    """Returns the error message for an unknown name of a task.

    Example:
        >>> unknown_task("tagging").startswith("task: expected one of sequence_classification")
        True
    """
    return f"task: expected one of {', '.join(TASKS)}; got '{name}'.{near_matches(name, list(TASKS))}"
