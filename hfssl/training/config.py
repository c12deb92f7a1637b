"""Training arguments: `transformers.TrainingArguments` plus those of semi-supervised training; a class per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Literal, get_type_hints

from transformers import TrainingArguments

from hfssl.config.arguments import missing_trackers
from hfssl.config.tasks import DEFAULT_TASK, TASKS, unknown_task
from hfssl.config.values import plain_value, type_problem
from hfssl.errors import ConfigurationError
from hfssl.runtime.precision import keep_few_kernels

__all__ = ["SSLConfig", "changed_settings"]


# The stock arguments that shape a model; the others concern logging, saving and distribution over devices.
SHAPING = (
    "num_train_epochs max_steps learning_rate lr_scheduler_type warmup_steps optim weight_decay adam_beta1 adam_beta2 "
    "adam_epsilon gradient_accumulation_steps max_grad_norm label_smoothing_factor bf16 fp16 neftune_noise_alpha "
    "per_device_train_batch_size load_best_model_at_end"
).split()


@dataclass
class SSLConfig(TrainingArguments):
    """Holds the arguments of `SSLTrainer`.

    Defaults that differ from `TrainingArguments`, because a run is a few hundred steps on a few labels:
    `max_steps=300`, `per_device_train_batch_size=16`, `warmup_steps=0.1` (a tenth of the steps), `weight_decay=0.01`,
    `logging_steps=10`, `save_steps=100`, `save_total_limit=2`, `logging_nan_inf_filter=False` (the stock default
    hides a loss that is not finite; ours stops the run), and `trackio_static_space_id=False` (with the stock default,
    pushing a run that trackio tracks makes a public Space).

    Example:
        >>> import hfssl
        >>> config = hfssl.SSLConfig(output_dir=str(folder), max_steps=20, unlabeled_ratio=4)
        >>> config.max_steps
        20
    """

    max_steps: int = field(
        default=300, metadata={"help": "Number of optimizer steps. -1 trains for `num_train_epochs` instead."}
    )
    per_device_train_batch_size: int = field(
        default=16, metadata={"help": "Number of labeled rows in a training batch of one device."}
    )
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Number of rows in an evaluation batch of one device."}
    )
    warmup_steps: float = field(
        default=0.1,
        metadata={"help": "Length of the learning-rate warm-up, in steps or, below 1, as a fraction of all steps."},
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW. Biases and norms have none."})
    logging_steps: float = field(
        default=10, metadata={"help": "Number of steps between two logs and checks for losses that are not finite."}
    )
    save_steps: float = field(default=100, metadata={"help": "Number of steps between two checkpoints."})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Number of checkpoints on disk. Older ones are deleted."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hides losses that are not finite from the log. Leave this off."}
    )
    trackio_static_space_id: str | None | Literal[False] = field(
        default=False,
        metadata={"help": "Space that gets trackio's numbers with a pushed model. By default there is none."},
    )
    tensorboard_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of TensorBoard's files. The default is `runs` in the output folder."},
    )
    unlabeled_ratio: int = field(
        default=4,
        metadata={"help": "Number of unlabeled rows per labeled row in a batch (mu in the papers), at least 1."},
    )
    max_length: int = field(default=128, metadata={"help": "Largest number of tokens of a text; the rest is cut."})
    task: str = field(
        default=DEFAULT_TASK,
        metadata={"help": "Kind of prediction, such as 'sequence_classification': one label per text."},
    )
    head_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the fresh classification head. The default is `learning_rate`."},
    )
    freeze_embeddings: bool = field(
        default=False,
        metadata={"help": "Freezes the word embeddings, which are half of a small model's weights and updates."},
    )
    layerwise_lr_decay: float = field(
        default=1.0,
        metadata={
            "help": "Factor on the learning rate for each layer further from the head (ULMFiT). 1 uses one rate."
        },
    )
    weight_average_decay: float = field(
        default=0.0,
        metadata={
            "help": "Decay per step of the moving average of the weights, which is the final model. 0 ends with the "
            "weights of the last step."
        },
    )
    wise_ft_alpha: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the trained body in the interpolation with the body before training (WiSE-FT). 1 ends "
            "with the trained body."
        },
    )
    length_bucketing: bool = field(
        default=True, metadata={"help": "Groups unlabeled rows of similar length into batches (less padding)."}
    )

    def __post_init__(self):
        for entry in fields(self):
            if entry.init:
                setattr(self, entry.name, plain_value(getattr(self, entry.name)))
        if wrong := self._type_problems():
            raise ConfigurationError(wrong)
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # without an accelerator torch would warn at each loader
            if self.bf16:
                keep_few_kernels()
        problems = self.problems()
        if problems:
            raise ConfigurationError(problems)

    def _type_problems(self) -> list[str]:
        """Returns one sentence for each option of ours with a value of a wrong type; transformers checks its own."""
        classes = [cls for cls in type(self).__mro__ if issubclass(cls, SSLConfig)]
        own = {name for cls in classes for name in vars(cls).get("__annotations__", {})}
        hints = get_type_hints(type(self))
        values = {name: getattr(self, name) for name in sorted(own) if not isinstance(getattr(self, name), dict)}
        found = [type_problem(name, value, hints[name]) for name, value in values.items()]
        return [sentence for sentence in found if sentence is not None]

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value; subclasses add their own."""
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
                "weight_average_decay and load_best_model_at_end exclude each other: both set the final weights."
            )
        if not 0 < self.wise_ft_alpha <= 1:
            found.append(f"wise_ft_alpha must be above 0 and at most 1, got {self.wise_ft_alpha}.")
        return found

    def check_classes(self, label_names: Sequence[str]) -> None:
        """Raises `ConfigurationError` if a setting does not fit the classes of the data; subclasses override this."""


def changed_settings(config: SSLConfig) -> dict[str, Any]:
    """Returns the settings that shape a model and differ from their defaults, for the card and the report.

    Numbers are rounded to six digits, so that 10 * 0.00015 reads as 0.0015.

    Args:
        config (`SSLConfig`): Training arguments of a method.
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
