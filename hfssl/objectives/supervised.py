"""Fine-tuning on the labels alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from hfssl.configs import SSLConfig
from hfssl.objectives.base import Batch, Objective, classification_logits

__all__ = ["SupervisedObjective"]


class SupervisedObjective(Objective):
    """Cross-entropy on the labeled rows; unlabeled rows, if any, are not looked at.

    The baseline of every comparison, in the same engine as the methods that it is compared with. Honours
    `label_smoothing_factor`.
    """

    paper = "Cross-entropy fine-tuning (Devlin et al. 2019, section 4)"

    def setup(self, model: nn.Module, args: SSLConfig) -> None:
        self.label_smoothing = args.label_smoothing_factor

    def loss(
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        logits = classification_logits(model, labeled)
        return {"loss/labeled": F.cross_entropy(logits, labeled["labels"], label_smoothing=self.label_smoothing)}
