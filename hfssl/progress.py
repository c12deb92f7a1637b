"""Progress bars that say what is being done and how long it will take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

__all__ = ["NamedProgress", "progress_bar"]


def progress_bar(
    iterable: Iterable | None = None, *, title: str | None, total: int | None = None, unit: str = "it"
) -> tqdm:
    """A tqdm bar that starts with `title`; `title=None` gives a bar that shows nothing."""
    return tqdm(iterable, desc=title, total=total, unit=unit, disable=title is None, dynamic_ncols=True)


class NamedProgress(TrainerCallback):
    """One bar for a training run, with the loss of the last log behind it."""

    def __init__(self, title: str):
        self.title = title
        self.bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.bar = progress_bar(title=self.title, total=state.max_steps, unit="step")
            self.bar.update(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None
