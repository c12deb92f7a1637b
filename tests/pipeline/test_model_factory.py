"""The settings that the stages of `fit` train with."""

from __future__ import annotations

import pytest

from hfssl.config.arguments import FitArguments
from hfssl.methods.contrastive import ContrastiveConfig
from hfssl.methods.pretext.masked_span import MaskedSpanConfig
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.supervised import SupervisedConfig
from hfssl.pipeline.model_factory import LORA_RATE, LORA_STUDENT_RATE, ModelFactory
from hfssl.pipeline.presets import CONTRASTIVE, PRESETS, SELF_TRAINING, SUPERVISED


@pytest.fixture
def rates(tmp_path):
    """Learning rates of contrastive stage, labels only, student and pretext for arguments of `fit`."""

    def found(**options) -> list[float]:
        arguments = FitArguments(
            train="train.csv", backbone="backbone", output_dir=str(tmp_path), precision="fp32", **options
        )
        make = ModelFactory(arguments, PRESETS["quick"], None, ["a", "b"], tmp_path)
        kinds = [
            (ContrastiveConfig, CONTRASTIVE),
            (SupervisedConfig, SUPERVISED),
            (SelfTrainingConfig, SUPERVISED | SELF_TRAINING),
            (MaskedSpanConfig, {}),
        ]
        return [make.config(kind, tmp_path, settings, seed=0).learning_rate for kind, settings in kinds]

    return found


def test_an_adapter_learns_at_ten_times_the_rate_and_a_student_at_five(rates):
    full = rates()
    assert full == [3e-4, 1e-4, 3e-4, 1e-4]
    assert (LORA_RATE, LORA_STUDENT_RATE) == (10, 5)
    assert rates(adapter="lora") == pytest.approx([3e-3, 1e-3, 1.5e-3, 1e-3])


def test_a_rate_that_the_user_gives_is_taken_as_it_is(rates):
    given = rates(adapter="lora", learning_rate=5e-4)
    assert given == pytest.approx([3e-3, 5e-4, 5e-4, 1e-3])  # it is that of labels only and of the students
