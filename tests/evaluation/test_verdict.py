"""The verdict selects the better model, states its uncertainty, and follows alarms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfssl.config.stages import NEUTRAL_GAIN_PRIOR, STAGES
from hfssl.evaluation.verdict import expected_gain, judge, mixture_prior


def probs(labels: np.ndarray, right: list[bool], confidence: float = 0.8) -> np.ndarray:
    """Two-class probabilities that are right where `right` says so."""
    predicted = np.where(right, labels, 1 - labels)
    table = np.full((len(labels), 2), 1 - confidence)
    table[np.arange(len(labels)), predicted] = confidence
    return table


LABELS = np.array([0, 1] * 10)
HALF = [i % 2 == 0 for i in range(20)]
ALL = [True] * 20


def test_a_stage_that_is_right_more_often_is_selected_with_its_gain_and_interval():
    verdict = judge({"labels_only": probs(LABELS, HALF), "self_training": probs(LABELS, ALL)}, LABELS)
    assert verdict.selected_stage == "self_training"
    assert verdict.use_unlabeled
    assert verdict.gain == pytest.approx(0.5)
    low, high = verdict.interval
    assert 0.2 < low < 0.5 < high < 0.8
    assert "helped (+50.0 points on 20 held-out labels" in verdict.sentence


def test_labels_only_is_selected_where_the_unlabeled_data_did_not_help():
    verdict = judge({"labels_only": probs(LABELS, ALL), "self_training": probs(LABELS, HALF)}, LABELS)
    assert verdict.selected_stage == "labels_only"
    assert not verdict.use_unlabeled
    assert verdict.gain == pytest.approx(-0.5)
    assert "did not help" in verdict.sentence


def test_the_best_of_several_stages_competes_with_labels_only():
    labels, right = np.tile(LABELS, 3), {"labels_only": 3 * HALF, "labels_only_after_pretext": 3 * ALL}
    right["self_training"] = 3 * ([True] * 15 + [False] * 5)
    verdict = judge({name: probs(labels, rows) for name, rows in right.items()}, labels)
    assert verdict.selected_stage == "labels_only_after_pretext"


def test_without_rows_the_gain_is_what_earlier_runs_had():
    none = np.zeros(0, dtype=bool)
    mean, low, high = expected_gain(none, none, [(1.0, 0.01, 0.02)])
    assert (mean, low, high) == pytest.approx((0.01, 0.01 - 1.959964 * 0.02, 0.01 + 1.959964 * 0.02))


def test_rows_and_earlier_runs_are_weighed_by_their_variances():
    """Gain 2/10 with four rows that differ: noise (4 + 1) / 11 / 10 against a spread of 0.1 around 0.05."""
    baseline = np.array([False, False, False, True, *[True] * 6])
    other = np.array([True, True, True, False, *[True] * 6])
    mean, low, high = expected_gain(baseline, other, [(1.0, 0.05, 0.1)])
    noise = 5 / 110
    trust = 0.01 / (0.01 + noise)
    assert mean == pytest.approx(0.05 + trust * 0.15)
    assert (high - low) / 2 == pytest.approx(1.959964 * (trust * noise) ** 0.5)


def test_the_spread_between_the_folds_models_and_the_final_ones_is_noise_of_the_evidence():
    """As above, with 0.03^2 more of variance."""
    baseline = np.array([False, False, False, True, *[True] * 6])
    other = np.array([True, True, True, False, *[True] * 6])
    prior = [(1.0, 0.05, 0.1)]
    mean, low, high = expected_gain(baseline, other, prior, spread=0.03)
    noise = 5 / 110 + 0.03**2
    trust = 0.01 / (0.01 + noise)
    assert mean == pytest.approx(0.05 + trust * 0.15)
    assert (high - low) / 2 == pytest.approx(1.959964 * (trust * noise) ** 0.5)
    # What the folds' models are better by, on average, is taken off: 0.2 - 0.04 is observed.
    assert expected_gain(baseline, other, prior, spread=0.03, shift=0.04)[0] == pytest.approx(0.05 + trust * 0.11)
    # A spread that is far above the prior's own leaves what earlier runs had; without rows there is nothing to doubt.
    assert expected_gain(baseline, other, prior, spread=100.0)[0] == pytest.approx(0.05, abs=1e-6)
    none = np.zeros(0, dtype=bool)
    assert expected_gain(none, none, prior, spread=0.03) == expected_gain(none, none, prior)


def test_a_verdict_on_the_models_of_the_folds_is_less_certain():
    table = {"labels_only": probs(LABELS, HALF), "self_training": probs(LABELS, ALL)}
    prior = mixture_prior("self_training")
    for spread in (0.0, 0.02, 0.2):
        verdict = judge(table, LABELS, spread=spread)
        expected = expected_gain(np.array(HALF), np.array(ALL), prior, spread=spread)
        assert (verdict.expected_gain, *verdict.expected_interval) == pytest.approx(expected)
        assert verdict.gain == pytest.approx(0.5)  # what was seen is what was seen
    assert judge(table, LABELS, spread=0.2).expected_gain < judge(table, LABELS).expected_gain


def test_a_gross_failure_is_believed_and_a_single_row_is_not():
    """18 held-out rows, as trec6 leaves them: two rows more wrong are noise, half of them wrong are not."""
    prior, all_right = mixture_prior("self_training"), np.ones(18, dtype=bool)

    def gain(wrong: int) -> float:
        return expected_gain(all_right, np.arange(18) >= wrong, prior)[0]

    assert gain(0) > 0
    assert gain(2) > 0
    assert gain(3) < 0
    assert gain(9) < -0.1
    assert expected_gain(np.arange(18) >= 9, all_right, prior)[0] > 0.03


def test_six_rows_are_enough_to_see_a_collapse():
    """sst2 with 16 labels a class leaves six: one or two more wrong are noise, all of them are not."""
    right = np.ones(6, dtype=bool)
    gains = [expected_gain(right, np.arange(6) >= wrong, mixture_prior("self_training"))[0] for wrong in (1, 2, 6)]
    assert gains[0] > gains[1] > 0 > gains[2]


def test_many_rows_outweigh_earlier_runs():
    rows = np.arange(2000)
    mean, low, high = expected_gain(rows % 10 > 0, rows % 10 > 1, mixture_prior("self_training"))  # 90 % against 80 %
    assert -0.12 < low < mean < high < -0.08


@pytest.mark.parametrize(("confidence", "selected"), [(0.9, "labels_only_after_pretext"), (0.7, "self_training")])
def test_equal_expectations_are_decided_by_the_log_likelihood(monkeypatch, confidence, selected):
    equal = replace(STAGES["labels_only_after_pretext"], gain_prior=STAGES["self_training"].gain_prior)
    monkeypatch.setitem(STAGES, "labels_only_after_pretext", equal)
    # All rows right: a higher probability of the right class is a lower negative log-likelihood.
    table = {"labels_only_after_pretext": probs(LABELS, ALL, confidence), "self_training": probs(LABELS, ALL)}
    verdict = judge({"labels_only": probs(LABELS, ALL), **table}, LABELS)
    assert verdict.gain == 0
    assert verdict.selected_stage == selected
    assert any("includes zero" in reason for reason in verdict.reasons)


def test_without_held_out_labels_a_stage_that_promises_nothing_is_not_selected():
    empty = np.zeros((0, 2))
    verdict = judge({"labels_only": empty, "labels_only_after_pretext": empty}, np.zeros(0, dtype=int))
    assert verdict.selected_stage == "labels_only"
    assert "earlier runs promise no gain" in verdict.sentence


def test_an_alarm_drops_the_unlabeled_data_whatever_the_comparison_finds():
    table = {"labels_only": probs(LABELS, HALF), "self_training": probs(LABELS, ALL)}
    verdict = judge(table, LABELS, alarms=["No row of the pool was labeled 'spam'."])
    assert verdict.selected_stage == "labels_only"
    assert "No row of the pool was labeled 'spam'." in verdict.reasons


@pytest.mark.parametrize(("alarms", "selected"), [([], "self_training"), (["collapsed"], "labels_only")])
def test_without_held_out_labels_the_verdict_says_that_it_rests_on_none(alarms, selected):
    empty = np.zeros((0, 2))
    verdict = judge({"labels_only": empty, "self_training": empty}, np.zeros(0, dtype=int), alarms=alarms)
    assert verdict.selected_stage == selected
    assert verdict.gain is None
    assert verdict.interval is None
    assert "Unverified" in verdict.sentence
    assert any("rests on no labels" in reason for reason in verdict.reasons)


def test_a_run_without_unlabeled_stages_needs_no_comparison():
    verdict = judge({"labels_only": probs(LABELS, ALL)}, LABELS)
    assert verdict.selected_stage == "labels_only"
    assert not verdict.use_unlabeled


def test_a_stage_that_is_not_listed_has_a_neutral_prior():
    """No earlier runs are known of it: the held-out rows are weighed against the neutral prior."""
    verdict = judge({"labels_only": probs(LABELS, HALF), "my_stage": probs(LABELS, ALL)}, LABELS)
    assert verdict.selected_stage == "my_stage"
    prior = ((0.95, *NEUTRAL_GAIN_PRIOR), (0.05, -0.15, 0.2))
    assert verdict.expected_gain == pytest.approx(expected_gain(np.array(HALF), np.array(ALL), prior)[0])
    assert verdict.reasons[0].startswith("my stage: 20 of 20")
    without_labels = judge({"labels_only": np.zeros((0, 2)), "my_stage": np.zeros((0, 2))}, np.zeros(0, dtype=int))
    assert without_labels.selected_stage == "labels_only"  # the mean of the neutral prior is no gain
