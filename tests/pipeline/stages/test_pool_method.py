"""A method becomes a pool stage by a row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hfssl.config.methods import METHODS
from hfssl.config.stages import STAGES, method_stage
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.stage_record import StageRecord
from hfssl.runtime.files import PLACE, read_checked_json
from tests.helpers import toy_method
from tests.helpers.fit_tiny import TINY, select


def test_a_method_becomes_a_pool_stage_by_a_row(labels_only_options, monkeypatch):
    monkeypatch.setitem(METHODS, "entropy", toy_method.ROW)
    monkeypatch.setitem(STAGES, "entropy", method_stage("entropy", "Entropy"))
    settings = {"max_steps": 6, "save_steps": 3, "logging_steps": 2, "per_device_train_batch_size": 6, "lambda_u": 0.5}
    monkeypatch.setitem(PRESETS, "quick", replace(TINY, methods={"entropy": settings}))
    select(monkeypatch, "entropy")
    options = labels_only_options | {"validation_fraction": 0.2, "refit": True, "cross_fit": 2}
    results = fit(**options).results
    folder = Path(labels_only_options["output_dir"])
    assert [stage["name"] for stage in results["stages"]] == ["labels_only", "entropy", "refit"]
    for stage in results["stages"][1:]:
        assert stage["config"]["entropy"]["method"] == "EntropyObjective"
        assert stage["config"]["entropy"]["max_steps"] == 6
        assert stage["metrics"]["test"]["accuracy"] > 0
    found = read_checked_json(folder / "stages/entropy/done.json")
    record = StageRecord.from_dict({name: value for name, value in found.items() if name != "files"})
    assert [manifest["role"] for manifest in record.manifests] == ["labeled", "unlabeled"]
    assert len(record.manifests[1]["fingerprints"]) == TINY.max_pool_rows
    assert {entry["step"] for entry in record.curves} >= {2, 4, 6}
    with np.load(folder / "stages/cross_fitting/cross_fit.npz") as saved:
        assert set(saved) - {PLACE} == {"labeled/entropy", "proxy/entropy"}
    with np.load(folder / "stages/folds/cross_fit.npz") as saved:
        assert set(saved) - {PLACE} == {"labeled/labels_only", "proxy/labels_only"}
    assert any("entropy" in reason for reason in results["verdict"]["reasons"])  # how often the folds' models agree
