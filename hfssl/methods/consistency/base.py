"""What the consistency methods share: views, one forward pass, schedules, class imbalance and the graph term.

A method is a subclass of `ConsistencyObjective` that defines `unlabeled_loss`, a configuration and a trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hfssl.data.views.base import PlainView, View
from hfssl.data.views.compose import ComposedView, parse_view
from hfssl.errors import DataError
from hfssl.functional.class_priors import class_prior
from hfssl.functional.consistency import kl_divergence
from hfssl.functional.schedules import curriculum_threshold, ramp_up
from hfssl.methods.consistency.graph import GraphNeighbors, NeighborView
from hfssl.methods.consistency.statistics import MovingAverage, Statistic
from hfssl.methods.supervised import SupervisedObjective
from hfssl.tasks.registry import get_task
from hfssl.training.config import SSLConfig
from hfssl.training.forward import Batch, joint_logits, model_inputs
from hfssl.training.objective import Objective
from hfssl.training.perturbations import adversarial_perturbation, perturbed_logits

__all__ = ["NEIGHBOR", "ConsistencyObjective"]

NEIGHBOR = "neighbor"
"""Name of the view with a neighbour of each row."""


class ConsistencyObjective(Objective):
    """Computes the cross-entropy on labeled rows plus `lambda_u` times a loss on views of unlabeled rows.

    Views of `student_views` learn, together with the labeled rows, in one concatenated forward pass. Views of
    `target_views` need no gradient; they take a pass without a graph, because a joint one would compute their backward
    pass for nothing (a third of the step). No gradient flows through a target.

    With weight 0 (`lambda_u=0`, or before the ramp) the pool does not go through the model, so that the run equals
    `SupervisedObjective` to the last bit, unless `changes_labeled_loss` is set.

    Class attributes:
        target_views (`tuple[str, ...]`): Views that targets are computed from.
        student_views (`tuple[str, ...]`): Views whose predictions learn.
        changes_labeled_loss (`bool`): Whether the labeled loss differs from supervised training.
    """

    target_views: ClassVar[tuple[str, ...]] = ("weak",)
    student_views: ClassVar[tuple[str, ...]] = ("strong",)
    changes_labeled_loss: ClassVar[bool] = False

    def setup(self, model: nn.Module, args: Any) -> None:
        self.args: Any = args
        self.task = get_task(args.task)
        self.total_steps = max(1, args.max_steps)
        self.supervised = SupervisedObjective()
        self.supervised.setup(model, args)
        self.pool_rows = 0
        self.log_prior: Tensor | None = None
        self.anchors: tuple[Tensor, Tensor] | None = None
        self.parts: dict[str, Statistic] = {}
        if args.class_balance > 0:
            self.parts["class_balance"] = MovingAverage(0.99)
        self.graph = GraphNeighbors(args.graph_neighbors) if args.graph_weight > 0 else None
        if self.graph is not None:
            self.parts["graph"] = self.graph
        self.adversarial = {
            name: sum(step.amount for step in parse_view(text) if step.name == "adversarial")
            for name, text in (("weak", args.weak_view), ("strong", args.strong_view))
        }

    def see_data(self, labeled: Dataset | None, pool: Dataset | None) -> None:
        """Notes the size of the pool and the class prior of the labels; the trainer calls this once, after `setup`."""
        self.pool_rows = 0 if pool is None else len(pool)
        self.pool = pool
        if self.args.anchor_weight > 0 and pool is not None:
            self.anchors = _anchors(pool)
        if self.args.logit_adjustment > 0 and labeled is not None:
            labels = self.task.unit_labels(self.task.label_array(labeled))
            prior = class_prior(labels, int(labels.max()) + 1)
            self.log_prior = torch.from_numpy(prior).float().log()

    def build_views(self, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> dict[str, View]:
        """Returns the views of the configuration that this method uses, by name."""
        texts = {"weak": self.args.weak_view, "strong": self.args.strong_view}
        options = {"seed": args.seed, "max_length": args.max_length}
        names = dict.fromkeys((*self.target_views, *self.student_views))
        views: dict[str, View] = {name: ComposedView(texts[name], tokenizer, stream=name, **options) for name in names}
        if self.graph is not None:
            views[NEIGHBOR] = NeighborView(self.graph, self.pool, PlainView(tokenizer), args.seed)
        return views

    # --- one step ----------------------------------------------------------------------------------------------------

    def weight(self, step: int) -> float:
        """Returns the weight of the unlabeled loss after `step` steps: `lambda_u` times the ramp."""
        args = self.args
        options = {"fraction": args.ramp_up, "shape": args.ramp_shape, "start": args.label_warmup}
        return args.lambda_u * ramp_up(step, self.total_steps, **options)

    def loss(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, Tensor]:
        """Returns `loss/labeled`, `loss/unlabeled` and, with a graph, `loss/graph`; the others are only logged."""
        weight = self.weight(step)
        if (weight == 0 and not self.changes_labeled_loss and self.anchors is None) or unlabeled is None:
            return self.supervised_only(model, labeled, step)
        _check_views(unlabeled)
        logits = self.forward(model, labeled, unlabeled, step)
        labeled_loss = self.labeled_loss(logits["labeled"], labeled, step)
        unlabeled_loss, logged = self.unlabeled_loss(logits, labeled, unlabeled, step)
        parts = {"loss/labeled": labeled_loss, "loss/unlabeled": weight * unlabeled_loss, **logged}
        if self.anchors is not None:
            parts["loss/anchor"] = self.args.anchor_weight * self._anchor_loss(logits, unlabeled)
        if self.graph is not None:
            parts["loss/graph"] = self.args.graph_weight * self._graph_loss(logits)
        return parts | self.supervised.penalty(model)

    def supervised_only(self, model: nn.Module, labeled: Batch, step: int) -> dict[str, Tensor]:
        """Returns the loss of a step that does not use the pool."""
        if self.log_prior is None:
            return self.supervised.loss(model, labeled, None, step)
        logits = joint_logits(model, labeled)[0]
        return {"loss/labeled": self.labeled_loss(logits, labeled, step)} | self.supervised.penalty(model)

    def forward(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> dict[str, Tensor]:
        """Returns the outputs for the labeled rows, `"labeled"`, and for each view: `[B, ...]`."""
        logits: dict[str, Tensor] = {}
        targets = [name for name in self.target_views if name in unlabeled and name not in self.student_views]
        if targets:
            with torch.no_grad():
                batches = [unlabeled[name] for name in targets]
                logits |= zip(targets, joint_logits(model, *batches), strict=True)
        moved = [name for name in self.student_views if self.adversarial.get(name)]
        names = [name for name in (*self.student_views, NEIGHBOR) if name in unlabeled and name not in moved]
        joint = joint_logits(model, labeled, *(unlabeled[name] for name in names))
        logits |= zip(("labeled", *names), joint, strict=True)
        for name in moved:
            logits[name] = self._adversarial_logits(model, unlabeled[name], self.adversarial[name], step)
        return logits

    def labeled_loss(self, logits: Tensor, labeled: Batch, step: int) -> Tensor:
        """Returns the loss of the labeled rows for their outputs `[B, ...]`, a scalar."""
        units = self.adjusted(self.units(logits, labeled))
        return self.task.loss(units, labeled["labels"], label_smoothing=self.args.label_smoothing_factor)

    def _anchor_loss(self, logits: Mapping[str, Tensor], unlabeled: Mapping[str, Batch]) -> Tensor:
        """Returns the cross-entropy of the first view that learns with the pool's own pseudo-labels, a scalar."""
        view = self.student_views[0]
        units = self.adjusted(self.units(logits[view], unlabeled[view]))
        probs, weights = self.anchors  # pyright: ignore[reportGeneralTypeIssues]
        numbers = self.unit_numbers(unlabeled[view]["row"].cpu(), len(units))
        return self.task.loss(units, probs[numbers].to(units), weights[numbers].to(units))

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of the unlabeled rows before its weight, a scalar, and scalars that are logged.

        Args:
            logits (`Mapping[str, Tensor]`): Outputs of `forward`, by view.
            labeled (`Batch`): The labeled batch.
            unlabeled (`Mapping[str, Batch]`): The unlabeled batch, by view.
            step (`int`): Number of optimizer steps taken.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define unlabeled_loss().")  # abstract

    # --- units -------------------------------------------------------------------------------------------------------

    def units(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the logits of units, `[M, K]`, for a model's outputs `[B, ...]`."""
        return self.task.units(_full_precision(logits), batch).logits

    def probs(self, logits: Tensor) -> Tensor:
        """Returns the probabilities of units, `[M, K]`, for a model's outputs `[B, ...]`."""
        return self.task.unit_probs(_full_precision(logits))

    def adjusted(self, units: Tensor) -> Tensor:
        """Returns the logits of units as the losses see them: + tau log prior with `logit_adjustment`.

        Targets come from the logits without it, which then predict as if all classes were equally frequent. The
        prior is that of the labels for the unlabeled loss, too: the prior of its pseudo-labels would feed back.
        """
        if self.log_prior is None:
            return units
        missing = units.shape[-1] - len(self.log_prior)  # classes after the last one that has a label
        log_prior = torch.cat([self.log_prior, self.log_prior.new_full((max(0, missing),), self.log_prior.min())])
        return units + self.args.logit_adjustment * log_prior.to(units)

    def unit_numbers(self, rows: Tensor, num_units: int) -> Tensor:
        """Returns the number in the pool of each unit, `[M]`, for the row numbers `[U]` of a batch."""
        each = num_units // len(rows)
        return (rows[:, None] * each + torch.arange(each, device=rows.device)).reshape(-1)

    def easy_first(self, probs: Tensor, step: int) -> Tensor:
        """Returns whether each unit may count under `curriculum`, `[M]`; see `curriculum_threshold`."""
        least = curriculum_threshold(step, self.total_steps, probs.shape[-1], self.args.curriculum)
        return (probs.amax(-1) >= least).to(probs.dtype)

    def balance(self, probs: Tensor) -> Tensor | float:
        """Returns the factor on the threshold of each class, `[K]`: (share / largest share)^`class_balance`."""
        average = self.parts.get("class_balance")
        if not isinstance(average, MovingAverage):
            return 1.0
        shares = average.observe(probs)
        return (shares / shares.max()) ** self.args.class_balance

    def _adversarial_logits(self, model: nn.Module, batch: Batch, size: float, step: int) -> Tensor:
        inputs = model_inputs(batch)
        seeds = (batch["row"] + 1) * 1_000_003 + step + self.args.seed
        change = adversarial_perturbation(
            model,
            inputs,
            seeds,
            size=size,
            divergence=lambda clean, moved: kl_divergence(self.probs(clean), self.units(moved, batch)),
        )
        return perturbed_logits(model, inputs, change)

    def _graph_loss(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean of ||p(u) - p(v)||^2 over units of rows u and neighbours v (Belkin et al. 2006, eq. 4)."""
        first, second = self.probs(logits[self.student_views[0]]), self.probs(logits[NEIGHBOR])
        return (first - second).square().sum(-1).mean()

    # --- state -------------------------------------------------------------------------------------------------------

    def after_step(self, model: nn.Module, step: int) -> None:
        """Takes over what the parts noted in the step. Collective: every rank must call this."""
        for part in self.parts.values():
            part.commit()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of each part, by name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def describe(self) -> dict[str, Any]:
        shown = ("lambda_u", "weak_view", "strong_view")
        return super().describe() | {name: getattr(self.args, name) for name in shown}


def _full_precision(logits: Tensor) -> Tensor:
    """Returns logits in float32 if a model in bf16 or fp16 made them: 0.95 and 0.9515 are one number in bf16."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _check_views(unlabeled: Mapping[str, Batch]) -> None:
    """Raises `DataError` if the views do not hold the same number of rows."""
    sizes = {name: len(batch["input_ids"]) for name, batch in unlabeled.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise DataError(
            f"Expected as many rows from every view of a batch, got {told}: a view must return one row for each row."
        )


def _anchors(pool: Dataset) -> tuple[Tensor, Tensor]:
    """Returns the pool's pseudo-labels `[M, K]` and their weights `[M]`, unit by unit.

    Raises:
        DataError: if the pool has no such columns.
    """
    missing = [name for name in ("pseudo_probs", "weight") if name not in pool.column_names]
    if missing:
        raise DataError(
            f"Expected the column '{missing[0]}' in the unlabeled rows for anchor_weight, found "
            f"{', '.join(pool.column_names)}: give pseudo-labels and their weights, or set anchor_weight=0."
        )
    probs = torch.tensor(pool["pseudo_probs"][:], dtype=torch.float32)
    return probs.reshape(-1, probs.shape[-1]), torch.tensor(pool["weight"][:], dtype=torch.float32).reshape(-1)
