"""Tables of random sentences for the tests of the splits, and checks of the parts."""

from __future__ import annotations

from collections import Counter

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value

HELD_OUT = ("test", "validation", "proxy")


def sentence(generator, words=8):
    """Random words, so that no two sentences are near duplicates."""
    return " ".join("".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(words))


def table(texts, labels, names=("a", "b", "c"), **columns):
    features = {"text": Value("string"), "label": ClassLabel(names=list(names))}
    features |= {column: Value("string") for column in columns}
    return Dataset.from_dict({"text": texts, "label": labels, **columns}, features=Features(features))


def random_table(seed, rows=240, class_prior=(0.5, 0.3, 0.2), unlabeled=0.0, groups=None):
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(class_prior), rows, p=class_prior)
    labels = np.where(generator.random(rows) < unlabeled, -1, labels)
    columns = {} if groups is None else {"group": [f"g{g}" for g in generator.integers(groups, size=rows)]}
    return table([sentence(generator) for _ in range(rows)], labels.tolist(), **columns)


def ids(splits, *parts):
    return {row for part in parts for row in splits[part]["id"]}


def per_class(part):
    return Counter(part["label"])
