"""Cross-fitting: a verdict on all labeled rows, each predicted by models that were trained without it.

A fifth of a few labels is too few rows for a verdict. The labeled rows are split into F folds. For each fold, small
versions of the stages that the verdict compares are trained without it: one labels-only model, and one student that
learns this model's pseudo-labels of the pool. L labeled rows in folds, P rows of `proxy`, K classes.
"""

from __future__ import annotations

import shutil
import warnings
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

__all__ = ["ARRAYS", "CrossFit", "cross_fit", "fold_numbers"]

ARRAYS = "cross_fit.npz"
MIN_TYPICAL = 3  # rows of the median class: with two, the models of a fold would learn from one


class CrossFit:
    """Reads the result of `cross_fit`.

    Args:
        folder (`Path`): Folder in which `cross_fit` has stored its result.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.

    Attributes:
        logits (`dict[str, np.ndarray]`): Stage -> logits `[L, K]`, each row by the model of that stage that was
            trained without its fold; rows in no fold are left out.
    """

    def __init__(self, folder: Path, task: Task | None = None):
        self.task = get_task() if task is None else task
        self._arrays = read_arrays(folder / ARRAYS)
        self.logits = self._of("labeled")

    @property
    def probs(self) -> dict[str, np.ndarray]:
        """Returns stage -> probabilities, `[L, K]`; see `logits`."""
        return {name: self.task.probs(logits) for name, logits in self.logits.items()}

    def of_part(self, part: str) -> dict[str, np.ndarray]:
        """Returns stage -> logits `[F, P, K]` of all F folds' models for a part of P rows on which none is trained."""
        return self._of(part)

    @property
    def agreement(self) -> dict[str, float]:
        """Returns stage -> share of `proxy` on which two models of the stage agree, mean over all pairs.

        For calibrated models this is their accuracy (Jiang et al. 2022, "Assessing Generalization of SGD via
        Disagreement", theorem 4.2), and it needs no labels. Empty where there is no `proxy`, or one fold.
        """
        probs = {name: self.task.probs(logits) for name, logits in self._of("proxy").items() if logits.shape[1]}
        return {name: _agreement(self.task.predicted(found)) for name, found in probs.items() if len(found) > 1}

    def _of(self, part: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(f"{part}/"): rows for name, rows in self._arrays.items() if name.startswith(f"{part}/")
        }


def fold_numbers(labels: np.ndarray, groups: np.ndarray | None, folds: int, *, seed: int) -> np.ndarray | None:
    """Returns the fold of each row, `[L]`: stratified, with rows of a group together.

    The rows of a class with a single row or group are in no fold: every model learns from them.

    Args:
        labels (`np.ndarray`): Labels of the rows, `[L]`.
        groups (`np.ndarray`, *optional*): Names of the rows' groups, `[L]`, `""` for a row without a group; `None`
            where there are no groups.
        folds (`int`): Number F of folds, at least 2; fewer where else some model would learn nothing of a class, or
            some fold would hold no row.
        seed (`int`): Random seed of the folds.

    Returns:
        Numbers from 0, -1 for a row in no fold; `None` where the typical class has fewer than three rows, or fewer
        than two classes have two.
    """
    own = np.array([f"\0{i}" for i in range(len(labels))])
    units = own if groups is None else np.where(groups == "", own, groups)
    counts = {label: len(np.unique(units[labels == label])) for label in np.unique(labels)}
    usable = [label for label, count in counts.items() if count >= 2]
    if len(usable) < 2 or np.median(list(counts.values())) < MIN_TYPICAL:
        return None
    numbers = np.full(len(labels), -1, dtype=np.int64)
    rows = np.flatnonzero(np.isin(labels, usable))
    for count in range(min(folds, max(counts.values())), 1, -1):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
        with warnings.catch_warnings():  # a class may have fewer rows than there are folds
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            for number, (_, held_out) in enumerate(splitter.split(rows, labels[rows], units[rows])):
                numbers[rows[held_out]] = number
        filled = len(np.unique(numbers[rows])) == count
        if filled and all(set(usable) <= set(labels[numbers != number]) for number in range(count)):
            return numbers
    return None


def cross_fit(
    folder: Path,
    labeled: Dataset,
    parts: Mapping[str, Dataset],
    numbers: np.ndarray,
    models: Callable[[Path, int, Dataset], Mapping[str, PreTrainedModel]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    keep_models: bool = False,
) -> None:
    """Trains the models of each fold and stores their predictions for the rows that they were trained without.

    Args:
        folder (`Path`): Folder for the predictions, fold by fold, so that a killed run resumes.
        labeled (`Dataset`): L tokenized rows with `labels`.
        parts (`Mapping[str, Dataset]`): Part -> tokenized rows on which no model is trained; may be empty.
        numbers (`np.ndarray`): Fold of each labeled row, `[L]`, -1 for none; see `fold_numbers`.
        models (`Callable`): Function from (folder, fold, rows) to the stages' models by name, trained on these rows.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        keep_models (`bool`, defaults to `False`): Whether the models stay on disk where `models` has saved them; else
            each fold's are deleted with its other files.
    """
    folds = range(numbers.max() + 1)
    for fold in folds:
        place = folder / f"fold-{fold}"
        if (place / ARRAYS).exists():
            continue
        unseen = {"labeled": labeled.select(np.flatnonzero(numbers == fold))} | parts
        trained = models(place, fold, labeled.select(np.flatnonzero(numbers != fold)))
        logits = {
            f"{part}/{name}": _logits(model, rows, tokenizer)
            for name, model in trained.items()
            for part, rows in unseen.items()
        }
        write_arrays(place / ARRAYS, logits)
        if not keep_models:
            for path in place.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
    found = [read_arrays(folder / f"fold-{fold}" / ARRAYS) for fold in folds]
    order = np.argsort(np.concatenate([np.flatnonzero(numbers == fold) for fold in folds]))
    kept = {}
    for name in found[0]:
        values = [arrays[name] for arrays in found]
        kept[name] = np.concatenate(values)[order] if name.startswith("labeled/") else np.stack(values)
    write_arrays(folder / ARRAYS, kept)


def _logits(model: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    if not len(rows):
        return np.zeros((0, model.config.num_labels), np.float32)
    return predict_logits(model, rows, tokenizer)


def _agreement(votes: np.ndarray) -> float:
    """Returns the share of P rows on which two of F models agree, mean over the pairs, from decisions `[F, P]`."""
    pairs = [(votes[i] == votes[j]).mean() for i in range(len(votes)) for j in range(i)]
    return float(np.mean(pairs))
