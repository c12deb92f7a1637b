"""Opens what a user names as a classifier: a run, a folder of a model or adapter, an ONNX export, or a Hub id."""

from __future__ import annotations

import os
from pathlib import Path

from hfssl.deploy.onnx_runtime import ONNX_FILE, OnnxClassifier
from hfssl.inference.text_classifier import TextClassifier
from hfssl.pipeline.run_folder import model_and_splits
from hfssl.reporting.results import RESULTS

__all__ = ["open_classifier"]


def open_classifier(path: str | os.PathLike, max_length: int | None = None) -> TextClassifier | OnnxClassifier:
    """Opens whatever `hfssl fit` and `hfssl export` write, or a model of the Hub, for predictions.

    Args:
        path (`str | os.PathLike`): Folder of a finished run (its `model/` is opened), a model, an adapter or an ONNX
            export, or a Hub id.
        max_length (`int`, *optional*): Number of tokens at which texts are cut. Default and upper bound: the limit of
            tokenizer and model.

    Raises:
        ConfigurationError: if ONNX Runtime is needed and not installed.
        ModelError: if the model cannot be loaded.
    """
    folder = Path(path)
    if (folder / ONNX_FILE).is_file():
        return OnnxClassifier(folder, max_length=max_length)
    if (folder / RESULTS).is_file():
        return TextClassifier(model_and_splits(folder)[0], max_length)
    return TextClassifier(path, max_length)
