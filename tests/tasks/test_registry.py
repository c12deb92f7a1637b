"""Tasks by their names."""

from __future__ import annotations

import pytest

from hfssl.config.methods import resolve
from hfssl.config.tasks import TASKS
from hfssl.errors import ConfigurationError
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task


def test_every_task_is_there():
    for name, path in TASKS.items():
        assert issubclass(resolve(path), Task)
        assert get_task(name).name == name


def test_an_unknown_task_is_one_sentence():
    with pytest.raises(ConfigurationError, match="expected one of sequence_classification.*Did you mean"):
        get_task("sequence_clasification")
