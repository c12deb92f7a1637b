"""The table that ends `hfssl fit`."""

from __future__ import annotations

from hfssl.reporting.closing_table import closing_table

RESULTS = {
    "data": {"counts": {"test": {"no": 1000, "yes": 1781}, "validation": {"no": 3, "yes": 3}}},
    "stages": [
        {
            "name": "labels_only",
            "metrics": {"validation": None, "test": {"accuracy": 0.712, "macro_f1": 0.7049, "nll": 0.6, "ece": 0.041}},
            "seconds": 64.6,
        },
        {
            "name": "self_training",
            "metrics": {"validation": None, "test": {"accuracy": 0.75, "macro_f1": 0.749, "nll": 0.5, "ece": 0.1}},
            "seconds": 120.2,
        },
    ],
    "selected_stage": "self_training",
    "final_stage": "self_training",
}


def test_closing_table():
    assert closing_table(RESULTS).splitlines() == [
        "Measured on 2,781 test rows, in points (0-100); ECE is the calibration error.",
        "",
        "                accuracy  macro-F1   ECE  seconds",
        "  labels only       71.2      70.5   4.1       65",
        "  self-trained      75.0      74.9  10.0      120  <- final",
    ]


def test_closing_table_without_any_labeled_rows_to_measure_on():
    stages = [{**stage, "metrics": {"validation": None, "test": None}} for stage in RESULTS["stages"]]
    lines = closing_table({**RESULTS, "stages": stages}).splitlines()
    assert lines[0].startswith("There were no labeled rows to measure on")
    assert lines[3].split() == ["labels", "only", "-", "-", "-", "65"]


def test_closing_table_falls_back_to_validation():
    stages = [
        {**stage, "metrics": {"validation": stage["metrics"]["test"], "test": None}} for stage in RESULTS["stages"]
    ]
    assert closing_table({**RESULTS, "stages": stages}).startswith("Measured on 6 validation rows")


def test_closing_table_falls_back_to_the_labeled_rows_in_folds():
    """A stage without models of the folds, such as one that cannot be trained on a part of the labels, has dashes."""
    counts = {"counts": {"labeled": {"no": 6, "yes": 7}, "out_of_fold": {"no": 6, "yes": 6}}}
    none = {"validation": None, "test": None}
    first, second = RESULTS["stages"]
    stages = [{**first, "metrics": none | {"out_of_fold": first["metrics"]["test"]}}, {**second, "metrics": none}]
    lines = closing_table({**RESULTS, "data": counts, "stages": stages}).splitlines()
    assert lines[0].startswith("Measured on the 12 labeled rows, each by models trained without it, in points (0-100)")
    assert lines[3].split() == ["labels", "only", "71.2", "70.5", "4.1", "65"]
    assert lines[4].split()[:5] == ["self-trained", "-", "-", "-", "120"]
