"""VAT: predictions must not change when embeddings move in the worst direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hfssl.data.views.compose import parse_view
from hfssl.functional.consistency import entropy_hinge, kl_divergence
from hfssl.methods.consistency.base import ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.training.forward import Batch

__all__ = ["VATConfig", "VATObjective", "VATTrainer"]


class VATObjective(ConsistencyObjective):
    """Computes L_u = mean of KL(p(u) || p(u + r)) over units, r the adversarial change of the word embeddings.

    One power iteration finds r (`hfssl.training.perturbations.adversarial_perturbation`). Departure: the length of r
    is in units of the norm of a row's embeddings, which differ between backbones by orders of magnitude. With
    `entropy_weight` the conditional entropy is added (equation 13).
    """

    paper = "Virtual Adversarial Training (Miyato et al. 2018), equations 5 to 8; on embeddings as Miyato et al. 2017"
    citation = """@article{miyato2018virtual,
  title = {Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised Learning},
  author = {Miyato, Takeru and Maeda, Shin-ichi and Koyama, Masanori and Ishii, Shin},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year = {2018}
}"""

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the divergence and, with `entropy_weight`, the entropy of the predictions."""
        target, student = self.probs(logits["weak"]), self.units(logits["strong"], unlabeled["strong"])
        loss = kl_divergence(target, student, self.easy_first(target, step))
        logged = {"adversarial_divergence": loss}
        if self.args.entropy_weight > 0:
            loss = loss + self.args.entropy_weight * entropy_hinge(student, 0.0)
        return loss, logged


@dataclass
class VATConfig(ConsistencyConfig):
    """Holds the arguments of `VATTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.VATConfig(output_dir=str(folder)).strong_view
        'adversarial:0.1'
    """

    strong_view: str = field(
        default="adversarial:0.1",
        metadata={"help": "View that ends in 'adversarial:SIZE', SIZE in units of the norm of a row's embeddings."},
    )
    entropy_weight: float = field(
        default=0.0, metadata={"help": "Weight of the entropy of predictions, in units of `lambda_u` (VAT + EntMin)."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        if not found and not any(step.name == "adversarial" for step in parse_view(self.strong_view)):
            found.append(f"strong_view must end in 'adversarial:SIZE' for VAT, got '{self.strong_view}'.")
        if self.entropy_weight < 0:
            found.append(f"entropy_weight must not be negative, got {self.entropy_weight}; 0 switches it off.")
        return found


class VATTrainer(ConsistencyTrainer):
    """Trains with virtual adversarial training (Miyato et al. 2018).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.VATTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.VATConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = VATObjective
    config_class = VATConfig
