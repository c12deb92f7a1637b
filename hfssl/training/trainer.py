"""`SSLTrainer`: the one room that knows about loaders, loss scaling, logging, checkpoints and interrupts."""

from __future__ import annotations

import os
from collections import defaultdict
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from peft import PeftConfig
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import nested_gather
from transformers.trainer_utils import TrainOutput, rotate_checkpoints
from transformers.utils import logging

from hfssl.data.sampler import LABELED, UNLABELED
from hfssl.data.tokenization import tokenize_dataset
from hfssl.data.two_stream import TwoStreamCollator, two_stream_loader
from hfssl.data.views.base import PlainView
from hfssl.errors import Interrupted, TrainingError
from hfssl.models.adapters import add_adapter
from hfssl.models.checkpoints import COMPLETE_MARKER, last_complete_checkpoint
from hfssl.runtime.cpu_kernels import cheap_operations
from hfssl.runtime.distributed import any_rank, broadcast
from hfssl.runtime.files import atomic_file
from hfssl.runtime.interrupts import InterruptNote
from hfssl.runtime.progress import NamedProgress
from hfssl.runtime.seeding import derive_seed, torch_generator
from hfssl.training.config import SSLConfig
from hfssl.training.hub_trainer import PublishingTrainer
from hfssl.training.learning_rates import parameter_rates, split_groups
from hfssl.training.objective import Objective
from hfssl.training.tracking import follow, run_name
from hfssl.training.weight_averaging import StartingPoint, WeightAverage

__all__ = ["COMPLETE_MARKER", "SSLTrainer", "last_complete_checkpoint"]

logger = logging.get_logger(__name__)

OBJECTIVE_STATE, WEIGHT_AVERAGE = "objective.pt", "weight_average.pt"


