"""MixText: mixup of hidden states (TMix) of labeled and unlabeled rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hfssl.functional.consistency import entropy_hinge, kl_divergence, sharpen
from hfssl.functional.regularization import draw_mixup
from hfssl.methods.consistency.base import NEIGHBOR, ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.models.hidden_mixup import mixed_hidden_states, mixup_layers
from hfssl.runtime.distributed import rank_and_world
from hfssl.runtime.seeding import derive_seed, numpy_generator
from hfssl.training.forward import Batch, joined_rows, joint_logits
from hfssl.training.perturbations import noisy_logits

__all__ = ["MixTextConfig", "MixTextObjective", "MixTextTrainer"]


class MixTextObjective(ConsistencyObjective):
    """Computes KL(mixed target || p) of rows whose hidden states are mixed at a random layer (TMix).

    The layer is drawn for each step from 7/12, 9/12 and 12/12 of the depth (the paper's layers 7, 9 and 12 of 12),
    lambda ~ Beta(alpha, alpha), at least 1/2. The guess for an unlabeled row is the mean prediction over its views,
    sharpened. Where the partner has no token at a position, the row keeps its own state. `entropy_weight` adds the
    entropy hinge max(0, H(p) - margin) of the authors' code; the paper prints max(0, gamma - ||p||^2).
    """

    paper = "MixText: Linguistically-Informed Interpolation of Hidden Space (Chen et al. 2020), equations 2 to 9"
    citation = """@inproceedings{chen2020mixtext,
  title = {{MixText}: Linguistically-Informed Interpolation of Hidden Space for Semi-Supervised Text Classification},
  author = {Chen, Jiaao and Yang, Zichao and Yang, Diyi},
  booktitle = {Proceedings of ACL},
  year = {2020}
}"""
    student_views: ClassVar[tuple[str, ...]] = ("weak", "strong")
    changes_labeled_loss: ClassVar[bool] = True

    def setup(self, model: nn.Module, args: MixTextConfig) -> None:
        super().setup(model, args)
        self.layers = mixup_layers(model)

    def forward(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> dict[str, Tensor]:
        """Returns the outputs of the mixed rows, in one pass after the guess."""
        names: tuple[str, ...] = ("labeled", "weak", "strong")
        with torch.no_grad():
            views = joint_logits(model, unlabeled["weak"], unlabeled["strong"])
            guess = sharpen((self.probs(views[0]) + self.probs(views[1])) / 2, self.args.sharpen_temperature)
            known = self.task.soft_targets(labeled["labels"], guess.shape[-1]).to(guess)
            targets = torch.cat([known, guess, guess])
        rows, sizes = joined_rows(model, labeled, unlabeled["weak"], unlabeled["strong"])
        seed = derive_seed(self.args.seed, "mixtext", rank_and_world()[0])
        share, partners = draw_mixup(sum(sizes), self.args.mixtext_alpha, seed, step)
        partners = partners.to(rows["input_ids"].device)
        layer = self.layers[int(numpy_generator(self.args.seed, "mixtext layer", step).integers(len(self.layers)))]
        with mixed_hidden_states(model, layer, rows["attention_mask"], partners, share):
            outputs = noisy_logits(model, rows)
        mixed = share * targets + (1 - share) * targets[self.unit_numbers(partners, len(targets))]
        self._targets = mixed.split([len(known), len(guess), len(guess)])
        logits: dict[str, Tensor] = dict(zip(names, outputs.split(sizes), strict=True))
        if NEIGHBOR in unlabeled:
            logits[NEIGHBOR] = joint_logits(model, unlabeled[NEIGHBOR])[0]
        return logits

    def labeled_loss(self, logits: Tensor, labeled: Batch, step: int) -> Tensor:
        """Returns the divergence of the mixed labeled rows from their mixed targets."""
        return kl_divergence(self._targets[0], self.adjusted(self.units(logits, labeled)))

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the divergence of the mixed unlabeled rows and, with `entropy_weight`, the entropy hinge."""
        units = [self.adjusted(self.units(logits[name], unlabeled[name])) for name in self.student_views]
        pairs = zip(units, self._targets[1:], strict=True)
        loss = torch.stack([kl_divergence(target, view) for view, target in pairs]).mean()
        hinge = torch.stack([entropy_hinge(view, self.args.entropy_margin) for view in units]).mean()
        return loss + self.args.entropy_weight * hinge, {"entropy_hinge": hinge}


@dataclass
class MixTextConfig(ConsistencyConfig):
    """Holds the arguments of `MixTextTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.MixTextConfig(output_dir=str(folder)).mixtext_alpha
        16.0
    """

    sharpen_temperature: float = field(
        default=0.5, metadata={"help": "Temperature of the guessed labels, above 0; below 1 it sharpens them."}
    )
    mixtext_alpha: float = field(
        default=16.0, metadata={"help": "Parameter alpha of the shares of mixup, from Beta(alpha, alpha), above 0."}
    )
    entropy_weight: float = field(
        default=0.0, metadata={"help": "Weight of the entropy hinge, in units of `lambda_u`; 0 turns it off."}
    )
    entropy_margin: float = field(
        default=0.7, metadata={"help": "Entropy of a prediction, in nats, up to which the hinge is 0."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        for name in ("sharpen_temperature", "mixtext_alpha"):
            if getattr(self, name) <= 0:
                found.append(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("entropy_weight", "entropy_margin"):
            if getattr(self, name) < 0:
                found.append(f"{name} must not be negative, got {getattr(self, name)}.")
        return found


class MixTextTrainer(ConsistencyTrainer):
    """Trains with MixText (Chen et al. 2020).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.MixTextTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.MixTextConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = MixTextObjective
    config_class = MixTextConfig
