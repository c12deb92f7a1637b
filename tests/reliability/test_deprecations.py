"""The gate against deprecated upstream calls can fail: by a warning, by a log record, and in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.helpers import ROOT

OFFENDERS = """
import logging
import subprocess
import sys
import warnings

import pytest

def test_sound():
    logging.getLogger("peft.tuners").warning("all is well")

@pytest.mark.parametrize("kind", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
def test_warned(kind):
    warnings.warn("`x` is going away", kind)

@pytest.mark.parametrize("name", ["transformers.trainer", "peft", "accelerate.utils", "datasets.arrow_dataset"])
def test_logged(name):
    logging.getLogger(name).warning("`%s` is Deprecated", "x")

def test_in_another_process():
    subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('x', FutureWarning)"], check=True)
"""


def test_deprecated_calls_fail_the_suite(tmp_path):
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    (tmp_path / "test_offenders.py").write_text(OFFENDERS)
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, "-q", "-rA", str(tmp_path)],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = {line.split("::")[1].split()[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    kinds = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
    assert failed == {*(f"test_warned[{kind}]" for kind in kinds), "test_in_another_process"}
    # The fixture looks when a test is over: its test passes, its teardown is an error.
    errors = {line.split("::")[1].split()[0] for line in done.stdout.splitlines() if line.startswith("ERROR")}
    names = ("transformers.trainer", "peft", "accelerate.utils", "datasets.arrow_dataset")
    assert errors == {f"test_logged[{name}]" for name in names}
