"""A sample of `tests/helpers/faults.py`: a run that is killed at changes of its files, and damaged files of runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

KILLS, DAMAGES = 90, 9


def command(*words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.faults", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, json.dumps([done.stdout, done.stderr[-2000:]], indent=1)
    return done.stdout


@pytest.mark.slow  # a run of `fit` for each change
def test_a_run_that_is_killed_at_a_change_of_a_file_resumes_to_the_same_bits():
    changes, faults = command("kills", "--every", str(KILLS)).splitlines()
    count = int(changes.removesuffix(" changes of files in a run."))
    assert count > 300
    assert faults == f"{2 * len(range(0, count, KILLS))} faults, 0 of them wrong."


@pytest.mark.slow
def test_damaged_files_are_one_sentence_or_change_nothing():
    assert command("damage", "--count", str(DAMAGES)).endswith(f"{DAMAGES} faults, 0 of them wrong.\n")
