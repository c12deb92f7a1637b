"""Masked-language training on raw text, with the vocabulary projection computed where something is predicted only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.citations import TASK_ADAPTIVE
from hfssl.data.tokenization import View
from hfssl.data.views.masking import IGNORE_INDEX, SpanMaskingView, TokenMaskingView
from hfssl.errors import DataError, ModelError
from hfssl.models.loading import evaluating
from hfssl.training.config import MaskedSpanConfig
from hfssl.training.objective import Batch, Objective

__all__ = ["MaskedPositionLogits", "MaskedSpanObjective", "held_out_span_loss"]

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
        language_model = _masked_language_model(model)
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


class MaskedSpanObjective(Objective):
    """Cross-entropy (nats per token) at the masked positions of `unlabeled["masked"]`; labels are not looked at.

    The pretext task: the model reads the user's own text with spans of words blanked out and fills them in.
    `masking="span"` is SpanBERT's masking without its span-boundary objective, which needs a head of its own that no
    checkpoint of an encoder brings; `masking="token"` is BERT's. See `hfssl.data.views.masking`.
    """

    paper = "SpanBERT: Improving Pre-training by Representing and Predicting Spans (Joshi et al. 2020), section 3.1"
    citation = (
        """@article{joshi2020spanbert,
  title = {{SpanBERT}: Improving Pre-training by Representing and Predicting Spans},
  author = {Joshi, Mandar and Chen, Danqi and Liu, Yinhan and Weld, Daniel S. and Zettlemoyer, Luke and Levy, Omer},
  journal = {Transactions of the Association for Computational Linguistics},
  volume = {8},
  pages = {64--77},
  year = {2020}
}

"""
        + TASK_ADAPTIVE
    )
    product = "masked_lm"

    def setup(self, model: nn.Module, args: MaskedSpanConfig) -> None:
        self._settings = {"masking": args.masking, "mask_probability": args.mask_probability}
        if args.masking == "span":
            self._settings["span_success_probability"] = args.span_success_probability
            self._settings["max_span_words"] = args.max_span_words
        self._logits = MaskedPositionLogits(model)

    def build_views(self, tokenizer: PreTrainedTokenizerBase, args: MaskedSpanConfig) -> dict[str, View]:
        return {"masked": self._view(tokenizer, args, "masking")}

    def held_out_view(self, tokenizer: PreTrainedTokenizerBase, args: MaskedSpanConfig) -> View:
        """The same masking from a stream of its own, for `held_out_span_loss`."""
        return self._view(tokenizer, args, "held-out masking")

    def _view(self, tokenizer: PreTrainedTokenizerBase, args: MaskedSpanConfig, stream: str) -> View:
        seed = args.seed if args.data_seed is None else args.data_seed
        if args.masking == "token":
            return TokenMaskingView(tokenizer, seed=seed, stream=stream, mask_probability=args.mask_probability)
        return SpanMaskingView(
            tokenizer,
            seed=seed,
            stream=stream,
            mask_probability=args.mask_probability,
            span_success_probability=args.span_success_probability,
            max_span_words=args.max_span_words,
            replacement=args.replacement,
        )

    def loss(
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy of the tokens that were chosen to be predicted."""
        batch = unlabeled["masked"]
        positions = batch["positions"]
        targets = batch["labels"].flatten().index_select(0, positions)
        logits = self._logits(model, batch, positions)
        # Divided by at least one: a batch of rows without a single maskable word has loss 0 (and zero gradients, so
        # that the ranks stay in step), where a mean over nothing would be NaN.
        count = max(1, len(positions))
        hits = (logits.detach().argmax(-1) == targets).sum()
        return {
            "loss/masked": F.cross_entropy(logits.float(), targets, reduction="sum") / count,
            "masked_accuracy": hits / count,
        }

    def num_items(self, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None) -> torch.Tensor | None:
        return (unlabeled["masked"]["labels"] != IGNORE_INDEX).sum()

    def describe(self) -> dict[str, Any]:
        return super().describe() | self._settings | {"head_at_masked_positions_only": self._logits.sparse}


@torch.no_grad()
def held_out_span_loss(model: nn.Module, dataset: Dataset, view: View, batch_size: int) -> float:
    """Mean loss (nats per masked token) on held-out text, under masks that are the same at every call.

    Each row is masked as `(draw=0, row=its number)` by `view`, so that two calls differ by the model alone. The modes
    of all modules and every random state are left as they were; no `DataLoader` is used, since starting one draws from
    the global generator. Every rank computes the whole value, so that all of them come to the same decision.

    Args:
        model: The masked language model, unwrapped or not.
        dataset: What `hfssl.data.views.masking.tokenize_for_masking` returns.
        view: `MaskedSpanObjective.held_out_view(...)`, or any view that returns `positions`.
        batch_size (`int`): Rows in a batch; does not change the result beyond rounding.

    Raises:
        `DataError`: If not a single token of the rows could be masked.
    """
    lengths = [len(ids) for ids in dataset["input_ids"]]
    order = sorted(range(len(dataset)), key=lengths.__getitem__)  # rows of one length together: little padding
    device = next(model.parameters()).device
    logits_at = MaskedPositionLogits(model)
    total, count = torch.zeros((), device=device), 0
    try:
        with evaluating(model):
            for begin in range(0, len(order), batch_size):
                numbers = order[begin : begin + batch_size]
                columns = dataset[numbers]
                rows = [
                    {name: values[i] for name, values in columns.items()} | {"row": number, "draw": 0}
                    for i, number in enumerate(numbers)
                ]
                batch = {name: values.to(device) for name, values in view(rows).items()}
                targets = batch["labels"].flatten().index_select(0, batch["positions"])
                logits = logits_at(model, batch, batch["positions"]).float()
                total += F.cross_entropy(logits, targets, reduction="sum")
                count += len(targets)
    finally:
        logits_at.close()
    if not count:
        raise DataError(
            f"The held-out span loss needs at least one word that can be masked; none of the {len(dataset)} held-out "
            "rows has one. Give more unlabeled text, or turn early stopping off (early_stopping_patience=0)."
        )
    return total.item() / count


def _masked_language_model(model: nn.Module) -> PreTrainedModel:
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
