"""What `Accelerator.prepare` leaves on a model object, and how the object becomes what it was."""

from __future__ import annotations

from torch import nn

__all__ = ["PreparedModel"]


class PreparedModel:
    """Takes off a model what preparing it for training has put there.

    In mixed precision these are a `forward` that computes in bf16, and a mark that it need not be put there again.
    Without them the model is as it will be when it is loaded: it predicts in fp32, and a copy of it that is trained
    computes in bf16 again. No name of an attribute is assumed: what is new after the preparation is taken off.

    Args:
        model (`nn.Module`): The model without wrappers.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._before: set[str] | None = None
        self._added: set[str] = set()

    def note_before(self) -> None:
        """To be called before the model is prepared; later calls change nothing."""
        if self._before is None:
            self._before = set(vars(self._model))

    def note_after(self) -> None:
        """To be called after the model was prepared."""
        self._added = set(vars(self._model)) - (self._before or set())

    def restore(self) -> None:
        """Takes off what was added."""
        for name in self._added:
            vars(self._model).pop(name, None)
        self._before, self._added = None, set()
