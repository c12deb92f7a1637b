"""Saved models, with and without an adapter: one call for both kinds; and which checkpoint was written to its end."""

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
    """Writes weights and tokenizer, whole or not at all; `hfssl.models.auto.from_pretrained` loads either kind.

    Args:
        model (`PreTrainedModel | PeftModel`): A full model, or one with an adapter, of which the adapter and the head
            are saved.
        tokenizer (`PreTrainedTokenizerBase`): Saved beside it.
        folder (`str | os.PathLike`): Replaced as a whole.
        label_names (`Sequence[str]`, defaults to `()`): Names of the K classes; needed for an adapter (a full model
            holds them in its config).
    """
    with atomic_directory(folder) as temporary, library_bars():
        if isinstance(model, PeftModel):
            save_adapter(model, temporary, label_names)
        else:
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def plain_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model with its adapter merged into the weights, or the model itself; the argument is used up."""
    return merge(model) if isinstance(model, PeftModel) else model


def last_complete_checkpoint(folder: str | os.PathLike) -> str | None:
    """The newest `checkpoint-N` below `folder` that was written to its end, or `None`."""
    steps = {
        int(path.parent.name.split("-")[1]): path.parent
        for path in Path(folder).glob(f"checkpoint-*/{COMPLETE_MARKER}")
    }
    return str(steps[max(steps)]) if steps else None
