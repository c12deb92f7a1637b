"""Options as dataclasses: help texts, and keywords that are the flags."""

from __future__ import annotations

import dataclasses

import pytest

from hfssl.config.arguments import AdapterArguments, DataArguments, FitArguments, ModelArguments


def test_keywords_of_fit_are_the_flags(tmp_path):
    """The command and the function are one: what a flag sets, a keyword sets."""
    arguments = FitArguments(train="a.csv", output_dir=str(tmp_path), pretext=False, rounds=1, test="b.csv")
    assert FitArguments(**arguments.keywords()) == arguments


@pytest.mark.parametrize("cls", [FitArguments, DataArguments, ModelArguments, AdapterArguments])
def test_every_field_has_a_help_text(cls):
    for field in dataclasses.fields(cls):
        assert field.metadata.get("help", "").endswith("."), field.name
