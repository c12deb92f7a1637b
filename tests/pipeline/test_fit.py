"""The main job, end to end, on a tiny backbone: its files, interruptions, and the input that it rejects."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from datasets import load_from_disk
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import hfssl.pipeline.fit
import hfssl.pipeline.stages.self_training
from hfssl.data.audit import fingerprint
from hfssl.errors import ConfigurationError
from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.metrics.classification import evaluate_probs
from hfssl.pipeline.fit import fit
from hfssl.reporting.closing_table import closing_table
from hfssl.reporting.results import results_schema
from hfssl.runtime.files import sha256_of
from tests.helpers.fit_tiny import run
from tests.helpers.ranks import logs, run_ranks
from tests.helpers.texts import CUES, FILLERS, make_text, write_csv


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_fit_leaves_a_model_a_report_a_card_and_the_evidence(request, adapter):
    folder = request.getfixturevalue("finished_run" if adapter == "none" else "finished_lora_run")
    results = json.loads((folder / "results.json").read_text())
    assert results == json.loads((folder.parent / "returned.json").read_text())
    jsonschema.Draft202012Validator(results_schema()).validate(results)
    assert [stage["name"] for stage in results["stages"]] == [
        "labels_only",
        "labels_only_after_pretext",
        "self_training",
    ]
    for stage in results["stages"]:
        assert stage["metrics"]["validation"] is None  # no label is held out
        for part in ("test", "out_of_fold"):
            assert set(stage["metrics"][part]) == {"accuracy", "macro_f1", "nll", "ece"}
        assert stage["seconds"] > 0
    assert set(results["verdict"]) >= {"use_unlabeled", "gain", "interval", "reasons"}
    assert results["selected_stage"] in {"labels_only", "labels_only_after_pretext", "self_training"}
    assert results["verdict"]["use_unlabeled"] == (results["selected_stage"] != "labels_only")
    counts = results["data"]["counts"]
    assert sum(counts["labeled"].values()) == 30
    assert counts["out_of_fold"] == {name: counts["labeled"][name] for name in CUES}
    assert "of 30 held-out rows right" in results["verdict"]["reasons"][0]
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "README.md").read_text().startswith("---\n")
    assert (folder / "splits").is_dir()
    assert (folder / "adapter").is_dir() == (adapter == "lora")
    assert not list(folder.rglob("checkpoints"))
    assert not list(folder.rglob("*.tmp"))


def test_plain_transformers_loads_the_model_and_gets_label_names_and_calibrated_probabilities(finished_run):
    folder = finished_run / "model"
    results = json.loads((finished_run / "results.json").read_text())
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert set(model.config.label2id) == set(CUES)
    classify = pipeline("text-classification", model=str(folder), tokenizer=str(folder))
    answer = classify("the film was great fun")[0]
    assert answer["label"] in CUES
    with np.load(finished_run / "stages" / results["selected_stage"] / "logits.npz") as saved:
        logits = saved["test"]
    texts = load_from_disk(str(finished_run / "splits"))["test"]["text"][:5]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = model(**tokenizer(list(texts), padding=True, return_tensors="pt")).logits.detach().numpy()
    np.testing.assert_allclose(scores * results["temperature"], logits[:5], atol=1e-4)


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.parametrize(("asked", "used"), [(16, 16), (128, 64)], ids=["as asked", "as many as the backbone reads"])
def test_the_saved_tokenizer_cuts_texts_where_training_cut_them(options, tmp_path, asked, used):
    rows = [
        {"text": f"{make_text(i, name)} {FILLERS[i % 9]} " * 30, "label": name} for i in range(10) for name in CUES
    ]
    train = write_csv(tmp_path / "long.csv", rows)
    test = write_csv(tmp_path / "test.csv", [{"text": "who was it " * 40, "label": "good"}])
    changed = {"train": str(train), "test": str(test), "labels_per_class": None, "max_length": asked}
    fit(**(options | changed), pretext=False, rounds=0, cross_fit=0)
    folder = Path(options["output_dir"]) / "model"
    assert AutoTokenizer.from_pretrained(folder).model_max_length == used
    classify = pipeline("text-classification", model=str(folder), top_k=None)
    scores = {entry["label"]: entry["score"] for entry in classify(["who was it " * 40], truncation=True)[0]}
    temperature = json.loads((Path(options["output_dir"]) / "results.json").read_text())["temperature"] or 1.0
    with np.load(Path(options["output_dir"]) / "stages" / "labels_only" / "logits.npz") as saved:
        logits = saved["test"][0] / temperature
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose([scores[name] for name in sorted(CUES)], expected, atol=1e-5)


@pytest.mark.usefixtures("tiny_preset")
def test_a_rare_class_does_not_keep_the_others_from_being_held_out(options, tmp_path):
    """Four labels of one class are too few to hold one back; the verdict and the temperature rest on the others."""
    labeled = [(name, i) for name, count in (("good", 60), ("bad", 30), ("plot", 4)) for i in range(count)]
    rows = [{"text": make_text(i, name), "label": name} for name, i in labeled]
    rows += [{"text": make_text(i, name), "label": ""} for name in CUES for i in range(100, 120)]
    train = write_csv(tmp_path / "uneven.csv", rows)
    changed = {"train": str(train), "labels_per_class": None, "validation_fraction": 0.2, "refit": True}
    results = fit(**(options | changed), pretext=False, rounds=1).results
    counts = results["data"]["counts"]
    assert (counts["labeled"]["plot"], counts["validation"]["plot"]) == (4, 0)
    for name in ("good", "bad"):
        assert counts["validation"][name] == (counts["labeled"][name] + counts["validation"][name]) // 5 > 0
    assert sum(counts["validation"].values()) >= 10
    assert results["verdict"]["gain"] is not None
    assert results["temperature"] is not None
    assert results["final_stage"] == "refit"


def without_times(value):
    if isinstance(value, dict):
        skipped = ("seconds", "attempts", "command", "finished")
        return {key: without_times(entry) for key, entry in value.items() if key not in skipped}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def test_killed_seven_times_and_resumed_is_as_if_never_killed(options, tmp_path):
    """In the pretext stage, a fold's teacher, a round, the first step of the next, a fold's student and the refit."""
    options |= {"validation_fraction": 0.2, "refit": True, "cross_fit": 2}

    def in_process(kill: dict | None = None, **more) -> int:
        [code] = run_ranks(run, {"options": {**options, **more}, "kill": kill}, log_dir=tmp_path / "logs")
        return code

    assert in_process(output_dir=str(tmp_path / "whole")) == 0, logs(tmp_path / "logs")
    for number, kill in enumerate(
        [
            {"title": "pretext", "step": 6},
            {"title": "contrastive stage", "step": 3},
            {"title": "folds of the labels, fold 2 of 2", "step": 3},
            {"title": "round 1", "step": 5},
            {"title": "round 2", "step": 0},
            {"title": "cross-fitting, fold 2 of 2", "step": 3},
            {"title": "refit", "step": 4},
        ]
    ):
        assert in_process(kill, resume=number > 0) == -signal.SIGKILL, logs(tmp_path / "logs")
        assert not (Path(options["output_dir"]) / "results.json").exists()
    assert in_process(resume=True) == 0, logs(tmp_path / "logs")
    weights = "model/model.safetensors"
    assert sha256_of(Path(options["output_dir"]) / weights) == sha256_of(tmp_path / "whole" / weights)
    first, second = (
        json.loads((folder / "results.json").read_text())
        for folder in (Path(options["output_dir"]), tmp_path / "whole")
    )
    assert without_times(first) == without_times(second)
    with (
        np.load(Path(options["output_dir"]) / "stages/self_training/logits.npz") as a,
        np.load(tmp_path / "whole/stages/self_training/logits.npz") as b,
    ):
        assert all((a[name] == b[name]).all() for name in ("validation", "test"))
    # What the folds' models say, the pool's embeddings and the pseudo-labels among it.
    for path in (tmp_path / "whole" / "stages").rglob("*.npz"):
        other = Path(options["output_dir"]) / path.relative_to(tmp_path / "whole")
        with np.load(path) as whole, np.load(other) as killed:
            assert set(whole) == set(killed)
            assert all(np.array_equal(whole[name], killed[name]) for name in whole), path


@pytest.mark.usefixtures("tiny_preset")
def test_a_folder_with_another_run_is_refused_resumed_or_replaced(options):
    options |= {"pretext": False, "rounds": 0, "cross_fit": 0}
    fit(**options)
    with pytest.raises(ConfigurationError, match=r"--resume.*--overwrite-output-dir"):
        fit(**options)
    with pytest.raises(ConfigurationError, match=r"had seed=0; got 5"):
        fit(**options, seed=5, resume=True)
    before = sha256_of(Path(options["output_dir"]) / "model" / "model.safetensors")
    again = fit(**options, resume=True)
    assert [stage["attempts"] for stage in again.results["stages"]] == [1]  # nothing was trained a second time
    fit(**options, seed=5, overwrite_output_dir=True)
    assert sha256_of(Path(options["output_dir"]) / "model" / "model.safetensors") != before


def test_a_folder_that_fit_did_not_make_is_never_deleted(options):
    folder = Path(options["output_dir"])
    folder.mkdir()
    (folder / "thesis.txt").write_text("ten years of work")
    for flag in ({}, {"resume": True}, {"overwrite_output_dir": True}):
        with pytest.raises(ConfigurationError, match="holds no hfssl run"):
            fit(**options, **flag)
    assert (folder / "thesis.txt").read_text() == "ten years of work"


@pytest.mark.usefixtures("tiny_preset")
def test_without_unlabeled_rows_fit_trains_on_labels_only_and_says_so(options, tmp_path, capsys):
    rows = [{"text": make_text(i, name), "label": name} for i in range(12) for name in CUES]
    train = write_csv(tmp_path / "labels.csv", rows)
    result = fit(**{**options, "train": str(train), "labels_per_class": None, "quiet": False})
    costs = capsys.readouterr().out  # they are told of a pool without rows, too
    assert "What this run will do" in costs
    assert "folds of the labels" in costs
    assert "self-training" not in costs
    assert [stage["name"] for stage in result.results["stages"]] == ["labels_only"]
    assert result.results["selected_stage"] == "labels_only"
    assert result.results["verdict"]["use_unlabeled"] is False
    # The labels judge all the same: its accuracy and its temperature are those of the folds' models.
    metrics = result.results["stages"][0]["metrics"]
    assert metrics["test"] is metrics["validation"] is None
    with np.load(Path(options["output_dir"]) / "stages/folds/cross_fit.npz") as saved:
        logits = saved["labeled/labels_only"]
    splits = load_from_disk(str(Path(options["output_dir"]) / "splits"))
    labels = np.asarray(splits["labeled"]["label"])
    assert metrics["out_of_fold"] == evaluate_probs(softmax(logits, axis=-1), labels)
    temperature = result.results["temperature"]
    assert temperature == pytest.approx(fit_temperature(logits, labels))
    calibrated = evaluate_probs(softmax(logits / temperature, axis=-1), labels)
    assert result.results["final_metrics"]["out_of_fold"] == calibrated
    measured = "Measured on the 36 labeled rows, each by models trained without it"
    assert closing_table(result.results).startswith(measured)
    assert "models that were trained in the same way without a part of the labels" in (
        Path(options["output_dir"]) / "README.md"
    ).read_text().replace("\n", " ")


@pytest.mark.usefixtures("tiny_preset")
def test_two_labels_a_class_make_no_folds_and_the_verdict_rests_on_earlier_runs(options, caplog):
    result = fit(**{**options, "labels_per_class": 2}, pretext=False, rounds=1)
    assert "no folds can be made of them, and the verdict rests on earlier runs" in caplog.text
    results = result.results
    assert not sum(results["data"]["counts"]["validation"].values())
    assert "out_of_fold" not in results["data"]["counts"]
    assert all("out_of_fold" not in stage["metrics"] for stage in results["stages"])
    assert results["verdict"]["gain"] is None
    assert any("rests on no labels" in reason for reason in results["verdict"]["reasons"])
    assert any("By earlier runs alone, the gain" in reason for reason in results["verdict"]["reasons"])
    assert results["temperature"] is None
    assert not (Path(options["output_dir"]) / "stages" / "folds").exists()
    # As many labels-only models as the preset has teachers label the pool, with the weights of the prior.
    assert (Path(options["output_dir"]) / "stages/self_training/teacher-1/model").is_dir()
    [record] = (Path(options["output_dir"]) / "stages/self_training/rounds.jsonl").read_text().splitlines()
    weights = json.loads(record)["member_weights"]
    assert weights == pytest.approx({"teachers": 6 / 11, "backbone_probe": 4 / 11, "neighbors": 1 / 11})


@pytest.mark.usefixtures("tiny_preset")
def test_a_class_with_one_label_is_learned_by_every_model_and_judged_by_none(options, tmp_path):
    labeled = [(name, i) for name, count in (("good", 6), ("bad", 6), ("plot", 1)) for i in range(count)]
    rows = [{"text": make_text(i, name), "label": name} for name, i in labeled]
    rows += [{"text": make_text(i, name), "label": ""} for name in CUES for i in range(100, 110)]
    train = write_csv(tmp_path / "rare.csv", rows)
    results = fit(**(options | {"train": str(train), "labels_per_class": None}), pretext=False, rounds=1).results
    assert results["data"]["counts"]["out_of_fold"] == {"bad": 6, "good": 6, "plot": 0}
    assert "of 12 held-out rows right" in results["verdict"]["reasons"][0]
    folder = Path(options["output_dir"])
    [rare] = [row for row in load_from_disk(str(folder / "splits"))["labeled"] if row["text"] == rows[12]["text"]]
    for stage in ("folds", "cross_fitting"):
        manifests = json.loads((folder / "stages" / stage / "done.json").read_text())["manifests"]
        roles = {"labeled": [], "evidence": [], "unlabeled": []}
        for manifest in manifests:
            roles[manifest["role"]].append(fingerprint(rare["text"]) in manifest["fingerprints"])
        assert (set(roles["labeled"]), set(roles["evidence"])) == ({True}, {False})


@pytest.mark.usefixtures("tiny_preset")
def test_enough_held_out_labels_give_an_estimate_without_labels(options, monkeypatch):
    monkeypatch.setattr(hfssl.pipeline.stages.self_training, "MIN_HELD_OUT", 6)
    options |= {"pretext": False, "rounds": 1, "validation_fraction": 0.2, "cross_fit": 0}
    reasons = fit(**options).results["verdict"]["reasons"]
    note = next(reason for reason in reasons if "estimated without their labels" in reason)
    validation = load_from_disk(str(Path(options["output_dir"]) / "splits"))["validation"]["label"]
    assert f"the {len(validation)} held-out labels" in note
    monkeypatch.setattr(hfssl.pipeline.stages.self_training, "MIN_HELD_OUT", len(validation) + 1)
    reasons = fit(**options, overwrite_output_dir=True).results["verdict"]["reasons"]
    assert not any("estimated without" in reason for reason in reasons)


@pytest.mark.usefixtures("tiny_preset")
def test_a_class_prior_that_the_user_knows_is_trained_on_and_reported(options):
    shares = "plot=1, good=1, bad=2"
    results = fit(**options, pretext=False, rounds=1, class_prior=shares).results
    assert results["stages"][-1]["config"]["self_training"]["class_prior"] == shares
    assert shares in results["command"]
    folder = Path(options["output_dir"])
    for line in (folder / "stages" / "self_training" / "rounds.jsonl").read_text().splitlines():
        assert json.loads(line)["class_prior"] == {"bad": 0.5, "good": 0.25, "plot": 0.25}
    assert "ReMixMatch" in (folder / "README.md").read_text()


def test_one_fold_is_refused(options):
    with pytest.raises(ConfigurationError, match="cross_fit must be 0 or at least 2 folds, got 1"):
        fit(**options, cross_fit=1)


@pytest.mark.usefixtures("tiny_preset")
def test_mean_pooling_loads_through_hfssl_only(options):
    result = fit(**options, pooling="mean", rounds=1, pretext=False)
    assert result.model().config.id2label == dict(enumerate(result.results["data"]["label_names"]))
    assert "hfssl" in (Path(options["output_dir"]) / "README.md").read_text()
    # A process that never imports hfssl must fail, not load other weights silently.
    folder = str(Path(options["output_dir"]) / "model")
    script = f"from transformers import AutoModelForSequenceClassification as A; A.from_pretrained({folder!r})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "hfssl" in run.stderr
