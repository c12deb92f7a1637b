"""`Objective`: turns a batch into named loss terms. It owns no model, and its parameters are `extra_modules`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from hfssl.data.views.base import PlainView, View
from hfssl.training.config import SSLConfig
from hfssl.training.forward import Batch

__all__ = ["Objective"]


class Objective:
    """Base class of all methods; see `SupervisedObjective` for the smallest one.

    The model is given to each call and never kept: it may be wrapped, and wrapped anew, in between.

    Class attributes:
        paper: Where the method comes from, for docs and cards.
        citation: BibTeX entries, for cards.
        product: What the trained model is: a `"classifier"`, an `"encoder"` whose head is not trained, or a
            `"masked_lm"`.
        compares_rows: Whether the loss compares the labeled rows of a batch with each other; batches then hold several
            rows of each class in them (`ClassRowStream`).
    """

    paper: str = ""
    citation: str = ""
    product: ClassVar[Literal["classifier", "encoder", "masked_lm"]] = "classifier"
    compares_rows: ClassVar[bool] = False

    def setup(self, model: nn.Module, args: SSLConfig) -> None:
        """Called once, before training, with the unwrapped model. Raise here what cannot work."""

    def extra_modules(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Modules that only training needs, by name: a projection head, a decoder, a discriminator.

        Called once, after `setup`, with a random state of its own. Their parameters are stepped at the head's learning
        rate; checkpoints hold them; what is exported does not. `loss` gets them with
        `hfssl.models.extra_modules.extra_modules_of(model)["name"]` and calls them on what the model returns.
        """
        return {}

    def build_views(self, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> dict[str, View]:
        """The views of an unlabeled row that `loss` reads from `unlabeled`, by name."""
        return {"plain": PlainView(tokenizer)}

    def loss(
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        """Named scalar tensors: entries `loss/...` are summed into the loss, all others are only logged.

        Each is a mean over this batch. Nothing here may wait for the device (`.item()`).

        Args:
            model: The (possibly wrapped) model in training mode.
            labeled: `input_ids` `[B, L]`, `attention_mask` `[B, L]`, `labels` `[B]`, and other numeric columns.
            unlabeled: View name -> batch of `[U, L]` tensors.
            step: Optimizer steps taken so far.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define loss().")  # abstract

    def num_items(self, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None) -> torch.Tensor | None:
        """How many items the means in `loss` were taken over; `None` when every batch weighs the same.

        Objectives whose batches hold different numbers of items (masked tokens) return the count; the trainer then
        weighs each micro-batch by its share, so that accumulation and ranks change nothing.
        """
        return None

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called after each optimizer step, with the unwrapped model and the steps taken."""

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers (tensors and plain values), but for its extra modules; see `Stateful`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()` exactly."""

    def describe(self) -> dict[str, Any]:
        """Settings for the log, the report and the card: plain JSON values."""
        return {"method": type(self).__name__, "paper": self.paper, "citation": self.citation}
