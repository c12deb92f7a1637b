"""Loads a saved model for predictions: weights, tokenizer, label names, and the token limit of training."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset

from hfssl.inference.scoring import predict_logits
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import load_tokenizer
from hfssl.tasks.registry import task_of

__all__ = ["TextClassifier"]


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
    """

    def __init__(self, path: str | os.PathLike, max_length: int | None = None):
        device = torch.accelerator.current_accelerator(check_available=True)
        self.model = from_pretrained(path).to(device or "cpu").eval()
        self.tokenizer, self.task = load_tokenizer(path), task_of(self.model.config)
        names = self.model.config.id2label
        self.label_names = [names[number] for number in range(len(names))]
        # The configuration of the encoder, which that of a mean-pooled classifier contains.
        positions = self.model.config.get_text_config().to_dict().get("max_position_embeddings")
        longest = min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length)
        self.max_length = min(max_length or longest, longest)

    def tokenized(self, texts: Sequence[tuple[str, ...]]) -> Dataset:
        """Tokenizes N texts or pairs of texts into rows for `hfssl.inference.scoring`."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        return Dataset.from_dict(dict(self.tokenizer(*columns, truncation=True, max_length=self.max_length)))

    def predict_logits(self, dataset: Dataset, max_tokens: int = 8192) -> np.ndarray:
        """Returns logits `[N, K]` float32 of N tokenized rows."""
        return predict_logits(self.model, dataset, self.tokenizer, max_tokens=max_tokens)
