"""Supervised-contrastive warm start: few labels give many pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from hfssl.citations import SIMCSE
from hfssl.functional.losses import pair_similarity_loss, supervised_contrastive_loss
from hfssl.training.config import ContrastiveConfig
from hfssl.training.objective import Batch, Objective, mean_features

__all__ = ["SupervisedContrastiveObjective"]


class SupervisedContrastiveObjective(Objective):
    """Draws the labeled rows of one class together in the encoder's space; the head is left as it is.

    Each row enters twice, under two dropout masks (Gao et al. 2021), so that a class with one row has a positive, too.
    The features are means over the tokens, for which sentence encoders were trained; how they are compared, the
    configuration's `contrastive_loss` says. Rows are compared within one batch of one device: unlike with other
    objectives, accumulating small batches is not the same as a large one.
    """

    paper = (
        "Supervised Contrastive Learning (Khosla et al. 2020), equation 2; two dropout views after SimCSE (Gao 2021)"
    )
    citation = (
        """@inproceedings{khosla2020supervised,
  title = {Supervised Contrastive Learning},
  author = {Khosla, Prannay and Teterwak, Piotr and Wang, Chen and Sarna, Aaron and Tian, Yonglong and Isola, Phillip
            and Maschinot, Aaron and Liu, Ce and Krishnan, Dilip},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}

"""
        + SIMCSE
    )
    product = "encoder"
    compares_rows = True

    def setup(self, model: nn.Module, args: ContrastiveConfig) -> None:
        self.compare, self._settings = pair_similarity_loss, {}
        if args.contrastive_loss == "supcon":
            self._settings = {"contrastive_temperature": args.contrastive_temperature}
            self.compare = partial(supervised_contrastive_loss, temperature=args.contrastive_temperature)
        else:
            self.paper = (
                "Efficient Few-Shot Learning Without Prompts (Tunstall et al. 2022), the loss of section 3.1; two "
                "dropout views after SimCSE (Gao 2021)"
            )
            self.citation = SIMCSE  # SetFit's comes with the option

    def loss(
        self, model: nn.Module, labeled: Batch | None, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        twice = {name: torch.cat([values, values]) for name, values in labeled.items()}
        return {"loss/contrastive": self.compare(mean_features(model, twice), twice["labels"])}

    def describe(self) -> dict[str, Any]:
        return super().describe() | self._settings
