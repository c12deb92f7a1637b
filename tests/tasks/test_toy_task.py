"""A new task is a file and a row: ratings go through splits, labels only, pseudo-labels, verdict and report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from datasets import load_from_disk
from transformers import AutoConfig

from hfssl.config.methods import METHODS
from hfssl.config.tasks import TASK_KEY, TASKS
from hfssl.deploy.predict import predict
from hfssl.errors import ConfigurationError
from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.pseudo_labeler import PseudoLabeler
from hfssl.methods.supervised import SupervisedConfig
from hfssl.metrics.significance import paired_gain
from hfssl.models.adapters import add_adapter, build_lora_config, save_adapter
from hfssl.models.auto import from_pretrained
from hfssl.models.loading import load_classifier
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from hfssl.reporting.closing_table import closing_table
from hfssl.reporting.results import results_schema
from hfssl.runtime.files import PLACE
from hfssl.tasks.registry import get_task, task_of
from tests.helpers.fit_tiny import TINY
from tests.helpers.texts import write_csv
from tests.helpers.toy_task import NAME, ROW

WORDS = "the a of film movie story actor city river who what when one two three".split()
CUES = {"1": "awful hate", "2": "bad dull", "3": "story city", "4": "good fun", "5": "great love"}
ROUNDS = {
    **TINY.self_training,
    "rounds": 1,
    "soft_targets": False,
    "distribution_alignment": "none",
    "r_drop_alpha": 0.0,
}
PRESET = replace(TINY, self_training=ROUNDS, supervised={**TINY.supervised, "r_drop_alpha": 0.5})


@pytest.fixture
def task(monkeypatch):
    """The toy task, registered: the one row, and its name in the rows of the methods that are defined for it."""
    monkeypatch.setitem(TASKS, NAME, ROW)
    for name, row in METHODS.items():
        monkeypatch.setitem(METHODS, name, replace(row, tasks=(*row.tasks, NAME)))
    return get_task(NAME)


@pytest.fixture
def options(tmp_path, tiny_backbone, monkeypatch) -> dict:
    monkeypatch.setitem(PRESETS, "quick", PRESET)
    ratings = [str(1 + i % 5) for i in range(150)]
    texts = [f"{WORDS[i % 15]} {CUES[rating]} {WORDS[i // 5 % 15]} {i}" for i, rating in enumerate(ratings)]
    rows = [{"text": text, "label": rating} for text, rating in zip(texts, ratings, strict=True)]
    return {
        "train": str(write_csv(tmp_path / "ratings.csv", rows)),
        "backbone": str(tiny_backbone),
        "preset": "quick",
        "task": NAME,
        "labels_per_class": 10,
        "output_dir": str(tmp_path / "run"),
        "quiet": True,
        "max_length": 32,
        "pretext": False,
        "validation_fraction": 0.2,
    }


def medians(probs: np.ndarray) -> np.ndarray:
    return np.array([np.searchsorted(np.cumsum(row), 0.5 - 1e-9) for row in probs])


def test_a_new_task_goes_through_fit(task, options, tmp_path):
    results = fit(**options).results
    folder = tmp_path / "run"
    assert json.loads((folder / "results.json").read_text()) == results
    jsonschema.validate(results, results_schema())
    assert (results["task"]["name"], results["task"]["title"]) == (NAME, "an ordered rating per text")

    # Splits: strata by rating.
    splits = load_from_disk(str(folder / "splits"))
    assert Counter(splits["labeled"]["label"]) == dict.fromkeys(range(5), 8)
    assert Counter(splits["validation"]["label"]) == dict.fromkeys(range(5), 2)

    # Each stage: its own metric, by the median.
    decided = {}
    for stage in results["stages"]:
        with np.load(folder / "stages" / stage["name"] / "logits.npz") as logits:
            probs = {part: task.probs(values) for part, values in logits.items() if part != PLACE}
        for part, values in probs.items():
            distance = np.abs(medians(values) - np.asarray(splits[part]["label"]))
            assert stage["metrics"][part]["mae"] == pytest.approx(distance.mean())
            assert stage["metrics"][part]["accuracy"] == pytest.approx((distance == 0).mean())
        decided[stage["name"]] = medians(probs["validation"]) == np.asarray(splits["validation"]["label"])
    assert list(decided) == ["labels_only", "self_training"]
    assert all(set(stage["metrics"]["out_of_fold"]) == {"accuracy", "mae", "nll"} for stage in results["stages"])
    with np.load(folder / "stages" / "folds" / "cross_fit.npz") as saved:
        distance = np.abs(medians(task.probs(saved["labeled/labels_only"])) - np.asarray(splits["labeled"]["label"]))
    assert results["stages"][0]["metrics"]["out_of_fold"]["mae"] == pytest.approx(distance.mean())

    # Pseudo-labels: the median of what the teachers predict, one-hot for the student.
    with np.load(next((folder / "stages" / "self_training").rglob("pseudo_labels*.npz"))) as found:
        assert (found["target_probs"].argmax(axis=1) == found["predicted"][found["rows"]]).all()
        assert len(found["predicted"]) == PRESET.max_pool_rows

    # Verdict: paired by the task's decisions.
    gain, low, high = paired_gain(decided["labels_only"], decided["self_training"])
    assert results["verdict"]["gain"] == pytest.approx(gain)
    assert results["verdict"]["interval"] == pytest.approx([low, high])

    # Closing table, report and card have the task's columns and words.
    first = results["stages"][0]["metrics"]["test"]
    lines = closing_table(results).splitlines()
    assert lines[0].endswith("accuracy in points (0-100); MAE is the mean absolute error.")
    assert lines[2].split() == ["accuracy", "MAE", "seconds"]
    assert lines[3].split()[2:4] == [f"{100 * first['accuracy']:.1f}", f"{first['mae']:.3f}"]
    report, card = ((folder / name).read_text() for name in ("report.html", "README.md"))
    assert f"{first['mae']:.3f}" in report
    assert ">MAE<" in report
    assert "macro-F1" not in report + card
    assert "| MAE |" in card
    assert "ratings from 1 to 5" in card
    assert "type: mae" in card

    # The model knows its task, and so does whoever uses it.
    assert AutoConfig.from_pretrained(folder / "model").to_dict()[TASK_KEY] == NAME
    predict(folder / "model", options["train"], tmp_path / "predicted.csv", quiet=True)
    assert (tmp_path / "predicted.csv").read_text().splitlines()[0] == '"text","label","rating","expected_rating"'


def test_pseudo_labels_are_the_task_s_decisions(task, tmp_path):
    args = SelfTrainingConfig(output_dir=str(tmp_path), task=NAME, selection_strategy="all", soft_targets=False)
    labeler = PseudoLabeler(lambda: None, args, None, list("12345"), folder=tmp_path)
    probs = np.array([[0.4, 0.15, 0.15, 0.15, 0.15], [0.1, 0.1, 0.1, 0.1, 0.6]], dtype=np.float32)
    found = labeler.select(MCDropoutResult.of_one_pass(probs), stream=0)
    assert found.predicted.tolist() == [1, 4]  # of the first row the most probable rating is 0
    assert found.target_probs.argmax(axis=1).tolist() == [1, 4]


def test_a_method_that_is_not_defined_is_refused_before_anything_is_written(task, options, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "contrastive", replace(METHODS["contrastive"], tasks=("sequence_classification",)))
    with pytest.raises(ConfigurationError, match="'contrastive' is not defined for.*'ordinal_ratings'.*one of"):
        fit(**options)
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_is_one_of_all_problems(options):
    with pytest.raises(ConfigurationError, match="task: expected one of sequence_classification; got 'ratings'") as it:
        fit(**{**options, "task": "ratings", "max_length": 1})
    assert "max_length" in str(it.value)
    with pytest.raises(ConfigurationError, match="got 'ratings'"):
        SupervisedConfig(output_dir="unused", task="ratings")


def test_an_adapter_keeps_its_task(task, tiny_backbone, tmp_path):
    model = load_classifier(tiny_backbone, list("12345"), seed=0, **task.model_options())
    adapter = add_adapter(model, build_lora_config(model, task=NAME, peft_task=task.peft_task), seed=0)
    save_adapter(adapter, tmp_path / "adapter", list("12345"))
    loaded = from_pretrained(tmp_path / "adapter")
    assert task_of(loaded.config).name == NAME
    assert loaded.config.problem_type is None
