"""Fine-tuning on the labels alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.citations import BERT
from hfssl.functional.regularization import draw_mixup, mixup_cross_entropy, r_drop_loss
from hfssl.models.heads import mixed_head_input
from hfssl.training.config import SSLConfig
from hfssl.training.forward import Batch, classification_logits, joint_logits, model_inputs
from hfssl.training.head_fitting import init_head
from hfssl.training.objective import Objective
from hfssl.training.trainer import MethodTrainer
from hfssl.training.weight_averaging import StartingPoint

__all__ = [
    "HEAD_INIT_NAMES",
    "SupervisedConfig",
    "SupervisedObjective",
    "SupervisedTrainer",
]


class SupervisedObjective(Objective):
    """Cross-entropy on the labeled rows; unlabeled rows, if any, are not looked at.

    The baseline of every comparison, in the same engine as the methods that it is compared with. Honours
    `label_smoothing_factor`, and the options of `hfssl.functional.regularization`. With mixup the rows of one
    micro-batch of one device are mixed, so that accumulating small batches is not the same as a large one.
    """

    paper = "Cross-entropy fine-tuning (Devlin et al. 2019, section 4)"
    citation = BERT

    def setup(self, model: nn.Module, args: SSLConfig) -> None:
        self.label_smoothing, self.seed = args.label_smoothing_factor, args.seed
        self.r_drop_alpha, self.mixup_alpha = args.r_drop_alpha, args.mixup_alpha
        self.l2_sp_alpha = args.l2_sp_alpha
        self.start = StartingPoint(model) if args.l2_sp_alpha > 0 else None

    def loss(
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        return {"loss/labeled": self._labeled_loss(model, labeled, step)} | self.penalty(model)

    def penalty(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The term of L2-SP, if it is on."""
        return {} if self.start is None else {"loss/l2_sp": self.start.penalty(model, self.l2_sp_alpha)}

    def _labeled_loss(self, model: nn.Module, labeled: Batch, step: int) -> torch.Tensor:
        labels, smoothing = labeled["labels"], {"label_smoothing": self.label_smoothing}
        if self.r_drop_alpha > 0:
            return r_drop_loss(*joint_logits(model, labeled, labeled), labels, self.r_drop_alpha, **smoothing)
        if self.mixup_alpha > 0:
            share, partners = draw_mixup(len(labels), self.mixup_alpha, self.seed, step)
            # One forward pass of all rows: `classification_logits` may cut them into passes by length.
            with mixed_head_input(model, partners, share):
                logits = model(**model_inputs(labeled)).logits
            return mixup_cross_entropy(logits, labels, partners.to(labels.device), share, **smoothing)
        return F.cross_entropy(classification_logits(model, labeled), labels, **smoothing)

    def describe(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("r_drop_alpha", "mixup_alpha", "l2_sp_alpha")}
        return super().describe() | {name: value for name, value in options.items() if value}


# Of hfssl.models.heads, on a floor above.
HEAD_INIT_NAMES = ("random", "class_means", "logistic")


@dataclass
class SupervisedConfig(SSLConfig):
    """Arguments of `SupervisedTrainer`: fine-tuning on the labels alone, the baseline of every comparison.

    `r_drop_alpha`, `mixup_alpha` and `l2_sp_alpha` are explained in `hfssl.functional.regularization`.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of the body."})
    head_learning_rate: float | None = field(default=1e-3, metadata={"help": "Peak learning rate of the fresh head."})
    head_init: str = field(
        default="random",
        metadata={
            "help": "Start the head from chance ('random'), from the class means of the labeled rows ('class_means'), "
            "or from logistic regression on them ('logistic')."
        },
    )
    r_drop_alpha: float = field(
        default=0.0, metadata={"help": "Two dropout views of a labeled row shall agree, so strongly (R-Drop); 0: off."}
    )
    mixup_alpha: float = field(
        default=0.0, metadata={"help": "Mix labeled rows before the head, lambda ~ Beta(alpha, alpha); 0: off."}
    )
    l2_sp_alpha: float = field(
        default=0.0,
        metadata={"help": "Stay near the weights that training started from, so strongly (L2-SP); 0: off."},
    )

    def problems(self) -> list[str]:
        """As in the base class, of this class's own values, too."""
        found = super().problems()
        if self.head_init not in HEAD_INIT_NAMES:
            found.append(f"head_init must be one of {', '.join(HEAD_INIT_NAMES)}, got '{self.head_init}'.")
        for name in ("r_drop_alpha", "mixup_alpha", "l2_sp_alpha"):
            if getattr(self, name) < 0:
                found.append(f"{name} must not be negative, got {getattr(self, name)}; 0 switches it off.")
        if self.r_drop_alpha > 0 and self.mixup_alpha > 0:
            found.append("r_drop_alpha and mixup_alpha exclude each other; set one of them to 0.")
        return found


class SupervisedTrainer(MethodTrainer):
    """Fine-tuning on the labels alone: the baseline."""

    objective_class = SupervisedObjective
    config_class = SupervisedConfig

    def __init__(
        self,
        model: PreTrainedModel,
        args: SupervisedConfig,
        *,
        processing_class: PreTrainedTokenizerBase,
        train_dataset: Dataset | None = None,
        **kwargs: Any,
    ):
        if args.head_init != "random" and train_dataset is not None:
            train_dataset = self.prepare_dataset(train_dataset, processing_class, args)
            model.to(args.device)  # also starts the process group, before the ranks talk
            init_head(args.head_init, model, train_dataset, processing_class, bf16=args.bf16)
        super().__init__(model, args, processing_class=processing_class, train_dataset=train_dataset, **kwargs)
