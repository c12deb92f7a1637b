"""Several labels per text as a task of the tests: a unit is a label of a row, with the classes no and yes."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from datasets import ClassLabel, List
from scipy.special import expit
from torch.nn import functional as F

from hfssl.data.label_column import LabelColumn
from hfssl.data.tokenization import tokenize_dataset
from hfssl.functional.regularization import symmetric_divergence
from hfssl.reporting.task_facts import Metric
from hfssl.tasks.base import Task, Units

NAME, ROW = "several_labels", "tests.helpers.toy_labels:SeveralLabels"


class LabelLists(LabelColumn):
    """A list of class numbers per row; null for an unlabeled one, an empty list for one with no label."""

    missing = None

    def feature(self, names):
        return List(ClassLabel(names=list(names)))

    def names(self, feature):
        return list(feature.feature.names) if isinstance(feature, List) else None

    def is_labeled(self, label):
        return label is not None

    def classes(self, label):
        return label or ()

    def renumbered(self, label, position):
        return None if label is None else [position[c] for c in label if position[c] >= 0]

    def strata(self, labels):
        """The number of each set of labels, in the order of their names."""
        sets = sorted({tuple(label) for label in labels if label is not None})
        return np.array([-1 if label is None else sets.index(tuple(label)) for label in labels], dtype=np.int64)

    def stratum_names(self, names, strata):
        return [f"set {number}" for number in range(int(strata.max(initial=-1)) + 1)]


class SeveralLabels(Task):
    """Any number of labels per text: a sigmoid for each."""

    name, title = NAME, "several labels per text"
    auto_class, pipeline_tag, peft_task = "AutoModelForSequenceClassification", "text-classification", "SEQ_CLS"
    class_per_row = False
    problem_type = "multi_label_classification"
    metrics = (Metric("micro_f1", "micro-F1", "Micro F1", "f1", on_hub=True),)
    decision_metric = "micro_f1"
    prediction_columns = MappingProxyType({"predicted_labels": str})
    label_column = LabelLists()

    def encode(self, rows, processor, max_length):
        if "input_ids" in rows.column_names:
            return rows
        rows = tokenize_dataset(rows, processor, max_length)
        for column in {"labels", "hidden_label"} & set(rows.column_names):
            count = len(self.label_column.names(rows.features[column]))
            lists = rows[column][:]
            table = [[-1] * count if row is None else [int(c in row) for c in range(count)] for row in lists]
            rows = rows.remove_columns(column).add_column(column, table)
        return rows

    def head_weights(self, fit, inputs, labels, num_outputs):
        pairs = [fit(inputs, torch.from_numpy(labels[:, c]), 2) for c in range(num_outputs)]
        return torch.stack([w[1] - w[0] for w, _ in pairs]), torch.stack([b[1] - b[0] for _, b in pairs])

    def soft_head_weights(self, fit, inputs, labels, pseudo_probs, weights):
        count = labels.shape[1]
        targets = np.concatenate([np.eye(2)[labels], pseudo_probs.reshape(-1, count, 2)])
        weights = np.concatenate([np.ones(labels.shape), weights])
        pairs = [fit(inputs, targets[:, c], weights[:, c]) for c in range(count)]
        return np.stack([w[1] - w[0] for w, _ in pairs]), np.stack([b[1] - b[0] for _, b in pairs])

    def label_array(self, rows, column="labels"):
        return np.asarray(rows[column][:], dtype=np.int64)

    def units(self, logits, batch):
        rows = torch.arange(len(logits)).repeat_interleave(logits.shape[-1])
        return Units(torch.stack([torch.zeros_like(logits), logits], dim=-1).reshape(-1, 2), rows)

    def probs(self, logits):
        return logits.sigmoid() if isinstance(logits, torch.Tensor) else expit(logits)

    def predicted(self, probs):
        return np.asarray(probs) > 0.5

    def right(self, probs, labels):
        return (self.predicted(probs) == labels).reshape(-1)

    def targets(self, labels, num_classes):
        return torch.from_numpy(np.asarray(labels))

    def loss(self, logits, targets, weights=None, *, label_smoothing=0.0, reduction="mean"):
        if targets.numel() == len(logits):
            hard = targets.reshape(-1).long()
            return F.cross_entropy(logits, hard, label_smoothing=label_smoothing, reduction=reduction)
        losses = -(targets.reshape(-1, 2) * logits.log_softmax(dim=-1)).sum(dim=-1)
        return getattr(losses if weights is None else weights.reshape(-1) * losses, reduction)()

    def divergence(self, first, second):
        return symmetric_divergence(first, second)

    def agreement(self, logits, target_probs):
        return (logits.argmax(-1) == target_probs.reshape(-1, 2).argmax(-1)).float().mean()

    def evaluate(self, probs, labels):
        found, true = self.predicted(probs), labels > 0
        return {"micro_f1": 2 * float((found & true).sum()) / max(1, int(found.sum() + true.sum()))}

    def nll(self, probs, labels):
        return float(-np.log(np.where(labels > 0, probs, 1 - probs)).mean())

    def units_per_row(self, num_outputs):
        return num_outputs

    def unit_probs(self, logits):
        yes = self.probs(logits)
        stack = torch.stack if isinstance(yes, torch.Tensor) else np.stack
        return stack([1 - yes, yes], -1).reshape(*yes.shape[:-2], -1, 2)

    def unit_predicted(self, unit_probs):
        return unit_probs.argmax(axis=-1)

    def unit_labels(self, labels):
        return labels.reshape(-1)

    def unit_classes(self, label_names):
        return ["no", "yes"]

    def count_pseudo_labels(self, units, predicted, label_names):
        yes = units[predicted[units] == 1] % len(label_names)
        return dict(zip(label_names, np.bincount(yes, minlength=len(label_names)).tolist(), strict=True))

    def pseudo_labeled(self, pool, units, target_probs, weights, units_per_row=1):
        table = np.zeros((len(pool), units_per_row, 2), dtype=np.float32)
        table.reshape(-1, 2)[units] = target_probs
        weight = np.zeros((len(pool), units_per_row), dtype=np.float32)  # 0 for labels that were not selected
        weight.reshape(-1)[units] = weights
        rows = np.unique(units // units_per_row)
        selected = pool.select(rows).add_column("pseudo_probs", table[rows].reshape(len(rows), -1).tolist())
        return selected.add_column("weight", weight[rows].tolist())
