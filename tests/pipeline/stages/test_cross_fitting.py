"""Cross-fitting: students of the folds, which judge for the final one; and what stands for them in `quick`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from scipy.special import softmax

from hfssl.data.tokenization import tokenize_dataset
from hfssl.evaluation.temperature_scaling import fit_temperature, match_temperature
from hfssl.evaluation.verdict import expected_gain, mixture_prior
from hfssl.inference.scoring import predict_logits
from hfssl.metrics.classification import evaluate_probs
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import load_tokenizer
from hfssl.pipeline.fit import fit
from hfssl.pipeline.fold_store import FoldStore
from hfssl.pipeline.held_out import STAND_IN, STUDENTS
from hfssl.pipeline.presets import PRESETS
from hfssl.tasks.registry import get_task
from tests.helpers.fit_tiny import TINY


def labels_of(run: Path, part: str = "labeled") -> np.ndarray:
    return np.asarray(load_from_disk(str(run / "splits"))[part]["label"])


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as saved:
        return dict(saved)


@pytest.mark.parametrize("fixture", ["finished_run", "finished_lora_run"])
def test_the_verdict_rests_on_the_models_of_the_folds(request, fixture):
    run = request.getfixturevalue(fixture)
    results = json.loads((run / "results.json").read_text())
    labels = labels_of(run)
    logits = arrays(run / "stages/folds/cross_fit.npz") | arrays(run / "stages/cross_fitting/cross_fit.npz")
    found = {name.removeprefix("labeled/"): rows for name, rows in logits.items() if name.startswith("labeled/")}
    assert set(found) == {"labels_only", "labels_only_after_pretext", "self_training"}
    for stage in results["stages"]:
        probs = softmax(found[stage["name"]], axis=-1)
        assert stage["metrics"]["out_of_fold"] == evaluate_probs(probs, labels)
    right = {name: rows.argmax(axis=-1) == labels for name, rows in found.items()}
    differ = dict(zip(("spread", "shift"), STUDENTS, strict=True))
    expected = {
        name: expected_gain(right["labels_only"], right[name], mixture_prior(name), **differ)
        for name in ("labels_only_after_pretext", "self_training")
    }
    best = max(expected.values())
    assert results["verdict"]["expected_gain"] == pytest.approx(best[0])
    assert results["verdict"]["expected_interval"] == pytest.approx(best[1:])
    reasons = " ".join(results["verdict"]["reasons"])
    assert "30 of the held-out rows are labeled ones, each predicted by models trained without it" in reasons
    assert "see fewer labels and take fewer steps than the final one" in reasons
    assert "on which models of different folds agree: labels only " in reasons
    assert "pretext-adapted" in reasons
    assert results["temperature"] == pytest.approx(fit_temperature(found[results["selected_stage"]], labels))


def test_no_stage_of_folds_is_reported_as_a_model_and_students_of_folds_leave_none(finished_run):
    results = json.loads((finished_run / "results.json").read_text())
    assert {"folds", "cross_fitting"}.isdisjoint(stage["name"] for stage in results["stages"])
    assert not list((finished_run / "stages" / "cross_fitting").rglob("*.safetensors"))
    teachers = {path.parent.parent.name for path in (finished_run / "stages/folds").rglob("model/*.safetensors")}
    assert teachers == {f"{name}-{n}" for name in ("labels_only", "labels_only_after_pretext") for n in (0, 1)}


def test_labels_of_a_validation_table_judge_without_students_of_folds(options, tiny_preset):
    """The folds' teachers still label the pool together."""
    results = fit(**options, pretext=False, rounds=1, validation_fraction=0.2).results
    folder = Path(options["output_dir"])
    assert (folder / "stages/folds/done.json").exists()
    assert not (folder / "stages/cross_fitting").exists()
    assert f"of {len(labels_of(folder, 'validation'))} held-out rows right" in results["verdict"]["reasons"][0]
    assert results["temperature"] == pytest.approx(
        fit_temperature(
            arrays(folder / "stages" / results["selected_stage"] / "logits.npz")["validation"],
            labels_of(folder, "validation"),
        )
    )


def test_without_students_of_folds_the_ensembles_that_would_teach_them_stand_for_them(options, monkeypatch):
    monkeypatch.setitem(PRESETS, "quick", replace(TINY, fold_students=None))
    monkeypatch.setattr("hfssl.pipeline.fit.judge", selecting_the_student(differences := []))
    results = fit(**options, pretext=False, rounds=1).results
    run = Path(options["output_dir"])
    assert differences == [STAND_IN]
    assert not (run / "stages/cross_fitting").exists()
    reasons = " ".join(results["verdict"]["reasons"])
    assert "the ensembles that label the pool stand for their student, which is not checked" in reasons
    # What they say is the mixture of the votes, by the weights of the other folds' labels.
    labels, task = labels_of(run), get_task()
    numbers = np.full(len(labels), -1)
    taught = json.loads((run / "stages/folds/done.json").read_text())["manifests"]
    keys = json.loads((run / "splits/manifest.json").read_text())["roles"]["labeled"]["fingerprints"]
    for fold in (0, 1):
        [judged] = [m for m in taught if m["role"] == "evidence" and m["model"] == f"folds/labels_only-{fold}"]
        numbers[np.isin(keys, judged["fingerprints"])] = fold
    store = FoldStore(run / "stages/folds", numbers, labels, task)
    stage = next(stage for stage in results["stages"] if stage["name"] == "self_training")
    assert stage["metrics"]["out_of_fold"]["accuracy"] == evaluate_probs(store.stacked(), labels)["accuracy"]
    # The saved model is as sure of set-aside rows as the calibrated ensemble, as far as temperatures go.
    tokenizer = load_tokenizer(run / "model")
    rows = tokenize_dataset(load_from_disk(str(run / "splits"))["proxy"], tokenizer, 32)
    logits = predict_logits(from_pretrained(run / "model"), rows, tokenizer).astype(np.float64)
    fitted = fit_temperature(np.log(np.maximum(store.stacked(), 1e-12)), labels)
    ensemble = softmax(np.log(np.maximum(store.stacked_part("proxy"), 1e-12)) / fitted, axis=-1)
    found = match_temperature(logits * results["temperature"], ensemble)
    assert results["temperature"] == pytest.approx(found, rel=1e-2)


def selecting_the_student(differences: list[tuple[float, float]]):
    """A verdict for self-training, which notes how its evidence may differ from the final models."""
    from hfssl.evaluation.verdict import Verdict

    def judge(probs, labels, *, spread, shift, **others):
        differences.append((spread, shift))
        return Verdict("self_training", True, 0.0, [-0.1, 0.1], 0.0, [-0.1, 0.1], ["Made up."], "Made up.")

    return judge
