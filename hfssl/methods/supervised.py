"""Fine-tuning on the labels alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hfssl.citations import BERT
from hfssl.functional.regularization import StartingPoint, draw_mixup, mixup_cross_entropy, r_drop_loss
from hfssl.models.heads import mixed_head_input
from hfssl.training.config import SSLConfig
from hfssl.training.objective import Batch, Objective, classification_logits, joint_logits, model_inputs

__all__ = ["SupervisedObjective"]


class SupervisedObjective(Objective):
    """Cross-entropy on the labeled rows; unlabeled rows, if any, are not looked at.

    The baseline of every comparison, in the same engine as the methods that it is compared with. Honours
    `label_smoothing_factor`, and the options of `hfssl.functional.regularization`. With mixup the rows of one micro-batch of one
    device are mixed with each other, so that accumulating small batches is not the same as a large one.
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
