"""The rows of `STAGES`: what they name exists, and a stage without a row has neutral facts."""

from __future__ import annotations

import pytest

from hfssl.config.methods import METHODS, resolve
from hfssl.config.stages import NEUTRAL_GAIN_PRIOR, STAGES, stage_color, stage_row


@pytest.mark.parametrize("name", STAGES)
def test_every_function_that_a_row_names_exists(name):
    stage = STAGES[name]
    paths = [path for path in (stage.run, stage.planned, stage.cost, stage.train_fold, stage.refit) if path]
    assert len(paths) == len({resolve(path) for path in paths})
    assert all(callable(resolve(path)) for path in paths)
    assert all(earlier in STAGES for earlier in stage.includes)
    assert stage.method is None or stage.method in METHODS


def test_a_stage_that_is_not_listed_has_a_readable_title_a_color_and_a_neutral_prior():
    row = stage_row("my_stage")
    assert (row.title, row.model, row.gain_prior) == ("My stage", "my stage", NEUTRAL_GAIN_PRIOR)
    assert stage_color("my_stage") == stage_color("my_stage") != stage_color("self_training")
