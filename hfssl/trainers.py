"""The named trainers: `SSLTrainer` with one method each. What differs is said in a few lines; mechanics live below."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from datasets import Dataset
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase

from hfssl.data.views.masking import tokenize_for_masking
from hfssl.methods.contrastive import SupervisedContrastiveObjective
from hfssl.methods.pretext.masked_span import MaskedSpanObjective, held_out_span_loss
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.student import SelfTrainingObjective
from hfssl.methods.supervised import SupervisedObjective
from hfssl.runtime.distributed import is_main
from hfssl.training.config import ContrastiveConfig, MaskedSpanConfig, SSLConfig, SupervisedConfig
from hfssl.training.head_fitting import refit_head, start_head
from hfssl.training.objective import Objective
from hfssl.training.trainer import SSLTrainer

__all__ = ["TRAINERS", "ContrastiveTrainer", "MaskedSpanTrainer", "SelfTrainingTrainer", "SupervisedTrainer"]


class _MethodTrainer(SSLTrainer):
    objective_class: ClassVar[type[Objective]]
    config_class: ClassVar[type[SSLConfig]]

    def __init__(self, *args: Any, objective: Objective | None = None, **kwargs: Any):
        super().__init__(*args, objective=self.objective_class() if objective is None else objective, **kwargs)


class SupervisedTrainer(_MethodTrainer):
    """Fine-tuning on the labels alone: the baseline."""

    objective_class = SupervisedObjective
    config_class = SupervisedConfig

    def __init__(
        self,
        model: PreTrainedModel,
        args: SupervisedConfig,
        *,
        processing_class: PreTrainedTokenizerBase,
        train_dataset: Dataset | None = None,
        **kwargs: Any,
    ):
        if args.head_start != "random" and train_dataset is not None:
            train_dataset = self.prepare_dataset(train_dataset, processing_class, args)
            model.to(args.device)  # also starts the process group, before the ranks talk
            start_head(args.head_start, model, train_dataset, processing_class, bf16=args.bf16)
        super().__init__(model, args, processing_class=processing_class, train_dataset=train_dataset, **kwargs)


class SelfTrainingTrainer(SupervisedTrainer):
    """One student: labeled rows plus weighted pseudo-labeled rows (columns `pseudo_probs` and `weight`).

    With `refit_head` its logit layer is fitted anew when training is over (`hfssl.training.head_fitting`). The rounds around it
    are in `hfssl.methods.self_training.rounds`.
    """

    objective_class = SelfTrainingObjective
    config_class = SelfTrainingConfig

    def _end_training(self) -> None:
        super()._end_training()
        if not self.args.refit_head or self.args.lambda_u == 0:
            return
        shown = not self.args.disable_tqdm and is_main()
        refit_head(
            self.accelerator.unwrap_model(self.model),
            self.train_dataset,
            self.unlabeled_dataset,
            self.processing_class,
            lambda_u=self.args.lambda_u,
            bf16=self.args.bf16,
            progress=[f"{self.title}: its head, {what}" if shown else None for what in ("labels", "pseudo-labels")],
        )


class ContrastiveTrainer(_MethodTrainer):
    """Supervised-contrastive warm start of a classifier's body; fine-tune its head afterwards."""

    objective_class = SupervisedContrastiveObjective
    config_class = ContrastiveConfig


class MaskedSpanTrainer(_MethodTrainer):
    """Masked-span pretext training of a masked language model (see `load_masked_lm`) on `unlabeled_dataset`.

    With an `eval_dataset` (texts that are not trained on) the span loss on it is measured every `eval_steps`, training
    stops after `early_stopping_patience` evaluations without a lower one, and the best model is what is kept.
    """

    objective_class = MaskedSpanObjective
    config_class = MaskedSpanConfig

    def __init__(
        self, model: PreTrainedModel, args: MaskedSpanConfig, *, eval_dataset: Dataset | None = None, **kwargs: Any
    ):
        early = eval_dataset is not None and args.early_stopping_patience > 0
        if early:
            args = replace(
                args,
                eval_strategy="steps",
                save_strategy="steps",
                save_steps=args.eval_steps,  # the best model is one that was saved
                load_best_model_at_end=True,
                metric_for_best_model="eval_loss",
                greater_is_better=False,
            )
        super().__init__(model, args, eval_dataset=eval_dataset, **kwargs)
        if early:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def prepare_dataset(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> Dataset:
        """Tokenizes with the word boundaries that span masking needs."""
        return tokenize_for_masking(dataset, tokenizer, args.max_length)

    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`{"eval_loss": nats per masked token}` under masks that are the same at every call."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        view = self.objective.held_out_view(self.processing_class, self.args)
        loss = held_out_span_loss(self.model, dataset, view, self.args.per_device_eval_batch_size)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


TRAINERS: dict[str, type[SSLTrainer]] = {
    "supervised": SupervisedTrainer,
    "masked_span": MaskedSpanTrainer,
    "self_training": SelfTrainingTrainer,
    "contrastive": ContrastiveTrainer,
}
