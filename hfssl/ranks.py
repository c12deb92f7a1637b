"""What the ranks of a run under `torchrun` or `accelerate launch` agree on; one process agrees with itself at once.

All functions but `is_main` are met by every rank at the same place, or the run hangs. They need a process group (or
none), which `TrainingArguments` sets up: make those first.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather

__all__ = ["any_rank", "from_main", "is_main", "wait_for_everyone"]

T = TypeVar("T")


def is_main() -> bool:
    """Whether this process writes the files."""
    return PartialState().is_main_process


def wait_for_everyone() -> None:
    """Returns once every rank has come here."""
    PartialState().wait_for_everyone()


def from_main(value: T) -> T:
    """The main process's `value` (anything that can be pickled), on every rank."""
    return broadcast_object_list([value])[0]


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on at least one rank; waits for the device when there are several."""
    state = PartialState()
    if state.num_processes == 1:
        return flag
    return bool(gather(torch.tensor([flag], device=state.device)).any())
