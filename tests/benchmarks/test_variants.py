"""`benchmarks/variants.py`: overrides are merged into a preset, for one run."""

from __future__ import annotations

import sys

import pytest

from hfssl.pipeline.presets import PRESETS
from tests.helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import variants


def test_nested_settings_are_merged_and_all_else_is_replaced():
    before = {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": (1, 2)}
    after = variants.merged(before, {"a": {"b": {"c": 9}}, "f": [5]})
    assert after == {"a": {"b": {"c": 9, "d": 2}, "e": 3}, "f": (5,)}
    assert before["a"]["b"]["c"] == 1


def test_a_variant_is_in_the_place_of_its_preset_for_one_run_only():
    before = PRESETS["quick"]
    overrides = {"self_training": {"max_steps": 7}, "contrastive": None, "options": {"refit": False}}
    with variants.applied("quick", overrides) as (settings, options):
        inside = PRESETS["quick"]
    assert PRESETS["quick"] is before
    assert inside.contrastive is None
    assert inside.self_training == before.self_training | {"max_steps": 7}
    assert options == settings["options"] == {"refit": False}
    assert settings["values"]["self_training"]["max_steps"] == 7
    with pytest.raises(RuntimeError), variants.applied("quick", overrides):
        raise RuntimeError
    assert PRESETS["quick"] is before


def test_settings_that_changed_since_are_named():
    settings = variants.current_settings("quick", {"max_pool_rows": 5})
    assert variants.changed_settings("quick", {"max_pool_rows": 5}, settings) == []
    assert variants.changed_settings("quick", {}, settings) == ["max_pool_rows"]
    older = {**settings, "defaults": settings["defaults"] | {"max_length": 64}}
    assert variants.changed_settings("quick", {"max_pool_rows": 5}, older) == ["max_length"]
    del older["defaults"]["max_length"]  # the option is new since
    assert variants.changed_settings("quick", {"max_pool_rows": 5}, older) == []
    assert variants.changed_settings("quick", {"no_longer_there": 5}, settings) == ["no_longer_there"]


@pytest.mark.parametrize("name", list(variants.VARIANTS))
def test_a_named_variant_fits_a_preset_and_changes_a_setting(name):
    overrides = variants.VARIANTS[name]
    given = [variants.current_settings(preset, overrides) for preset in ("quick", "standard")]
    assert given != [variants.current_settings(preset, {}) for preset in ("quick", "standard")]


def test_what_is_no_variant_is_refused():
    assert variants.read_variant("one_teacher") == ("one_teacher", {"self_training": {"num_teachers": 1}})
    assert variants.read_variant('short={"refit": false}') == ("short", {"refit": False})
    for given, message in (
        ("what", "or one of"),
        ("a={", "Expected JSON"),
        ("a-b={}", "a name of"),
        ("a=[]", "JSON object"),
    ):
        with pytest.raises(SystemExit, match=message):
            variants.read_variant(given)
