"""Explains the prediction for one text: probabilities, uncertainty, and the most similar labeled rows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hfssl.data.splits import SemiSupervisedSplits
from hfssl.errors import ModelError
from hfssl.functional.uncertainty import entropy
from hfssl.inference.scoring import mc_dropout, mean_embeddings, predict_logits
from hfssl.inference.text_classifier import TextClassifier
from hfssl.pipeline.run_folder import model_and_splits

__all__ = ["Explainer", "Explanation", "LabeledRow", "Neighbor", "describe", "nearest_rows"]

PASSES = 16  # passes of MC dropout: one batch for a short text, and enough for the first digit of BALD
NEIGHBORS = 5
PARTS = ("labeled", "validation")  # parts of the splits with labels for training and model selection


@dataclass(frozen=True)
class LabeledRow:
    """Holds a labeled row of the splits: its text (or pair of texts), its label's name, and its part."""

    texts: tuple[str, ...]
    label: str
    part: str


@dataclass(frozen=True)
class Neighbor:
    """Holds a labeled row and its cosine similarity to the text, in [-1, 1]."""

    row: LabeledRow
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """Holds what the page shows for one text.

    Args:
        probabilities (`list[tuple[str, float]]`): All K labels with their probabilities, the most probable first; ties
            in the order of the labels.
        entropy (`float`): Entropy of the probabilities, in nats.
        entropy_share (`float`): `entropy` / log K: 0 for certainty, 1 for equal probabilities.
        bald (`float | None`): Disagreement of the passes of MC dropout, in nats; `None` for a model without dropout.
        neighbors (`list[Neighbor]`): Most similar labeled rows, the nearest first; empty for a model without its run.
        cut_at (`int`, *optional*): Number of tokens at which a longer text was cut; `None` for an uncut text.
    """

    probabilities: list[tuple[str, float]]
    entropy: float
    entropy_share: float
    bald: float | None
    neighbors: list[Neighbor]
    cut_at: int | None = None


def describe(
    probs: np.ndarray,
    label_names: Sequence[str],
    bald: float | None,
    neighbors: list[Neighbor],
    cut_at: int | None = None,
) -> Explanation:
    """Builds an `Explanation` from the probabilities `[K]` and the other values."""
    order = np.argsort(-probs, kind="stable")
    nats = float(entropy(torch.from_numpy(probs)))
    most = math.log(len(label_names)) or 1.0  # a single label always has entropy 0 of 0 nats
    return Explanation(
        [(label_names[label], float(probs[label])) for label in order], nats, nats / most, bald, neighbors, cut_at
    )


def nearest_rows(query: np.ndarray, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows of `features` nearest to `query` by cosine, the nearest first; ties in the order of the rows.

    Args:
        query (`np.ndarray`): `[D]` embedding.
        features (`np.ndarray`): `[N, D]` embeddings, any scale. A row of zeros has cosine 0 with all rows.
        count (`int`): Number of rows to return, at most N.

    Returns:
        Row numbers and cosines, both `[min(count, N)]`.
    """
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(query)
    cosines = (features @ query) / np.where(lengths > 0, lengths, 1.0)
    order = np.argsort(-cosines, kind="stable")[:count]
    return order, cosines[order]


class Explainer:
    """Explains predictions of a finished run of `hfssl fit` or of a model: maps a text (or pair) to an `Explanation`.

    Args:
        folder (`str | os.PathLike`): Folder of a run, of a full model, or of an adapter.
        passes (`int`, defaults to `16`): Number of passes of MC dropout.

    Attributes:
        rows (`list[LabeledRow]`): Labeled rows to search; empty for a model without its run.
        pairs (`bool`): Whether the run's data has pairs of texts.
        label_names (`list[str]`): The K class names.

    Raises:
        ModelError: if there is no such folder, it holds no model, or its run is not finished.
        DataError: if the run's splits cannot be read.
    """

    def __init__(self, folder: str | os.PathLike, *, passes: int = PASSES):
        model, splits = model_and_splits(Path(folder))
        self.classifier, self.passes = TextClassifier(model), passes
        self.label_names = self.classifier.label_names
        self.rows = [] if splits is None else _labeled_rows(SemiSupervisedSplits.load(splits))
        self.pairs = any(len(row.texts) > 1 for row in self.rows)
        self._features = self._embedded([row.texts for row in self.rows]) if self.rows else None  # [N, D]

    def __call__(self, *texts: str) -> Explanation:
        """Explains one text or one pair; the same text gives the same numbers.

        Raises:
            ModelError: if the model returns NaN or infinity.
        """
        # The browser may send half of a surrogate pair, which no tokenizer accepts.
        texts = tuple(text.encode("utf-8", "replace").decode("utf-8") for text in texts)
        model, tokenizer, task = self.classifier.model, self.classifier.tokenizer, self.classifier.task
        encoded = self.classifier.tokenized([texts])
        logits = predict_logits(model, encoded, tokenizer)
        probs = task.probs(torch.from_numpy(logits))[0].numpy()
        try:
            bald = float(mc_dropout(model, encoded, tokenizer, passes=self.passes, seed=0, task=task).bald[0])
        except ModelError:  # its logits are finite, so the error means that it has no dropout
            bald = None
        read = len(encoded[0]["input_ids"])
        cut = read == self.classifier.max_length and len(tokenizer(*texts, verbose=False)["input_ids"]) > read
        return describe(probs, self.label_names, bald, self._neighbors(texts), read if cut else None)

    def _neighbors(self, texts: tuple[str, ...]) -> list[Neighbor]:
        if self._features is None:
            return []
        found = nearest_rows(self._embedded([texts])[0], self._features, NEIGHBORS)
        return [Neighbor(self.rows[row], float(cosine)) for row, cosine in zip(*found, strict=True)]

    def _embedded(self, texts: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Returns the mean over the tokens of the last layer, `[N, D]`."""
        classifier = self.classifier
        return mean_embeddings(classifier.model, classifier.tokenized(texts), classifier.tokenizer)


def _labeled_rows(splits: SemiSupervisedSplits) -> list[LabeledRow]:
    rows = []
    for part in PARTS:
        data = splits[part]
        columns = [data[name][:] for name in ("text", "text_pair") if name in data.column_names]
        labels = [splits.label_names[label] for label in data["label"][:]]
        rows += [
            LabeledRow(texts, label, part) for texts, label in zip(zip(*columns, strict=True), labels, strict=True)
        ]
    return rows
