"""FlexMatch: FixMatch with a lower threshold for classes that are learned slowly."""

from __future__ import annotations

from dataclasses import dataclass

from hfssl.methods.consistency.threshold_base import ThresholdConfig, ThresholdObjective
from hfssl.methods.consistency.thresholds import CurriculumThreshold, Threshold
from hfssl.methods.consistency.trainer import ConsistencyTrainer

__all__ = ["FlexMatchConfig", "FlexMatchObjective", "FlexMatchTrainer"]


class FlexMatchObjective(ThresholdObjective):
    """Computes the loss of FixMatch with thresholds by class, threshold * beta_c / (2 - beta_c).

    beta_c = sigma(c) / max(max sigma, N - sum sigma), sigma(c) the number of pool rows whose stored label is c; see
    `CurriculumThreshold`. At the start no row has a label, beta is 0 and every row counts.
    """

    paper = (
        "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling (Zhang et al. 2021), eq. 5-12"
    )
    citation = """@inproceedings{zhang2021flexmatch,
  title = {{FlexMatch}: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling},
  author = {Zhang, Bowen and Wang, Yidong and Hou, Wenxin and Wu, Hao and Wang, Jindong and Okumura, Manabu and
            Shinozaki, Takahiro},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021}
}"""

    def make_threshold(self, args: FlexMatchConfig) -> Threshold:
        """Returns the curriculum threshold."""
        return CurriculumThreshold(args.confidence_threshold)


@dataclass
class FlexMatchConfig(ThresholdConfig):
    """Holds the arguments of `FlexMatchTrainer`: those of FixMatch.

    Example:
        >>> import hfssl
        >>> hfssl.FlexMatchConfig(output_dir=str(folder)).confidence_threshold
        0.95
    """


class FlexMatchTrainer(ConsistencyTrainer):
    """Trains with FlexMatch (Zhang et al. 2021).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.FlexMatchTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.FlexMatchConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = FlexMatchObjective
    config_class = FlexMatchConfig
