"""Harmful pools: the unlabeled rows of a split, replaced by rows that must not make the model worse.

* `foreign`: texts of another data set.
* `one_class`: rows of one class only, the most frequent one.
* `shuffled`: each text has as many words as before, drawn without replacement from the words of the whole pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from hfssl.data.splits import SemiSupervisedSplits

__all__ = ["HARMFUL", "OWN", "harmful_pool", "plant"]

OWN = "own"  # the pool as it is
HARMFUL = ("foreign", "one_class", "shuffled")
POOL_PARTS = ("unlabeled", "proxy")
DISTANCE = 3  # in the order of the wide grid, so that no two neighbours in it are of one kind


def harmful_pool(datasets: Sequence[str], dataset: str, kind: str) -> dict[str, Any]:
    """What is planted into the pool of a data set: the kind and, for `foreign`, the set that its texts come from.

    Args:
        datasets: all sets, in the order of the grid.
        dataset: the one whose pool is replaced.
        kind: one of `HARMFUL`, or `harmful`: the three in turn over the sets.
    """
    place = list(datasets).index(dataset)
    kind = HARMFUL[place % len(HARMFUL)] if kind == "harmful" else kind
    source = datasets[(place + DISTANCE) % len(datasets)] if kind == HARMFUL[0] else None
    return {"kind": kind, "source": source}


def plant(
    splits: SemiSupervisedSplits,
    kind: str,
    *,
    seed: int,
    max_rows: int | None = None,
    source: str | None = None,
    texts: str | None = None,
) -> SemiSupervisedSplits:
    """The split with another pool of at most as many rows; labels, held-out labels and test part stay.

    Args:
        kind: one of `HARMFUL`.
        seed: of the selection of rows, and of the order of words.
        max_rows: largest number of rows of the new pool; for `one_class`, which is taken from a whole pool.
        source: name of the set of `texts`, which becomes part of the ids.
        texts: file of the training part of that set, for `foreign`.
    """
    from hfssl.data.audit import fingerprints
    from hfssl.data.splits import NO_LABEL_NAME, SemiSupervisedSplits

    parts = {name: splits[name] for name in splits}
    generator = np.random.default_rng([seed, HARMFUL.index(kind)])
    if kind == "foreign":
        replaced = _of_another_set(parts, str(texts), str(source), generator)
    elif kind == "one_class":
        replaced = _of_one_class(parts, max_rows)
    else:
        replaced = _shuffled(parts, generator)
    manifest = {**splits.manifest, "roles": {**splits.manifest["roles"]}, "counts": {**splits.manifest["counts"]}}
    for name, part in replaced.items():
        manifest["roles"][name] = {"ids": part["id"][:], "fingerprints": fingerprints(part)}
        none = dict.fromkeys(splits.label_names, 0)
        manifest["counts"][name] = {**none, NO_LABEL_NAME: len(part)}
    return SemiSupervisedSplits({**parts, **replaced}, manifest)


def _of_another_set(
    parts: dict[str, Dataset], path: str, source: str, generator: np.random.Generator
) -> dict[str, Dataset]:
    import pandas as pd

    known = {text for part in parts.values() for text in part["text"][:]}
    texts = [text for text in dict.fromkeys(pd.read_parquet(path, columns=["text"])["text"]) if text not in known]
    order = iter(generator.permutation(len(texts)).tolist())
    replaced = {}
    for name in POOL_PARTS:
        rows = [row for row, _ in zip(order, range(len(parts[name])), strict=False)]
        columns = {"text": [texts[row] for row in rows], "id": [f"{source}:{row}" for row in rows]}
        replaced[name] = _with_columns(parts[name].select(range(len(rows))), columns)
    return replaced


def _of_one_class(parts: dict[str, Dataset], max_rows: int | None) -> dict[str, Dataset]:
    labels = {name: np.asarray(parts[name]["hidden_label"][:], dtype=np.int64) for name in POOL_PARTS}
    counts = Counter(np.concatenate(list(labels.values())).tolist())
    frequent = max(sorted(counts), key=counts.__getitem__)
    rows = {name: np.flatnonzero(labels[name] == frequent) for name in POOL_PARTS}
    share = min(1.0, (max_rows or counts[frequent]) / counts[frequent])
    return {name: parts[name].select(rows[name][: int(share * len(rows[name]))]) for name in POOL_PARTS}


def _shuffled(parts: dict[str, Dataset], generator: np.random.Generator) -> dict[str, Dataset]:
    texts = {name: [text.split() for text in parts[name]["text"][:]] for name in POOL_PARTS}
    words = [word for part in texts.values() for text in part for word in text]
    mixed = iter([words[place] for place in generator.permutation(len(words))])
    return {
        name: _with_columns(parts[name], {"text": [" ".join(next(mixed) for _ in text) for text in texts[name]]})
        for name in POOL_PARTS
    }


def _with_columns(part: Dataset, columns: dict[str, list[str]]) -> Dataset:
    """The part with other columns; true labels are not known."""
    from datasets import Dataset

    own = {name: part[name][:] for name in part.column_names} | columns
    own["hidden_label"] = [-1] * len(part)
    return Dataset.from_dict(own, features=part.features)
