"""Shows progress bars with a title and the expected time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

__all__ = ["NamedProgress", "is_watched", "library_bars", "progress_bar"]


def progress_bar(
    iterable: Iterable | None = None, *, title: str | None, total: int | None = None, unit: str = "it"
) -> tqdm:
    """Returns a tqdm bar that starts with `title`.

    For `title=None` the bar is hidden, and where nobody watches: in a log file each step would be a line.
    """
    hidden = title is None or not is_watched()
    return tqdm(iterable, desc=title, total=total, unit=unit, disable=hidden, dynamic_ncols=True)


def is_watched() -> bool:
    """Returns whether stderr is a terminal, or this is a notebook, whose bars are no text."""
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook; having imported one is not enough."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class NamedProgress(TrainerCallback):
    """Shows one bar for a training run, followed by the loss of the last log."""

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


LONG_WORK_ROWS = 20_000


@contextmanager
def library_bars(rows: int = 0) -> Iterator[None]:
    """Hides the progress bars of datasets and transformers within the block, unless at least 20,000 rows are at work.

    These bars are many, do not name the step that they belong to, and mostly disappear before a user can read them.
    Long steps of hfssl have their own bars.
    """
    if rows >= LONG_WORK_ROWS:
        yield
        return
    shown = datasets.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown[0]:
            datasets.enable_progress_bars()
        if shown[1]:
            transformers_logging.enable_progress_bar()
