"""Masked-language training on raw text, with the vocabulary projection at the masked positions only."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase

from hfssl.citations import TASK_ADAPTIVE
from hfssl.data.views.base import View
from hfssl.data.views.masking import IGNORE_INDEX, SpanMaskingView, TokenMaskingView, tokenize_for_masking
from hfssl.errors import DataError
from hfssl.methods.pretext.masked_positions import MaskedPositionLogits
from hfssl.models.introspection import evaluating
from hfssl.training.config import SSLConfig
from hfssl.training.forward import Batch
from hfssl.training.objective import Objective
from hfssl.training.trainer import MethodTrainer

__all__ = [
    "MaskedSpanConfig",
    "MaskedSpanObjective",
    "MaskedSpanTrainer",
    "held_out_span_loss",
]

logger = logging.getLogger(__name__)


class MaskedSpanObjective(Objective):
    """Computes the cross-entropy (nats per token) at the masked positions of `unlabeled["masked"]`, without labels.

    In this pretext task the model predicts masked spans of words in the user's own texts. `masking="span"` is
    SpanBERT's masking without its span-boundary objective, which needs a separate head that no encoder checkpoint
    contains; `masking="token"` is BERT's. See `hfssl.data.views.masking`.
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
        """Returns the same masking with separate random numbers, for `held_out_span_loss`."""
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
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch], step: int
    ) -> dict[str, torch.Tensor]:
        """Returns the cross-entropy of the masked tokens."""
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

    def num_items(self, labeled: Batch | None, unlabeled: Mapping[str, Batch]) -> torch.Tensor:
        return (unlabeled["masked"]["labels"] != IGNORE_INDEX).sum()

    def describe(self) -> dict[str, Any]:
        return super().describe() | self._settings | {"head_at_masked_positions_only": self._logits.sparse}


@torch.no_grad()
def held_out_span_loss(model: nn.Module, dataset: Dataset, view: View, batch_size: int) -> float:
    """Returns the mean loss (nats per masked token) on held-out text, under masks that are the same in every call.

    Each row is masked as `(draw=0, row=its number)` by `view`, so that only the model differs between two calls. The
    modes of all modules and every random state are preserved; there is no `DataLoader`, which would draw from the
    global generator. Every rank computes the whole value, so that all of them make the same decision.

    Args:
        model (`nn.Module`): The masked language model, with or without wrappers.
        dataset (`Dataset`): Output of `hfssl.data.views.masking.tokenize_for_masking`.
        view (`View`): `MaskedSpanObjective.held_out_view(...)`, or any view that returns `positions`.
        batch_size (`int`): Rows in a batch; it changes the result only by rounding.

    Raises:
        DataError: No token of the rows can be masked.
    """
    lengths = [len(ids) for ids in dataset["input_ids"]]
    order = sorted(range(len(dataset)), key=lengths.__getitem__)  # rows of similar length in a batch: little padding
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


