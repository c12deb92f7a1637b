"""Signs, seen without labels, that self-training went wrong; each raises the alarm in a sentence, or says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hfssl.evaluation.out_of_distribution import is_ood

__all__ = ["drifted_class_prior", "lost_classes", "ood_pool", "ood_rows_left_out", "unlearned_labels"]

MIN_ROWS, DRIFT, UNLEARNED = 50, 0.25, 15


def lost_classes(pseudo_labels: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[str]:
    """Classes with labels that no row of the pool was given.

    Args:
        pseudo_labels: `[N]` class of each row of the pool.
        labels: `[L]` classes of the labeled rows.
        names: K names.
    """
    counts, labeled = (np.bincount(rows, minlength=len(names)) for rows in (pseudo_labels, labels))
    lost = [name for name, n, known in zip(names, counts, labeled, strict=True) if known and not n]
    return [f"No row of the pool was labeled {', '.join(map(repr, lost))}: the classes collapsed."] if lost else []


def drifted_class_prior(probs: np.ndarray, taught: np.ndarray | None) -> list[str]:
    """The student gives the classes other shares than it was taught, on texts that nothing was trained on.

    Args:
        probs: `[N, K]` of the student, on `proxy`; fewer than 50 rows say too little.
        taught: `[K]` shares that the pseudo-labels were brought to; `None` where they were left as they came.
    """
    if len(probs) < MIN_ROWS or taught is None:
        return []
    drift = float(np.abs(probs.mean(axis=0) - taught).sum() / 2)
    if drift < DRIFT:
        return []
    return [
        f"On {len(probs):,} texts that were set aside, the student's class prior are {100 * drift:.0f}% away from "
        "those that it was taught (total variation)."
    ]


def unlearned_labels(student: np.ndarray, labels_only: np.ndarray, taught: np.ndarray) -> list[str]:
    """The student says what it was taught on far fewer rows of the pool than labels only, which never saw that.

    A little fewer is usual: the labels-only model is much like the teacher, and a student may better its labels.

    Args:
        student: `[N]` classes that the student gives to rows of the pool; fewer than 50 say too little.
        labels_only: `[N]` those of the labels-only model.
        taught: `[N]` their pseudo-labels.
    """
    if len(taught) < MIN_ROWS:
        return []
    learned, before = (100 * float((said == taught).mean()) for said in (student, labels_only))
    if learned >= before - UNLEARNED:
        return []
    return [
        f"The student gives {learned:.0f}% of {len(taught):,} texts of the pool the label that it was taught, the "
        f"labels-only model {before:.0f}%: it has not learned its pseudo-labels."
    ]


def ood_pool(rows: np.ndarray, *, filtered: bool) -> list[str]:
    """Much of the pool is unlike all labeled rows, and no weight was taken from it.

    Args:
        rows: `[N]` bool, see `hfssl.evaluation.out_of_distribution.ood_rows`.
        filtered: whether these rows lost their weight; `ood_rows_left_out` says so then.
    """
    if filtered or not is_ood(rows):
        return []
    return [f"{100 * rows.mean():.0f}% of the pool is unlike all labeled rows (5% would be usual)."]


def ood_rows_left_out(rows: np.ndarray) -> list[str]:
    """No alarm but a note: much of the pool, `[N]` bool, was unlike all labeled rows and lost its weight."""
    if not is_ood(rows) or rows.all():
        return []
    return [
        f"{100 * rows.mean():.0f}% of the pool is unlike all labeled rows (5% would be usual): nothing was learned "
        "from these rows."
    ]
