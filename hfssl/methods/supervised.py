"""Fine-tuning on the labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from hfssl.citations import BERT
from hfssl.errors import ConfigurationError
from hfssl.functional.class_priors import class_weights, given_numbers
from hfssl.functional.regularization import draw_mixup, mixup_loss, r_drop_loss
from hfssl.models.heads import mixed_head_input
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task
from hfssl.tasks.sequence_classification import SequenceClassification
from hfssl.training.config import SSLConfig
from hfssl.training.forward import Batch, classification_logits, joint_logits, model_inputs
from hfssl.training.head_fitting import HEAD_INITS, init_head
from hfssl.training.inputs import label_names_of_model
from hfssl.training.objective import Objective
from hfssl.training.trainer import MethodTrainer
from hfssl.training.weight_averaging import StartingPoint

__all__ = [
    "SupervisedConfig",
    "SupervisedObjective",
    "SupervisedTrainer",
]


class SupervisedObjective(Objective):
    """Computes the cross-entropy on the labeled rows; unlabeled rows are ignored.

    Every comparison is with this method, which trains in the same engine as all others. The objective applies
    `label_smoothing_factor` and the options of `hfssl.functional.regularization`. With mixup the rows of one
    micro-batch of one device are mixed, so that accumulating small batches is not the same as a large one.
    """

    paper = "Cross-entropy fine-tuning (Devlin et al. 2019, section 4)"
    citation = BERT

    def setup(self, model: nn.Module, args: SupervisedConfig) -> None:
        self.task = get_task(args.task)
        self.label_smoothing, self.seed = args.label_smoothing_factor, args.seed
        self.r_drop_alpha, self.mixup_alpha = args.r_drop_alpha, args.mixup_alpha
        self.l2_sp_alpha = args.l2_sp_alpha
        self.start = StartingPoint(model) if args.l2_sp_alpha > 0 else None

    def loss(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        return {"loss/labeled": self._labeled_loss(model, labeled, step)} | self.penalty(model)

    def penalty(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Returns the term of L2-SP, if `l2_sp_alpha` is above 0."""
        return {} if self.start is None else {"loss/l2_sp": self.start.penalty(model, self.l2_sp_alpha)}

    def _labeled_loss(self, model: nn.Module, labeled: Batch, step: int) -> torch.Tensor:
        labels, task = labeled["labels"], self.task
        loss = partial(task.loss, label_smoothing=self.label_smoothing)
        if self.r_drop_alpha > 0:
            first, second = (task.units(logits, labeled).logits for logits in joint_logits(model, labeled, labeled))
            return r_drop_loss(first, second, labels, self.r_drop_alpha, loss=loss, divergence=task.divergence)
        if self.mixup_alpha > 0:
            share, partners = draw_mixup(len(labels), self.mixup_alpha, self.seed, step)
            # One forward pass of all rows: `classification_logits` may split them into passes by length.
            with mixed_head_input(model, partners, share):
                logits = model(**model_inputs(labeled)).logits
            logits = task.units(logits, labeled).logits
            return mixup_loss(logits, labels, partners.to(labels.device), share, loss=loss)
        return loss(task.units(classification_logits(model, labeled), labeled).logits, labels)

    def describe(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("r_drop_alpha", "mixup_alpha", "l2_sp_alpha")}
        return super().describe() | {name: value for name, value in options.items() if value}


@dataclass
class SupervisedConfig(SSLConfig):
    """Holds the arguments of `SupervisedTrainer`: fine-tuning on the labels alone.

    `r_drop_alpha`, `mixup_alpha` and `l2_sp_alpha` are explained in `hfssl.functional.regularization`.

    Example:
        >>> import hfssl
        >>> hfssl.SupervisedConfig(output_dir=str(folder), head_init="logistic").head_init
        'logistic'
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of the body."})
    head_learning_rate: float | None = field(default=1e-3, metadata={"help": "Peak learning rate of the fresh head."})
    head_init: str = field(
        default="random",
        metadata={
            "help": "Initial weights of the head: 'random', 'class_means' (of the labeled rows), or 'logistic' "
            "(logistic regression on them)."
        },
    )
    r_drop_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the divergence between two dropout views of a labeled row (R-Drop). 0 turns it off."
        },
    )
    mixup_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Parameter alpha of mixup, which mixes labeled rows before the head with shares from Beta(alpha, "
            "alpha). 0 turns it off."
        },
    )
    class_weights: str | None = field(
        default=None,
        metadata={
            "help": "Weights of the classes in the loss of labeled rows: 'balanced', numbers such as 'ham=1, spam=5', "
            "or a JSON file with them. By default all rows count alike."
        },
    )
    l2_sp_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the squared distance between the body and its weights before training (L2-SP). 0 "
            "turns it off."
        },
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        known = ("random", *HEAD_INITS)
        if self.head_init not in known:
            found.append(f"head_init must be one of {', '.join(known)}, got '{self.head_init}'.")
        for name in ("r_drop_alpha", "mixup_alpha", "l2_sp_alpha"):
            if getattr(self, name) < 0:
                found.append(f"{name} must not be negative, got {getattr(self, name)}; 0 switches it off.")
        if self.class_weights is not None and not isinstance(self.class_weights, str | dict):
            found.append(f"class_weights must be 'balanced' or one number a class, got {self.class_weights!r}.")
        if self.r_drop_alpha > 0 and self.mixup_alpha > 0:
            found.append("r_drop_alpha and mixup_alpha exclude each other; set one of them to 0.")
        return found

    def check_classes(self, label_names: Sequence[str]) -> None:
        """Checks `class_weights`, in addition to the base class's settings."""
        super().check_classes(label_names)
        if self.class_weights not in (None, "balanced"):
            given_numbers(self.class_weights, label_names, "class_weights")


class SupervisedTrainer(MethodTrainer):
    """Fine-tunes a classifier on the labels alone.

    Example:
        >>> import hfssl
        >>> trainer = hfssl.SupervisedTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.SupervisedConfig(output_dir=str(folder), max_steps=2, disable_tqdm=True, use_cpu=True),
        ...     train_dataset=dataset,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = SupervisedObjective
    config_class = SupervisedConfig
    args: SupervisedConfig

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.class_weights: torch.Tensor | None = None  # [K]
        if self.args.class_weights is not None and self.train_dataset is not None:
            self._weigh_classes(get_task(self.args.task))

    def _weigh_classes(self, task: Task) -> None:
        """Makes the objective's losses on labels weigh the classes."""
        if not isinstance(task, SequenceClassification):
            raise ConfigurationError("class_weights: expected a task with one class per row; leave it out.")
        names = label_names_of_model(self.model)
        found = class_weights(self.args.class_weights, task.label_array(self.train_dataset), names)  # pyright: ignore[reportArgumentType]
        self.class_weights = torch.from_numpy(found).float()
        objectives = [self.objective, getattr(self.objective, "supervised", None)]
        for objective in objectives:
            if isinstance(getattr(objective, "task", None), SequenceClassification):
                objective.task = task.with_class_weights(self.class_weights)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]

    def before_training(self) -> None:
        """Initialises the logit layer by `head_init`."""
        super().before_training()
        start = self.args.head_init
        if start != "random" and self.train_dataset is not None:
            self.model.to(self.args.device)  # pyright: ignore[reportArgumentType]
            task, bf16 = get_task(self.args.task), self.args.bf16
            init_head(
                start,
                self.model,
                self.train_dataset,
                self.processing_class,
                bf16=bf16,
                task=task,
                class_weights=self.class_weights,
            )
