"""What a task can do, and what it rejects in one sentence."""

from __future__ import annotations

import pytest

from hfssl.config.methods import METHODS
from hfssl.errors import ConfigurationError
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task


class PerToken(Task):
    name, title, row_vectors = "per_token", "one label per token", False


def test_what_a_task_cannot_do_is_said():
    with pytest.raises(ConfigurationError, match="label_spreading needs one embedding per row"):
        PerToken().require_row_vectors("label_spreading")
    get_task().require_row_vectors("label_spreading")


def test_a_method_that_is_not_defined_names_those_that_are():
    supported = {name: method.tasks for name, method in METHODS.items()} | {"tagger": ("per_token",)}
    with pytest.raises(ConfigurationError, match="not defined for the task 'per_token'.*one of tagger"):
        PerToken().require_method("self_training", supported)
    get_task().require_method("self_training", supported)
