"""A kind of prediction as a contributor would write it, for the tests that prove that a file and a row are enough."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from scipy.special import softmax
from torch.nn import functional as F

from hfssl.data.tokenization import tokenize_dataset
from hfssl.functional.regularization import symmetric_divergence
from hfssl.metrics.classification import nll
from hfssl.reporting.task_facts import Metric
from hfssl.tasks.base import Task, Units

NAME, ROW = "ordinal_ratings", "tests.helpers.toy_task:OrdinalRatings"
MAE = Metric("mae", "MAE", "Mean absolute error", "mae", in_points=False, note="MAE is the mean absolute error")


class OrdinalRatings(Task):
    """Ratings in an order: the decision is the median, and what counts is how far it is from the label."""

    name = NAME
    title = "an ordered rating per text"
    auto_class = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    peft_task = "SEQ_CLS"
    metrics = (Metric("accuracy", "accuracy", "Accuracy", "accuracy", on_hub=True, share_of_rows=True), MAE)
    model_title = "ratings from 1 to {classes}"
    limit = "It always gives one of {classes} ratings."
    prediction_columns = MappingProxyType({"rating": str, "expected_rating": float})

    def encode(self, rows, processor, max_length):
        return tokenize_dataset(rows, processor, max_length)

    def label_array(self, rows, column="labels"):
        return np.asarray(rows[column][:], dtype=np.int64)

    def units(self, logits, batch):
        return Units(logits, torch.arange(len(logits)))

    def probs(self, logits):
        return logits.softmax(dim=-1) if isinstance(logits, torch.Tensor) else softmax(logits, axis=-1)

    def predicted(self, probs):
        """The median: the first rating up to which at least half of the probability lies."""
        return (np.asarray(probs).cumsum(axis=-1) < 0.5 - 1e-9).sum(axis=-1)

    def describe(self, probs, label_names):
        expected = 1 + (probs * np.arange(probs.shape[-1])).sum(axis=-1)
        return [(label_names[k], round(float(e), 4)) for k, e in zip(self.predicted(probs), expected, strict=True)]

    def targets(self, labels, num_classes):
        return torch.from_numpy(np.asarray(labels, dtype=np.int64))

    def loss(self, logits, targets, weights=None, *, label_smoothing=0.0, reduction="mean"):
        """Cross-entropy plus the ranked probability score."""
        if targets.dim() == 1:
            targets = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
        smooth = (1 - label_smoothing) * targets + label_smoothing / logits.shape[-1]
        distance = (logits.softmax(dim=-1) - targets).cumsum(dim=-1).square().sum(dim=-1)
        losses = -(smooth * logits.log_softmax(dim=-1)).sum(dim=-1) + distance
        return getattr(losses if weights is None else weights * losses, reduction)()

    def divergence(self, first, second):
        return symmetric_divergence(first, second)

    def alike(self, labels):
        """1 for the same rating, 1/2 for neighbours, 0 for all others."""
        return (1 - (labels[:, None] - labels[None, :]).abs() / 2).clamp(min=0)

    def agreement(self, logits, target_probs):
        medians = [(p.cumsum(dim=-1) < 0.5).sum(dim=-1) for p in (logits.softmax(dim=-1), target_probs)]
        return (medians[0] == medians[1]).float().mean()

    def evaluate(self, probs, labels):
        distance = np.abs(self.predicted(probs) - labels)
        return {
            "accuracy": float((distance == 0).mean()),
            "mae": float(distance.mean()),
            "nll": self.nll(probs, labels),
        }

    def nll(self, probs, labels):
        return nll(probs, labels)
