"""Modules that only training needs: stepped and kept in checkpoints, and no part of the model that is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hfssl.errors import TrainingError

__all__ = ["ExtraModules", "extra_modules_of"]

ATTRIBUTE = "training_only"


class ExtraModules(nn.ModuleDict):
    """Modules by name that hang on a model while it is trained: a projection head, a decoder, a discriminator.

    A parameter outside the model would get gradients and never be stepped (PLATFORM_FACTS, fact 9). The model's own
    `forward` does not use them; a loss calls them: `extra_modules_of(model)["projection"](features)`.
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
        """Takes the modules off `model`, if they are attached."""
        if dict(model.named_children()).get(ATTRIBUTE) is self:
            delattr(model, ATTRIBUTE)

    @contextmanager
    def attached_to(self, model: nn.Module, *, attached: bool = True) -> Iterator[None]:
        """Within the block the modules are part of `model`, or with `attached=False` are not; then as before."""
        before = dict(model.named_children()).get(ATTRIBUTE) is self
        (self.attach if attached else self.detach)(model)
        try:
            yield
        finally:
            (self.attach if before else self.detach)(model)

    def average_gradients(self, reduce: Callable[[Tensor, str], Tensor]) -> None:
        """Averages the gradients over the ranks. Collective: every rank must call this.

        DDP does not know these modules: it prepares the gradients of what `forward` uses. A parameter that the loss
        did not use gets a gradient of 0, on one rank as on several.

        Args:
            reduce: `Accelerator.reduce`.
        """
        for parameter in self.parameters():
            if parameter.requires_grad:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = reduce(own, "mean")


def extra_modules_of(model: nn.Module) -> ExtraModules:
    """Returns the modules attached to `model`, which may be wrapped for several devices; empty if there are none."""
    return next((module for module in model.modules() if isinstance(module, ExtraModules)), ExtraModules())
