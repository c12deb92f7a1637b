"""`SSLTrainer`: the only class that handles loaders, loss scaling, logging, checkpoints and interrupts."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from hfssl.data.sampler import LABELED, UNLABELED
from hfssl.data.two_stream import TwoStreamCollator, two_stream_loader
from hfssl.data.views.base import PlainView
from hfssl.errors import Interrupted, TrainingError
from hfssl.models.adapters import add_adapter
from hfssl.models.backbones import load_tokenizer
from hfssl.models.checkpoints import COMPLETE_MARKER, check_checkpoint, last_complete_checkpoint
from hfssl.models.extra_modules import ExtraModules
from hfssl.models.introspection import own_random_state, transformers_model
from hfssl.models.tokenizer_checks import fit_tokenizer
from hfssl.runtime.cpu_kernels import cheap_operations
from hfssl.runtime.distributed import any_rank, broadcast
from hfssl.runtime.progress import NamedProgress
from hfssl.runtime.seeding import derive_seed, torch_generator
from hfssl.tasks.registry import get_task
from hfssl.training.config import SSLConfig
from hfssl.training.extras import run_extras
from hfssl.training.forward import passes_in_bf16
from hfssl.training.input_trainer import InputTrainer
from hfssl.training.inputs import label_names_of_model, load_trainable
from hfssl.training.learning_rates import parameter_rates, split_groups
from hfssl.training.loss_log import LossLog, loss_terms
from hfssl.training.objective import Objective
from hfssl.training.prepared_model import PreparedModel
from hfssl.training.tracking import follow, run_name
from hfssl.training.weight_averaging import FinalWeights

__all__ = ["COMPLETE_MARKER", "MethodTrainer", "SSLTrainer", "last_complete_checkpoint"]

logger = logging.get_logger(__name__)


class SSLTrainer(InputTrainer):
    """Trains any `Objective` on a labeled and an unlabeled dataset, on a full model or a LoRA adapter.

    Args:
        model (`PreTrainedModel | str | os.PathLike`): The model to train, or folder or Hub id of a backbone, on which
            a new model with the classes of `train_dataset` is made.
        args (`SSLConfig`, *optional*): Training arguments. Default: those of the trainer's configuration class, with
            an output folder named after the backbone and the method.
        objective (`Objective`): The method.
        train_dataset (`Dataset`, *optional*): Labeled rows: `text` and `label`, or already tokenized with `labels`.
            Labels are class numbers or names.
        unlabeled_dataset (`Dataset`, *optional*): Unlabeled rows: `text`, or already tokenized.
        eval_dataset (`Dataset | dict[str, Dataset]`, *optional*): Labeled rows to evaluate on, in either form; of a
            dict, each data set has metrics of its own.
        processing_class (`PreTrainedTokenizerBase`, *optional*): The tokenizer. Default: that of the model's backbone.
        peft_config (`LoraConfig`, *optional*): Settings of a fresh adapter; the model itself is then frozen.
        title (`str`, defaults to `"training"`): Text of the progress bar.

    Attributes:
        objective (`Objective`): The method.
        loss_log (`LossLog`): Components of the loss since the last log.
        extra_modules (`ExtraModules`): Modules that only training needs; see `Objective.extra_modules`.
        states (`dict[str, Stateful]`): State of the method in checkpoints, by name; see `register_state`.

    The constructor does not change the model's weights. `train` calls `before_training`, unless it resumes, and calls
    `after_training` after the last step; subclasses override the two methods.

    The same seed, machine and library versions give the same bits, also after kill -9 and
    `train(resume_from_checkpoint=True)`. The first Ctrl-C finishes the step, saves, and raises `Interrupted`. A Ctrl-C
    or a loss that is not finite on one rank stops all ranks at the same step.

    Raises:
        TrainingError: A loss is not finite. The newest checkpoint on disk is from before that step.

    Example:
        >>> import hfssl
        >>> from hfssl.methods.supervised import SupervisedObjective
        >>> trainer = hfssl.SSLTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.SupervisedConfig(output_dir=str(folder), max_steps=2, disable_tqdm=True, use_cpu=True),
        ...     objective=SupervisedObjective(),
        ...     train_dataset=dataset,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    # Fact 1 of PLATFORM_FACTS. Our losses are means over one micro-batch; the stock guess is wrong for heads that take
    # **kwargs and multiplies the loss by the accumulation factor, for the supervised method, too.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel | PeftModel | str | os.PathLike[str],
        args: SSLConfig | None = None,
        *,
        objective: Objective,
        processing_class: PreTrainedTokenizerBase | None = None,
        train_dataset: Dataset | None = None,
        unlabeled_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        peft_config: LoraConfig | None = None,
        title: str = "training",
        **kwargs: Any,
    ):
        args = self._default_args(model) if args is None else args
        task, masked = get_task(args.task), objective.product == "masked_lm"
        model = load_trainable(model, train_dataset, task, seed=args.seed, masked_lm=masked)
        backbone = transformers_model(model)
        if processing_class is None:
            processing_class = load_tokenizer(backbone.name_or_path, max_length=args.max_length)  # pyright: ignore[reportArgumentType]
        else:
            fit_tokenizer(processing_class, backbone.config, backbone.name_or_path)  # pyright: ignore[reportArgumentType]
        self.objective, names = objective, [] if masked else label_names_of_model(model)
        if args.report_to and args.run_name is None:
            args = replace(args, run_name=run_name(title))
        if peft_config is not None:
            model = add_adapter(model, deepcopy(peft_config), seed=derive_seed(args.seed, "adapter"))  # pyright: ignore[reportAssignmentType]
        elif args.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        prepared = partial(self._prepared_rows, names=names, tokenizer=processing_class, args=args)
        train_dataset, eval_dataset = prepared(train_dataset, "train_dataset"), prepared(eval_dataset, "eval_dataset")
        unlabeled_dataset = prepared(unlabeled_dataset, "unlabeled_dataset", names=())
        if unlabeled_dataset is not None:
            unlabeled_dataset = self.prepare_pool(unlabeled_dataset, names, args)
        kwargs["callbacks"] = [*(kwargs.get("callbacks") or ()), *run_extras().callbacks]
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self.unlabeled_dataset, self.title = unlabeled_dataset, title
        objective.setup(self.model, args)
        self.register_state("objective", objective)
        with own_random_state(derive_seed(args.seed, "extra modules")):
            self.extra_modules = ExtraModules(objective.extra_modules(self.model)).to(args.device)
        if len(self.extra_modules):
            self.register_state("extra_modules", self.extra_modules)  # pyright: ignore[reportArgumentType]
        self.add_callback(_Steps(self))
        for stock in (ProgressCallback, PrinterCallback):  # bars without a title, and dicts printed line by line
            self.remove_callback(stock)
        if not args.disable_tqdm:
            self.add_callback(NamedProgress(title))
        follow(self, args.tensorboard_dir or os.path.join(args.output_dir, "runs"))  # pyright: ignore[reportArgumentType, reportCallIssue]
        self.loss_log = LossLog(args.device, self.accelerator.gather)  # pyright: ignore[reportArgumentType]
        self._prepared = PreparedModel(self.model)

    @property
    def notes(self) -> dict[str, float]:
        """Returns numbers that are added to the next log, for example the composition of a round of self-training."""
        return self.loss_log.notes

    # --- Batches ---

    def get_train_dataloader(self) -> DataLoader:
        """Returns one loader over both streams.

        Fact 2: with a second, endless loader for the pool, resuming would be inexact.
        """
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        loader = two_stream_loader(
            self.train_dataset,
            self.unlabeled_dataset,
            TwoStreamCollator(
                PlainView(self.processing_class), self.objective.build_views(self.processing_class, args)
            ),
            rows_per_batch=self._train_batch_size,  # fact 7
            unlabeled_ratio=args.unlabeled_ratio,
            batches_per_step=args.gradient_accumulation_steps * args.world_size,
            strata=self._strata() if self.objective.compares_rows else None,
            length_bucketing=args.length_bucketing,
            seed=seed,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            generator=torch_generator(seed, "loader"),  # without it an epoch draws from the global generator
        )
        sampler = loader.batch_sampler
        loader = self.accelerator.prepare(loader)
        # Fact 3: on a mid-epoch resume the sampler sits behind SkipBatchSampler(BatchSamplerShard(...)); this is the
        # attribute through which accelerate's set_epoch reaches it there.
        loader.batch_sampler.sampler = sampler
        return loader

    def _strata(self) -> list[int] | None:
        """Returns the stratum of each labeled row, by the task; `None` without labeled rows."""
        if self.train_dataset is None:
            return None
        return get_task(self.args.task).strata(self.train_dataset["labels"][:]).tolist()

    def _set_signature_columns_if_needed(self) -> None:  # fact 8
        super()._set_signature_columns_if_needed()
        # Evaluation batches keep the arguments of `forward`; our own training loader never drops a column.
        for name in self.processing_class.model_input_names:
            if name not in self._signature_columns:  # pyright: ignore[reportOperatorIssue]
                self._signature_columns.append(name)  # pyright: ignore[reportOptionalMemberAccess]

    # --- Loss ---

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Returns the objective's loss for two-stream batches, the model's own loss for flat evaluation batches."""
        if not _is_two_stream(inputs):
            return super().compute_loss(model, inputs, return_outputs)
        labeled, unlabeled = inputs.get(LABELED), inputs.get(UNLABELED)
        parts = self.objective.loss(model, labeled, unlabeled, self.state.global_step)
        share = 1.0
        if num_items_in_batch is not None:
            # The trainer divides by the accumulation steps and DDP by the ranks; undo both, then divide by all items.
            batches = self.current_gradient_accumulation_steps * self.args.world_size
            share = self.objective.num_items(labeled, unlabeled) * batches / num_items_in_batch.clamp(min=1)  # pyright: ignore[reportOptionalOperand]
        terms = loss_terms(parts, type(self.objective).__name__)
        self.loss_log.add(parts, share)
        return sum(terms) * share  # pyright: ignore[reportReturnType]

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:  # fact 6
        if not batch_samples or not _is_two_stream(batch_samples[0]):
            return None
        counts = [self.objective.num_items(batch.get(LABELED), batch.get(UNLABELED)) for batch in batch_samples]
        if any(count is None for count in counts):
            return None
        total = torch.stack(counts).sum().to(device)  # pyright: ignore[reportArgumentType]
        return self.accelerator.gather(total).sum() if self.args.world_size > 1 else total  # pyright: ignore[reportAttributeAccessIssue]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Returns the number of operations of a forward and backward pass over all streams and views of a batch."""
        if not _is_two_stream(inputs):
            return super().floating_point_ops(inputs)
        batches = [inputs[LABELED]] if LABELED in inputs else []
        batches += inputs.get(UNLABELED, {}).values()
        return sum(super(SSLTrainer, self).floating_point_ops(batch) for batch in batches)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs one forward and backward pass, and records, on the device, the first step whose loss was not finite."""
        with cheap_operations(model), passes_in_bf16(self.accelerator.native_amp):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self.extra_modules.average_gradients(self.accelerator.reduce)  # pyright: ignore[reportArgumentType]
        self.loss_log.check(loss, self.state.global_step + 1)
        if loss.device.type == "cpu":  # a check costs nothing here; elsewhere it waits for the next log or save
            self._stop_if_not_finite()
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Makes the stock optimizer, with the head at `head_learning_rate` and layers by `layerwise_lr_decay`.

        The extra modules are included (fact 9), at the rate of the head.
        """
        model, args = self.model if model is None else model, self.args
        self._prepared.note_before()
        with self.extra_modules.attached_to(model):
            optimizer = super().create_optimizer(model)
            if len(optimizer.param_groups) <= 2:  # more groups: the optimizer existed before this call
                rates = parameter_rates(model, args.learning_rate, args.head_learning_rate, args.layerwise_lr_decay)
                split_groups(optimizer, rates, args.learning_rate)
        return optimizer

    # --- Logging and evaluation ---

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of each component since the last log; no other method waits for the device."""
        if "loss" in logs and self.loss_log:
            self._stop_if_not_finite()
            logs |= self.loss_log.means()
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the stock loop and restores the global generators afterwards: evaluation must not change training."""
        self._prepared.note_before()
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # fact 5
            return super().evaluation_loop(*args, **kwargs)

    # --- Training ---

    def before_training(self) -> None:
        """Runs before the first step, unless training resumes from a checkpoint, which already contains its effect."""

    def after_training(self) -> None:
        """Runs after the last step, and when a finished run is loaded; not after an interrupt.

        This implementation replaces the weights of the last step by averaged or interpolated ones, where the arguments
        request them.
        """
        self._final_weights.put_into(self.accelerator.unwrap_model(self.model))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Trains the model.

        With `max_steps=0` no step is taken, and only `before_training` and `after_training` run.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): Folder of a checkpoint. `True` resumes from the
                newest complete checkpoint and starts from step 0 where there is none.
            kwargs (`Any`): Further arguments of `transformers.Trainer.train`.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = broadcast(last_complete_checkpoint(self.args.output_dir))  # pyright: ignore[reportArgumentType]
            if resume_from_checkpoint is None:
                logger.info("No complete checkpoint in %s: training starts from step 0.", self.args.output_dir)
        elif resume_from_checkpoint and not os.path.isfile(os.path.join(resume_from_checkpoint, TRAINER_STATE_NAME)):
            raise TrainingError(
                f"Expected a checkpoint in the folder '{resume_from_checkpoint}', found no {TRAINER_STATE_NAME} "
                "there: give the folder of a checkpoint, or true for the newest complete one."
            )
        if resume_from_checkpoint:
            check_checkpoint(resume_from_checkpoint)  # pyright: ignore[reportArgumentType]
        else:
            self.before_training()
        self._final_weights = FinalWeights(self.model, self.args.weight_average_decay, self.args.wise_ft_alpha)
        if self.args.weight_average_decay > 0:
            self.register_state("weight_average", self._final_weights)
        output = None
        if resume_from_checkpoint and self.is_finished(resume_from_checkpoint):
            self.load_finished(resume_from_checkpoint)
        elif self.args.max_steps != 0:
            output = self._take_steps(resume_from_checkpoint, **kwargs)  # pyright: ignore[reportArgumentType]
        self.after_training()
        return output or TrainOutput(self.state.global_step, float("nan"), {})

    def _take_steps(self, checkpoint: str | None, **kwargs: Any) -> TrainOutput:
        """Runs the stock loop, starting from the checkpoint if there is one."""
        with self._note.taking():
            try:
                output = super().train(resume_from_checkpoint=checkpoint or None, **kwargs)
            finally:
                self.extra_modules.detach(self.model)
                self._prepared.restore()
            self.interrupted = any_rank(self._note.taken)  # also when it came after the last check
        if self.interrupted:
            model_only = "model saved, with which training cannot go on (save_only_model),"
            kept = model_only if self.args.save_only_model else "state saved"
            raise Interrupted(
                f"Stopped after step {self.state.global_step} of {self.state.max_steps}; {kept} in "
                f"{last_complete_checkpoint(self.args.output_dir)}."  # pyright: ignore[reportArgumentType]
            )
        return output

    def after_preparation(self) -> None:
        """Runs before the first step, when the optimizer exists and the model is wrapped and, on resuming, loaded."""
        self._prepared.note_after()
        self.extra_modules.attach(self.model)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Runs after each optimizer step.

        Args:
            model (`nn.Module`): The model without wrappers.
            step (`int`): Number of optimizer steps taken.
        """
        self.objective.after_step(model, step)
        self._final_weights.update(self.accelerator.unwrap_model(model), step)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # fact 4
        self._stop_if_not_finite()
        super()._save_checkpoint(model, trial)

    def _stop_if_not_finite(self) -> None:
        self.loss_log.raise_if_not_finite(self.state.max_steps, self.args.output_dir)  # pyright: ignore[reportArgumentType]


class _Steps(TrainerCallback):
    """Passes the events of the stock loop to the trainer."""

    def __init__(self, trainer: SSLTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.after_preparation()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.trainer.after_step(model, state.global_step)  # pyright: ignore[reportArgumentType]


def _is_two_stream(inputs: dict[str, Any]) -> bool:
    return LABELED in inputs or UNLABELED in inputs


class MethodTrainer(SSLTrainer):
    """Trains one method: `SSLTrainer` with the method's objective.

    Class attributes:
        objective_class (`type[Objective]`): Class of the method's objective, made without arguments unless `objective`
            is given.
        config_class (`type[SSLConfig]`): Class of the method's training arguments.

    Example:
        >>> import hfssl
        >>> class Mine(hfssl.MethodTrainer):
        ...     objective_class, config_class = hfssl.SupervisedTrainer.objective_class, hfssl.SupervisedConfig
        >>> trainer = Mine(backbone, Mine.config_class(output_dir=str(folder)), train_dataset=dataset)
        >>> trainer.model.config.id2label
        {0: '0', 1: '1'}
    """

    objective_class: ClassVar[type[Objective]]

    def __init__(self, *args: Any, objective: Objective | None = None, **kwargs: Any):
        super().__init__(*args, objective=self.objective_class() if objective is None else objective, **kwargs)
