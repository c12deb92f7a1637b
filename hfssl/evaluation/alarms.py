"""Alarms: signs, without labels, that self-training went wrong. Each function returns one sentence, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hfssl.evaluation.out_of_distribution import is_ood

__all__ = ["drifted_class_prior", "lost_classes", "ood_pool", "ood_rows_left_out", "unlearned_labels"]

MIN_ROWS, DRIFT, UNLEARNED = 50, 0.25, 15


def lost_classes(pseudo_labels: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[str]:
    """Finds classes that have labeled rows but that no row of the pool was assigned to.

    Args:
        pseudo_labels (`np.ndarray`): Class of each row of the pool, `[N]`.
        labels (`np.ndarray`): Classes of the labeled rows, `[L]`.
        names (`Sequence[str]`): Names of the K classes.
    """
    counts, labeled = (np.bincount(rows, minlength=len(names)) for rows in (pseudo_labels, labels))
    lost = [name for name, n, known in zip(names, counts, labeled, strict=True) if known and not n]
    return [f"No row of the pool was labeled {', '.join(map(repr, lost))}: the classes collapsed."] if lost else []


def drifted_class_prior(probs: np.ndarray, taught: np.ndarray | None) -> list[str]:
    """Compares the class prior of the student's predictions with that of its pseudo-labels, on texts outside training.

    Args:
        probs (`np.ndarray`): The student's predictions on `proxy`, `[N, K]`; fewer than 50 rows raise no alarm.
        taught (`np.ndarray`, *optional*): Class prior that the pseudo-labels were aligned to, `[K]`; `None` where they
            were not aligned.
    """
    if len(probs) < MIN_ROWS or taught is None:
        return []
    drift = float(np.abs(probs.mean(axis=0) - taught).sum() / 2)
    if drift < DRIFT:
        return []
    return [
        f"On {len(probs):,} texts that were set aside, the class prior of the student's predictions is "
        f"{100 * drift:.0f}% away from that of its pseudo-labels (total variation)."
    ]


def unlearned_labels(student: np.ndarray, labels_only: np.ndarray, taught: np.ndarray) -> list[str]:
    """Counts the pseudo-labels that the student predicts, and those that the labels-only model predicts without them.

    A slightly smaller share is usual: the labels-only model resembles the teacher, and a student may correct its
    labels. A share that is 15 percentage points smaller raises the alarm.

    Args:
        student (`np.ndarray`): Classes that the student predicts for rows of the pool, `[N]`; fewer than 50 rows raise
            no alarm.
        labels_only (`np.ndarray`): Classes that the labels-only model predicts for them, `[N]`.
        taught (`np.ndarray`): Their pseudo-labels, `[N]`.
    """
    if len(taught) < MIN_ROWS:
        return []
    learned, before = (100 * float((said == taught).mean()) for said in (student, labels_only))
    if learned >= before - UNLEARNED:
        return []
    return [
        f"The student predicts the pseudo-label of {learned:.0f}% of {len(taught):,} texts of the pool, the "
        f"labels-only model {before:.0f}%: the student has not learned its pseudo-labels."
    ]


def ood_pool(rows: np.ndarray, *, filtered: bool) -> list[str]:
    """Checks whether much of the pool is out of distribution without having lost its weight.

    Args:
        rows (`np.ndarray`): Mask of the rows, `[N]` bool; see `hfssl.evaluation.out_of_distribution.ood_rows`.
        filtered (`bool`): Whether these rows lost their weight, in which case `ood_rows_left_out` reports them.
    """
    if filtered or not is_ood(rows):
        return []
    return [f"{100 * rows.mean():.0f}% of the pool is unlike all labeled rows (5% would be usual)."]


def ood_rows_left_out(rows: np.ndarray) -> list[str]:
    """Returns a note, not an alarm, where much of the pool was out of distribution and lost its weight.

    Args:
        rows (`np.ndarray`): Mask of the rows, `[N]` bool; see `hfssl.evaluation.out_of_distribution.ood_rows`.
    """
    if not is_ood(rows) or rows.all():
        return []
    return [
        f"{100 * rows.mean():.0f}% of the pool is unlike all labeled rows (5% would be usual): nothing was learned "
        "from these rows."
    ]
