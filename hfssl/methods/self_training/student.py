"""The student's loss in one round of self-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.given_labels import with_pseudo_labels
from hfssl.methods.supervised import SupervisedObjective, SupervisedTrainer
from hfssl.runtime.distributed import is_main
from hfssl.tasks.registry import get_task
from hfssl.training.forward import Batch, joint_logits
from hfssl.training.head_fitting import retrain_head
from hfssl.training.objective import Objective

__all__ = ["SelfTrainingObjective", "SelfTrainingTrainer"]


class SelfTrainingObjective(Objective):
    """Computes the cross-entropy on the labeled rows plus `lambda_u` times the loss on the pseudo-labeled rows.

    The unlabeled dataset has two more columns: `pseudo_probs` `[K]` (one-hot or soft) and `weight` (a float). Both
    come from `hfssl.methods.self_training.pseudo_labeler` and do not change during the round.

    With `lambda_u=0` the pseudo-labeled rows do not go through the model, so that the run equals `SupervisedObjective`
    to the last bit (a joint forward pass would change the dropout masks of the labeled rows).
    """

    paper = (
        "Uncertainty-aware Self-training for Few-shot Text Classification (Mukherjee & Awadallah 2020), equation 10"
    )
    citation = """@inproceedings{mukherjee2020uncertainty,
  title = {Uncertainty-aware Self-training for Few-shot Text Classification},
  author = {Mukherjee, Subhabrata and Awadallah, Ahmed Hassan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}"""

    def setup(self, model: nn.Module, args: SelfTrainingConfig) -> None:
        self.lambda_u, self.label_smoothing = args.lambda_u, args.label_smoothing_factor
        self.task = get_task(args.task)
        self.supervised = SupervisedObjective()
        self.supervised.setup(model, args)

    def loss(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> dict[str, torch.Tensor]:
        """Returns the loss of the labeled rows plus `lambda_u` times the weighted loss of the pseudo-labeled ones."""
        if self.lambda_u == 0:
            return self.supervised.loss(model, labeled, None, step)
        pseudo = unlabeled["plain"]
        labeled_logits, pseudo_logits = (
            self.task.units(logits, batch).logits
            for logits, batch in zip(joint_logits(model, labeled, pseudo), (labeled, pseudo), strict=True)
        )
        supervised = self.task.loss(labeled_logits, labeled["labels"], label_smoothing=self.label_smoothing)
        unsupervised = self.task.loss(pseudo_logits, pseudo["pseudo_probs"], pseudo["weight"])
        agreement = self.task.agreement(pseudo_logits, pseudo["pseudo_probs"])
        return {
            "loss/labeled": supervised,
            "loss/pseudo_labeled": self.lambda_u * unsupervised,
            "pseudo_label_agreement": agreement.detach(),
            **self.supervised.penalty(model),
        }

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"lambda_u": self.lambda_u}


class SelfTrainingTrainer(SupervisedTrainer):
    """Trains one student on labeled rows and weighted pseudo-labeled rows (columns `pseudo_probs` and `weight`).

    The pseudo-labels may be the user's own, of an LLM or of rules: a column `pseudo_label` with class names or numbers
    is enough, rows without one are left out, and a missing `weight` is 1.

    With `retrain_head` the student's logit layer is fitted again after training (`hfssl.training.head_fitting`). The
    rounds, which train several students, are in `hfssl.methods.self_training.rounds`.

    Example:
        >>> import hfssl
        >>> taught = pool.add_column("pseudo_probs", [[0.9, 0.1], [0.2, 0.8]] * 4).add_column("weight", [1.0] * 8)
        >>> trainer = hfssl.SelfTrainingTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.SelfTrainingConfig(output_dir=str(folder), max_steps=2, disable_tqdm=True, use_cpu=True),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=taught,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = SelfTrainingObjective
    config_class = SelfTrainingConfig
    args: SelfTrainingConfig
    unlabeled_dataset: Dataset

    def prepare_pool(self, rows: Dataset, label_names: Sequence[str], args: SelfTrainingConfig) -> Dataset:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Checks pseudo-labels, which may be the user's own (see `hfssl.methods.self_training.given_labels`)."""
        return rows if args.lambda_u == 0 else with_pseudo_labels(rows, label_names, get_task(args.task))

    def after_training(self) -> None:
        """Retrains the logit layer, with `retrain_head`, in addition to the base class's work."""
        super().after_training()
        if not self.args.retrain_head or self.args.lambda_u == 0:
            return
        shown = not self.args.disable_tqdm and is_main()
        retrain_head(
            self.accelerator.unwrap_model(self.model),
            self.train_dataset,
            self.unlabeled_dataset,
            self.processing_class,
            lambda_u=self.args.lambda_u,
            task=get_task(self.args.task),
            bf16=self.args.bf16,
            class_weights=self.class_weights,
            progress=[f"{self.title}: its head, {what}" if shown else None for what in ("labels", "pseudo-labels")],
        )
