"""Rows of random tokens; not a test itself."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from tests.helpers.texts import WORDS


def make_dataset(tokenizer, rows: int = 50, longest: int = 30, last: str | None = None) -> Dataset:
    """Unlabeled rows of random words, fewer than `longest` of them; the last text may be given."""
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=length)) for length in generator.integers(1, longest, size=rows)]
    texts = texts if last is None else [*texts[:-1], last]
    return Dataset.from_dict({"text": texts, "label": [-1] * rows} | dict(tokenizer(texts)))
