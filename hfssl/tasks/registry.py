"""Tasks by name, or by a saved model's configuration; the list itself is `hfssl.config.tasks.TASKS`."""

from __future__ import annotations

from transformers import PreTrainedConfig

from hfssl.config.methods import resolve
from hfssl.config.tasks import DEFAULT_TASK, TASK_KEY, TASKS, unknown_task
from hfssl.errors import ConfigurationError
from hfssl.tasks.base import Task

__all__ = ["get_task", "task_of"]


def task_of(config: PreTrainedConfig) -> Task:
    """Returns the task of a saved model, by the entry `TASK_KEY` of its configuration, or the default one."""
    return get_task(config.to_dict().get(TASK_KEY) or DEFAULT_TASK)


def get_task(name: str = DEFAULT_TASK) -> Task:
    """Returns the task of that name.

    Args:
        name (`str`, defaults to `"sequence_classification"`): Key in `hfssl.config.tasks.TASKS`.

    Raises:
        ConfigurationError: No task has that name; the message names those that exist.

    Example:
        >>> get_task().title
        'one label per text'
    """
    if name not in TASKS:
        raise ConfigurationError(unknown_task(name))
    return resolve(TASKS[name])()
