"""Saves models with and without an adapter, and finds the last complete checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.models.adapters import merge, save_adapter
from hfssl.runtime.files import atomic_directory
from hfssl.runtime.progress import library_bars

__all__ = ["COMPLETE_MARKER", "last_complete_checkpoint", "plain_model", "save_checkpoint"]

COMPLETE_MARKER = "hfssl_complete"


def save_checkpoint(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike,
    label_names: Sequence[str] = (),
) -> None:
    """Writes weights and tokenizer atomically; `hfssl.models.auto.from_pretrained` loads them.

    Args:
        model (`PreTrainedModel | PeftModel`): Full model, or model with an adapter, of which the adapter and the head
            are saved.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer to save with the model.
        folder (`str | os.PathLike`): Folder to write, replaced as a whole.
        label_names (`Sequence[str]`, defaults to `()`): Names of the K classes; required for an adapter (a full model
            holds them in its configuration).
    """
    with atomic_directory(folder) as temporary, library_bars():
        if isinstance(model, PeftModel):
            save_adapter(model, temporary, label_names)
        else:
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def plain_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Returns the model with its adapter merged, or the model itself; the argument cannot be used afterwards."""
    return merge(model) if isinstance(model, PeftModel) else model


def last_complete_checkpoint(folder: str | os.PathLike) -> str | None:
    """Returns the newest complete `checkpoint-N` in `folder`, or `None`."""
    steps = {
        int(path.parent.name.split("-")[1]): path.parent
        for path in Path(folder).glob(f"checkpoint-*/{COMPLETE_MARKER}")
    }
    return str(steps[max(steps)]) if steps else None
