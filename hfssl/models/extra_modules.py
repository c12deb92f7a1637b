"""Adds modules that only training needs: they are optimised and saved in checkpoints, but not exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hfssl.errors import TrainingError

__all__ = ["ExtraModules", "extra_modules_of"]

ATTRIBUTE = "training_only"


class ExtraModules(nn.ModuleDict):
    """Holds modules by name that belong to a model during training: a projection head, a decoder, a discriminator.

    A parameter outside the model would get gradients, but the optimizer would not update it. The model's `forward`
    does not use these modules; a loss calls them: `extra_modules_of(model)["projection"](features)`.
    """

    def attach(self, model: nn.Module) -> None:
        """Makes the modules part of `model`, if there are any and they are not attached already.

        Raises:
            TrainingError: one of them is or holds the model.
        """
        if any(module is model for module in self.modules()):
            raise TrainingError(
                "Expected modules that only training needs from extra_modules(), found the model itself among them: "
                "leave it out; loss() gets it as an argument."
            )
        if len(self):
            model.add_module(ATTRIBUTE, self)

    def detach(self, model: nn.Module) -> None:
        """Removes the modules from `model`, if they are attached."""
        if dict(model.named_children()).get(ATTRIBUTE) is self:
            delattr(model, ATTRIBUTE)

    @contextmanager
    def attached_to(self, model: nn.Module, *, attached: bool = True) -> Iterator[None]:
        """Attaches the modules to `model` within the block (`attached=False`: detaches), then restores the state."""
        before = dict(model.named_children()).get(ATTRIBUTE) is self
        (self.attach if attached else self.detach)(model)
        try:
            yield
        finally:
            (self.attach if before else self.detach)(model)

    def average_gradients(self, reduce: Callable[[Tensor, str], Tensor]) -> None:
        """Averages the gradients over the ranks. Collective: every rank must call this.

        DDP prepares only the gradients of parameters that `forward` uses, not those of these modules. A parameter that
        the loss did not use gets a gradient of 0, on one rank and on several.

        Args:
            reduce (`Callable[[Tensor, str], Tensor]`): Function that reduces a tensor over the ranks:
                `Accelerator.reduce`.
        """
        for parameter in self.parameters():
            if parameter.requires_grad:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = reduce(own, "mean")


def extra_modules_of(model: nn.Module) -> ExtraModules:
    """Returns the modules attached to `model`, which may be wrapped for several devices; empty if there are none."""
    return next((module for module in model.modules() if isinstance(module, ExtraModules)), ExtraModules())
