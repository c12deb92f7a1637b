"""Dash: a threshold on the loss of a pseudo-label that starts at the labeled loss and falls."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.threshold_base import ThresholdObjective
from hfssl.methods.consistency.thresholds import DecayingThreshold, Threshold
from hfssl.methods.consistency.trainer import ConsistencyTrainer

__all__ = ["DashConfig", "DashObjective", "DashTrainer"]


class DashObjective(ThresholdObjective):
    """Computes the mean of 1[-log max q_b <= rho_t] H(argmax q_b, p(strong view)); see `DecayingThreshold`.

    The first tenth of the steps trains on the labels only (`label_warmup`), after which rho is the labeled loss.
    """

    paper = "Dash: Semi-Supervised Learning with Dynamic Thresholding (Xu et al. 2021), equation 9 and algorithm 1"
    citation = """@inproceedings{xu2021dash,
  title = {Dash: Semi-Supervised Learning with Dynamic Thresholding},
  author = {Xu, Yi and Shang, Lei and Ye, Jinxing and Qian, Qi and Li, Yu-Feng and Sun, Baigui and Li, Hao and Jin,
            Rong},
  booktitle = {International Conference on Machine Learning},
  year = {2021}
}"""

    def make_threshold(self, args: DashConfig) -> Threshold:
        """Returns the falling threshold."""
        return DecayingThreshold(
            args.dash_gamma, args.dash_c, args.dash_minimum, args.dash_updates, start=args.label_warmup
        )


@dataclass
class DashConfig(ConsistencyConfig):
    """Holds the arguments of `DashTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.DashConfig(output_dir=str(folder)).dash_gamma
        1.27
    """

    label_warmup: float = field(
        default=0.1, metadata={"help": "Share of the steps, at the start, that train on the labels only."}
    )
    dash_gamma: float = field(
        default=1.27, metadata={"help": "Factor by which each stage divides the largest loss, above 1."}
    )
    dash_c: float = field(default=1.0001, metadata={"help": "Factor C on the labeled loss at the start."})
    dash_minimum: float = field(
        default=0.05, metadata={"help": "Largest loss of a pseudo-label that counts at the end, in nats."}
    )
    dash_updates: int = field(default=10, metadata={"help": "Number of stages of the run, each with one threshold."})

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        for name, least in (("dash_gamma", 1), ("dash_c", 1), ("dash_minimum", 0), ("dash_updates", 1)):
            if getattr(self, name) < least:
                found.append(f"{name} must be at least {least}, got {getattr(self, name)}.")
        return found


class DashTrainer(ConsistencyTrainer):
    """Trains with Dash (Xu et al. 2021).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.DashTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.DashConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = DashObjective
    config_class = DashConfig
