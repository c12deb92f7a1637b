"""Runs an exported model with ONNX Runtime in place of PyTorch, with the same label names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoConfig

import hfssl.models.mean_pooling  # noqa: F401  registers the mean-pooled classifier for AutoConfig
from hfssl.data.batching import token_windows
from hfssl.errors import ConfigurationError, ModelError
from hfssl.models.backbones import load_tokenizer
from hfssl.tasks.registry import task_of

__all__ = ["INT8_FILE", "ONNX_FILE", "OnnxClassifier", "require_onnx"]

ONNX_FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOKENS = 2048  # tokens in one pass, padding included
ERRORS_ONLY = 3  # log level of ONNX Runtime; its warnings concern only its own optimisations


def require_onnx() -> None:
    """Checks that the packages of the extra `onnx` are installed.

    Raises:
        ConfigurationError: if one is missing; the message names it and the command to install it.
    """
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigurationError(
                f"Expected the packages {', '.join(PACKAGES)}, but {name} cannot be imported ({error}): "
                'pip install "hfssl[onnx]".'
            ) from error


class OnnxClassifier:
    """Loads a folder that `hfssl.deploy.onnx_export.export_onnx` wrote, and maps texts to probabilities.

    Args:
        folder (`str | os.PathLike`): Folder of the ONNX file, `config.json` and the tokenizer.
        file (`str`, defaults to `"model.onnx"`): Model to load: `"model.onnx"` or `"model_int8.onnx"`.
        max_length (`int`, *optional*): Number of tokens at which `tokenized` cuts texts. Default and upper bound: the
            limit of tokenizer and model.

    Attributes:
        label_names (`list[str]`): The K class names in the order of the class numbers.
        inputs (`list[str]`): Names of the model's inputs, each int64 `[N, L]`; its output `logits` is float32 `[N,
            K]`.

    Raises:
        ConfigurationError: if a package of the extra `onnx` is missing.
        ModelError: if a file is missing, or ONNX Runtime cannot load it.
    """

    def __init__(self, folder: str | os.PathLike, file: str = ONNX_FILE, max_length: int | None = None):
        require_onnx()
        import onnxruntime

        path = Path(folder) / file
        if not path.is_file() or not (Path(folder) / "config.json").is_file():
            raise ModelError(
                f"Expected the files {file} and config.json in '{folder}', but one is missing: give the folder that "
                "hfssl export wrote."
            )
        config = AutoConfig.from_pretrained(folder)
        self.task = task_of(config)
        self.label_names = [config.id2label[label] for label in range(config.num_labels)]
        self.tokenizer = load_tokenizer(folder)
        positions = config.get_text_config().to_dict().get("max_position_embeddings")
        longest = min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length)
        self.max_length = min(max_length or longest, longest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # as in torch; by default ONNX Runtime uses all cores
        options.log_severity_level = ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no other base
            raise ModelError(
                f"Expected a model that ONNX Runtime can load in '{path}', but: {error}: export it again."
            ) from error
        self.inputs = [entry.name for entry in self._session.get_inputs()]

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, float]]:
        """Returns the probability of each label name for each text (and its second text, for a model of pairs)."""
        second = None if pairs is None else list(pairs)
        encoded = self.tokenizer(list(texts), second, truncation=True, padding=True, return_tensors="np")
        probs = self.task.probs(self.logits(encoded))
        return [dict(zip(self.label_names, row, strict=True)) for row in probs.tolist()]

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns logits `[N, K]` float32 for padded inputs `[N, L]`; ignores entries that the model does not accept.

        Missing `token_type_ids` are 0, as in PyTorch.
        """
        feed = {name: np.asarray(batch[name], dtype=np.int64) for name in self.inputs if name in batch}
        if "token_type_ids" in self.inputs and "token_type_ids" not in feed:
            feed["token_type_ids"] = np.zeros_like(feed["input_ids"])
        return self._session.run(["logits"], feed)[0]

    def tokenized(self, texts: Sequence[tuple[str, ...]]) -> Dataset:
        """Tokenizes N texts or pairs of texts into rows for `predict_logits`."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        return Dataset.from_dict(dict(self.tokenizer(*columns, truncation=True, max_length=self.max_length)))

    def predict_logits(self, dataset: Dataset, max_tokens: int = TOKENS) -> np.ndarray:
        """Returns logits `[N, K]` float32 of N tokenized rows, with the same batches as PyTorch's `predict_logits`."""
        logits = np.zeros((len(dataset), len(self.label_names)), dtype=np.float32)
        for window in token_windows(dataset, self.tokenizer):
            for rows in window.batches(max_tokens):
                logits[rows] = self.logits(window.padded(rows))
        return logits
