"""`hfssl env` as a user runs it."""

from __future__ import annotations

import subprocess
import sys

import hfssl


def test_the_command_prints_a_list_for_an_issue():
    done = subprocess.run([sys.executable, "-m", "hfssl.cli.main", "env"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == f"- hfssl: {hfssl.__version__}"
    assert all(line.startswith("- ") for line in lines)


def test_the_command_refuses_options():
    command = [sys.executable, "-m", "hfssl.cli.main", "env", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--seed" in done.stderr
