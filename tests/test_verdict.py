"""The verdict keeps the better model, says how sure it is, and lets alarms win."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.verdict import judge


def probs(labels: np.ndarray, right: list[bool], confidence: float = 0.8) -> np.ndarray:
    """Two-class probabilities that are right where `right` says so."""
    predicted = np.where(right, labels, 1 - labels)
    table = np.full((len(labels), 2), 1 - confidence)
    table[np.arange(len(labels)), predicted] = confidence
    return table


LABELS = np.array([0, 1] * 10)
HALF = [i % 2 == 0 for i in range(20)]
ALL = [True] * 20


def test_a_stage_that_is_right_more_often_is_kept_with_its_gain_and_interval():
    verdict = judge({"labels_only": probs(LABELS, HALF), "self_training": probs(LABELS, ALL)}, LABELS)
    assert verdict.chosen == "self_training"
    assert verdict.use_unlabeled
    assert verdict.gain == pytest.approx(0.5)
    low, high = verdict.interval
    assert 0.2 < low < 0.5 < high < 0.8
    assert "helped (+50.0 points on 20 held-out labels" in verdict.sentence


def test_labels_only_is_kept_where_the_unlabeled_data_did_not_help():
    verdict = judge({"labels_only": probs(LABELS, ALL), "self_training": probs(LABELS, HALF)}, LABELS)
    assert verdict.chosen == "labels_only"
    assert not verdict.use_unlabeled
    assert verdict.gain == pytest.approx(-0.5)
    assert "did not help" in verdict.sentence


def test_the_best_of_several_stages_competes_with_labels_only():
    nearly = [True] * 15 + [False] * 5
    verdict = judge(
        {"labels_only": probs(LABELS, HALF), "pretext": probs(LABELS, ALL), "self_training": probs(LABELS, nearly)},
        LABELS,
    )
    assert verdict.chosen == "pretext"


@pytest.mark.parametrize(("confidence", "chosen"), [(0.9, "self_training"), (0.7, "labels_only")])
def test_a_tie_in_accuracy_is_decided_by_the_log_likelihood(confidence, chosen):
    # All rows right: a higher probability of the right class is a lower negative log-likelihood.
    verdict = judge({"labels_only": probs(LABELS, ALL), "self_training": probs(LABELS, ALL, confidence)}, LABELS)
    assert verdict.gain == 0
    assert verdict.chosen == chosen
    assert any("tie" in reason for reason in verdict.reasons)
    assert any("includes zero" in reason for reason in verdict.reasons)


def test_an_alarm_drops_the_unlabeled_data_whatever_the_comparison_says():
    table = {"labels_only": probs(LABELS, HALF), "self_training": probs(LABELS, ALL)}
    verdict = judge(table, LABELS, alarms=["No row of the pool was labeled 'spam'."])
    assert verdict.chosen == "labels_only"
    assert "No row of the pool was labeled 'spam'." in verdict.reasons


@pytest.mark.parametrize(("alarms", "chosen"), [([], "self_training"), (["collapsed"], "labels_only")])
def test_without_held_out_labels_the_verdict_says_that_it_rests_on_none(alarms, chosen):
    empty = np.zeros((0, 2))
    verdict = judge({"labels_only": empty, "self_training": empty}, np.zeros(0, dtype=int), alarms=alarms)
    assert verdict.chosen == chosen
    assert verdict.gain is None
    assert verdict.interval is None
    assert "Unverified" in verdict.sentence
    assert any("rests on no labels" in reason for reason in verdict.reasons)


def test_a_run_without_unlabeled_stages_needs_no_comparison():
    verdict = judge({"labels_only": probs(LABELS, ALL)}, LABELS)
    assert verdict.chosen == "labels_only"
    assert not verdict.use_unlabeled