@dataclass
class MaskedSpanConfig(SSLConfig):
    """Holds the arguments of `MaskedSpanTrainer`: pretext training on raw text.

    `learning_rate`, `warmup_steps` and `adam_beta2` follow the task-adaptive pretraining recipe of Gururangan et al.
    (2020); the masking follows SpanBERT (Joshi et al. 2020, section 3.1).

    Example:
        >>> import hfssl
        >>> hfssl.MaskedSpanConfig(output_dir=str(folder), mask_probability=0.2).mask_probability
        0.2
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    head_learning_rate: float | None = field(
        default=1e-3, metadata={"help": "Learning rate of a masked-language head that the checkpoint did not have."}
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Number of rows in a batch of one device."})
    warmup_steps: float = field(
        default=0.06,
        metadata={"help": "Length of the learning-rate warm-up, in steps or, below 1, as a fraction of all steps."},
    )
    adam_beta2: float = field(default=0.98, metadata={"help": "Decay of AdamW's second moments."})
    masking: str = field(
        default="span", metadata={"help": "Units that are masked: 'span' (SpanBERT) or 'token' (BERT)."}
    )
    mask_probability: float = field(default=0.15, metadata={"help": "Share of the tokens that the model predicts."})
    span_success_probability: float = field(
        default=0.2, metadata={"help": "Success probability p of the geometric span length, in words."}
    )
    max_span_words: int = field(default=10, metadata={"help": "Largest length of a span, in words."})
    eval_steps: float | None = field(
        default=100, metadata={"help": "Number of steps between two measurements of the held-out span loss."}
    )
    replacement: str = field(
        default="span",
        metadata={
            "help": "Units that are masked, replaced at random or left unchanged as a whole: 'span' (SpanBERT) or "
            "'token'."
        },
    )
    early_stopping_patience: int = field(
        default=3,
        metadata={
            "help": "Number of evaluations without a lower held-out span loss after which training stops. 0 turns "
            "early stopping off."
        },
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        if self.masking not in ("span", "token"):
            found.append(f"masking must be 'span' or 'token', got '{self.masking}'.")
        if self.replacement not in ("span", "token"):
            found.append(f"replacement must be 'span' or 'token', got '{self.replacement}'.")
        if not 0 < self.mask_probability < 1:
            found.append(f"mask_probability must be between 0 and 1, got {self.mask_probability}.")
        if not 0 < self.span_success_probability <= 1:
            found.append(
                f"span_success_probability must be above 0 and at most 1, got {self.span_success_probability}."
            )
        if self.max_span_words < 1:
            found.append(f"max_span_words must be at least 1, got {self.max_span_words}.")
        if self.early_stopping_patience < 0:
            found.append(f"early_stopping_patience must not be negative, got {self.early_stopping_patience}.")
        return found


class MaskedSpanTrainer(MethodTrainer):
    """Trains a masked language model (see `load_masked_lm`) by masked-span prediction on `unlabeled_dataset`.

    With an `eval_dataset` of other texts, the trainer measures the span loss on it every `eval_steps`. Training stops
    after `early_stopping_patience` evaluations without a lower loss, and the final model is the best one.

    Example:
        >>> import hfssl
        >>> from hfssl.models.loading import load_masked_lm
        >>> trainer = hfssl.MaskedSpanTrainer(
        ...     load_masked_lm(backbone, seed=0),
        ...     hfssl.MaskedSpanConfig(output_dir=str(folder), max_steps=2, disable_tqdm=True, use_cpu=True),
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = MaskedSpanObjective
    config_class = MaskedSpanConfig
    args: MaskedSpanConfig
    objective: MaskedSpanObjective
    eval_dataset: Dataset

    def __init__(
        self,
        model: PreTrainedModel | str | os.PathLike[str],
        args: MaskedSpanConfig | None = None,
        *,
        eval_dataset: Dataset | None = None,
        **kwargs: Any,
    ):
        args = self._default_args(model) if args is None else args  # pyright: ignore[reportAssignmentType]
        early = eval_dataset is not None and args.early_stopping_patience > 0  # pyright: ignore[reportOptionalMemberAccess]
        if early:
            args = replace(
                args,  # pyright: ignore[reportArgumentType]
                eval_strategy="steps",
                save_strategy="steps",
                save_steps=args.eval_steps,  # the best model is one that was saved  # pyright: ignore[reportOptionalMemberAccess]
                load_best_model_at_end=True,
                metric_for_best_model="eval_loss",
                greater_is_better=False,
            )
        super().__init__(model, args, eval_dataset=eval_dataset, **kwargs)
        if early:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))  # pyright: ignore[reportOptionalMemberAccess]

    def prepare_dataset(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> Dataset:
        """Tokenizes with the word boundaries that span masking needs."""
        return tokenize_for_masking(dataset, tokenizer, args.max_length)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Returns `{"eval_loss": nats per masked token}` under masks that are the same in every call."""
        dataset = self.eval_dataset if eval_dataset is None else self.prepare_evaluation(eval_dataset)
        view = self.objective.held_out_view(self.processing_class, self.args)
        loss = held_out_span_loss(self.model, dataset, view, self.args.per_device_eval_batch_size)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
