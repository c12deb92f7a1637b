"""Trackers: trackio, TensorBoard and wandb through `report_to`, one run per trainer.

Nothing here sends data by itself: trackio writes a SQLite file, TensorBoard writes event files, and wandb follows its
own settings (`WANDB_MODE=offline` sends nothing).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, ClassVar

from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback

from hfssl.reporting.markdown import slug

__all__ = ["follow", "run_name"]


def run_name(title: str) -> str:
    """Returns a trainer's title without its position in the run: `"[2/3] self-training"` -> `"self-training"`."""
    return re.sub(r"^\[\d+/\d+\] ", "", title)


def follow(trainer: Trainer, folder: str | Path) -> None:
    """Starts one run for a trainer in each of its trackers.

    Args:
        trainer (`Trainer`): A trainer; its `args.run_name` is the name of the run.
        folder (`str` or `Path`): Folder of TensorBoard's files; the run gets a subfolder with its name.
    """
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(Path(folder) / slug(trainer.args.run_name))
    if "wandb" in trainer.args.report_to:
        trainer.callback_handler.callbacks.insert(0, _OneWandbRun())  # before the stock callback begins its run


class _OneWandbRun(TrainerCallback):
    """Ends the wandb run of an earlier trainer before the next trainer begins, which would otherwise log into it.

    The run does not end with its own training, because later measurements belong to it. A run that the user has opened
    stays open, and all trainers report to it.
    """

    # Ids of the runs whose training has ended, of the whole process: wandb has one open run per process.
    ended: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        self.own: str | None = None
        self.joined = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wandb = sys.modules["wandb"]  # the stock callback has imported it
        if wandb.run is not None and wandb.run.id in self.ended and wandb.run.id != self.own:
            wandb.finish()
        self.joined = wandb.run is not None and wandb.run.id != self.own

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        run = sys.modules["wandb"].run
        if run is not None and not self.joined:
            self.own = run.id
            self.ended.add(run.id)
