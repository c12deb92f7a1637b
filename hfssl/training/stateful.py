"""State of a method that must survive a restart: named parts, all of them in one file of each checkpoint.

The stock checkpoint holds only the model, the optimizer, the scheduler and the random states (PLATFORM_FACTS, fact 4).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from hfssl.errors import HfsslError, TrainingError

__all__ = ["METHOD_STATE", "Stateful", "load_states", "save_states"]

METHOD_STATE = "method_state.pt"

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)
MAPPINGS = (dict, OrderedDict, Counter)


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
    """Writes the state of each part into one file of the checkpoint `folder`.

    Raises:
        TrainingError: a state holds what `load_states` would refuse to read.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    for name, state in states.items():
        if found := _unreadable(state):
            raise TrainingError(
                f"Expected tensors, plain values, and lists and dicts of them in the state of {name}, found "
                f"{found}: return something plain from its state_dict(), or no run could be resumed."
            )
    torch.save(states, Path(folder) / METHOD_STATE)


def load_states(parts: Mapping[str, Stateful], folder: str | Path) -> None:
    """Restores each part from a checkpoint.

    Args:
        parts (`Mapping[str, Stateful]`): Parts by name.
        folder (`str` or `Path`): Folder of the checkpoint.

    Raises:
        TrainingError: the checkpoint has no such file, it cannot be read or holds other parts, or a part refuses its
            state.
    """
    file = Path(folder) / METHOD_STATE
    if not file.is_file():
        raise TrainingError(
            f"Expected {METHOD_STATE} in the checkpoint '{folder}', found none: it was written by another program, "
            "by an older hfssl, or with `save_only_model`. Train without `resume_from_checkpoint`."
        )
    try:
        states = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zipfile, struct or torch, by what is wrong with the file
        raise TrainingError(
            f"Expected the state of a method in '{file}', found a file that cannot be read ({type(error).__name__}): "
            "delete its checkpoint and resume from an earlier one, or train without `resume_from_checkpoint`."
        ) from error
    if not isinstance(states, dict):
        raise TrainingError(
            f"Expected the states of {', '.join(sorted(parts))} in '{file}', found a {type(states).__name__}: train "
            "without `resume_from_checkpoint`."
        )
    if states.keys() != parts.keys():
        raise TrainingError(
            f"Expected the states of {', '.join(sorted(parts))} in '{file}', found those of "
            f"{', '.join(sorted(states))}: resume with the method and the settings that the run was started with."
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(states[name])
        except HfsslError:
            raise
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise TrainingError(
                f"Expected a state of {name} in '{file}' that {type(part).__name__}.load_state_dict() takes, got "
                f"{type(error).__name__}: {error}. Resume with the code and the settings that the run was started "
                "with, or train without `resume_from_checkpoint`."
            ) from error


def _unreadable(state: Any) -> str | None:
    """Name of the first type in `state` that `torch.load(..., weights_only=True)` does not read, or `None`."""
    if isinstance(state, torch.Tensor) or type(state) in PLAIN:
        return None
    if type(state) in (list, tuple, set, *MAPPINGS):
        parts = [*state, *state.values()] if type(state) in MAPPINGS else state
        return next((found for part in parts if (found := _unreadable(part))), None)
    return f"{type(state).__module__}.{type(state).__qualname__}"
