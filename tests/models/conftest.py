"""What several files of this folder start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import BatchEncoding


@pytest.fixture
def batch(tiny_tokenizer) -> BatchEncoding:
    """Two texts of different lengths, padded."""
    return tiny_tokenizer(["the film was great", "dull"], padding=True, return_tensors="pt")


@pytest.fixture
def copy_of_backbone(tiny_backbone, tmp_path) -> Path:
    """A copy of the tiny backbone, whose files a test may change."""
    return shutil.copytree(tiny_backbone, tmp_path / "backbone")
