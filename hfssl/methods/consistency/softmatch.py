"""SoftMatch: every pseudo-label counts, by a truncated Gaussian of its confidence."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.threshold_base import ThresholdObjective
from hfssl.methods.consistency.thresholds import GaussianWeights, Threshold
from hfssl.methods.consistency.trainer import ConsistencyTrainer

__all__ = ["SoftMatchConfig", "SoftMatchObjective", "SoftMatchTrainer"]


class SoftMatchObjective(ThresholdObjective):
    """Computes the mean of lambda(q_b) H(argmax q_b, p(strong view)) with the weights of `GaussianWeights`."""

    paper = (
        "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning (Chen et al. 2023), eq. 5-9"
    )
    citation = """@inproceedings{chen2023softmatch,
  title = {{SoftMatch}: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning},
  author = {Chen, Hao and Tao, Ran and Fan, Yue and Wang, Yidong and Wang, Jindong and Schiele, Bernt and Xie, Xing and
            Raj, Bhiksha and Savvides, Marios},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}"""

    def make_threshold(self, args: SoftMatchConfig) -> Threshold:
        """Returns the Gaussian weights."""
        return GaussianWeights(args.ema_momentum, args.n_sigma, args.uniform_alignment)


@dataclass
class SoftMatchConfig(ConsistencyConfig):
    """Holds the arguments of `SoftMatchTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.SoftMatchConfig(output_dir=str(folder)).n_sigma
        2.0
    """

    ema_momentum: float = field(
        default=0.999, metadata={"help": "Weight of the past in the moving averages over the steps."}
    )
    n_sigma: float = field(
        default=2.0, metadata={"help": "Factor n on the width of the Gaussian, whose variance is divided by n^2."}
    )
    uniform_alignment: bool = field(
        default=True, metadata={"help": "Moves predictions to equal classes before their weight is computed."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = [] if self.n_sigma > 0 else [f"n_sigma must be above 0, got {self.n_sigma}."]
        return super().problems() + found + self.unit_interval("ema_momentum")


class SoftMatchTrainer(ConsistencyTrainer):
    """Trains with SoftMatch (Chen et al. 2023).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.SoftMatchTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.SoftMatchConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = SoftMatchObjective
    config_class = SoftMatchConfig
