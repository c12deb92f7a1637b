"""What preparing a model for devices added is taken off again."""

from __future__ import annotations

import torch

from hfssl.training.prepared_model import PreparedModel


def test_what_preparing_a_model_added_is_taken_off_and_nothing_else():
    model = torch.nn.Linear(2, 2)
    model.mine = 1
    prepared = PreparedModel(model)
    prepared.note_before()
    model.forward, model.mark = (lambda rows: rows), True
    prepared.note_before()  # a second preparation is no new start
    prepared.note_after()
    model.later = 2
    prepared.restore()
    assert (model.mine, model.later) == (1, 2)
    assert model.forward.__func__ is torch.nn.Linear.forward
    assert not hasattr(model, "mark")
