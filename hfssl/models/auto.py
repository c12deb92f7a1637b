"""Loads a full model or an adapter with its label names: `from_pretrained`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from hfssl.config.tasks import TASK_KEY
from hfssl.errors import ModelError
from hfssl.hub.download import download
from hfssl.models.backbones import check_exists, check_files
from hfssl.models.loading import load_pretrained
from hfssl.runtime.ledger import check_seal

__all__ = ["from_pretrained"]

HEADS = ("SequenceClassification", "TokenClassification", "ImageClassification")


def from_pretrained(
    path: str | Path,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | None = None,
    base: str | Path | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Loads a full model or an adapter that hfssl saved, with its label names, from a folder or from the Hub.

    Only safetensors are read. Code in a model's repository, or in that of an adapter's base model, runs only with
    `trust_remote_code=True`.

    Args:
        path (`str | Path`): Folder, or Hub id; cached files are used where the Hub cannot be reached.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        subfolder (`str`, *optional*): Subfolder of the folder or repository: `"adapter"` for the adapter of a pushed
            model.
        token (`str`, *optional*): Access token for a private model. Default: the token that `hf auth login` saved.
        base (`str | Path`, *optional*): Folder or Hub id of an adapter's base model, if it has moved from the saved
            place.
        trust_remote_code (`bool`, defaults to `False`): Whether code in the repository may run.

    Raises:
        ModelError: if the model does not exist, lacks weights (which would be random), or cannot be loaded without
            running its code.
        DamagedFile: if a file of a folder that hfssl saved is not as hfssl wrote it.

    Example:
        >>> import hfssl
        >>> from hfssl.models.checkpoints import save_checkpoint
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> save_checkpoint(model, tokenizer, folder, ["bad", "good"])
        >>> hfssl.from_pretrained(folder).config.id2label
        {0: 'bad', 1: 'good'}
    """
    if not Path(path).exists():
        check_exists(path)
        path = download(str(path), revision=revision, token=token)
    if subfolder is not None:
        path = Path(path) / subfolder
    check_seal(path)
    if (Path(path) / "adapter_config.json").is_file():
        from hfssl.models.adapters import (
            load_adapter,  # adapters.py imports this module, and peft is slow to import
        )

        return load_adapter(path, base, trust_remote_code=trust_remote_code)  # pyright: ignore[reportReturnType]
    if Path(path).is_dir():
        check_files(Path(path))
    model, missing = load_pretrained(
        _auto_class(Path(path)), path, seed=0, dtype="auto", trust_remote_code=trust_remote_code
    )
    if missing:
        raise ModelError(
            f"Expected a trained classifier in '{path}', but {len(missing)} of its weights are missing, for example "
            f"'{min(missing)}': give the folder that training saved, not a backbone."
        )
    return model


def _auto_class(folder: Path) -> Any:
    """Returns the transformers class for the task in the configuration; without one, for one label per text."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        head = config["architectures"][0].rpartition("For")[2] if TASK_KEY in config else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        head = ""  # loading reports the error
    return getattr(transformers, f"AutoModelFor{head}" if head in HEADS else "AutoModelForSequenceClassification")
