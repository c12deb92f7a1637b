"""`TASKS`: the kinds of prediction by name, imported when they are used."""

from __future__ import annotations

from transformers import PreTrainedConfig

from hfssl.config.methods import resolve
from hfssl.errors import ConfigurationError, near_matches
from hfssl.tasks.base import Task

__all__ = ["DEFAULT_TASK", "TASKS", "TASK_KEY", "get_task", "task_of", "unknown_task"]

DEFAULT_TASK = "sequence_classification"
TASK_KEY = "hfssl_task"  # in `config.json` of a model; models of the default task go without

# Name -> import path of the class. A new kind of prediction is a file in `hfssl/tasks/` and a row here.
TASKS: dict[str, str] = {
    "sequence_classification": "hfssl.tasks.sequence_classification:SequenceClassification",
}


def task_of(config: PreTrainedConfig) -> Task:
    """The task that a saved model was trained for, by the mark `TASK_KEY` in its configuration, or the default one."""
    return get_task(config.to_dict().get(TASK_KEY) or DEFAULT_TASK)


def get_task(name: str = DEFAULT_TASK) -> Task:
    """Returns the task of that name.

    Raises:
        ConfigurationError: no task has that name; names those that exist.

    Example:
        >>> get_task().title
        'one label per text'
    """
    if name not in TASKS:
        raise ConfigurationError(unknown_task(name))
    return resolve(TASKS[name])()


def unknown_task(name: str) -> str:
    """The sentence on a name that no task has."""
    return f"task: expected one of {', '.join(TASKS)}; got '{name}'.{near_matches(name, list(TASKS))}"
