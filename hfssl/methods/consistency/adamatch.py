"""AdaMatch: aligned pseudo-labels, and a threshold relative to the confidence on the labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.threshold_base import ThresholdObjective
from hfssl.methods.consistency.thresholds import RelativeThreshold, Threshold
from hfssl.methods.consistency.trainer import ConsistencyTrainer

__all__ = ["AdaMatchConfig", "AdaMatchObjective", "AdaMatchTrainer"]


class AdaMatchObjective(ThresholdObjective):
    """Computes the loss of FixMatch with the targets and the threshold of `RelativeThreshold`.

    The weight grows as 1/2 - cos(min(pi, 2 pi t / T)) / 2 (section 3.4): `ramp_up=0.5`, `ramp_shape="cosine"`.
    Departure: no random logit interpolation (section 3.1), which mixes logits with and without the other domain in the
    batch statistics; transformers have layer norms, so that the two are equal. The class priors are moving averages,
    as in USB; the paper takes those of the batch (`ema_momentum=0`).
    """

    paper = (
        "AdaMatch: A Unified Approach to Semi-Supervised Learning and Domain Adaptation (Berthelot et al. "
        "2022), sec. 3"
    )
    citation = """@inproceedings{berthelot2022adamatch,
  title = {{AdaMatch}: A Unified Approach to Semi-Supervised Learning and Domain Adaptation},
  author = {Berthelot, David and Roelofs, Rebecca and Sohn, Kihyuk and Carlini, Nicholas and Kurakin, Alexey},
  booktitle = {International Conference on Learning Representations},
  year = {2022}
}"""

    def make_threshold(self, args: AdaMatchConfig) -> Threshold:
        """Returns the relative threshold."""
        return RelativeThreshold(args.relative_threshold, args.ema_momentum)


@dataclass
class AdaMatchConfig(ConsistencyConfig):
    """Holds the arguments of `AdaMatchTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.AdaMatchConfig(output_dir=str(folder)).relative_threshold
        0.95
    """

    ema_momentum: float = field(
        default=0.999, metadata={"help": "Weight of the past in the moving averages over the steps."}
    )
    relative_threshold: float = field(
        default=0.95,
        metadata={"help": "Smallest confidence of a pseudo-label as a share of the mean confidence on labeled rows."},
    )
    ramp_up: float = field(
        default=0.5, metadata={"help": "Share of the steps over which the unlabeled weight grows from 0."}
    )
    ramp_shape: str = field(
        default="cosine", metadata={"help": "Shape of the ramp of the weight: 'linear', 'cosine' or 'gaussian'."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        return super().problems() + self.unit_interval("ema_momentum", "relative_threshold")


class AdaMatchTrainer(ConsistencyTrainer):
    """Trains with AdaMatch (Berthelot et al. 2022).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.AdaMatchTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.AdaMatchConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = AdaMatchObjective
    config_class = AdaMatchConfig
