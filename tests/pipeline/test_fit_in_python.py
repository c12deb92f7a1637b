"""`hfssl.fit` called from Python: typed arguments, data in memory, objects of the user's, predictions."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from transformers import TrainerCallback

from hfssl.config.arguments import FitArguments
from hfssl.errors import ConfigurationError, DataError
from hfssl.pipeline.fit import fit
from tests.helpers.fit_tiny import PROBE_ONLY
from tests.helpers.texts import CUES, make_text

ROWS = [(make_text(i, name), name if i < 24 else None) for i, name in enumerate(list(CUES) * 12)]
TABLE = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}


@pytest.fixture
def options(tiny_backbone, tmp_path, monkeypatch):
    import hfssl.pipeline.presets

    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", PROBE_ONLY)
    return {
        "backbone": Path(tiny_backbone),
        "output_dir": tmp_path / "run",
        "preset": "quick",
        "rounds": 0,
        "max_length": np.int64(32),
        "quiet": np.bool_(True),
    }


def test_every_flag_is_an_argument_with_the_same_default():
    parameters = inspect.signature(fit).parameters
    extras = {"callbacks", "compute_metrics", "peft_config"}
    fields = {field.name: field.default for field in dataclasses.fields(FitArguments)}
    assert set(parameters) - extras == set(fields)
    for name, default in fields.items():
        given = inspect.Parameter.empty if default is dataclasses.MISSING else default
        assert parameters[name].default == given, name
        assert f"        {name} (`" in inspect.getdoc(fit).replace("\n    ", "\n        "), name


def test_data_in_memory_is_a_run_like_any_other(options):
    frame = pd.DataFrame(TABLE)
    test = DatasetDict({"test": Dataset.from_dict({name: cells[:12] for name, cells in TABLE.items()})})
    seen = []

    def count(prediction):
        seen.append(prediction.predictions.shape)
        return {"rows": len(prediction.label_ids), "accuracy": -1}

    result = fit(frame, test=test, class_names=list(CUES), compute_metrics=count, **options)
    folder = result.output_dir
    assert folder == options["output_dir"]
    metrics = result.results["stages"][0]["metrics"]["test"]
    assert seen[0] == (metrics["rows"], 3)
    assert metrics["accuracy"] >= 0  # the task's own metrics are not replaced
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["train"].startswith("DataFrame of 36 rows, ")
    assert settings["test"].startswith("DatasetDict of 12 rows, ")

    proba = result.predict_proba([TABLE["text"][0], "", TABLE["text"][1]])
    assert np.isnan(proba[1]).all()
    labels = result.predict([TABLE["text"][0], None, TABLE["text"][1]])
    names = result.classifier().label_names
    assert labels == [names[proba[0].argmax()], None, names[proba[2].argmax()]]

    same = fit(frame.copy(), test=test, class_names=list(CUES), resume=True, **options)
    assert same.results["final_metrics"] == result.results["final_metrics"]
    frame.loc[0, "label"] = list(CUES)[1]
    with pytest.raises(ConfigurationError, match=r"had train='DataFrame of 36 rows, .* got 'DataFrame of 36 rows, "):
        fit(frame, test=test, class_names=list(CUES), resume=True, **options)


def test_callbacks_and_adapters_of_the_user_reach_the_trainers(options):
    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            Count.steps += 1

    adapter = LoraConfig(r=3, target_modules=["query"], task_type="SEQ_CLS")
    result = fit(TABLE, callbacks=[Count()], peft_config=adapter, max_steps=2, batch_size=5, **options)
    assert Count.steps == 2
    assert json.loads((result.output_dir / "adapter" / "adapter_config.json").read_text())["r"] == 3
    settings = json.loads((result.output_dir / "settings.json").read_text())
    assert settings["peft_config"]["target_modules"] == ["query"]
    assert result.results["stages"][0]["config"]["supervised"]["per_device_train_batch_size"] == 5


def test_all_problems_are_told_at_once_and_nothing_is_left_behind(options):
    with pytest.raises(ConfigurationError) as caught:
        fit(TABLE, **{**options, "preset": "quik", "rounds": "two"}, seed=-1, callbacks=[3], peft_config="lora")
    told = "\n".join(caught.value.problems)
    for name in ("preset", "rounds", "seed", "callbacks", "peft_config"):
        assert name in told
    assert len(caught.value.problems) == 5
    with pytest.raises(ConfigurationError, match=r"device: expected a device .* got 'xpu'"):
        fit(TABLE, device="xpu", **options)
    with pytest.raises(DataError, match="expected train to be a path"):
        fit(3, **options)
    assert not options["output_dir"].exists()
