"""A model that reads its predictions and embeddings from tables, for tests with numbers computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class TableConfig(PreTrainedConfig):
    """Configuration of `TableModel`."""

    model_type = "hfssl-test-table"
    num_hidden_layers = 1


class TableModel(PreTrainedModel):
    """Predicts for a row with the single token t what stands in line t of its tables.

    Args:
        probs: `[V, K]` probabilities.
        embeddings: `[V, D]`; default: `probs`.
    """

    config_class = TableConfig

    def __init__(self, probs: Sequence[Sequence[float]], embeddings: Sequence[Sequence[float]] | None = None):
        probs = torch.tensor(probs)
        embeddings = probs if embeddings is None else torch.tensor(embeddings)
        super().__init__(TableConfig(num_labels=probs.shape[1], hidden_size=embeddings.shape[1]))
        self.logits = nn.Embedding.from_pretrained(torch.log(probs))
        self.embeddings = nn.Embedding.from_pretrained(embeddings)

    def forward(self, input_ids, attention_mask=None, **_):
        hidden = self.embeddings(input_ids)
        return SequenceClassifierOutput(logits=self.logits(input_ids[:, 0]), hidden_states=(hidden, hidden))


def token_rows(tokens: Sequence[int], labels: Sequence[int] | None = None) -> Dataset:
    """A tokenized dataset whose rows have one token each."""
    columns = {"input_ids": [[token] for token in tokens], "attention_mask": [[1]] * len(tokens)}
    return Dataset.from_dict(columns if labels is None else columns | {"labels": list(labels)})


def on_circle(degrees: Sequence[float]) -> np.ndarray:
    """`[N, 2]` float32 vectors of length 1 at these angles."""
    angles = np.radians(np.asarray(degrees, dtype=np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
