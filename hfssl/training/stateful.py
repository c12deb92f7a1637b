"""State of a method that must survive a restart: named parts, all of them in one file of each checkpoint.

The stock checkpoint holds only the model, the optimizer, the scheduler and the random states (PLATFORM_FACTS, fact 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from hfssl.errors import TrainingError

__all__ = ["METHOD_STATE", "Stateful", "load_states", "save_states"]

METHOD_STATE = "method_state.pt"


class Stateful(Protocol):
    """Describes an object that a checkpoint can hold: an objective, a weight average, a teacher, thresholds.

    Only the main process calls `state_dict`, so the method must not communicate, and its result must be the same on
    all ranks. The result holds tensors, plain values, and lists and dicts of them: the file is read with
    `torch.load(..., weights_only=True)`, onto the CPU.
    """

    def state_dict(self) -> dict[str, Any]:
        """Returns all values that `load_state_dict` needs."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restores `state_dict()` exactly, on the device where the object computes."""


def save_states(parts: Mapping[str, Stateful], folder: str | Path) -> None:
    """Writes the state of each part into one file of a checkpoint.

    Args:
        parts (`Mapping[str, Stateful]`): Parts by name.
        folder (`str` or `Path`): Folder of the checkpoint.
    """
    torch.save({name: part.state_dict() for name, part in parts.items()}, Path(folder) / METHOD_STATE)


def load_states(parts: Mapping[str, Stateful], folder: str | Path) -> None:
    """Restores each part from a checkpoint.

    Args:
        parts (`Mapping[str, Stateful]`): Parts by name.
        folder (`str` or `Path`): Folder of the checkpoint.

    Raises:
        TrainingError: The checkpoint has no such file, or the file holds other parts.
    """
    file = Path(folder) / METHOD_STATE
    if not file.is_file():
        raise TrainingError(
            f"Expected {METHOD_STATE} in the checkpoint '{folder}', found none: it was written by another program, or "
            "with `save_only_model`. Train without `resume_from_checkpoint`."
        )
    states = torch.load(file, map_location="cpu", weights_only=True)
    if states.keys() != parts.keys():
        raise TrainingError(
            f"Expected the states of {', '.join(sorted(parts))} in '{file}', found those of "
            f"{', '.join(sorted(states))}: resume with the method and the settings that the run was started with."
        )
    for name, part in parts.items():
        part.load_state_dict(states[name])
