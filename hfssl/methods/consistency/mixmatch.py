"""MixMatch: guessed labels of several views, and mixup of labeled and unlabeled rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hfssl.functional.consistency import sharpen, squared_difference
from hfssl.functional.regularization import draw_mixup
from hfssl.methods.consistency.base import ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.runtime.distributed import rank_and_world
from hfssl.runtime.seeding import derive_seed
from hfssl.training.forward import Batch

__all__ = ["MixMatchConfig", "MixMatchObjective", "MixMatchTrainer"]


class MixMatchObjective(ConsistencyObjective):
    """Computes the loss of mixed labeled rows and the squared error of mixed unlabeled rows.

    The guess for a row is the mean prediction over its two views, sharpened. All rows of the batch are mixed with
    partners among all of them, lambda ~ Beta(alpha, alpha), at least 1/2. Departure: texts cannot be mixed, so that
    the vectors before the logit layer are; as this layer is linear, its outputs are mixed. The guess is from the same
    forward pass as the predictions that learn, without gradient (the paper takes another pass).
    """

    paper = "MixMatch: A Holistic Approach to Semi-Supervised Learning (Berthelot et al. 2019), equations 2 to 14"
    citation = """@inproceedings{berthelot2019mixmatch,
  title = {{MixMatch}: A Holistic Approach to Semi-Supervised Learning},
  author = {Berthelot, David and Carlini, Nicholas and Goodfellow, Ian and Papernot, Nicolas and Oliver, Avital and
            Raffel, Colin A.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2019}
}"""
    target_views: ClassVar[tuple[str, ...]] = ()
    student_views: ClassVar[tuple[str, ...]] = ("weak", "strong")
    changes_labeled_loss: ClassVar[bool] = True

    def forward(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> dict[str, Tensor]:
        """Returns the outputs of the mixed rows, in the order labeled, weak, strong."""
        logits = super().forward(model, labeled, unlabeled, step)
        with torch.no_grad():
            guess = (self.probs(logits["weak"]) + self.probs(logits["strong"])) / 2
            guess = sharpen(guess, self.args.sharpen_temperature)
            known = self.task.soft_targets(labeled["labels"], guess.shape[-1]).to(guess)
            targets = torch.cat([known, guess, guess])
        names = ("labeled", "weak", "strong")
        outputs, sizes = torch.cat([logits[name] for name in names]), [len(logits[name]) for name in names]
        seed = derive_seed(self.args.seed, "mixmatch", rank_and_world()[0])
        share, partners = draw_mixup(len(outputs), self.args.mixmatch_alpha, seed, step)
        partners = partners.to(outputs.device)
        mixed = share * outputs + (1 - share) * outputs[partners]
        mixed_targets = share * targets + (1 - share) * targets[self.unit_numbers(partners, len(targets))]
        self._targets = mixed_targets.split([len(known), len(guess), len(guess)])
        return logits | dict(zip(names, mixed.split(sizes), strict=True))

    def labeled_loss(self, logits: Tensor, labeled: Batch, step: int) -> Tensor:
        """Returns the cross-entropy of the mixed labeled rows with their mixed targets."""
        return self.task.loss(self.adjusted(self.units(logits, labeled)), self._targets[0])

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the squared error of the mixed unlabeled rows, over both views."""
        errors = [
            squared_difference(self.adjusted(self.units(logits[name], unlabeled[name])).softmax(-1), target)
            for name, target in zip(self.student_views, self._targets[1:], strict=True)
        ]
        return torch.stack(errors).mean(), {}


@dataclass
class MixMatchConfig(ConsistencyConfig):
    """Holds the arguments of `MixMatchTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.MixMatchConfig(output_dir=str(folder)).mixmatch_alpha
        0.75
    """

    lambda_u: float = field(
        default=75.0, metadata={"help": "Weight of the unlabeled loss; 0 trains on the labels only."}
    )
    ramp_up: float = field(
        default=0.4, metadata={"help": "Share of the steps over which the unlabeled weight grows from 0."}
    )
    sharpen_temperature: float = field(
        default=0.5, metadata={"help": "Temperature of the guessed labels, above 0; below 1 it sharpens them."}
    )
    mixmatch_alpha: float = field(
        default=0.75, metadata={"help": "Parameter alpha of the shares of mixup, from Beta(alpha, alpha), above 0."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        for name in ("sharpen_temperature", "mixmatch_alpha"):
            if getattr(self, name) <= 0:
                found.append(f"{name} must be above 0, got {getattr(self, name)}.")
        return found


class MixMatchTrainer(ConsistencyTrainer):
    """Trains with MixMatch (Berthelot et al. 2019).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.MixMatchTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.MixMatchConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = MixMatchObjective
    config_class = MixMatchConfig
