"""From a name, or a saved model's configuration, to the task; the list itself is `hfssl.config.tasks.TASKS`."""

from __future__ import annotations

from transformers import PreTrainedConfig

from hfssl.config.methods import resolve
from hfssl.config.tasks import DEFAULT_TASK, TASK_KEY, TASKS, unknown_task
from hfssl.errors import ConfigurationError
from hfssl.tasks.base import Task

__all__ = ["get_task", "task_of"]


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
