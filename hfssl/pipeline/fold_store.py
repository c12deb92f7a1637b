"""`FoldStore`: what the stage `folds` leaves for later stages: the folds' models, and their votes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfssl.evaluation.cross_fitting import CrossFit
from hfssl.methods.self_training.votes import TEACHERS, Votes, mixed
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.tasks.base import Task

__all__ = ["FoldStore"]

LOGITS, FOLD_VOTES, EVERYONE = "logits.npz", "votes.npz", "everyone.npz"
LEAST = 1e-7  # of the probabilities whose logarithms are stored in half precision


@dataclass(frozen=True, eq=False)
class FoldStore:
    """Reads and writes the files of the stage `folds`.

        stages/folds/cross_fit.npz          logits of the folds' labels-only models for their own fold, and for proxy
        stages/folds/fold-N/                the model of each labels-only stage, trained without fold N
        stages/folds/fold-N/votes.npz       what the ensemble without fold N says about it, and about the pool
        stages/folds/everyone.npz           predictions of the models of all labels
        stages/folds/embeddings.npz         the backbone's embeddings of the pool
        stages/folds/logits.npz             log-probabilities of each member, for readers

    A *unit* is what the task predicts: a row, or a label of a row.

    Args:
        folder (`Path`): Folder of the stage.
        numbers (`np.ndarray`): Fold of each unit of the labeled rows, `[M]`; -1 for none.
        labels (`np.ndarray`): Classes of these units, `[M]`.
        task (`Task`): Kind of prediction.
    """

    folder: Path
    numbers: np.ndarray
    labels: np.ndarray
    task: Task

    @property
    def in_folds(self) -> np.ndarray:
        """Returns whether each unit is in a fold, `[M]` bool."""
        return self.numbers >= 0

    def model(self, stage: str, fold: int) -> Path:
        """Returns the folder of a labels-only stage's model that was trained without a fold."""
        return self.folder / f"fold-{fold}" / f"{stage}-{fold}" / "model"

    def heads(self) -> CrossFit:
        """Returns the predictions of the labels-only models for the rows of their fold."""
        return CrossFit(self.folder, self.task)

    def has_votes(self, fold: int) -> bool:
        """Returns whether the votes of a fold are stored."""
        return (self.folder / f"fold-{fold}" / FOLD_VOTES).is_file()

    def save_votes(self, fold: int, votes: dict[str, np.ndarray], pool: np.ndarray, refitted: dict[str, np.ndarray]):
        """Stores the votes of one fold.

        Args:
            fold (`int`): Number of the fold.
            votes (`dict[str, np.ndarray]`): Member -> probabilities for the units of the fold, `[V, K]`.
            pool (`np.ndarray`): The teacher's probabilities for the pool, `[N, K]`.
            refitted (`dict[str, np.ndarray]`): Part -> the same teacher's probabilities after its probe was fitted to
                all labels, `[..., K]`; `unlabeled` is the pool.
        """
        arrays = {f"vote/{name}": probs for name, probs in votes.items()} | {"pool": pool}
        arrays |= {f"refitted/{part}": probs for part, probs in refitted.items()}
        write_arrays(self.folder / f"fold-{fold}" / FOLD_VOTES, arrays)

    def votes(self, without: int | None = None) -> Votes:
        """Returns what the members say about units that they have not learned from, in the order of the rows.

        Args:
            without (`int`, *optional*): Number of a fold whose units are left out.
        """
        units = np.concatenate([np.flatnonzero(self.numbers == fold) for fold in self._folds])
        order, arrays = np.argsort(units), [self._arrays(fold) for fold in self._folds]
        names = [name for name in arrays[0] if name.startswith("vote/")]
        probs = {
            name.removeprefix("vote/"): np.concatenate([found[name] for found in arrays])[order] for name in names
        }
        found = Votes(probs, self.labels[self.in_folds])
        return found if without is None else found.select(self.numbers[self.in_folds] != without)

    def pool(self, fold: int) -> np.ndarray:
        """Returns the probabilities `[N, K]` for the pool of a teacher that has seen nothing of a fold."""
        return self._arrays(fold)["pool"]

    def refitted(self, part: str = "unlabeled") -> list[np.ndarray]:
        """Returns the probabilities of each fold's teacher for a part, with a probe that was fitted to all labels."""
        return [self._arrays(fold)[f"refitted/{part}"] for fold in self._folds]

    def has_everyone(self) -> bool:
        """Returns whether `save_everyone` was called."""
        return (self.folder / EVERYONE).is_file()

    def save_everyone(self, teacher: dict[str, np.ndarray], votes: dict[str, dict[str, np.ndarray]]) -> None:
        """Stores the predictions of models of all labels, and `logits.npz`, for readers outside of the run.

        Args:
            teacher (`dict[str, np.ndarray]`): Part -> probabilities of the teacher of all labels, `[..., K]`.
            votes (`dict[str, dict[str, np.ndarray]]`): Part other than the pool -> member -> probabilities.
        """
        weights = self.votes().weights
        stacked = {f"stacked/{part}": mixed(probs, weights) for part, probs in votes.items()}
        write_arrays(self.folder / EVERYONE, {f"teacher/{part}": probs for part, probs in teacher.items()} | stacked)
        members = {f"{name}/labeled": probs for name, probs in self.votes().probs.items()}
        members |= {f"{name}/{part}": probs for part, found in votes.items() for name, probs in found.items()}
        members |= {f"all-0/{part}": probs for part, probs in teacher.items()}
        for part in teacher:
            members |= {f"contrastive-{fold}/{part}": probs for fold, probs in enumerate(self.refitted(part))}
        arrays = {name: np.log(np.maximum(probs, LEAST)).astype(np.float16) for name, probs in members.items()}
        arrays["rows"] = np.flatnonzero(self.in_folds)
        arrays |= {f"weights/{name}": np.float64(weight) for name, weight in weights.items()}
        write_arrays(self.folder / LOGITS, arrays)

    def teachers_of_the_pool(self) -> list[np.ndarray]:
        """Returns the probabilities of each teacher for the pool, that of all labels first, `[N, K]` each."""
        return [read_arrays(self.folder / EVERYONE)["teacher/unlabeled"], *self.refitted()]

    def stacked_part(self, part: str) -> np.ndarray | None:
        """Returns the mixture of all members for a part, `[..., K]`; `None` where it was not predicted."""
        return read_arrays(self.folder / EVERYONE).get(f"stacked/{part}") if self.has_everyone() else None

    def stacked(self) -> np.ndarray:
        """Returns the mixture of the members for each unit in a fold, `[M', K]`, weighted by other folds' labels."""
        votes, numbers = self.votes(), self.numbers[self.in_folds]
        found = np.zeros_like(votes.probs[TEACHERS])
        for fold in self._folds:
            rows = numbers == fold
            found[rows] = mixed(votes.select(rows).probs, self.votes(without=fold).weights)
        return found

    @property
    def _folds(self) -> range:
        return range(self.numbers.max() + 1)

    def _arrays(self, fold: int) -> dict[str, np.ndarray]:
        return read_arrays(self.folder / f"fold-{fold}" / FOLD_VOTES)
