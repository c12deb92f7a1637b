"""Loads a saved model for predictions: weights, tokenizer, label names, and the token limit of training."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from datasets import Dataset

from hfssl.config.values import plain_value
from hfssl.errors import DataError
from hfssl.inference.scoring import predict_logits
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import load_tokenizer
from hfssl.models.tokenizer_checks import usable_positions
from hfssl.tasks.registry import task_of

__all__ = ["TextClassifier", "Texts"]

Texts: TypeAlias = str | Iterable[str | None] | Iterable[tuple[str, str]]


class TextClassifier:
    """Loads a full model or an adapter, in eval mode, on the accelerator if there is one.

    Args:
        path (`str | os.PathLike`): Folder, or Hub id.
        max_length (`int`, *optional*): Number of tokens at which texts are cut. Default and upper bound: the limit of
            tokenizer and model.

    Attributes:
        model (`PreTrainedModel`): Classifier.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        label_names (`list[str]`): The K class names in the order of the logits.
        task (`Task`): Kind of prediction, from the model's configuration.
        max_length (`int`): Number of tokens at which texts are cut.

    Raises:
        ModelError: if the model or its tokenizer cannot be loaded.

    Example:
        >>> import hfssl
        >>> from hfssl.models.checkpoints import save_checkpoint
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> save_checkpoint(model, tokenizer, folder, ["bad", "good"])
        >>> classifier = hfssl.TextClassifier.from_pretrained(folder)
        >>> classifier.predict_proba(["a good film", "a dull film", "a film"]).shape
        (3, 2)
    """

    def __init__(self, path: str | os.PathLike, max_length: int | None = None):
        device = torch.accelerator.current_accelerator(check_available=True)
        self.model = from_pretrained(path).to(device or "cpu").eval()  # pyright: ignore[reportArgumentType]
        self.tokenizer, self.task = load_tokenizer(path), task_of(self.model.config)  # pyright: ignore[reportArgumentType]
        names = self.model.config.id2label
        self.label_names = [names[number] for number in range(len(names))]  # pyright: ignore[reportArgumentType, reportOptionalSubscript]
        positions = usable_positions(self.model.config)
        longest = min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length)
        self.max_length = min(max_length or longest, longest)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, *, max_length: int | None = None) -> TextClassifier:
        """Returns `TextClassifier(path, max_length)`, by the name that transformers has for it.

        Args:
            path (`str | os.PathLike`): Folder, or Hub id.
            max_length (`int`, *optional*): Number of tokens at which texts are cut.
        """
        return cls(path, max_length)

    def predict_proba(self, texts: Texts) -> np.ndarray:
        """Returns the probabilities of the K classes, `[N, K]` float32, in the order of `label_names`.

        A text that is missing, empty or blank has no prediction: its row is NaN.

        Args:
            texts (`Texts`): N texts, or pairs of texts; one text alone counts as a list of one.
        """
        rows = _rows(texts)
        probs = np.full((len(rows), len(self.label_names)), np.nan, dtype=np.float32)
        filled = [number for number, row in enumerate(rows) if any(part.strip() for part in row)]
        if filled:
            logits = predict_logits(self.model, self.tokenized([rows[number] for number in filled]), self.tokenizer)
            probs[filled] = self.task.probs(torch.from_numpy(logits)).numpy()
        return probs

    def predict(self, texts: Texts) -> list[Any]:
        """Returns the label of each text; `None` for one that is missing, empty or blank.

        Args:
            texts (`Texts`): N texts, or pairs of texts; one text alone counts as a list of one.
        """
        probs = self.predict_proba(texts)
        filled = np.flatnonzero(~np.isnan(probs).any(axis=1))
        labels: list[Any] = [None] * len(probs)
        for number, described in zip(filled, self.task.describe(probs[filled], self.label_names), strict=True):
            labels[number] = described[0]
        return labels

    def tokenized(self, texts: Sequence[tuple[str, ...]]) -> Dataset:
        """Tokenizes N texts or pairs of texts into rows for `hfssl.inference.scoring`."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        return Dataset.from_dict(dict(self.tokenizer(*columns, truncation=True, max_length=self.max_length)))  # pyright: ignore[reportArgumentType]

    def predict_logits(self, dataset: Dataset, max_tokens: int = 8192) -> np.ndarray:
        """Returns logits `[N, K]` float32 of N tokenized rows."""
        return predict_logits(self.model, dataset, self.tokenizer, max_tokens=max_tokens)


def _rows(texts: Texts) -> list[tuple[str, ...]]:
    """Returns texts and pairs as tuples, read by the rules of tables: NaN and null are no text."""
    texts = [texts] if isinstance(texts, str) else list(texts)  # pyright: ignore[reportAssignmentType]
    pairs = [isinstance(row, tuple | list) for row in texts]
    if any(pairs) and not all(pairs):
        raise DataError("expected texts, or pairs of texts in all rows, got both: give each row the same kind.")
    rows = [tuple(map(_text, row if pair else (row,))) for row, pair in zip(texts, pairs, strict=True)]  # pyright: ignore[reportArgumentType]
    if len({len(row) for row in rows}) > 1 or any(len(row) not in (1, 2) for row in rows):
        raise DataError("expected one or two texts in each row, got another number: join them, or leave rows out.")
    return rows


def _text(value: Any) -> str:
    value = plain_value(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(f"expected texts to predict, got a {type(value).__name__}: join it into one string.")
    return str(value).encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair stops any tokenizer
