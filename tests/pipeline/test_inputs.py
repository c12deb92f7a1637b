"""Fingerprints of the inputs: what has changed since the run began is told."""

from __future__ import annotations

import hashlib
import logging
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from hfssl.errors import ConfigurationError
from hfssl.pipeline.inputs import changed_inputs, check_inputs, input_fingerprints, local_inputs


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n")
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "config.json").write_text("{}")
    return SimpleNamespace(
        train=str(tmp_path / "train.csv"),
        backbone=str(tmp_path / "backbone"),
        class_prior="ham=0.9, spam=0.1",
        test=None,
    )


def test_files_and_folders_of_this_machine(arguments, tmp_path):
    assert local_inputs(arguments) == {"train": tmp_path / "train.csv", "backbone": tmp_path / "backbone"}
    found = input_fingerprints(arguments)
    assert found["train"] == {"bytes": 11, "sha256": hashlib.sha256(b"text,label\n").hexdigest()}
    digest = hashlib.sha256(f"config.json\0{hashlib.sha256(b'{}').hexdigest()}\n".encode()).hexdigest()
    assert found["backbone"] == {"bytes": 2, "sha256": digest}
    assert found.keys() == {"train", "backbone"}


def test_nothing_changed(arguments, tmp_path):
    before = input_fingerprints(arguments)
    check_inputs(arguments, before, tmp_path)
    assert changed_inputs(before, before) == []


def test_all_changes_at_once_with_what_to_do(arguments, tmp_path):
    before = input_fingerprints(arguments)
    (tmp_path / "train.csv").write_text("text,label\ngood,1\n")
    (tmp_path / "backbone" / "config.json").write_text("[]")
    with pytest.raises(ConfigurationError) as raised:
        check_inputs(arguments, before, tmp_path / "run")
    first, second = raised.value.problems
    assert f"train '{tmp_path / 'train.csv'}' has changed since (from 11 to 18 bytes)" in first
    assert "put it back as it was, or, to use it as it is now, start again with --overwrite-output-dir" in first
    assert "backbone" in second
    assert "(the same 2 bytes, another content)" in second


def test_a_table_that_is_gone_is_told(arguments, tmp_path, caplog):
    before = input_fingerprints(arguments)
    (tmp_path / "train.csv").unlink()
    with caplog.at_level(logging.WARNING):
        check_inputs(arguments, before, tmp_path / "run")
    assert "is gone; the run goes on with the rows that it kept" in caplog.text


def test_another_commit_of_a_hub_model(arguments, tmp_path):
    arguments.backbone = "me/model"
    before = {"backbone": {"revision": "a" * 40}}
    assert changed_inputs(before, {"backbone": {"revision": "b" * 40}}) == ["backbone"]
    check_inputs(arguments, before, tmp_path)  # it is not in the cache: nothing is known, nothing is claimed


def test_the_commit_is_that_of_the_asked_revision(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "models--me--model"
    for name, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        (place / "snapshots" / commit).mkdir(parents=True)
        (place / "snapshots" / commit / "config.json").write_text("{}")
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / name).write_text(commit)
    arguments.backbone = "me/model"
    assert input_fingerprints(arguments)["backbone"] == {"revision": "a" * 40}
    arguments.revision = "v2"
    assert input_fingerprints(arguments)["backbone"] == {"revision": "b" * 40}
