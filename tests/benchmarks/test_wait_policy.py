"""The measurement of the wait policy: ratios by hand, one tiny measurement, and other processes that end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.wait_policy import POLICIES, busy, ratios, table

PAIRS = [
    {"default": 1.0, "passive": 1.1, "spin 1,000": 1.0},
    {"default": 2.0, "passive": 2.0, "spin 1,000": 1.0},
    {"default": 4.0, "passive": 8.0, "spin 1,000": 1.0},
]


def test_ratios_are_those_of_the_pairs():
    assert ratios(PAIRS) == pytest.approx({"default": 1.0, "passive": 1.1, "spin 1,000": 0.5})


def test_table_names_each_case_and_policy():
    shown = table({"idle": PAIRS, "loaded": PAIRS[2:]})
    assert "| idle | spin 1,000 | 1.000 | 0.50 |" in shown
    assert "| loaded | passive | 8.000 | 2.00 |" in shown
    assert len(shown.splitlines()) == 2 + 2 * len(POLICIES)


def test_other_processes_end_with_the_block(monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **kwargs: started.append(popen(*args, **kwargs)) or started[-1]
    )
    with busy(2):
        assert [process.poll() for process in started] == [None, None]
    assert all(process.poll() is not None for process in started)


def test_a_loaded_machine_is_refused(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (3.0, 0.0, 0.0))
    monkeypatch.setattr(sys, "argv", ["wait_policy.py"])
    from benchmarks.wait_policy import main

    with pytest.raises(SystemExit, match="load of the last minute is 3.0"):
        main()
