"""What the ranks of a run under `torchrun` or `accelerate launch` agree on; one process agrees with itself at once.

All functions but `is_main` and `rank_and_world` are met by every rank at the same place, or the run hangs. They need a
process group (or none), which `TrainingArguments` sets up: make those first.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather

__all__ = [
    "any_rank",
    "broadcast",
    "failing_together",
    "is_main",
    "leave_group",
    "rank_and_world",
    "sum_over_ranks",
    "wait_for_everyone",
]

T = TypeVar("T")


def is_main() -> bool:
    """Whether this process writes the files."""
    return PartialState().is_main_process


def wait_for_everyone() -> None:
    """Returns once every rank has come here."""
    PartialState().wait_for_everyone()


def leave_group() -> None:
    """Ends the process group, if there is one: the last thing a run of several ranks does when all has gone well.

    The threads of a group that lives on at exit may let go of a tensor when the interpreter is already gone, and abort
    a process whose work is done (pytorch/pytorch#179291). They end with the last object that holds the group, so the
    caller must have let go of its trainer. A rank that failed does not come here; the launcher ends it.
    """
    gc.collect()  # a trainer, its accelerator and the wrapped model hold each other
    PartialState().destroy_process_group()


def broadcast(value: T) -> T:
    """The main process's `value` (anything that can be pickled), on every rank."""
    return broadcast_object_list([value])[0]


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on at least one rank; waits for the device when there are several."""
    state = PartialState()
    if state.num_processes == 1:
        return flag
    return bool(gather(torch.tensor([flag], device=state.device)).any())


def rank_and_world() -> tuple[int, int]:
    """This process's rank and how many there are: (0, 1) without a process group, which is not set up by asking."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def sum_over_ranks(array: np.ndarray, device: torch.device) -> None:
    """Replaces the contiguous `array` by its sum over the ranks; `device` is one that the process group can add on."""
    if rank_and_world()[1] == 1:
        return
    tensor = torch.from_numpy(array).to(device)  # on the CPU the array's own memory
    torch.distributed.all_reduce(tensor)
    if device.type != "cpu":
        array[...] = tensor.cpu().numpy()


@contextmanager
def failing_together(kind: type[Exception]) -> Iterator[None]:
    """An error of this `kind` that one rank meets within the block is raised by all, with that rank's message."""
    world, error = rank_and_world()[1], None
    try:
        yield
    except kind as met:
        if world == 1:
            raise
        error = met
    if world == 1:
        return
    messages: list[str | None] = [None] * world
    torch.distributed.all_gather_object(messages, None if error is None else str(error))
    for message in messages:
        if message is not None:
            raise kind(message) from error
