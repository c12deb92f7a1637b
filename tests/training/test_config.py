"""Settings of a trainer."""

from __future__ import annotations

import pytest

from hfssl.config.arguments import FitArguments
from hfssl.errors import ConfigurationError
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.training.config import SSLConfig, changed_settings


def test_a_tracker_that_is_not_installed_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("hfssl.config.arguments.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"wandb, which is not installed; run pip install 'hfssl\[wandb\]'"):
        SSLConfig(output_dir=str(tmp_path), use_cpu=True, report_to="wandb")
    with pytest.raises(ConfigurationError, match="trackio, which is not installed"):
        FitArguments(train="x.csv", output_dir=str(tmp_path), report_to="trackio")


def test_settings_that_shape_a_model_and_differ_from_the_defaults(tmp_path):
    config = SelfTrainingConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        lambda_u=1.0,
        selection_strategy="all",
        learning_rate=3e-5,
        logging_steps=7,
        seed=3,
    )
    assert changed_settings(config) == {"learning_rate": 3e-5, "selection_strategy": "all"}
