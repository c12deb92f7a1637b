"""The registry: rows are plain data; their import paths exist and agree with the objects that they name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from hfssl.config.methods import METHODS, resolve
from hfssl.errors import ConfigurationError
from hfssl.training.config import SSLConfig
from hfssl.training.trainer import SSLTrainer


@pytest.mark.parametrize("name", METHODS)
def test_a_row_agrees_with_the_classes_that_it_names(name):
    row = METHODS[name]
    assert issubclass(row.config_class, SSLConfig)
    assert issubclass(row.trainer_class, SSLTrainer)
    assert row.trainer_class.config_class is row.config_class
    objective = row.trainer_class.objective_class
    assert (objective.product, objective.paper) == (row.product, row.paper)
    assert row.driver is None or callable(resolve(row.driver))
    assert set(row.streams) <= {"labeled", "unlabeled"}
    assert row.streams


def test_rows_need_no_torch():
    code = "import sys, hfssl.config.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_opt_out_is_refused():
    with pytest.raises(ValueError, match="expected names among changes_labeled_loss, .*; got no_lorra"):
        replace(METHODS["supervised"], opt_outs={"no_lorra": "it cannot"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hfssl.errors:DataErrors", "Expected 'DataErrors' in the module hfssl.errors, .* Did you mean 'DataError'?"),
        ("hfssl.nothing:Name", "Expected the module hfssl.nothing of the import path 'hfssl.nothing:Name', found no"),
        ("nothing.at.all:Name", "Expected the module nothing of the import path 'nothing.at.all:Name'"),
        ("hfssl.errors.DataError", "Expected an import path 'module:name', got 'hfssl.errors.DataError': put a colon"),
    ],
)
def test_a_wrong_import_path_is_one_sentence(path, message):
    with pytest.raises(ConfigurationError, match=message):
        resolve(path)


def test_a_module_that_lacks_something_it_imports_raises_that(tmp_path, monkeypatch):
    (tmp_path / "lacks_something.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        resolve("lacks_something:Name")
