"""Values from Python: numpy scalars and paths become plain, wrong types are told in the words of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from hfssl.config.arguments import FitArguments
from hfssl.config.parsing import parse
from hfssl.config.values import plain_value, type_problem
from hfssl.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Path("a") / "b.csv", "a/b.csv"),
        (pd.NA, None),
        (pd.NaT, None),
        ("a", "a"),
        ([1], [1]),
    ],
)
def test_values_become_plain(value, plain):
    found = plain_value(value)
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    ("hint", "good", "bad", "sentence"),
    [
        (int, 3, 3.0, "x: expected a whole number, got 3.0."),
        (int, 3, True, "x: expected a whole number, got True."),
        (float, 3, "3", "x: expected a number, got '3'."),
        (bool, False, 1, "x: expected true or false, got 1."),
        (str, "a", 3, "x: expected text, got 3."),
        (int | None, None, "many", "x: expected a whole number, got 'many'."),
        (int, 1, None, "x: expected a value, got nothing."),
        (
            Literal["quick", "slow"],
            "slow",
            "quik",
            "x: expected one of quick, slow; got 'quik'. Did you mean 'quick'?",
        ),
    ],
)
def test_a_wrong_type_is_one_sentence(hint, good, bad, sentence):
    assert type_problem("x", good, hint) is None
    assert type_problem("x", bad, hint) == sentence


def test_python_and_the_command_line_give_the_same_sentences_and_all_at_once():
    with pytest.raises(ConfigurationError) as python:
        FitArguments(train="a.csv", output_dir="b", seed="x", preset="quik", max_steps=0, learning_rate=-1.0)
    words = "--train a.csv --output-dir b --seed x --preset quik --max-steps 0 --learning-rate -1".split()
    with pytest.raises(ConfigurationError) as command:
        parse([FitArguments], words)
    spelled = {line.removeprefix("--").replace("-", "_") for line in command.value.problems}
    assert {line.replace("-", "_") for line in python.value.problems} == spelled
    assert len(spelled) == 4


def test_lists_and_dicts_in_place_of_words():
    options = {"train": Path("a.csv"), "output_dir": Path("b"), "seed": np.int64(2)}
    arguments = FitArguments(
        **options, class_names=("no", "yes"), missing_labels={"?"}, class_prior={"no": 0.5, "yes": 1}
    )
    assert (arguments.train, arguments.output_dir, arguments.seed) == ("a.csv", "b", 2)
    assert arguments.class_names == ["no", "yes"]
    assert arguments.missing_labels == ["?"]
    assert FitArguments(**arguments.keywords()) == arguments