class SSLTrainer(PublishingTrainer):
    """Trains any `Objective` on a labeled and an unlabeled dataset, on a full model or a LoRA adapter.

    Args:
        model (`PreTrainedModel`): The model to train.
        args (`SSLConfig`): Training arguments.
        objective (`Objective`): The method.
        train_dataset (`Dataset`, *optional*): Labeled rows: `text` and `label`, or already tokenized with `labels`.
        unlabeled_dataset (`Dataset`, *optional*): Unlabeled rows: `text`, or already tokenized.
        eval_dataset (`Dataset`, *optional*): Labeled rows to evaluate on, in either form.
        processing_class (`PreTrainedTokenizerBase`): The tokenizer.
        peft_config (`PeftConfig`, *optional*): Trains a fresh adapter on the frozen model.
        title (`str`): What the progress bar says is being done.

    Same seed, machine and library versions give the same bits, also after kill -9 and
    `train(resume_from_checkpoint=True)`. The first Ctrl-C finishes the step, saves, and raises `Interrupted`.
    What one rank meets, Ctrl-C or a loss that is not finite, stops all ranks at the same step.

    Raises:
        TrainingError: when a loss is not finite. The newest checkpoint on disk is from before that step.
    """

    # Our losses are means over one micro-batch. The stock guess is wrong for heads that take **kwargs and multiplies
    # the loss by the accumulation factor (transformers#47688); this also fixes the supervised baseline.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel,
        args: SSLConfig,
        *,
        objective: Objective,
        processing_class: PreTrainedTokenizerBase,
        train_dataset: Dataset | None = None,
        unlabeled_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        peft_config: PeftConfig | None = None,
        title: str = "training",
        **kwargs: Any,
    ):
        if args.report_to and args.run_name is None:
            args = replace(args, run_name=run_name(title))
        if peft_config is not None:
            model = add_adapter(model, deepcopy(peft_config), seed=derive_seed(args.seed, "adapter"))
        elif args.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        train_dataset, unlabeled_dataset, eval_dataset = (
            None if part is None else self.prepare_dataset(part, processing_class, args)
            for part in (train_dataset, unlabeled_dataset, eval_dataset)
        )
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self.objective, self.unlabeled_dataset, self.title = objective, unlabeled_dataset, title
        objective.setup(self.model, args)
        self.add_callback(_AfterStep(self))
        for stock in (ProgressCallback, PrinterCallback):  # bars without a name, and dicts printed line by line
            self.remove_callback(stock)
        if not args.disable_tqdm:
            self.add_callback(NamedProgress(title))
        follow(self, args.tensorboard_dir or os.path.join(args.output_dir, "runs"))
        decay = args.weight_average_decay
        self._average = WeightAverage(self.model, decay) if decay > 0 else None
        self._start = StartingPoint(self.model) if args.wise_ft_alpha < 1 else None
        self._components: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=args.device))
        self._component_count = 0
        self.notes: dict[str, float] = {}  # numbers that go with the first log: what a round was made of
        self._first_bad_step = torch.tensor(-1, device=args.device)
        self._note = InterruptNote()  # this rank got a Ctrl-C
        self.interrupted = False  # all ranks know, and stop after this step

    def prepare_dataset(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> Dataset:
        """Tokenizes a dataset of texts; subclasses whose views need more columns override this."""
        return tokenize_dataset(dataset, tokenizer, args.max_length)

    # --- batches -----------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """One loader over both streams: a second, endless loader for the pool would make resuming inexact."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        loader = two_stream_loader(
            self.train_dataset,
            self.unlabeled_dataset,
            TwoStreamCollator(
                PlainView(self.processing_class), self.objective.build_views(self.processing_class, args)
            ),
            rows_per_batch=self._train_batch_size,
            unlabeled_ratio=args.unlabeled_ratio,
            batches_per_step=args.gradient_accumulation_steps * args.world_size,
            compares_rows=self.objective.compares_rows,
            length_bucketing=args.length_bucketing,
            seed=seed,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            generator=torch_generator(seed, "loader"),  # else starting an epoch draws from the global generator
        )
        sampler = loader.batch_sampler
        loader = self.accelerator.prepare(loader)
        # On a mid-epoch resume the sampler sits behind SkipBatchSampler(BatchSamplerShard(...)); this is the attribute
        # through which accelerate's set_epoch reaches it there.
        loader.batch_sampler.sampler = sampler
        return loader

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # Evaluation batches keep what `forward` takes; our own training loader never drops a column.
        for name in self.processing_class.model_input_names:
            if name not in self._signature_columns:
                self._signature_columns.append(name)

    # --- loss --------------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The objective's loss for two-stream batches; the model's own loss for flat evaluation batches."""
        if not _is_two_stream(inputs):
            return super().compute_loss(model, inputs, return_outputs)
        labeled, unlabeled = inputs.get(LABELED), inputs.get(UNLABELED)
        parts = self.objective.loss(model, labeled, unlabeled, self.state.global_step)
        share = 1.0
        if num_items_in_batch is not None:
            # The trainer divides by the accumulation steps and DDP by the ranks; undo both, then divide by all items.
            batches = self.current_gradient_accumulation_steps * self.args.world_size
            share = self.objective.num_items(labeled, unlabeled) * batches / num_items_in_batch.clamp(min=1)
        for name, value in parts.items():
            self._components[name] = self._components[name] + value.detach() * share
        self._component_count += 1
        return sum(value for name, value in parts.items() if name.startswith("loss/")) * share

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if not batch_samples or not _is_two_stream(batch_samples[0]):
            return None
        counts = [self.objective.num_items(batch.get(LABELED), batch.get(UNLABELED)) for batch in batch_samples]
        if any(count is None for count in counts):
            return None
        total = torch.stack(counts).sum().to(device)
        return self.accelerator.gather(total).sum() if self.args.world_size > 1 else total

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations of a forward and backward pass over all streams and views of a batch."""
        if not _is_two_stream(inputs):
            return super().floating_point_ops(inputs)
        batches = [inputs[LABELED]] if LABELED in inputs else []
        batches += inputs.get(UNLABELED, {}).values()
        return sum(super(SSLTrainer, self).floating_point_ops(batch) for batch in batches)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """One forward and backward pass; remembers, on the device, the first step whose loss was not finite."""
        with cheap_operations(model):
            loss = super().training_step(model, inputs, num_items_in_batch)
        bad = (self._first_bad_step < 0) & ~torch.isfinite(loss)
        self._first_bad_step = torch.where(bad, self.state.global_step + 1, self._first_bad_step)
        if loss.device.type == "cpu":  # looking costs nothing here; elsewhere it waits until the next log or save
            self._raise_if_not_finite()
        return loss

    def _raise_if_not_finite(self) -> None:
        steps = self.accelerator.gather(self._first_bad_step.view(1))  # [ranks]
        bad = steps[steps >= 0]
        if not len(bad):
            return
        step = int(bad.min())
        kept = last_complete_checkpoint(self.args.output_dir)
        where = f"the last good state is in {kept}" if kept else "no checkpoint had been written yet"
        raise TrainingError(
            f"Expected a finite loss, got NaN or infinity at step {step} of {self.state.max_steps}; {where}. "
            "Lower `learning_rate`, set `max_grad_norm`, or train in float32."
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimizer, with the head at `head_learning_rate` and layers by `layerwise_lr_decay`."""
        optimizer = super().create_optimizer(model)
        if len(optimizer.param_groups) > 2:  # made before
            return optimizer
        args = self.args
        rates = parameter_rates(
            self.model if model is None else model,
            args.learning_rate,
            args.head_learning_rate,
            args.layerwise_lr_decay,
        )
        split_groups(optimizer, rates, args.learning_rate)
        return optimizer

    # --- logging and evaluation --------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of each component since the last log; the only place where the devices are waited for."""
        if "loss" in logs and self._component_count:
            self._raise_if_not_finite()
            for name, total in self._components.items():
                gathered = nested_gather(total, self.args.parallel_mode).mean()
                logs[name] = (gathered / self._component_count).item()
            logs |= self.notes
            self.notes = {}
            self._components.clear()
            self._component_count = 0
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The stock loop, with the global generators as they were before: evaluating must not change training."""
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return super().evaluation_loop(*args, **kwargs)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Trains; `resume_from_checkpoint=True` goes on from the newest complete checkpoint, or starts without one."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = broadcast(last_complete_checkpoint(self.args.output_dir))
            if resume_from_checkpoint is None:
                logger.info("No complete checkpoint in %s: training starts from step 0.", self.args.output_dir)
        if resume_from_checkpoint and self._is_finished(resume_from_checkpoint):
            self._load_from_checkpoint(resume_from_checkpoint)
            self._load_average(resume_from_checkpoint)
            if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
                self._load_best_model()
            self._end_training()
            return TrainOutput(self.state.global_step, float("nan"), {})
        with self._note.taking():
            output = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
            self.interrupted = any_rank(self._note.taken)  # also when it came after the last look
        # accelerate leaves bf16 in a `forward` of the model's own, and a mark that it need not put it there again. The
        # model shall be as it will be when loaded: answer in fp32, and a copy that is trained on compute in bf16.
        model = self.accelerator.unwrap_model(self.model)
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            model.__dict__.pop(name, None)
        if self.interrupted:
            raise Interrupted(
                f"Stopped after step {self.state.global_step} of {self.state.max_steps}; state saved in "
                f"{last_complete_checkpoint(self.args.output_dir)}."
            )
        self._end_training()
        return output

    def update_average(self, model: nn.Module, step: int) -> None:
        """Takes the weights after an optimizer step into their moving average, if there is one."""
        if self._average is not None:
            self._average.update(self.accelerator.unwrap_model(model), step)

    def _end_training(self) -> None:
        """Puts in place what training shall end with, where that is not the last step's weights."""
        model = self.accelerator.unwrap_model(self.model)
        if self._average is not None:
            self._average.copy_to(model)
        if self._start is not None:
            self._start.interpolate(model, self.args.wise_ft_alpha)

    def _load_average(self, checkpoint: str) -> None:
        if self._average is not None:
            path = os.path.join(checkpoint, WEIGHT_AVERAGE)
            self._average.load_state_dict(torch.load(path, map_location=self.args.device, weights_only=True))

    def _is_finished(self, checkpoint: str) -> bool:
        """Whether this run had ended there; the stock loop would go on after an early stop, or take one step more."""
        state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
        stopped = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]
        finished = stopped or 0 < self.args.max_steps <= state.global_step
        if finished:
            self.state = state
        return finished

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The stock checkpoint, marked complete once every rank has written its part; only then are old ones removed.

        A kill in the middle leaves a folder without the marker, which `last_complete_checkpoint` passes over.
        """
        self._raise_if_not_finite()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        stopping = self.control.should_training_stop
        if self.interrupted:  # to be resumed, unlike a run that an early stop has ended
            self.control.should_training_stop = False
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit, self.control.should_training_stop = limit, stopping
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            run_dir = self._get_output_dir(trial=trial)
            folder = Path(run_dir) / f"checkpoint-{self.state.global_step}"
            with atomic_file(folder / COMPLETE_MARKER) as temporary:
                temporary.write_text(f"{self.state.global_step}\n", encoding="utf-8")
            self.push_checkpoint(folder)
            best = self.state.best_model_checkpoint
            rotate_checkpoints(output_dir=run_dir, save_total_limit=limit, best_model_checkpoint=best, use_mtime=False)
        # A rank that stops here (interrupted) must not be gone, and the launcher end the others, before the marker is.
        self.accelerator.wait_for_everyone()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        os.makedirs(output_dir, exist_ok=True)  # ranks race here
        if self.args.should_save:
            torch.save(self.objective.state_dict(), os.path.join(output_dir, OBJECTIVE_STATE))
            if self._average is not None:
                torch.save(self._average.state_dict(), os.path.join(output_dir, WEIGHT_AVERAGE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            state = torch.load(os.path.join(checkpoint, OBJECTIVE_STATE), map_location="cpu", weights_only=True)
            self.objective.load_state_dict(state)
            self._load_average(checkpoint)

    # --- interrupts --------------------------------------------------------------------------------------------------

    def look_for_interrupt(self, control: TrainerControl) -> bool:
        """Whether any rank was asked to stop; the ranks of several accelerators look only when they log or save."""
        free = self.args.world_size == 1 or self.args.device.type == "cpu"
        if free or control.should_log or control.should_save or control.should_training_stop:
            self.interrupted = any_rank(self._note.taken)
        return self.interrupted


class _AfterStep(TrainerCallback):
    """Passes the end of each optimizer step on to the objective, and an interrupt on to the loop."""

    def __init__(self, trainer: SSLTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.trainer.objective.after_step(model, state.global_step)
        self.trainer.update_average(model, state.global_step)
        if self.trainer.look_for_interrupt(control):
            control.should_save = control.should_training_stop = True


def _is_two_stream(inputs: dict[str, Any]) -> bool:
    return LABELED in inputs or UNLABELED in inputs


class MethodTrainer(SSLTrainer):
    objective_class: ClassVar[type[Objective]]
    config_class: ClassVar[type[SSLConfig]]

    def __init__(self, *args: Any, objective: Objective | None = None, **kwargs: Any):
        super().__init__(*args, objective=self.objective_class() if objective is None else objective, **kwargs)
