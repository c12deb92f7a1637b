"""A recipe's options: the file, flags that win over it, and what it rejects."""

from __future__ import annotations

import pytest

from hfssl.cli.recipe import parse_recipe
from hfssl.config.methods import METHODS
from hfssl.errors import ConfigurationError
from tests.helpers import ROOT


def test_flags_win_over_the_recipe():
    path = ROOT / "recipes/self_training/trec6.yaml"
    recipe = parse_recipe(["--config", str(path), "--seed", "4", "--learning_rate", "3e-5", "--adapter", "lora"])
    assert (recipe.config.seed, recipe.config.learning_rate, recipe.adapter.adapter) == (4, 3e-5, "lora")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], f"method: expected one of {', '.join(METHODS)}; got nothing"),
        (["--method", "self-trainin"], "Did you mean 'self_training'?"),
        (["--method"], "method: expected one of"),
    ],
)
def test_unknown_method(argv, expected):
    with pytest.raises(ConfigurationError) as caught:
        parse_recipe(argv)
    assert expected in str(caught.value)


def test_option_of_another_method_is_unknown():
    path = ROOT / "recipes/supervised/trec6.yaml"
    with pytest.raises(ConfigurationError) as caught:
        parse_recipe(["--config", str(path), "--rounds", "3", "--max-steps", "many", "--labels-per-class", "0"])
    assert len(caught.value.problems) == 3
