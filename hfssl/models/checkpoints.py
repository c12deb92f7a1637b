"""Saves models with and without an adapter, and finds the last complete checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.errors import DamagedFile
from hfssl.models.adapters import merge, save_adapter
from hfssl.runtime.files import atomic_directory, read_checked_json, write_checked_json
from hfssl.runtime.ledger import check_files, files_of, seal
from hfssl.runtime.progress import library_bars

__all__ = [
    "COMPLETE_MARKER",
    "check_checkpoint",
    "last_complete_checkpoint",
    "mark_complete",
    "plain_model",
    "save_checkpoint",
]

COMPLETE_MARKER = "hfssl_complete"


def save_checkpoint(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike,
    label_names: Sequence[str] = (),
) -> None:
    """Writes weights and tokenizer atomically; `hfssl.models.auto.from_pretrained` loads and checks them.

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
        seal(temporary)


def plain_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Returns the model with its adapter merged, or the model itself; the argument cannot be used afterwards."""
    return merge(model) if isinstance(model, PeftModel) else model


def mark_complete(checkpoint: str | os.PathLike, step: int) -> None:
    """Writes the marker of a complete checkpoint, with the sizes and SHA-256 of its files.

    Args:
        checkpoint (`str | os.PathLike`): Folder of the checkpoint, to which every rank has written its part.
        step (`int`): Number of optimizer steps.
    """
    # The pickle of the arguments is never pushed, nor read by hfssl.
    files = files_of(checkpoint, lambda name: name not in (COMPLETE_MARKER, "training_args.bin"))
    write_checked_json(Path(checkpoint) / COMPLETE_MARKER, {"step": step, "files": files})


def check_checkpoint(checkpoint: str | os.PathLike) -> None:
    """Compares a checkpoint with its marker; does nothing for one of another program, which has none.

    Raises:
        DamagedFile: a file is not as it was when the checkpoint was complete.
    """
    marker = Path(checkpoint) / COMPLETE_MARKER
    if not marker.is_file():
        return
    try:
        check_files(checkpoint, read_checked_json(marker)["files"])
    except DamagedFile as error:
        remedy = (
            f"delete the folder '{checkpoint}' and resume, which goes on from the checkpoint before it or from the "
            "first step"
        )
        raise DamagedFile(error.path, error.found, remedy) from None


def last_complete_checkpoint(folder: str | os.PathLike) -> str | None:
    """Returns the newest complete `checkpoint-N` in `folder`, or `None`."""
    steps = {
        int(path.parent.name.split("-")[1]): path.parent
        for path in Path(folder).glob(f"checkpoint-*/{COMPLETE_MARKER}")
    }
    return str(steps[max(steps)]) if steps else None
