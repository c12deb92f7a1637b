"""Removal of the attributes that `Accelerator.prepare` leaves on a model object."""

from __future__ import annotations

from torch import nn

__all__ = ["PreparedModel"]


class PreparedModel:
    """Removes the attributes that the preparation for training has added to a model.

    In mixed precision these are a `forward` that computes in bf16, and a marker that prevents a second preparation.
    Without them the model behaves like a loaded one: it predicts in fp32, and a trained copy of it computes in bf16
    again. No attribute name is assumed: every attribute that appears during the preparation is removed.

    Args:
        model (`nn.Module`): The model without wrappers.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._before: set[str] | None = None
        self._added: set[str] = set()

    def note_before(self) -> None:
        """Records the attributes before the preparation; later calls change nothing."""
        if self._before is None:
            self._before = set(vars(self._model))

    def note_after(self) -> None:
        """Records the attributes after the preparation."""
        self._added = set(vars(self._model)) - (self._before or set())

    def restore(self) -> None:
        """Removes the added attributes."""
        for name in self._added:
            vars(self._model).pop(name, None)
        self._before, self._added = None, set()
