"""One process a folder."""

from __future__ import annotations

import pytest

from hfssl.errors import ConfigurationError
from hfssl.runtime.locks import locked, release, take_lock


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path):
    path = tmp_path / "run.lock"
    lock = take_lock(path)
    with pytest.raises(ConfigurationError, match=f"Another process is working in the folder '{tmp_path}'"):
        take_lock(path)
    release(lock)
    with locked(path), pytest.raises(ConfigurationError):
        take_lock(path)
    assert not path.exists()
    release(take_lock(path))
