"""FreeMatch: thresholds that follow the model's own confidence, and a fairness loss."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hfssl.functional.consistency import fairness_loss
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.threshold_base import ThresholdObjective
from hfssl.methods.consistency.thresholds import AdaptiveThreshold, Targets, Threshold
from hfssl.methods.consistency.trainer import ConsistencyTrainer

__all__ = ["FreeMatchConfig", "FreeMatchObjective", "FreeMatchTrainer"]


class FreeMatchObjective(ThresholdObjective):
    """Computes the loss of FixMatch with the threshold tau p_c / max p, plus `fairness_weight` H(a, b).

    See `AdaptiveThreshold` for the averages and `fairness_loss` for a and b. Equation 11 prints -H(a, b), and the
    authors' code adds it with a positive weight; minimising it moves b away from a, while the text wants b near a.
    This class adds +H(a, b); a negative `fairness_weight` gives the printed sign. The weight is in units of
    `lambda_u`.
    """

    paper = "FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning (Wang et al. 2023), equations 5 to 12"
    citation = """@inproceedings{wang2023freematch,
  title = {{FreeMatch}: Self-adaptive Thresholding for Semi-supervised Learning},
  author = {Wang, Yidong and Chen, Hao and Heng, Qiang and Hou, Wenxin and Fan, Yue and Wu, Zhen and Wang, Jindong and
            Savvides, Marios and Shinozaki, Takahiro and Raj, Bhiksha and Schiele, Bernt and Xie, Xing},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}"""
    threshold: AdaptiveThreshold

    def make_threshold(self, args: FreeMatchConfig) -> Threshold:
        """Returns the self-adaptive threshold."""
        return AdaptiveThreshold(args.ema_momentum)

    def extra_loss(self, units: Tensor, batch: Targets, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the fairness loss times its weight, and logs it without."""
        averages = self.threshold.averages
        class_probs, histogram = averages["probs"].current(), averages["histogram"].current()
        fairness = fairness_loss(units.softmax(-1), weights > 0, class_probs, histogram)
        return self.args.fairness_weight * fairness, {"fairness": fairness}


@dataclass
class FreeMatchConfig(ConsistencyConfig):
    """Holds the arguments of `FreeMatchTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.FreeMatchConfig(output_dir=str(folder)).ema_momentum
        0.999
    """

    ema_momentum: float = field(
        default=0.999, metadata={"help": "Weight of the past in the moving averages over the steps."}
    )
    fairness_weight: float = field(
        default=0.001, metadata={"help": "Weight of the fairness loss, in units of `lambda_u` (0.001 on text)."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        return super().problems() + self.unit_interval("ema_momentum")


class FreeMatchTrainer(ConsistencyTrainer):
    """Trains with FreeMatch (Wang et al. 2023).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.FreeMatchTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.FreeMatchConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = FreeMatchObjective
    config_class = FreeMatchConfig
