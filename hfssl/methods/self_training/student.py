"""The student's loss in one round of self-training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hfssl.functional.losses import weighted_pseudo_label_loss
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.supervised import SupervisedObjective
from hfssl.training.objective import Batch, Objective, joint_logits

__all__ = ["SelfTrainingObjective"]


class SelfTrainingObjective(Objective):
    """Cross-entropy on the labeled rows plus `lambda_u` times the weighted loss on the pseudo-labeled rows.

    The unlabeled dataset brings two columns beside its tokens: `pseudo_probs` `[K]` (one-hot or soft) and `weight`
    (a float). Both are fixed for the round; see `hfssl.methods.self_training.rounds` for where they come from.

    With `lambda_u=0` the pseudo-labeled rows are not even passed through the model, so that the run equals
    `SupervisedObjective` to the last bit (in a joint forward other dropout masks would fall on the labeled rows).
    """

    paper = (
        "Uncertainty-aware Self-training for Few-shot Text Classification (Mukherjee & Awadallah 2020), equation 10"
    )
    citation = """@inproceedings{mukherjee2020uncertainty,
  title = {Uncertainty-aware Self-training for Few-shot Text Classification},
  author = {Mukherjee, Subhabrata and Awadallah, Ahmed Hassan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}"""

    def setup(self, model: nn.Module, args: SelfTrainingConfig) -> None:
        self.lambda_u, self.label_smoothing = args.lambda_u, args.label_smoothing_factor
        self.supervised = SupervisedObjective()
        self.supervised.setup(model, args)

    def loss(
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy of the labeled rows plus lambda_u times that of the pseudo-labeled ones, by their weights."""
        if self.lambda_u == 0:
            return self.supervised.loss(model, labeled, None, step)
        pseudo = unlabeled["plain"]
        labeled_logits, pseudo_logits = joint_logits(model, labeled, pseudo)
        supervised = F.cross_entropy(labeled_logits, labeled["labels"], label_smoothing=self.label_smoothing)
        unsupervised = weighted_pseudo_label_loss(pseudo_logits, pseudo["pseudo_probs"], pseudo["weight"])
        agreement = (pseudo_logits.argmax(-1) == pseudo["pseudo_probs"].argmax(-1)).float().mean()
        return {
            "loss/labeled": supervised,
            "loss/pseudo_labeled": self.lambda_u * unsupervised,
            "pseudo_label_agreement": agreement.detach(),
            **self.supervised.penalty(model),
        }

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"lambda_u": self.lambda_u}
