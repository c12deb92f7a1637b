"""Options of `fit` on a tiny backbone."""

from __future__ import annotations

import pytest

from hfssl.pipeline.presets import PRESETS
from tests.helpers.fit_tiny import TINY, fit_options


@pytest.fixture
def tiny_preset(monkeypatch):
    """Makes `quick` as short as it can be."""
    monkeypatch.setitem(PRESETS, "quick", TINY)


@pytest.fixture
def options(table, tiny_backbone, tmp_path) -> dict:
    """All stages of the preset."""
    return fit_options(table, tiny_backbone, tmp_path / "run")


@pytest.fixture
def labels_only_options(options, tiny_preset) -> dict:
    """No stage but that of labels only, unless a test asks for more."""
    return options | {"pretext": False, "rounds": 0, "cross_fit": 0}
