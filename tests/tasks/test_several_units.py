"""A task with several units per row: label lists in splits, and a round of self-training label by label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from scipy.special import expit

from hfssl.config.tasks import TASKS
from hfssl.data.splits import few_label_splits
from hfssl.errors import ConfigurationError
from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.evaluation.verdict import judge
from hfssl.inference.scoring import mc_dropout, predict_logits
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.models.backbones import load_tokenizer
from hfssl.models.loading import load_classifier
from hfssl.tasks.registry import get_task
from tests.helpers.toy_labels import NAME, ROW

NAMES = ["action", "comedy", "drama"]
CUES = {0: "fast red", 1: "fun joy", 2: "fear story"}
SETS = [[0], [1], [2], [0, 1], []]


@pytest.fixture
def task(monkeypatch):
    monkeypatch.setitem(TASKS, NAME, ROW)
    return get_task(NAME)


def make_table(task, rows: int = 90, labeled: int = 60) -> Dataset:
    sets = [SETS[i % 5] for i in range(rows)]
    texts = [f"the {' '.join(CUES[c] for c in chosen)} film {i}" for i, chosen in enumerate(sets)]
    labels = [chosen if i < labeled else None for i, chosen in enumerate(sets)]
    features = Features({"text": Value("string"), "label": task.label_column.feature(NAMES)})
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)


def test_label_lists_go_through_splits(task):
    splits = few_label_splits(make_table(task), label_column=task.label_column, seed=1)
    assert splits.label_names == NAMES
    lists = [tuple(label) for part in ("labeled", "validation") for label in splits[part]["label"]]
    assert {chosen: lists.count(chosen) for chosen in set(lists)} == {tuple(chosen): 12 for chosen in SETS}
    assert [tuple(x) for x in splits["validation"]["label"]].count(()) == 2  # a fifth of each set of labels
    assert splits["unlabeled"]["label"][:] == [None] * len(splits["unlabeled"])
    # Rows count for each of their labels; "no label" is a label.
    assert splits.manifest["counts"]["labeled"] == {"action": 20, "comedy": 20, "drama": 10, "(unlabeled)": 0}


def test_a_round_of_self_training_label_by_label(task, tiny_backbone, tmp_path):
    tokenizer = load_tokenizer(tiny_backbone)
    splits = few_label_splits(make_table(task), label_column=task.label_column, seed=1)
    tokens = {name: task.encode(part, tokenizer, 16) for name, part in splits.items()}
    pool, validation = tokens["unlabeled"], tokens["validation"]

    def student(seed):
        return load_classifier(tiny_backbone, NAMES, seed=seed, **task.model_options())

    args = SelfTrainingConfig(
        output_dir=str(tmp_path),
        task=NAME,
        max_steps=6,
        logging_steps=2,
        save_strategy="no",
        rounds=1,
        mc_passes=2,
        selection_strategy="threshold",
        confidence_threshold=0.5001,
        weighting="uniform",
        head_init="logistic",
        retrain_head=True,
        use_cpu=True,
        disable_tqdm=True,
    )
    rounds = SelfTraining(student, args, processing_class=tokenizer, label_names=NAMES, output_dir=tmp_path)
    teacher = student(7)
    hidden = task.unit_labels(task.label_array(pool, "hidden_label"))
    rounds.fit(teacher, tokens["labeled"], pool, validation=validation, hidden_labels=hidden)

    units = 3 * len(pool)
    assert rounds.transduction_.shape == rounds.labeled_iter_.shape == (units,)
    (record,) = rounds.rounds_
    taken = np.flatnonzero(rounds.labeled_iter_ == 0)
    assert record["selected"] == len(taken)
    assert rounds.selected_rows().tolist() == sorted({unit // 3 for unit in taken.tolist()})
    assert set(record["per_class"]) == set(NAMES)
    assert set(record["validation"]) == {"micro_f1"}
    # The pseudo-labels are those of the teacher's sigmoids, label by label.
    with torch.no_grad():
        expected = (expit(predict_logits(teacher.eval(), pool, tokenizer)) > 0.5).reshape(-1)
    assert (rounds.transduction_ == expected).all()
    assert any(entry.get("loss") for entry in rounds.curves_)


def test_what_needs_one_class_per_row_is_refused(task, tmp_path):
    with pytest.raises(ConfigurationError, match="teacher_probe needs one class per row, which the task 'several_l"):
        SelfTrainingConfig(output_dir=str(tmp_path), task=NAME, teacher_probe=True)


def test_dropout_passes_are_reduced_label_by_label(task, tiny_backbone):
    tokenizer = load_tokenizer(tiny_backbone)
    rows = task.encode(make_table(task, 7, 7), tokenizer, 16)
    model = load_classifier(tiny_backbone, NAMES, seed=0, **task.model_options()).eval()
    found = mc_dropout(model, rows, tokenizer, passes=3, seed=0, task=task)
    assert found.mean_probs.shape == found.vote_shares.shape == (21, 2)
    assert found.bald.shape == (21,)
    np.testing.assert_allclose(found.mean_probs.sum(axis=1), 1, rtol=1e-6)
    yes = expit(predict_logits(model, rows, tokenizer))
    np.testing.assert_allclose(found.deterministic_probs[:, 1].reshape(7, 3), yes, rtol=1e-5)


def test_verdict_and_temperature_take_label_matrices(task):
    labels = np.array([[1, 0, 0], [0, 1, 1]] * 20)
    sure = np.where(labels > 0, 2.0, -2.0)
    verdict = judge({"labels_only": expit(-sure), "self_training": expit(sure)}, labels, task=task)
    assert (verdict.selected_stage, verdict.gain) == ("self_training", 1.0)
    assert fit_temperature(sure, labels, task=task) < 1  # all labels are right: surer than it is
