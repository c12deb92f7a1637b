"""Reading `results.json`."""

from __future__ import annotations

import pytest

from hfssl.errors import ModelError
from hfssl.reporting.results import PARTS, part_title, primary_split, read_results


def test_the_results_of_a_recipe_are_no_run_of_fit(tmp_path):
    """recipes/train.py writes a `results.json` of its own, without stages, and without a schema version."""
    (tmp_path / "results.json").write_text('{"method": "supervised", "metrics": {}}')
    assert read_results(tmp_path) == {"method": "supervised", "metrics": {}}
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_results(tmp_path)


def test_the_part_that_says_most_is_the_first_on_which_a_stage_was_measured():
    """Test rows before held-out ones, and these before the labels in folds."""
    metrics = {"accuracy": 0.5}

    def found(**parts):
        return primary_split({"stages": [{"metrics": {"validation": None, "test": None}}, {"metrics": parts}]})

    assert found(test=metrics, validation=metrics, out_of_fold=metrics) == "test"
    assert found(test=None, validation=metrics, out_of_fold=metrics) == "validation"
    assert found(test=None, validation=None, out_of_fold=metrics) == "out_of_fold"
    assert found(test=None, validation=None) is None
    assert [part_title(part) for part in PARTS] == ["test", "validation", "out-of-fold"]
