"""Words for pictures, by hand."""

from __future__ import annotations

import numpy as np

from hfssl.metrics.calibration import reliability_bins
from hfssl.reporting import alt_texts


def test_what_is_seen_is_said_in_numbers():
    assert alt_texts.learning_curve("Labels only", {"training": [(1, 2.0), (5, 0.25), (9, 0.5)]}) == (
        "Lines, Labels only: training loss 2 at step 1, 0.5 at step 9, lowest 0.25 at 5."
    )
    lines = {"correct": [None, 0.75, 0.8]}
    assert alt_texts.round_lines([1, 2, 3], lines) == (
        "Lines by round, in percent. correct: round 2 75.0, round 3 80.0."
    )
    # Two rows at .9, one of them right.
    bins = reliability_bins(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))
    assert alt_texts.reliability("As saved", bins) == (
        "Reliability diagram, As saved. Mean confidence and share of right answers, in percent: 90.0 on 2 rows, "
        "50.0 right."
    )


def test_confusions_are_said_weakest_class_first():
    # Of three rows of "a", one is right and two are taken for "b"; "c" has no rows.
    said = alt_texts.confusion(np.array([[1, 2, 0], [0, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert said == (
        "Confusion matrix of 3 classes, 71.4% on the diagonal. Right, weakest first: a 1 of 3, most often taken for b "
        "(2); b 4 of 4."
    )


def test_of_many_numbers_the_ends_are_said():
    names = [f"c{i}" for i in range(20)]
    assert alt_texts.class_counts("test", list(range(20)), names) == (
        "Bars, rows per class in the part test, 20 classes: most in c19 19, c18 18, c17 17; fewest in c2 2, c1 1, "
        "c0 0."
    )
    assert alt_texts.selected(list(range(1, 21)), list(range(20))) == (
        "Bars, pseudo-labels selected: round 1 0, round 2 1, round 19 18, round 20 19."
    )
    said = alt_texts.confusion(np.diag(np.arange(1, 21)), names)
    assert said.endswith("Right, the three weakest: c0 1 of 1; c1 2 of 2; c2 3 of 3.")


def test_names_are_one_short_line():
    said = alt_texts.class_counts("labeled", [1, 2], ["two\nlines \u202e" + 50 * "x", "  "])
    assert said == f"Bars, rows per class in the part labeled: two lines {29 * 'x'}… 1, (empty name) 2."
