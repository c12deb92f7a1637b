"""`Objective`: turns a batch into named loss terms. It owns no model; its own parameters are `extra_modules`."""

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
    """Defines the interface of all methods; `SupervisedObjective` is the smallest subclass.

    Each call receives the model, and an objective stores no reference to it: the model may be wrapped again in
    between.

    Class attributes:
        paper (`str`): Source of the method, for docs and cards.
        citation (`str`): BibTeX entries, for cards.
        product (`str`): Kind of the trained model: a `"classifier"`, an `"encoder"` whose head is not trained, or a
            `"masked_lm"`.
        compares_rows (`bool`): Whether the loss compares the labeled rows of a batch with each other. If so, batches
            hold several rows of each class that they contain (`ClassRowStream`).

    Example:
        >>> import hfssl
        >>> class Nothing(hfssl.Objective):
        ...     def loss(self, model, labeled, unlabeled, step):
        ...         return {"loss/nothing": 0 * hfssl.joint_logits(model, labeled)[0].sum()}
        >>> Nothing().product
        'classifier'
    """

    paper: str = ""
    citation: str = ""
    product: ClassVar[Literal["classifier", "encoder", "masked_lm"]] = "classifier"
    compares_rows: ClassVar[bool] = False

    def setup(self, model: nn.Module, args: SSLConfig) -> None:
        """Checks the model and the arguments; the trainer calls this once, before training.

        Args:
            model (`nn.Module`): The model without wrappers.
            args (`SSLConfig`): Training arguments.

        Raises:
            HfsslError: The method cannot train this model with these arguments.
        """

    def extra_modules(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Returns modules that only training needs, by name: a projection head, a decoder, a discriminator.

        The trainer calls this once, after `setup`, with a separate random state. The modules train at the head's
        learning rate; checkpoints hold them; an exported model does not. `loss` finds them with
        `hfssl.models.extra_modules.extra_modules_of(model)["name"]` and applies them to the model's output.

        Args:
            model (`nn.Module`): The model without wrappers.
        """
        return {}

    def build_views(self, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> dict[str, View]:
        """Returns the views of an unlabeled row that `loss` reads from `unlabeled`, by name."""
        return {"plain": PlainView(tokenizer)}

    def loss(
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        """Returns named scalar tensors: the sum of the entries `loss/...` is the loss, all others are only logged.

        Each is a mean over this batch. Nothing here may wait for the device (`.item()`).

        Args:
            model (`nn.Module`): The (possibly wrapped) model in training mode.
            labeled (`Batch`, *optional*): `input_ids` `[B, L]`, `attention_mask` `[B, L]`, `labels` `[B]`, and other
                numeric columns.
            unlabeled (`Mapping[str, Batch]`, *optional*): View name -> batch of `[U, L]` tensors.
            step (`int`): Number of optimizer steps taken before this batch.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define loss().")  # abstract

    def num_items(self, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None) -> torch.Tensor | None:
        """Returns the number of items behind the means of `loss`; `None` when every batch has the same weight.

        Objectives whose batches hold different numbers of items (masked tokens) return the count. The trainer then
        weights each micro-batch by its share of the items, so that accumulation and ranks change nothing.

        Args:
            labeled (`Batch`, *optional*): As for `loss`.
            unlabeled (`Mapping[str, Batch]`, *optional*): As for `loss`.
        """
        return None

    def after_step(self, model: nn.Module, step: int) -> None:
        """Updates the method after each optimizer step, from the model without wrappers and the number of steps."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the method (tensors and plain values), without its extra modules; see `Stateful`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()` exactly."""

    def describe(self) -> dict[str, Any]:
        """Returns settings for the log, the report and the card, as plain JSON values."""
        return {"method": type(self).__name__, "paper": self.paper, "citation": self.citation}
