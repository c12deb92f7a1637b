"""How OpenMP threads wait: set before torch is loaded, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hfssl.runtime.threads import CHOICES, set_wait_policy


def test_set_where_nobody_has_chosen():
    found: dict[str, str] = {}
    assert set_wait_policy(found, loaded=["sys"])
    assert found == {"GOMP_SPINCOUNT": "1000"}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_of_the_user_stays(name):
    found = {name: "7"}
    assert not set_wait_policy(found, loaded=[])
    assert found == {name: "7"}


def test_not_once_torch_is_loaded():
    found: dict[str, str] = {}
    assert not set_wait_policy(found, loaded=["torch"])
    assert found == {}


@pytest.mark.parametrize(("first", "expected"), [("hfssl", "1000"), ("sys", "None")])
def test_importing_hfssl_sets_it_and_loads_no_torch(first, expected):
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    code = f"import os, sys, {first}; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
