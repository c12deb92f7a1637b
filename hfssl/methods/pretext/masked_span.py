"""Masked-language training on raw text, with the vocabulary projection computed where something is predicted only."""

from __future__ import annotations

import logging
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
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch], step: int
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

    def num_items(self, labeled: Batch | None, unlabeled: Mapping[str, Batch]) -> torch.Tensor:
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


@dataclass
class MaskedSpanConfig(SSLConfig):
    """Arguments of `MaskedSpanTrainer`: pretext training on raw text.

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
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Rows in a batch of one device."})
    warmup_steps: float = field(default=0.06, metadata={"help": "Warm-up: steps, or a fraction of all steps below 1."})
    adam_beta2: float = field(default=0.98, metadata={"help": "AdamW's second-moment decay."})
    masking: str = field(default="span", metadata={"help": "'span' (SpanBERT) or 'token' (BERT)."})
    mask_probability: float = field(default=0.15, metadata={"help": "Share of the tokens that is predicted."})
    span_success_probability: float = field(
        default=0.2, metadata={"help": "p of the geometric span length, in words."}
    )
    max_span_words: int = field(default=10, metadata={"help": "Longest span, in words."})
    eval_steps: float | None = field(default=100, metadata={"help": "Measure the held-out span loss so often."})
    replacement: str = field(
        default="span", metadata={"help": "Decide mask / random / keep once a 'span' (SpanBERT) or for each 'token'."}
    )
    early_stopping_patience: int = field(
        default=3, metadata={"help": "Stop after so many evaluations without a lower held-out span loss; 0: never."}
    )

    def problems(self) -> list[str]:
        """Returns everything that is wrong with the values, one sentence each."""
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
    """Masked-span pretext training of a masked language model (see `load_masked_lm`) on `unlabeled_dataset`.

    With an `eval_dataset` (texts that are not trained on) the span loss on it is measured every `eval_steps`, training
    stops after `early_stopping_patience` evaluations without a lower one, and the best model is what is kept.

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
        self, model: PreTrainedModel, args: MaskedSpanConfig, *, eval_dataset: Dataset | None = None, **kwargs: Any
    ):
        early = eval_dataset is not None and args.early_stopping_patience > 0
        if early:
            args = replace(
                args,
                eval_strategy="steps",
                save_strategy="steps",
                save_steps=args.eval_steps,  # the best model is one that was saved
                load_best_model_at_end=True,
                metric_for_best_model="eval_loss",
                greater_is_better=False,
            )
        super().__init__(model, args, eval_dataset=eval_dataset, **kwargs)
        if early:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def prepare_dataset(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> Dataset:
        """Tokenizes with the word boundaries that span masking needs."""
        return tokenize_for_masking(dataset, tokenizer, args.max_length)

    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`{"eval_loss": nats per masked token}` under masks that are the same at every call."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        view = self.objective.held_out_view(self.processing_class, self.args)
        loss = held_out_span_loss(self.model, dataset, view, self.args.per_device_eval_batch_size)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
