"""From a teacher's passes over the pool to rows, labels and weights for its student."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax

from hfssl.functional.class_priors import align_distribution
from hfssl.functional.selection import ACQUISITIONS, SELECTION_STRATEGIES, Candidates
from hfssl.functional.weighting import normalize_to_mean_one, pseudo_label_weights
from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import Neighborhood
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.progress import library_bars

__all__ = ["PseudoLabels", "pseudo_label", "sharpened"]


@dataclass(frozen=True)
class PseudoLabels:
    """What a teacher hands to its student.

    Attributes:
        rows: `[S]` row numbers in the pool, ascending.
        target_probs: `[S, K]`, one-hot or soft.
        weights: `[S]` with mean 1.
        predicted: `[N]` the teacher's label of *every* row of the pool.
        bald: `[N]` in nats.
    """

    rows: np.ndarray
    target_probs: np.ndarray
    weights: np.ndarray
    predicted: np.ndarray
    bald: np.ndarray

    def beside(self, pool: Dataset) -> Dataset:
        """The chosen rows of the pool, with their `pseudo_probs` and `weight`."""
        with library_bars():
            chosen = pool.select(self.rows).add_column("pseudo_probs", self.target_probs.tolist())
            return chosen.add_column("weight", self.weights.tolist())

    def save(self, path: Path, **more: np.ndarray | None) -> None:
        """Writes an `.npz` file, whole or not at all, with `more` arrays in it (those that are not `None`)."""
        write_arrays(path, vars(self) | more)

    @classmethod
    def load(cls, path: Path) -> tuple[PseudoLabels, dict[str, np.ndarray]]:
        """Reads what `save` wrote: the labels, and the arrays beside them."""
        arrays = read_arrays(path)
        return cls(*(arrays.pop(field.name) for field in fields(cls))), arrays


def pseudo_label(
    scores: MCDropoutResult,
    args: SelfTrainingConfig,
    generator: np.random.Generator,
    shares: np.ndarray | None = None,
    *,
    temperature: float = 1.0,
    fraction: float | None = None,
    neighborhood: Neighborhood | None = None,
) -> PseudoLabels:
    """Selects rows, labels and weighs them from a teacher's stochastic passes (UST, sections 3.1-3.3).

    Args:
        scores: the teacher's passes over the N rows of the pool.
        args: `acquisition`, `selection_strategy`, `confidence_threshold`, `soft_targets`,
            `sharpen_temperature`, `weighting` and `label_spreading`.
        generator: of the draw.
        shares: `[K]`, class prior that the teacher's probabilities are brought to; `None` leaves them as they are.
        temperature: T of the teacher's probabilities, before anything else is done to them.
        fraction: share of the pool to draw. Default: `args.selection_fraction`.
        neighborhood: what the embeddings say of the pool, where `args` asks for it.
    """
    probs = sharpened(scores.deterministic_probs, temperature)
    if neighborhood is not None and args.label_spreading == "labels":
        probs = (1 - neighborhood.trust) * probs + neighborhood.trust * neighborhood.probs.astype(probs.dtype)
    if shares is not None:
        probs = align_distribution(probs, shares)
    scores = replace(scores, deterministic_probs=probs)  # the predicted class and its variance follow
    num_rows, num_classes = probs.shape
    evidence = (scores.mean_probs, scores.predicted_class_variance, scores.bald)
    candidates = Candidates(
        predicted=scores.predicted,
        confidence=probs[np.arange(num_rows), scores.predicted],
        uncertainty=ACQUISITIONS[args.acquisition](*evidence),
        num_classes=num_classes,
    )
    size = max(1, round((args.selection_fraction if fraction is None else fraction) * num_rows))
    thresholds = {"threshold": args.confidence_threshold} if args.selection_strategy == "threshold" else {}
    rows = SELECTION_STRATEGIES[args.selection_strategy](candidates, size, generator, **thresholds)
    if args.soft_targets:
        targets = sharpened(probs[rows], args.sharpen_temperature)
    else:
        targets = np.eye(num_classes, dtype=np.float32)[scores.predicted[rows]]
    weights = np.zeros(0, dtype=np.float32)
    if len(rows):
        tensors = [torch.from_numpy(values[rows]) for values in evidence]
        trusted = torch.ones(len(rows)) if neighborhood is None else neighborhood.weights(probs, args)[rows]
        weights = pseudo_label_weights(args.weighting, *tensors, normalize=False) * trusted
        weights = normalize_to_mean_one(weights).numpy().astype(np.float32)
    return PseudoLabels(rows, targets, weights, scores.predicted, scores.bald)


def sharpened(probs: np.ndarray, temperature: float) -> np.ndarray:
    """p^(1/T), normalised (Berthelot et al. 2019, "MixMatch", equation 7): `[S, K]` -> `[S, K]`."""
    if temperature == 1.0:
        return probs
    return softmax(np.log(np.maximum(probs, 1e-30)) / temperature, axis=-1).astype(probs.dtype)
