"""Interrupting and resuming: complete checkpoints, the state of the method in them, and Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from hfssl.models.checkpoints import mark_complete
from hfssl.models.extra_modules import ExtraModules
from hfssl.runtime.distributed import any_rank
from hfssl.runtime.interrupts import InterruptNote
from hfssl.training.hub_trainer import HubTrainer
from hfssl.training.stateful import Stateful, load_states, save_states

__all__ = ["CheckpointTrainer"]


class CheckpointTrainer(HubTrainer):
    """Extends `Trainer` by checkpoints from which a run resumes to the same bits.

    Attributes:
        states (`dict[str, Stateful]`): State of the method that checkpoints hold, by name; see `register_state`.
        extra_modules (`ExtraModules`): Modules that only training needs. Checkpoints hold them with the states, so
            that the model's own file contains only the exported model.
        interrupted (`bool`): Whether a rank received a Ctrl-C. The value is the same on all ranks, which stop after
            the current step.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self.states: dict[str, Stateful] = {}
        self.extra_modules = ExtraModules()
        self._note = InterruptNote()  # of this rank
        self.interrupted = False
        super().__init__(*args, **kwargs)
        self.add_callback(_StopWhenInterrupted(self))

    def register_state(self, name: str, part: Stateful) -> None:
        """Adds the state of `part` to the checkpoints: an EMA teacher, thresholds, a bank of pseudo-labels.

        Call this before `train`. All states are in one file of the checkpoint, so no method overrides saving.

        Args:
            name (`str`): Key of the state in the file.
            part (`Stateful`): Object whose state is saved and restored.
        """
        self.states[name] = part

    # --- Saving ---

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:  # facts 9, 14
        with self.extra_modules.attached_to(self.model, attached=False):
            super()._save(output_dir, state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # fact 4
        """Writes the stock checkpoint, marks it complete once every rank has written its part, and removes old ones.

        A kill in the middle leaves a folder without the marker, which `last_complete_checkpoint` ignores.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        stopping = self.control.should_training_stop
        if self.interrupted:  # to be resumed, unlike a run that an early stop has ended
            self.control.should_training_stop = False
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit, self.control.should_training_stop = limit, stopping
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            run_dir = self._get_output_dir(trial=trial)
            folder = Path(run_dir) / f"checkpoint-{self.state.global_step}"
            mark_complete(folder, self.state.global_step)
            self.push_checkpoint(folder)
            best = self.state.best_model_checkpoint
            rotate_checkpoints(output_dir=run_dir, save_total_limit=limit, best_model_checkpoint=best, use_mtime=False)
        # An interrupted rank exits after this, and the launcher then ends the others: the marker must exist by now.
        self.accelerator.wait_for_everyone()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:  # fact 4
        super()._save_optimizer_and_scheduler(output_dir)
        os.makedirs(output_dir, exist_ok=True)  # ranks race here
        if self.args.should_save:
            save_states(self.states, output_dir)

    # --- Resuming ---

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:  # fact 4
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_states(self.states, checkpoint)

    def _load_best_model(self) -> None:  # facts 4, 9
        with self.extra_modules.attached_to(self.model, attached=False):  # the model's file does not hold them
            super()._load_best_model()

    def is_finished(self, checkpoint: str) -> bool:
        """Returns whether nothing is left to train after this checkpoint.

        The stock loop would train on after an early stop. A run that took all its steps goes on when it gets more of
        them, or more epochs.
        """
        state = _state_of(checkpoint)
        stopped = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]
        if stopped and state.global_step < state.max_steps:
            return True
        if self.args.max_steps > 0:
            return state.global_step >= self.args.max_steps
        return stopped and (state.epoch or 0) >= self.args.num_train_epochs

    def load_finished(self, checkpoint: str) -> None:
        """Restores the model and the states after the last step of a finished run."""
        self.state = _state_of(checkpoint)
        self._load_from_checkpoint(checkpoint)
        load_states(self.states, checkpoint)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    # --- Interrupts ---

    def look_for_interrupt(self, control: TrainerControl) -> bool:
        """Returns whether any rank was interrupted; ranks on several accelerators check only when they log or save."""
        free = self.args.world_size == 1 or self.args.device.type == "cpu"
        if free or control.should_log or control.should_save or control.should_training_stop:
            self.interrupted = any_rank(self._note.taken)
        return self.interrupted


class _StopWhenInterrupted(TrainerCallback):
    """Passes an interrupt to the stock loop, which saves and stops after the step."""

    def __init__(self, trainer: CheckpointTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.look_for_interrupt(control):
            control.should_save = control.should_training_stop = True


def _state_of(checkpoint: str) -> TrainerState:
    return TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
