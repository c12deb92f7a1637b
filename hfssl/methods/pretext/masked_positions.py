"""The language head at masked positions only."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hfssl.errors import ModelError
from hfssl.models.introspection import evaluating
from hfssl.training.forward import Batch

__all__ = ["MaskedPositionLogits"]

logger = logging.getLogger(__name__)


class _PositionGather:
    """Reduces an encoder's hidden states `[B, L, H]` to `[1, M, H]`, those at `positions`, as a forward hook."""

    def __init__(self):
        self.positions: torch.Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if self.positions is None:
            return None  # the output does not change
        hidden = output[0].flatten(0, 1).index_select(0, self.positions).unsqueeze(0)
        if isinstance(output, tuple):
            return (hidden, *output[1:])
        output[next(iter(output))] = hidden
        return output


class MaskedPositionLogits:
    """Runs a masked language model with its head at the masked positions only.

    The head (a dense layer and the projection to the vocabulary) costs more than a small encoder: MiniLM's projection
    to 30,522 tokens alone is 11.7 million multiplications per token, its six layers are 10.6 million. With 15% of the
    tokens masked, 85% of the head's work is unnecessary.

    A forward hook on the encoder *inside* the model selects the hidden states, so that the model itself is still
    called as a whole: DDP synchronises its gradients, and LoRA layers and compiled models work unchanged. The head
    must be position-wise and read the encoder's first output only, as in BERT, RoBERTa, DistilBERT, DeBERTa, ELECTRA,
    MPNet, ALBERT, ModernBERT and more. There is no list of architectures: the constructor *compares* the logits with
    those of the full forward pass on a small batch, and uses the full pass where they differ.

    Args:
        model (`nn.Module`): A masked language model, possibly wrapped (PEFT, DDP, compiled). `close()` removes the
            hook.

    Attributes:
        sparse (`bool`): Whether the comparison passed.
    """

    def __init__(self, model: nn.Module):
        self._gather = _PositionGather()
        language_model = masked_language_model(model)
        encoder = language_model.base_model
        self.sparse = encoder is not language_model
        self._hook = encoder.register_forward_hook(self._gather)
        if self.sparse:
            self.sparse = self._agrees_with_full_forward(model, language_model)
        if not self.sparse:
            self.close()
            logger.info(
                "%s: the masked-language head cannot be run on the masked positions alone; "
                "it runs on all of them, which is slower but equally right.",
                type(language_model).__name__,
            )

    def __call__(self, model: nn.Module, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        """Returns the logits `[M, V]` at `positions` `[M]`, indices into the flattened batch.

        Args:
            model (`nn.Module`): The model of the constructor, in the wrapper in which it is trained.
            batch (`Batch`): `input_ids` and `attention_mask` `[B, L]`, for pairs also `token_type_ids`.
            positions (`torch.Tensor`): Indices of the tokens, `[M]`; M may be 0.
        """
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: batch[name] for name in names if name in batch}
        # nn.DataParallel splits the batch, so that positions in the whole batch would be wrong in its parts.
        if not self.sparse or isinstance(model, nn.DataParallel):
            return model(**inputs).logits.flatten(0, 1).index_select(0, positions)
        self._gather.positions = positions
        try:
            return model(**inputs).logits.squeeze(0)
        finally:
            self._gather.positions = None

    def close(self) -> None:
        """Removes the hook from the model."""
        self._hook.remove()

    @torch.no_grad()
    def _agrees_with_full_forward(self, model: nn.Module, language_model: PreTrainedModel) -> bool:
        """Compares both passes on two rows of eight tokens, one of them padded; restores the mode of every module."""
        device = next(language_model.parameters()).device
        vocabulary = language_model.config.vocab_size
        ids = torch.randint(vocabulary, (2, 8), generator=torch.Generator().manual_seed(0)).to(device)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        batch["attention_mask"][1, 5:] = 0
        positions = torch.tensor([1, 2, 6, 8, 11], device=device)
        with evaluating(model):
            full = model(**batch).logits
            try:
                picked = self(model, batch, positions)
            except (IndexError, RuntimeError, TypeError, ValueError) as error:
                logger.info("%s: %s", type(language_model).__name__, error)
                return False
        expected = full.flatten(0, 1)[positions]
        # 1e-4 for float32; half precision rounds more coarsely than that.
        tolerance = max(1e-4, 8 * torch.finfo(full.dtype).eps) * max(1.0, full.abs().max().item())
        return picked.shape == expected.shape and bool((picked - expected).abs().max() <= tolerance)


def masked_language_model(model: nn.Module) -> PreTrainedModel:
    """Returns the transformers model inside any number of wrappers (PEFT, DDP, compiled)."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            if module.get_output_embeddings() is not None:
                return module
            break
    raise ModelError(
        f"Masked-span training needs a model with a masked-language head, got {type(model).__name__}; "
        "load it with hfssl.models.loading.load_masked_lm(folder)."
    )
