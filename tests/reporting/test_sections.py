"""Sections of the report, by hand."""

from __future__ import annotations

import numpy as np

from hfssl.reporting import figures
from hfssl.reporting.sections import (
    calibration_section,
    confusion_section,
    curves_section,
    data_section,
    good_enough_section,
    rounds_section,
    stages_section,
)
from tests.helpers.run_results import make_results


def test_names_that_cannot_be_drawn_become_numbers_that_a_table_resolves():
    names = ["ok", "日本", "", "same long beginning of a name 1", "same long beginning of a name 2"]
    assert figures.drawable_names(names) == ["ok", "#1", "#2", "#3", "#4"]
    results, evidence = make_results(names)
    table = data_section(results, evidence).tables[-1]
    assert table.title == "All 5 classes"
    assert table.rows[1][:2] == ["#1", "日本"]


def test_top_confusions_by_hand():
    # Truth 0 0 0 1 1, guess 1 1 0 0 1: class 0 was taken for 1 twice of three times, class 1 for 0 once of twice.
    results, evidence = make_results(["a", "b"])
    guess = np.eye(2)[[1, 1, 0, 0, 1]]
    evidence["predictions"] = {"test": {"labels": [0, 0, 0, 1, 1], "probs": {"self_training": guess}}}
    section = confusion_section(results, evidence)
    assert section.tables[0].rows == [["a", "b", "2", "66.7"], ["b", "a", "1", "50.0"]]
    # Class a: precision 1/2, recall 1/3, F1 2/5. Class b: precision 1/3, recall 1/2, F1 2/5.
    classes = good_enough_section(results, evidence).tables[-1]
    assert classes.rows == [["a", "3", "50.0", "33.3", "40.0"], ["b", "2", "33.3", "50.0", "40.0"]]


def test_the_saved_models_reliability_includes_its_temperature():
    # Logit gaps ln 9 (p = .9). Divided by T = 2: ln 3, p = .75. Three of four rows are right: ECE .15 before, 0 after.
    results, evidence = make_results(["a", "b"])
    results["temperature"] = 2.0
    evidence["predictions"] = {"test": {"labels": [0, 0, 0, 1], "probs": {"self_training": [[0.9, 0.1]] * 4}}}
    assert "a mean confidence of 75.0% and is correct on 75.0%: about right" in (
        calibration_section(results, evidence).caption
    )
    results["temperature"] = None
    assert "a mean confidence of 90.0% and is correct on 75.0%: 15.0 points too high" in (
        calibration_section(results, evidence).caption
    )


def test_unlabeled_rows_among_the_predictions_are_left_out():
    results, evidence = make_results(["a", "b"])
    evidence["predictions"] = {"test": {"labels": [0, -1], "probs": {"self_training": [[0.9, 0.1], [0.2, 0.8]]}}}
    rows = {row[0]: row[1] for row in good_enough_section(results, evidence).tables[-1].rows}
    assert rows == {"a": "1", "b": "0"}


def test_validation_is_shown_where_there_is_no_test_part():
    results, _ = make_results(["fresh", "rotten"])
    for stage in results["stages"]:
        stage["metrics"] = {"validation": stage["metrics"]["test"], "test": None}
    results["data"]["counts"] |= {"validation": {"fresh": 3, "rotten": 5}, "test": {}}
    section = stages_section(results)
    assert section.tables[0].groups == [("", 1), ("validation (8 rows)", 3), ("", 1)]
    assert section.caption.startswith("Accuracy on the 8 validation rows")


def test_labels_in_folds_are_shown_where_there_is_no_other_part():
    results, evidence = make_results(["fresh", "rotten"])
    evidence["predictions"] = {"out_of_fold": evidence["predictions"]["test"]}
    for stage in results["stages"]:
        stage["metrics"] = {"validation": None, "test": None, "out_of_fold": stage["metrics"]["test"]}
    results["data"]["counts"] |= {"test": {}, "out_of_fold": {"fresh": 30, "rotten": 30}}
    section = stages_section(results)
    assert section.tables[0].groups == [("", 1), ("out-of-fold (60 rows)", 3), ("", 1)]
    assert section.caption.startswith("Accuracy on the 60 out-of-fold rows")
    caption = calibration_section(results, evidence).caption
    assert "accuracy of the out-of-fold rows by confidence" in caption
    assert "a temperature of 1.25, fitted on the labeled rows, the same as here, so it looks too good." in caption
    assert "on the 60 out-of-fold rows: each line is a true class" in confusion_section(results, evidence).caption


def test_rounds_without_hidden_labels_say_so():
    _, evidence = make_results(["fresh", "rotten"])
    for record in evidence["rounds"]:
        record["pseudo_label_accuracy"] = record["pool_agreement"] = None
    section = rounds_section(make_results(["a", "b"])[0], evidence)
    assert "unknown" in section.caption
    assert [panel.alt for panel in section.figures] == ["Bars, pseudo-labels selected: round 2 100, round 3 200."]


def test_a_loss_that_was_recorded_once_is_told_and_makes_no_chart():
    section = curves_section({"curves": {"labels_only": [{"step": 4, "loss": 1.0}]}})
    assert section.figures == []
    assert section.notes == ["Recorded once, which makes no curve: Labels only."]
