"""One label per text: the label is a class number, a unit is a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from hfssl.data.tokenization import tokenize_dataset
from hfssl.functional.losses import same_class, soft_cross_entropy
from hfssl.functional.regularization import symmetric_divergence
from hfssl.functional.uncertainty import entropy
from hfssl.metrics.classification import evaluate_probs, nll
from hfssl.reporting.task_facts import CLASSIFICATION_METRICS
from hfssl.tasks.base import Array, Task, Units

__all__ = ["SequenceClassification"]


class SequenceClassification(Task):
    """Predicts one label per text, among K classes: softmax, cross-entropy, accuracy.

    Example:
        >>> import numpy as np
        >>> task = SequenceClassification()
        >>> task.predicted(np.array([[0.2, 0.8], [0.6, 0.4]])).tolist()
        [1, 0]
    """

    name = "sequence_classification"
    title = "one label per text"
    auto_class = "AutoModelForSequenceClassification"
    problem_type = "single_label_classification"
    pipeline_tag = "text-classification"
    peft_task = "SEQ_CLS"
    metrics = CLASSIFICATION_METRICS
    class_weights: torch.Tensor | None = None
    prediction_columns: ClassVar[Mapping[str, type]] = MappingProxyType(
        {"predicted_label": str, "probability": float, "entropy": float}
    )

    def with_class_weights(self, weights: torch.Tensor) -> SequenceClassification:
        """Returns a task whose losses on class numbers weigh the classes; sums of weights divide the mean.

        Args:
            weights (`torch.Tensor`): Weights of the K classes, `[K]`, not negative.
        """
        weighted = copy(self)
        weighted.class_weights = weights
        return weighted

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Returns tokenized rows; a column `label` becomes `labels`."""
        return tokenize_dataset(rows, processor, max_length)

    def label_array(self, rows: Dataset, column: str = "labels") -> np.ndarray:
        """Returns the class of each row, `[N]` int64, -1 for an unlabeled row."""
        return np.asarray(rows[column][:], dtype=np.int64)

    def units(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> Units:
        """Returns the logits `[B, K]` unchanged: a row is a unit."""
        return Units(logits, torch.arange(len(logits), device=logits.device))

    def probs(self, logits: Array) -> Array:
        """Returns the softmax over the classes, `[..., K]`."""
        return logits.softmax(dim=-1) if isinstance(logits, torch.Tensor) else softmax(logits, axis=-1)

    def predicted(self, probs: np.ndarray) -> np.ndarray:
        """Returns the most probable class, `[M]`."""
        return np.asarray(probs).argmax(axis=-1)

    def describe(self, probs: np.ndarray, label_names: Sequence[str]) -> list[tuple[str, float, float]]:
        """Returns the most probable label of each row, its probability, and the entropy of all of them in nats."""
        rows = torch.from_numpy(np.asarray(probs))
        best = rows.max(dim=-1)
        columns = (best.indices.tolist(), best.values.tolist(), entropy(rows).tolist())
        return [
            (label_names[label], round(probability, 6), round(nats, 6))
            for label, probability, nats in zip(*columns, strict=True)
        ]

    def targets(self, labels: np.ndarray, num_classes: int) -> torch.Tensor:
        """Returns class numbers from 0 to K - 1, `[M]` int64."""
        labels = np.asarray(labels)
        integers = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
        if not integers or labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
            raise ValueError(f"Expected class indices from 0 to {num_classes - 1}: leave unlabeled rows (-1) out.")
        return torch.from_numpy(labels.astype(np.int64))

    def loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> torch.Tensor:
        """Returns the cross-entropy with class numbers `[M]`, or with probabilities `[M, K]` and weights.

        Raises:
            ValueError: Hard targets have weights, or soft ones label smoothing: both are ambiguous, and not needed.
        """
        if targets.dim() == 1:
            if weights is not None:
                raise ValueError(
                    "Expected weights with soft targets [M, K] only, got class numbers: give one-hot rows."
                )
            weight = None if self.class_weights is None else self.class_weights.to(logits)
            return F.cross_entropy(
                logits, targets, weight=weight, label_smoothing=label_smoothing, reduction=reduction
            )
        if label_smoothing:
            raise ValueError("Expected label_smoothing with class numbers only, got probabilities: smooth these.")
        losses = soft_cross_entropy(logits, targets)
        return getattr(losses if weights is None else weights * losses, reduction)()

    def divergence(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Returns the symmetric divergence of two softmax distributions."""
        return symmetric_divergence(first, second)

    def alike(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns which rows are of one class, `[B, B]` bool."""
        return same_class(labels)

    def agreement(self, logits: torch.Tensor, target_probs: torch.Tensor) -> torch.Tensor:
        """Returns the share of rows with the same most probable class."""
        return (logits.argmax(-1) == target_probs.argmax(-1)).float().mean()

    def evaluate(self, probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Returns `accuracy`, `macro_f1` and `ece` in [0, 1], and `nll` in nats."""
        return evaluate_probs(probs, labels)

    def nll(self, probs: np.ndarray, labels: np.ndarray) -> float:
        """Returns the mean of -log p(label), in nats."""
        return nll(probs, labels)
