"""`benchmarks/ablation.py`: every variant can be run, and changes something that counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hfssl.configs import ContrastiveConfig, MaskedSpanConfig, SelfTrainingConfig, SupervisedConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from ablation import FAMILIES, STANDARD, VARIANTS, reference

KINDS = {"warm_start": ContrastiveConfig, "pretext": MaskedSpanConfig, "supervised": SupervisedConfig}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_settings_of_a_variant_fit_together(name, tmp_path):
    preset = VARIANTS[name]
    common = {"output_dir": str(tmp_path), "use_cpu": True}
    for stage, kind in KINDS.items():
        if (settings := getattr(preset, stage)) is not None:
            kind(**settings, **common)
    SelfTrainingConfig(**preset.supervised | preset.self_training, **common)
    assert name == "standard" or preset != STANDARD


@pytest.mark.parametrize("name", [name for name in FAMILIES["regularizers"] if name != "fine_tuned"])
def test_a_regulariser_is_tried_where_there_are_steps_to_regularise(name):
    fine_tuned, variant = VARIANTS[reference(name)], VARIANTS[name]
    assert variant.supervised["max_steps"] == fine_tuned.supervised["max_steps"] > 0
    assert len(variant.supervised.items() - fine_tuned.supervised.items()) == 1
    assert reference("fine_tuned") == reference("one_teacher") == "standard"
