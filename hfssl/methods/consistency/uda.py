"""UDA: sharpened soft targets, a threshold, and annealing of the labeled rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from hfssl.functional.consistency import kl_divergence, sharpen
from hfssl.functional.schedules import TSA_SCHEDULES, tsa_threshold
from hfssl.methods.consistency.threshold_base import ThresholdConfig, ThresholdObjective
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.runtime.distributed import rank_and_world, total_over_ranks
from hfssl.training.forward import Batch

__all__ = ["UDAConfig", "UDAObjective", "UDATrainer"]


class UDAObjective(ThresholdObjective):
    """Computes L_u = mean of 1[max q >= threshold] KL(sharpen(q, T) || p(strong view)), and anneals the labeled loss.

    Training-signal annealing (`tsa`) leaves labeled units out while p_label > eta_t, and divides by the number that is
    left, over all ranks. The views replace back-translation, which needs a translator.
    """

    paper = (
        "Unsupervised Data Augmentation for Consistency Training (Xie et al. 2020), equation 1, section 3.1, "
        "appendix A"
    )
    citation = """@inproceedings{xie2020unsupervised,
  title = {Unsupervised Data Augmentation for Consistency Training},
  author = {Xie, Qizhe and Dai, Zihang and Hovy, Eduard and Luong, Minh-Thang and Le, Quoc V.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}"""
    changes_labeled_loss: ClassVar[bool] = True

    def labeled_loss(self, logits: Tensor, labeled: Batch, step: int) -> Tensor:
        """Returns the cross-entropy of the labeled units that the model is not sure of yet."""
        units, smoothing = self.units(logits, labeled), self.args.label_smoothing_factor
        known = self.task.soft_targets(labeled["labels"], units.shape[-1]).to(units)
        eta = tsa_threshold(step, self.total_steps, units.shape[-1], self.args.tsa)
        kept = ((units.detach().softmax(-1) * known).sum(-1) <= eta).to(units.dtype)
        count = total_over_ranks(kept.sum()) / rank_and_world()[1]
        targets = (1 - smoothing) * known + smoothing / units.shape[-1]
        return self.task.loss(self.adjusted(units), targets, kept) * (len(kept) / count.clamp(min=1))

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the divergence from the sharpened targets; logs the share that counts."""
        batch = self.targets(logits, labeled, unlabeled, step)
        weights = self.threshold.select(batch) * self.easy_first(batch.probs, step)
        units = self.adjusted(self.units(logits["strong"], unlabeled["strong"]))
        loss = kl_divergence(sharpen(batch.probs, self.args.sharpen_temperature), units, weights)
        return loss, {"pool_utilisation": weights.mean(), "pseudo_label_confidence": batch.probs.amax(-1).mean()}


@dataclass
class UDAConfig(ThresholdConfig):
    """Holds the arguments of `UDATrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.UDAConfig(output_dir=str(folder)).tsa
        'linear'
    """

    confidence_threshold: float = field(
        default=0.8, metadata={"help": "Smallest largest probability of a target that counts."}
    )
    sharpen_temperature: float = field(
        default=0.4, metadata={"help": "Temperature of the targets, above 0; below 1 it sharpens them."}
    )
    tsa: str = field(
        default="linear",
        metadata={"help": "Training-signal annealing of the labeled rows: 'none', 'linear', 'exp' or 'log'."},
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        if self.sharpen_temperature <= 0:
            found.append(f"sharpen_temperature must be above 0, got {self.sharpen_temperature}; 1 leaves targets.")
        if self.tsa not in TSA_SCHEDULES:
            found.append(f"tsa must be one of {', '.join(TSA_SCHEDULES)}, got '{self.tsa}'.")
        return found


class UDATrainer(ConsistencyTrainer):
    """Trains with UDA (Xie et al. 2020).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.UDATrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.UDAConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = UDAObjective
    config_class = UDAConfig
