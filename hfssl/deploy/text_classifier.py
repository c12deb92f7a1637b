"""A saved model as its users meet it: weights, tokenizer, label names, and texts cut as training cut them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from datasets import Dataset

from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import load_tokenizer
from hfssl.tasks.registry import task_of

__all__ = ["TextClassifier"]


class TextClassifier:
    """Loads a full model or an adapter, in eval mode, on the accelerator if there is one.

    Args:
        path (`str | os.PathLike`): Folder, or Hub id.
        max_length (`int`, *optional*): Tokens kept of each text. Default: as many as tokenizer and model allow, which
            is also the most.

    Args:
        model: The classifier.
        tokenizer: Its tokenizer.
        label_names: `[K]`, in the order of the logits.
        task: What a prediction is, by the model's configuration.
        max_length (`int`, *optional*): Tokens kept of each text.

    Raises:
        ModelError: The model or its tokenizer cannot be loaded.
    """

    def __init__(self, path: str | os.PathLike, max_length: int | None = None):
        device = torch.accelerator.current_accelerator(check_available=True)
        self.model = from_pretrained(path).to(device or "cpu").eval()
        self.tokenizer, self.task = load_tokenizer(path), task_of(self.model.config)
        names = self.model.config.id2label
        self.label_names = [names[number] for number in range(len(names))]
        # The encoder's configuration: a mean-pooled classifier keeps it inside its own.
        positions = self.model.config.get_text_config().to_dict().get("max_position_embeddings")
        longest = min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length)
        self.max_length = min(max_length or longest, longest)

    def tokenized(self, texts: Sequence[tuple[str, ...]]) -> Dataset:
        """N texts, or pairs of texts, as the rows that `hfssl.inference.scoring` reads."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        return Dataset.from_dict(dict(self.tokenizer(*columns, truncation=True, max_length=self.max_length)))
