"""Pseudo-labels that the user brings are converted or refused before anything trains."""

from __future__ import annotations

import pytest
from datasets import Dataset

from hfssl.errors import DataError
from hfssl.methods.self_training.given_labels import with_pseudo_labels
from hfssl.tasks.registry import get_task
from tests.helpers.train_tiny import LABEL_NAMES, make_pool

NAMES = ["bad", "good"]


def pool(**columns) -> Dataset:
    return Dataset.from_dict({"text": ["a", "b", "c"], **columns})


def test_labels_become_probabilities_and_rows_without_one_are_left_out():
    found = with_pseudo_labels(pool(pseudo_label=["good", None, "bad"]), NAMES, get_task())
    assert found["text"][:] == ["a", "c"]
    assert found["pseudo_probs"][:] == [[0, 1], [1, 0]]
    assert found["weight"][:] == [1, 1]
    numbered = with_pseudo_labels(pool(pseudo_label=[1, -1, 0], weight=[0.5, 1.0, 2.0]), NAMES, get_task())
    assert numbered["pseudo_probs"][:] == [[0, 1], [1, 0]]
    assert numbered["weight"][:] == [0.5, 2]


def test_pseudo_labels_of_the_rounds_stay_the_same_object():
    given = make_pool(5)
    assert with_pseudo_labels(given, LABEL_NAMES, get_task()) is given


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "expected a column `pseudo_probs` .* found text"),
        ({"pseudo_label": ["good", "so so", "bad"]}, "got 'so so' in row 1 of unlabeled_dataset"),
        ({"pseudo_probs": [[0.5, 0.5], [0.9, 0.2], [1.0, 0.0]]}, r"got \[0.9, 0.2\] in row 1"),
        ({"pseudo_probs": [[1.0, 0.0], [1.0, 0.0], [1.0]]}, r"expected 2 probabilities .* got \[1.0\] in row 2"),
        ({"pseudo_probs": [[1.5, -0.5]] * 3}, "in row 0"),
        ({"pseudo_label": [0, 0, 1], "weight": [1.0, -1.0, 1.0]}, "at least 0 .* got -1.0 in row 1"),
    ],
)
def test_what_cannot_be_learned_from_is_one_sentence(columns, message):
    with pytest.raises(DataError, match=message) as caught:
        with_pseudo_labels(pool(**columns), NAMES, get_task())
    assert "\n" not in str(caught.value)
