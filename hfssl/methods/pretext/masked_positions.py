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
    """Forward hook on an encoder: its hidden states `[B, L, H]` leave as `[1, M, H]`, those at `positions` only."""

    def __init__(self):
        self.positions: torch.Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if self.positions is None:
            return None  # leaves the output as it is
        hidden = output[0].flatten(0, 1).index_select(0, self.positions).unsqueeze(0)
        if isinstance(output, tuple):
            return (hidden, *output[1:])
        output[next(iter(output))] = hidden
        return output


class MaskedPositionLogits:
    """Runs a masked language model so that its head sees the masked positions only.

    The head (a dense layer and the projection to the vocabulary) costs more than a small encoder: MiniLM's projection
    to 30,522 tokens alone is 11.7 million multiplications a token, its six layers are 10.6. With 15 % of the tokens
    masked, 85 % of that is thrown away.

    The hidden states are picked by a forward hook on the encoder *inside* the model, so that the model itself is still
    called as a whole: DDP synchronises its gradients, and LoRA layers and compiled models work as they are. It rests
    on the head being position-wise and reading the encoder's first output only, which holds for BERT, RoBERTa,
    DistilBERT, DeBERTa, ELECTRA, MPNet, ALBERT, ModernBERT and more. No list of names is kept: it is *checked* once,
    against the full forward on a small batch, and where it does not hold the full forward is used.

    Args:
        model: A masked language model, possibly wrapped (PEFT, DDP, compiled). `close()` takes the hook off again.

    Attributes:
        sparse (`bool`): Whether the check passed.
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
        """Logits `[M, V]` at `positions` `[M]`, indices into the flattened batch.

        Args:
            model: The model given at construction, in whatever wrapper it is trained.
            batch: `input_ids` and `attention_mask` `[B, L]`, for pairs also `token_type_ids`.
            positions: Which tokens, `[M]`; M may be 0.
        """
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: batch[name] for name in names if name in batch}
        # nn.DataParallel splits the batch, so that positions in the whole batch would point elsewhere.
        if not self.sparse or isinstance(model, nn.DataParallel):
            return model(**inputs).logits.flatten(0, 1).index_select(0, positions)
        self._gather.positions = positions
        try:
            return model(**inputs).logits.squeeze(0)
        finally:
            self._gather.positions = None

    def close(self) -> None:
        """Takes the hook off the model."""
        self._hook.remove()

    @torch.no_grad()
    def _agrees_with_full_forward(self, model: nn.Module, language_model: PreTrainedModel) -> bool:
        """Compares both ways on two rows of eight tokens, one of them padded; restores the mode of every module."""
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
    """The transformers model inside any number of wrappers (PEFT, DDP, compiled)."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            if module.get_output_embeddings() is not None:
                return module
            break
    raise ModelError(
        f"Masked-span training needs a model with a masked-language head, got {type(model).__name__}; "
        "load it with hfssl.models.loading.load_masked_lm(folder)."
    )
