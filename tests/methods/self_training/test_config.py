"""Settings of self-training that do not fit, all named at once."""

from __future__ import annotations

import pytest

from hfssl.errors import ConfigurationError
from hfssl.methods.self_training.config import SelfTrainingConfig


@pytest.fixture
def settings(tmp_path):
    common = {"selection_strategy": "all", "selection_fraction": 1.0, "soft_targets": True, "weighting": "uniform"}
    return lambda **given: SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, **(common | given))


def test_settings_that_are_not_known_are_all_named_at_once(settings):
    with pytest.raises(ConfigurationError) as error:
        settings(distribution_alignment="estimate", stop_agreement=2, model_soup=True)
    assert "alignment must be one of none, predicted, estimated, labeled, got 'estimate'" in str(error.value)
    assert "stop_agreement" in str(error.value)
    assert "model_soup is the mean of several teachers: set num_teachers to 2 or more" in str(error.value)
