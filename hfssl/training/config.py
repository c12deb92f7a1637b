"""Training arguments: `transformers.TrainingArguments` plus what semi-supervised training needs; a class a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Literal

from transformers import TrainingArguments

from hfssl.config.arguments import missing_trackers
from hfssl.config.tasks import DEFAULT_TASK, TASKS, unknown_task
from hfssl.errors import ConfigurationError
from hfssl.runtime.precision import keep_few_kernels

__all__ = ["SSLConfig", "changed_settings"]


# The stock arguments that shape a model; the others say how a run is watched, saved and spread over devices.
SHAPING = (
    "num_train_epochs max_steps learning_rate lr_scheduler_type warmup_steps optim weight_decay adam_beta1 adam_beta2 "
    "adam_epsilon gradient_accumulation_steps max_grad_norm label_smoothing_factor bf16 fp16 neftune_noise_alpha "
    "per_device_train_batch_size load_best_model_at_end"
).split()


@dataclass
class SSLConfig(TrainingArguments):
    """Arguments of `SSLTrainer`.

    Defaults that differ from `TrainingArguments`, because a run here is a few hundred steps on a few labels:
    `max_steps=300`, `per_device_train_batch_size=16`, `warmup_steps=0.1` (a tenth of the steps), `weight_decay=0.01`,
    `logging_steps=10`, `save_steps=100`, `save_total_limit=2`, `logging_nan_inf_filter=False` (the stock default
    hides a loss that is not finite; ours stops the run), and `trackio_static_space_id=False` (with the stock default a
    push that is tracked by trackio makes a public Space).

    Example:
        >>> import hfssl
        >>> config = hfssl.SSLConfig(output_dir=str(folder), max_steps=20, unlabeled_ratio=4)
        >>> config.max_steps
        20
    """

    max_steps: int = field(
        default=300, metadata={"help": "Optimizer steps. -1 trains for `num_train_epochs` instead."}
    )
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Labeled rows in a batch of one device."})
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Rows in an evaluation batch of one device."}
    )
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Learning-rate warm-up: steps, or a fraction of all steps when below 1."}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW weight decay (not on biases and norms)."})
    logging_steps: float = field(
        default=10, metadata={"help": "Log (and look for losses that are not finite) so often."}
    )
    save_steps: float = field(default=100, metadata={"help": "Write a checkpoint to resume from every so many steps."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Leave off: it would hide losses that are not finite."}
    )
    trackio_static_space_id: str | None | Literal[False] = field(
        default=False,
        metadata={"help": "Space that gets trackio's numbers with a pushed model. Default: none."},
    )
    tensorboard_dir: str | None = field(
        default=None, metadata={"help": "Folder for TensorBoard's files. Default: `runs` in the output folder."}
    )
    unlabeled_ratio: int = field(
        default=4, metadata={"help": "Unlabeled rows per labeled row in a batch (mu in the papers); at least 1."}
    )
    max_length: int = field(default=128, metadata={"help": "Tokens kept of each text."})
    task: str = field(
        default=DEFAULT_TASK,
        metadata={"help": "Kind of prediction, such as 'sequence_classification': one label per text."},
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the fresh classification head; default: `learning_rate`."}
    )
    freeze_embeddings: bool = field(
        default=False,
        metadata={
            "help": "Leave the word embeddings as they are: half of a small model's weights, and of its updates."
        },
    )
    layerwise_lr_decay: float = field(
        default=1.0,
        metadata={"help": "Factor on the learning rate for each layer further from the head (ULMFiT); 1 is one rate."},
    )
    weight_average_decay: float = field(
        default=0.0,
        metadata={"help": "End with the moving average of the weights, decayed by this a step; 0 ends with the last."},
    )
    wise_ft_alpha: float = field(
        default=1.0,
        metadata={
            "help": "Share of the trained weights of the body in those it ends with; the rest are those that it "
            "started from (WiSE-FT). 1 ends with the trained ones."
        },
    )
    length_bucketing: bool = field(
        default=True, metadata={"help": "Let unlabeled rows of similar length meet in one batch (less padding)."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # nothing to copy to; torch would warn at each loader
            if self.bf16:
                keep_few_kernels()
        problems = self.problems()
        if problems:
            raise ConfigurationError(problems)

    def problems(self) -> list[str]:
        """Everything that is wrong with the values, one sentence each; subclasses add their own."""
        found = missing_trackers(self.report_to or [])
        if self.unlabeled_ratio < 1:
            found.append(
                f"unlabeled_ratio must be at least 1, got {self.unlabeled_ratio}; set lambda_u=0 to use no pool."
            )
        if self.task not in TASKS:
            found.append(unknown_task(self.task))
        if self.max_length < 4:
            found.append(f"max_length must be at least 4 tokens, got {self.max_length}.")
        if self.head_learning_rate is not None and self.head_learning_rate <= 0:
            found.append(
                f"head_learning_rate must be positive, got {self.head_learning_rate}; leave it out to use one rate."
            )
        if not 0 < self.layerwise_lr_decay <= 1:
            found.append(f"layerwise_lr_decay must be above 0 and at most 1, got {self.layerwise_lr_decay}.")
        if not 0 <= self.weight_average_decay < 1:
            found.append(f"weight_average_decay must be at least 0 and below 1, got {self.weight_average_decay}.")
        if self.weight_average_decay > 0 and self.load_best_model_at_end:
            found.append(
                "weight_average_decay and load_best_model_at_end exclude each other: both say what to end with."
            )
        if not 0 < self.wise_ft_alpha <= 1:
            found.append(f"wise_ft_alpha must be above 0 and at most 1, got {self.wise_ft_alpha}.")
        return found

    def check_classes(self, label_names: Sequence[str]) -> None:
        """Raises `ConfigurationError` where a setting does not fit the classes of the data; subclasses look."""


def changed_settings(config: SSLConfig) -> dict[str, Any]:
    """The settings that shape a model and differ from the defaults of their class, for the card and the report.

    Numbers are rounded to six digits: ten times 0.00015 is not 0.0014999999999999998 to a reader.
    """
    stock = {entry.name for entry in fields(TrainingArguments)}
    changed = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        value = value.value if isinstance(value, Enum) else value
        default = entry.default.value if isinstance(entry.default, Enum) else entry.default
        shaping = entry.name in SHAPING or entry.name not in (*stock, "tensorboard_dir")
        if shaping and value != default:
            changed[entry.name] = float(f"{value:.6g}") if isinstance(value, float) else value
    return changed
