"""Each alarm: cases that raise it, and cases that do not."""

from __future__ import annotations

import numpy as np

from hfssl.evaluation.alarms import drifted_class_prior, lost_classes, ood_pool, ood_rows_left_out, unlearned_labels

NAMES = ["spam", "ham", "eggs"]


def test_a_class_with_labels_that_the_pool_lost_is_named():
    (sentence,) = lost_classes(np.array([1, 1, 1]), np.array([0, 1]), NAMES)
    assert "'spam'" in sentence
    assert "'eggs'" not in sentence  # it never had a label
    assert lost_classes(np.array([0, 1]), np.array([0, 1]), NAMES) == []


def test_a_drift_of_a_quarter_is_an_alarm():
    taught = np.array([0.5, 0.5])
    far, near = (np.tile([share, 1 - share], (100, 1)) for share in (0.80, 0.70))
    (sentence,) = drifted_class_prior(far, taught)
    assert "100 texts" in sentence
    assert "30%" in sentence
    assert drifted_class_prior(near, taught) == []
    assert drifted_class_prior(far[:20], taught) == []  # too few rows
    assert drifted_class_prior(far, None) == []


def test_a_student_that_does_not_say_what_it_was_taught_is_an_alarm():
    taught, other = np.zeros(100, dtype=int), np.ones(100, dtype=int)
    half, most, nearly = np.arange(100) % 2, *((np.arange(100) < count).astype(int) for count in (20, 34))
    (sentence,) = unlearned_labels(half, most, taught)
    assert "50% of 100 texts" in sentence
    assert "labels-only model 80%" in sentence
    assert unlearned_labels(most, half, taught) == unlearned_labels(half, half, taught) == []
    assert unlearned_labels(nearly, most, taught) == []  # 66 after 80
    assert unlearned_labels(other[:20], taught[:20], taught[:20]) == []  # too few rows


def test_a_pool_out_of_distribution_is_an_alarm_unless_its_rows_lost_their_weight():
    mostly, hardly = np.arange(100) < 90, np.arange(100) < 10
    assert "90% of the pool" in ood_pool(mostly, filtered=False)[0]
    assert ood_pool(mostly, filtered=True) == ood_pool(hardly, filtered=False) == []


def test_what_was_left_out_is_noted_but_a_pool_that_is_all_out_of_distribution_is_an_alarm():
    mostly, hardly, all_of_it = np.arange(100) < 90, np.arange(100) < 10, np.ones(100, dtype=bool)
    assert "90% of the pool" in ood_rows_left_out(mostly)[0]
    assert ood_rows_left_out(hardly) == ood_rows_left_out(all_of_it) == []  # all of it: nothing would be left
    assert ood_pool(all_of_it, filtered=False)
