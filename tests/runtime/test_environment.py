"""`hfssl env`: correct facts about this machine, and none that are private."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest
import torch

import hfssl
from hfssl.runtime import environment as module
from hfssl.runtime.environment import PACKAGES, describe, environment


def test_facts_are_those_of_this_machine():
    facts = environment()
    assert facts["hfssl"] == hfssl.__version__
    assert facts["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["torch"] == version("torch")
    assert facts["Threads"].startswith(f"{torch.get_num_threads()} in an operation")
    assert list(facts)[:2] == ["hfssl", "Python"]
    assert all(isinstance(value, str) and value for value in facts.values())


@pytest.mark.parametrize(("value", "shown"), [("", "empty"), ("0,1", "0,1"), (None, "not set")])
def test_a_variable_that_is_empty_is_not_one_that_is_not_set(monkeypatch, value, shown):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert environment()["CUDA_VISIBLE_DEVICES"] == shown


def test_every_required_package_is_told():
    import tomllib
    from pathlib import Path

    from packaging.requirements import Requirement

    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    required = {Requirement(line).name for line in pyproject["project"]["dependencies"]}
    # What has little to do with numbers, files or the Hub is left out.
    assert required - set(PACKAGES) == {
        "Jinja2",
        "charset-normalizer",
        "filelock",
        "matplotlib",
        "openpyxl",
        "PyYAML",
        "tqdm",
    }


def test_a_missing_package_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("torch", "no-such-package"))
    assert environment()["no-such-package"] == "not installed"


@pytest.mark.parametrize(("fast", "expected"), [(True, "yes"), (False, "no")])
def test_bf16_is_what_training_would_take(monkeypatch, fast, expected):
    monkeypatch.setattr("hfssl.runtime.precision.has_bf16", lambda: fast)
    assert environment()["bf16"].startswith(expected)


def test_no_secret_and_no_path_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    text = describe()
    assert "hf_secret" not in text
    assert str(tmp_path) not in text
