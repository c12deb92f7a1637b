"""FixMatch: a fixed confidence threshold on pseudo-labels of the weak view."""

from __future__ import annotations

from dataclasses import dataclass

from hfssl.methods.consistency.threshold_base import ThresholdConfig, ThresholdObjective
from hfssl.methods.consistency.trainer import ConsistencyTrainer

__all__ = ["FixMatchConfig", "FixMatchObjective", "FixMatchTrainer"]


class FixMatchObjective(ThresholdObjective):
    """Computes L_u = mean_b 1[max q_b >= threshold] H(argmax q_b, p(strong view)), q_b = p(weak view).

    The mean is over the whole batch. Departure: the weak view of a text is a dropout mask, not a crop, and the strong
    view drops words and hides tokens (`strong_view`); the paper's are of images.
    """

    paper = "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence (Sohn et al. 2020), eq. 4"
    citation = """@inproceedings{sohn2020fixmatch,
  title = {{FixMatch}: Simplifying Semi-Supervised Learning with Consistency and Confidence},
  author = {Sohn, Kihyuk and Berthelot, David and Carlini, Nicholas and Zhang, Zizhao and Zhang, Han and Raffel, Colin
            and Cubuk, Ekin Dogus and Kurakin, Alexey and Li, Chun-Liang},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}"""


@dataclass
class FixMatchConfig(ThresholdConfig):
    """Holds the arguments of `FixMatchTrainer`: `confidence_threshold` and those of all consistency methods.

    Example:
        >>> import hfssl
        >>> hfssl.FixMatchConfig(output_dir=str(folder)).confidence_threshold
        0.95
    """


class FixMatchTrainer(ConsistencyTrainer):
    """Trains with FixMatch (Sohn et al. 2020).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.FixMatchTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.FixMatchConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = FixMatchObjective
    config_class = FixMatchConfig
