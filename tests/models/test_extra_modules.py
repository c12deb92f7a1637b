"""Extra modules: attached to a model and taken off again."""

from __future__ import annotations

import pytest
import torch

from hfssl.errors import TrainingError
from hfssl.models.extra_modules import ExtraModules


def test_attaching_within_a_block_leaves_things_as_they_were():
    model, extra = torch.nn.Linear(2, 2), ExtraModules({"head": torch.nn.Linear(2, 1)})
    extra.attach(model)
    with extra.attached_to(model, attached=False):
        assert len(list(model.parameters())) == 2
    assert len(list(model.parameters())) == 4
    extra.detach(model)
    extra.detach(model)
    assert len(list(model.parameters())) == 2


def test_the_model_itself_is_no_extra_module():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(TrainingError, match="found the model itself among them: leave it out"):
        ExtraModules({"own": torch.nn.Sequential(model)}).attach(model)
