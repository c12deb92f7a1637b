"""`TASKS`: the kinds of prediction by name, imported when they are used."""

from __future__ import annotations

from hfssl.config.methods import resolve
from hfssl.errors import ConfigurationError, near_matches
from hfssl.tasks.base import Task

__all__ = ["DEFAULT_TASK", "TASKS", "get_task"]

DEFAULT_TASK = "sequence_classification"

# Name -> import path of the class. A new kind of prediction is a file in `hfssl/tasks/` and a row here.
TASKS: dict[str, str] = {
    "sequence_classification": "hfssl.tasks.sequence_classification:SequenceClassification",
}


def get_task(name: str = DEFAULT_TASK) -> Task:
    """Returns the task of that name.

    Raises:
        ConfigurationError: no task has that name; names those that exist.

    Example:
        >>> get_task().title
        'one label per text'
    """
    if name not in TASKS:
        raise ConfigurationError(
            f"task: expected one of {', '.join(TASKS)}; got '{name}'.{near_matches(name, list(TASKS))}"
        )
    return resolve(TASKS[name])()
