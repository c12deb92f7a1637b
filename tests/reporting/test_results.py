"""Reading `results.json`."""

from __future__ import annotations

import pytest

from hfssl.errors import ModelError
from hfssl.reporting.results import read_results


def test_the_results_of_a_recipe_are_no_run_of_fit(tmp_path):
    """recipes/train.py writes a `results.json` of its own, without stages, and without a schema version."""
    (tmp_path / "results.json").write_text('{"method": "supervised", "metrics": {}}')
    assert read_results(tmp_path) == {"method": "supervised", "metrics": {}}
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_results(tmp_path)
