"""`benchmarks/ablation.py`: every variant runs, and changes a setting that has an effect."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

import hfssl.pipeline.model_factory
from hfssl.methods.contrastive import ContrastiveConfig
from hfssl.methods.pretext.masked_span import MaskedSpanConfig
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.supervised import SupervisedConfig
from tests.helpers import ROOT
from tests.helpers.fit_tiny import TINY
from tests.helpers.texts import write_two_classes

sys.path.insert(0, str(ROOT / "benchmarks"))

import ablation
from ablation import FAMILIES, STANDARD, VARIANTS, reference

KINDS = {"contrastive": ContrastiveConfig, "pretext": MaskedSpanConfig, "supervised": SupervisedConfig}


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


@pytest.mark.slow
def test_variants_share_what_learns_from_labels_alone_and_nothing_else(tmp_path, tiny_backbone, monkeypatch):
    write_two_classes(tmp_path / "data" / "train.parquet", 120, seed=1)
    write_two_classes(tmp_path / "data" / "test.parquet", 40, seed=2)
    trained = []
    labels_only = hfssl.pipeline.model_factory.ModelFactory.labels_only

    def counted(self, folder, *args, **kwargs):
        trained.append(folder.name)
        return labels_only(self, folder, *args, **kwargs)

    monkeypatch.setattr(hfssl.pipeline.model_factory.ModelFactory, "labels_only", counted)
    preset = replace(TINY, pretext=None, cross_fit=0)
    variant = replace(preset, self_training=preset.self_training | {"weighting": "uniform", "lambda_u": 4.0})
    other = replace(preset, supervised=preset.supervised | {"max_steps": 6})
    options = {"max_unlabeled": 60, "backbone": str(tiny_backbone), "quiet": True, "refit": False, "max_length": 32}

    def run(preset, shared):
        trained.clear()
        return ablation.run_variant(preset, tmp_path / shared, tmp_path / "data", 8, 0, **options), list(trained)

    alone, models = run(variant, "alone")
    assert models == ["labels_only", "teacher-1"]
    first, models = run(preset, "shared")
    assert models == ["labels_only", "teacher-1"]
    after, models = run(variant, "shared")
    assert models == []
    assert after["stages"] == alone["stages"]
    assert after["stages"]["self_training"] != first["stages"]["self_training"]
    assert run(other, "shared")[1] == ["labels_only", "teacher-1"]
