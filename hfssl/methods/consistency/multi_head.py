"""Multi-head ensemble: heads on one encoder learn from what the other heads agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hfssl.functional.consistency import class_scaled, hard_targets
from hfssl.methods.consistency.base import NEIGHBOR, ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.pseudo_margins import PseudoMargins
from hfssl.methods.consistency.statistics import MovingAverage
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.models.extra_modules import extra_modules_of
from hfssl.models.introspection import transformers_model
from hfssl.models.mean_pooling import mean_over_tokens
from hfssl.training.forward import Batch, by_length, joined_rows
from hfssl.training.perturbations import noisy_logits_and_states

__all__ = ["MultiHeadConfig", "MultiHeadObjective", "MultiHeadTrainer"]


class MultiHeadObjective(ConsistencyObjective):
    """Teaches each of H heads on one encoder the classes that the other heads agree on.

    For head h and an unlabeled unit, the label is the class that all other heads predict for the weak view. The unit
    counts if they agree, if the mean of their probabilities of it is at least threshold * p_c / max p (JointMatch, p
    the moving average of the mean prediction, momentum 0.9), and if its pseudo-margin is not among the lowest of its
    class (`PseudoMargins`, after MultiMatch). Its weight is `disagreement_weight` where head h itself predicts another
    class (useful, but hard), else 1 - `disagreement_weight` (JointMatch, section 3.3). Labeled rows teach every head.

    The papers leave open how H heads form one model. Ours: head 1 is the model's own and is what is exported; the
    others are linear layers on the mean of the last hidden states, which only training needs. JointMatch has two
    networks; heads cost a hundredth of that.
    """

    paper = "JointMatch (Zou & Caragea 2023), section 3; pseudo-margins as MultiMatch (Sirbu et al. 2025)"
    citation = """@inproceedings{zou2023jointmatch,
  title = {{JointMatch}: A Unified Approach for Diverse and Collaborative Pseudo-Labeling to Semi-Supervised Text
           Classification},
  author = {Zou, Henry Peng and Caragea, Cornelia},
  booktitle = {Proceedings of EMNLP},
  year = {2023}
}
@inproceedings{sirbu2025multimatch,
  title = {{MultiMatch}: Multihead Consistency Regularization Matching for Semi-Supervised Text Classification},
  author = {Sirbu, Iustin and Popovici, Robert-Adrian and Caragea, Cornelia and Trausan-Matu, Stefan and Rebedea,
            Traian},
  booktitle = {Proceedings of EMNLP},
  year = {2025}
}"""
    changes_labeled_loss: ClassVar[bool] = True

    def setup(self, model: nn.Module, args: Any) -> None:
        super().setup(model, args)
        self.margins = PseudoMargins(args.margin_momentum, args.margin_percentile)
        self.class_probs = MovingAverage(args.ema_momentum)
        self.parts |= {"margins": self.margins, "class_probs": self.class_probs}

    def extra_modules(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Returns the heads after the first one."""
        config = transformers_model(model).config
        size, outputs = config.get_text_config().hidden_size, int(config.num_labels or 0)
        return {"heads": nn.ModuleList(nn.Linear(size, outputs) for _ in range(self.args.num_heads - 1))}

    def forward(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> dict[str, Tensor]:
        """Returns the outputs of all heads, `[H, B, ...]`, for the labeled rows and each view."""
        with torch.no_grad():
            weak = self._heads(model, unlabeled["weak"])[0]
        names = [name for name in ("strong", NEIGHBOR) if name in unlabeled]
        outputs = self._heads(model, labeled, *(unlabeled[name] for name in names))
        return {"weak": weak} | dict(zip(("labeled", *names), outputs, strict=True))

    def _heads(self, model: nn.Module, *batches: Batch) -> list[Tensor]:
        """Returns the outputs of all heads for each batch, `[H, B, K]`."""
        rows, sizes = joined_rows(model, *batches)

        def joined(part: Batch) -> Tensor:
            logits, states = noisy_logits_and_states(model, part)
            return torch.cat([logits.float(), mean_over_tokens(states.float(), part["attention_mask"])], dim=-1)

        both, outputs = by_length(rows, joined), transformers_model(model).config.num_labels
        logits, features = both[:, :outputs], both[:, outputs:]
        heads = extra_modules_of(model)["heads"]
        stacked = torch.stack([logits, *(head(features) for head in heads)])  # pyright: ignore[reportGeneralTypeIssues]
        return list(stacked.split(sizes, dim=1))

    def labeled_loss(self, logits: Tensor, labeled: Batch, step: int) -> Tensor:
        """Returns the mean loss of the heads on the labeled rows."""
        return torch.stack(
            [super(MultiHeadObjective, self).labeled_loss(head, labeled, step) for head in logits]
        ).mean()

    def supervised_only(self, model: nn.Module, labeled: Batch, step: int) -> dict[str, Tensor]:
        """Returns the loss of all heads on the labeled rows."""
        logits = self._heads(model, labeled)[0]
        return {"loss/labeled": self.labeled_loss(logits, labeled, step)} | self.supervised.penalty(model)

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the mean loss of the heads; logs the share that counts and the share of agreeing heads."""
        rows = unlabeled["weak"]["row"]
        probs = torch.stack([self.probs(head) for head in logits["weak"]])  # [H, M, K]
        ensemble = probs.mean(0)
        thresholds = class_scaled(self.args.confidence_threshold, self.class_probs.observe(ensemble))
        thresholds = thresholds * self.balance(ensemble)
        units = self.unit_numbers(rows, len(ensemble))
        mean_logits = torch.stack([self.units(head, unlabeled["weak"]) for head in logits["weak"]]).mean(0)
        clear = self.margins.select(units, mean_logits, self.pool_rows * (len(ensemble) // len(rows)))
        allowed = clear * self.easy_first(ensemble, step)
        losses, used, agreeing = [], [], []
        for number, head in enumerate(logits["strong"]):
            others = torch.cat([probs[:number], probs[number + 1 :]])
            label = others[0].argmax(-1)
            agree = (others.argmax(-1) == label).all(0)
            confident = others.mean(0).gather(-1, label[:, None])[:, 0] >= thresholds[label]
            hard = self.args.disagreement_weight
            weight = torch.where(probs[number].argmax(-1) == label, 1 - hard, hard)
            weights = (agree & confident).to(ensemble.dtype) * weight * allowed
            student = self.adjusted(self.units(head, unlabeled["strong"]))
            losses.append(self.task.loss(student, hard_targets(others[0]), weights))
            used.append((weights > 0).float().mean())
            agreeing.append(agree.float().mean())
        logged = {"pool_utilisation": torch.stack(used).mean(), "head_agreement": torch.stack(agreeing).mean()}
        return torch.stack(losses).mean(), logged

    def _graph_loss(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Returns the graph term of the model's own head."""
        return super()._graph_loss({name: heads[0] for name, heads in logits.items()})


@dataclass
class MultiHeadConfig(ConsistencyConfig):
    """Holds the arguments of `MultiHeadTrainer`.

    Example:
        >>> import hfssl
        >>> hfssl.MultiHeadConfig(output_dir=str(folder)).num_heads
        3
    """

    num_heads: int = field(default=3, metadata={"help": "Number of heads on the encoder, at least 2."})
    confidence_threshold: float = field(
        default=0.95, metadata={"help": "Threshold of the class that is predicted most often."}
    )
    ema_momentum: float = field(
        default=0.9, metadata={"help": "Weight of the past in the moving average of the mean prediction."}
    )
    disagreement_weight: float = field(
        default=0.9,
        metadata={"help": "Weight of a row whose label a head does not predict yet; the others have 1 minus it."},
    )
    margin_momentum: float = field(
        default=0.5, metadata={"help": "Weight of earlier visits in the pseudo-margin of a row."}
    )
    margin_percentile: float = field(
        default=0.05, metadata={"help": "Share of the rows of a class, those of lowest margin, that is left out."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        if self.num_heads < 2:
            found.append(f"num_heads must be at least 2, got {self.num_heads}; one head is FreeMatch or FixMatch.")
        names = ("confidence_threshold", "ema_momentum", "disagreement_weight", "margin_momentum", "margin_percentile")
        return found + self.unit_interval(*names)


class MultiHeadTrainer(ConsistencyTrainer):
    """Trains an encoder with several heads (JointMatch 2023, MultiMatch 2025).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.MultiHeadTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.MultiHeadConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = MultiHeadObjective
    config_class = MultiHeadConfig
