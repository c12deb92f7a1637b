"""Cross-fitting: a verdict on all labeled rows, each predicted by models that were trained without it.

A fifth of a few labels is too few rows for a verdict. The labeled rows are split into F folds. For each fold, small
versions of the stages that the verdict compares are trained without it: one labels-only model, and one student that
learns this model's pseudo-labels of the pool. L labeled rows, P rows of `proxy`, K classes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset
from sklearn.model_selection import StratifiedGroupKFold
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.inference.scoring import predict_logits
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["CrossFit", "cross_fit", "fold_numbers"]

ARRAYS = "cross_fit.npz"


class CrossFit:
    """Reads the result of `cross_fit`.

    Args:
        folder (`Path`): Folder in which `cross_fit` has stored its result.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.

    Attributes:
        folds (`int`): Number F of folds.
        probs (`dict[str, np.ndarray]`): Stage -> predictions `[L, K]`, each row by the model of that stage that was
            trained without its fold.
        agreement (`dict[str, float]`): Stage -> share of `proxy` on which two models of the stage agree, mean over all
            pairs; empty where there is no `proxy`. For calibrated models this is their accuracy (Jiang et al. 2022,
            "Assessing Generalization of SGD via Disagreement", theorem 4.2), and it needs no labels.
    """

    def __init__(self, folder: Path, task: Task | None = None):
        arrays = read_arrays(folder / ARRAYS)
        proxy = {name.removeprefix("proxy/"): probs for name, probs in arrays.items() if name.startswith("proxy/")}
        task = get_task() if task is None else task
        self.folds = len(next(iter(proxy.values())))
        self.probs = {name: arrays[f"labeled/{name}"] for name in proxy}
        self.agreement = {name: _agreement(task.predicted(probs)) for name, probs in proxy.items() if probs.shape[1]}


def fold_numbers(labels: np.ndarray, groups: np.ndarray | None, folds: int, *, seed: int) -> np.ndarray | None:
    """Returns the fold of each row, `[L]`: stratified, with rows of a group together.

    Args:
        labels (`np.ndarray`): Labels of the rows, `[L]`.
        groups (`np.ndarray`, *optional*): Names of the rows' groups, `[L]`, `""` for a row without a group; `None`
            where there are no groups.
        folds (`int`): Number F of folds, at least 2; fewer where a class has fewer rows.
        seed (`int`): Random seed of the folds.

    Returns:
        `None` where a class has a single row or group.
    """
    own = np.array([f"\0{i}" for i in range(len(labels))])
    units = own if groups is None else np.where(groups == "", own, groups)
    fewest = min(len(np.unique(units[labels == label])) for label in np.unique(labels))
    if fewest < 2:
        return None
    numbers = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed % 2**32)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, units)):
        numbers[held_out] = number
    return numbers


def cross_fit(
    folder: Path,
    labeled: Dataset,
    proxy: Dataset,
    numbers: np.ndarray,
    models: Callable[[Path, int, Dataset], Mapping[str, PreTrainedModel]],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
) -> None:
    """Trains the models of each fold and stores their predictions for the rows that they were trained without.

    Args:
        folder (`Path`): Folder for the predictions, fold by fold, so that a killed run resumes; the models are
            deleted.
        labeled (`Dataset`): L tokenized rows with `labels`.
        proxy (`Dataset`): P tokenized rows; may be empty.
        numbers (`np.ndarray`): Fold of each labeled row, `[L]`; see `fold_numbers`.
        models (`Callable`): Function from (folder, fold, rows) to the stages' models by name, trained on these rows.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        task (`Task`): Kind of prediction.
    """
    parts = []
    for fold in range(numbers.max() + 1):
        place = folder / f"fold-{fold}"
        if not (place / ARRAYS).exists():
            unseen = labeled.select(np.flatnonzero(numbers == fold))
            trained = models(place, fold, labeled.select(np.flatnonzero(numbers != fold)))
            said = {
                f"{part}/{name}": _probs(model, rows, tokenizer, task)
                for name, model in trained.items()
                for part, rows in (("labeled", unseen), ("proxy", proxy))
            }
            write_arrays(place / ARRAYS, said)
            for path in place.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
        parts.append(read_arrays(place / ARRAYS))
    order = np.argsort(np.concatenate([np.flatnonzero(numbers == fold) for fold in range(len(parts))]))
    kept = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        kept[name] = np.concatenate(values)[order] if name.startswith("labeled/") else np.stack(values)
    write_arrays(folder / ARRAYS, kept)


def _probs(model: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task) -> np.ndarray:
    if not len(rows):
        return np.zeros((0, model.config.num_labels), np.float32)
    return task.probs(predict_logits(model, rows, tokenizer))


def _agreement(votes: np.ndarray) -> float:
    """Returns the share of P rows on which two of F models agree, mean over the pairs, from decisions `[F, P]`."""
    pairs = [(votes[i] == votes[j]).mean() for i in range(len(votes)) for j in range(i)]
    return float(np.mean(pairs))
