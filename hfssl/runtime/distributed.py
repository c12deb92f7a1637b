"""Communicates between the ranks of a run under `torchrun` or `accelerate launch`; a single process needs no waiting.

All functions except `is_main` and `rank_and_world` are collective: every rank must call them at the same place, or the
run hangs. `TrainingArguments` sets up the process group, so create it first.
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
    "gather_over_ranks",
    "is_main",
    "leave_group",
    "rank_and_world",
    "sum_over_ranks",
    "total_over_ranks",
    "wait_for_everyone",
]

T = TypeVar("T")


def is_main() -> bool:
    """Returns whether this process writes the files."""
    return PartialState().is_main_process


def wait_for_everyone() -> None:
    """Waits until every rank has called this. Collective: every rank must call this."""
    PartialState().wait_for_everyone()


def leave_group() -> None:
    """Ends the process group, if there is one, at the end of a successful run. Collective: every rank must call this.

    If a group still exists at exit, its threads may free a tensor after the interpreter has ended, which aborts a
    finished process (pytorch/pytorch#179291). The threads end with the last object that refers to the group, so the
    caller must delete its trainer first. The launcher ends a rank that failed.

    Example:
        >>> import hfssl
        >>> hfssl.leave_group()  # in one process, nothing happens
    """
    gc.collect()  # a trainer, its accelerator and the wrapped model refer to each other
    PartialState().destroy_process_group()


def broadcast(value: T) -> T:
    """Broadcasts rank 0's `value` (any picklable object) to all ranks. Collective: every rank must call this."""
    return broadcast_object_list([value])[0]


def any_rank(flag: bool) -> bool:
    """Returns whether `flag` is true on any rank; syncs the device. Collective: every rank must call this."""
    state = PartialState()
    if state.num_processes == 1:
        return flag
    return bool(gather(torch.tensor([flag], device=state.device)).any())  # pyright: ignore[reportAttributeAccessIssue]


def rank_and_world() -> tuple[int, int]:
    """Returns the rank of this process and the number of ranks: (0, 1) without a process group. Never sets one up."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def sum_over_ranks(array: np.ndarray, device: torch.device) -> None:
    """Replaces the contiguous `array` by its sum over all ranks. Collective: every rank must call this."""
    if rank_and_world()[1] == 1:
        return
    tensor = torch.from_numpy(array).to(device)  # on the CPU this shares the array's memory
    torch.distributed.all_reduce(tensor)
    if device.type != "cpu":
        array[...] = tensor.cpu().numpy()


@contextmanager
def failing_together(kind: type[Exception]) -> Iterator[None]:
    """Raises an error of this `kind` on all ranks if one raises it. Collective: every rank must call this."""
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


def total_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the sum of a tensor without gradient over all ranks. Collective: every rank must call this."""
    if rank_and_world()[1] == 1:
        return tensor
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def gather_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the rows of all ranks, in their order, for equal shapes. Collective: every rank must call this."""
    world = rank_and_world()[1]
    if world == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world)]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
