"""The trainer of the consistency methods: checks the pool before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from hfssl.data.tokenization import tokenize_dataset
from hfssl.data.views.compose import infill_column, infill_models, parse_view, view_columns
from hfssl.errors import ConfigurationError, DataError
from hfssl.inference.infill import infilled_texts
from hfssl.methods.consistency.base import ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.supervised import SupervisedTrainer
from hfssl.runtime.distributed import rank_and_world
from hfssl.training.config import SSLConfig

__all__ = ["ConsistencyTrainer"]

logger = logging.get_logger(__name__)

INFILL_RATE = 0.15
"""Share of the tokens that a masked language model replaces (`infill=MODEL`)."""


class ConsistencyTrainer(SupervisedTrainer):
    """Trains a consistency method on labeled and unlabeled rows; checks the pool before the first step."""

    objective_class: ClassVar[type[ConsistencyObjective]]
    config_class: ClassVar[type[ConsistencyConfig]] = ConsistencyConfig
    args: Any
    objective: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._check_pool()
        self.objective.see_data(self.train_dataset, self.unlabeled_dataset)

    def prepare_dataset(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> Dataset:
        """Encodes rows; a dataset of texts without labels is tokenized alone, whatever the task."""
        if "label" in dataset.column_names or "labels" in dataset.column_names:
            return super().prepare_dataset(dataset, tokenizer, args)
        return tokenize_dataset(dataset, tokenizer, args.max_length)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Fills the pool's texts first where a view names a masked language model; see `hfssl.inference.infill`."""
        args, pool = self.args, self.unlabeled_dataset
        models = infill_models(args.weak_view, args.strong_view) if pool is not None and args.lambda_u > 0 else []
        for model in models:
            if infill_column(model) not in pool.column_names:
                options = {"rate": INFILL_RATE, "seed": args.seed, "max_length": args.max_length}
                texts = infilled_texts(pool["text"][:], model, Path(args.output_dir) / "infill", **options)
                pool = self.unlabeled_dataset = pool.add_column(infill_column(model), texts)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def before_training(self) -> None:
        """Initialises the head, and finds the neighbours of the graph term with the encoder as it is now."""
        super().before_training()
        if self.objective.graph is not None and self.unlabeled_dataset is not None:
            self.model.to(self.args.device)  # pyright: ignore[reportArgumentType]
            self.objective.graph.find(self.model, self.unlabeled_dataset, self.processing_class)

    def after_preparation(self) -> None:
        """Notes the number of steps of the run, in addition to the base class's work."""
        super().after_preparation()
        self.objective.total_steps = self.state.max_steps

    def _check_pool(self) -> None:
        args, pool = self.args, self.unlabeled_dataset
        if args.lambda_u == 0:
            return
        if pool is None or len(pool) == 0:
            raise DataError(
                f"Expected unlabeled rows for {type(self).__name__}, found none: give unlabeled_dataset, or set "
                "lambda_u=0 to train on the labels only."
            )
        if self.train_dataset is None:
            raise DataError(f"Expected labeled rows for {type(self).__name__}, found none: give train_dataset.")
        wanted = view_columns(args.weak_view, args.strong_view)
        if missing := [name for name in wanted if name not in pool.column_names]:
            raise ConfigurationError(
                f"Expected the column '{missing[0]}' of a view in the unlabeled rows, found "
                f"{', '.join(pool.column_names)}: correct the view, or give the column in the table."
            )
        for name in wanted:
            empty = [i for i, text in enumerate(pool[name][:]) if not isinstance(text, str) or not text.strip()]
            if empty:
                raise DataError(
                    f"Expected a text in the column '{name}' of every unlabeled row, found none in {len(empty)} of "
                    f"{len(pool)} rows (the first is row {empty[0]}): fill the column, or leave these rows out."
                )
        self._need_texts(pool)
        rows = args.per_device_train_batch_size * args.unlabeled_ratio * rank_and_world()[1]
        if len(pool) < rows:
            logger.warning(
                "The pool has %d rows, fewer than the %d of one step: rows repeat within a step. "
                "Lower unlabeled_ratio or per_device_train_batch_size.",
                len(pool),
                rows,
            )
        if "text" in pool.column_names and "text" in self.train_dataset.column_names:
            if set(pool["text"][:]) <= set(self.train_dataset["text"][:]):
                logger.warning(
                    "Every unlabeled text is among the labeled ones: the pool teaches nothing that the labels do not."
                )

    def _need_texts(self, pool: Dataset) -> None:
        """Raises `DataError` if a view changes texts and the pool holds tokens only."""
        for option in ("weak_view", "strong_view"):
            steps = [
                step.name
                for step in parse_view(getattr(self.args, option))
                if step.level == "text" or step.name == "infill"
            ]
            if steps and "text" not in pool.column_names:
                raise DataError(
                    f"Expected the column 'text' in the unlabeled rows for the step '{steps[0]}' of {option}, found "
                    f"{', '.join(pool.column_names)}: keep the texts with the tokens, or use token_cutoff."
                )
