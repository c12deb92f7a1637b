"""Embedding signals, computed once for all rounds and once for a refit, and stored on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.errors import TrainingError
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.embeddings import EmbeddedRows, embed_layers
from hfssl.methods.self_training.frozen_encoder.signals import EmbeddingSignals
from hfssl.runtime.distributed import broadcast, is_main
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.seeding import derive_seed
from hfssl.tasks.registry import get_task

__all__ = ["EMBEDDINGS_FILE", "SignalCache"]

logger = logging.get_logger(__name__)

SIGNALS_FILE, EMBEDDINGS_FILE = "signals.npz", "embeddings.npz"


class SignalCache:
    """Reads the embedding signals of a pool from disk, or computes them with the untrained backbone.

    Args:
        make_encoder (`Callable[[], PreTrainedModel]`): Function that returns a model with the backbone's own weights;
            called only if texts must be embedded.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        args (`SelfTrainingConfig`): Settings that select the signals, and the seed.
        label_names (`Sequence[str]`): Names of the K classes.
        folder (`Path`): Folder of the pool's embeddings, which do not depend on the labels.
        title (`str`, *optional*): Title of the progress bars; `None` shows no bar.
        pool_embeddings (`np.ndarray`, *optional*): The pool's embeddings where they are known, `[H, N, D]`.
    """

    def __init__(
        self,
        make_encoder: Callable[[], PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        args: SelfTrainingConfig,
        *,
        label_names: Sequence[str],
        folder: Path,
        title: str | None,
        pool_embeddings: np.ndarray | None = None,
    ):
        self.make_encoder, self.tokenizer, self.args = make_encoder, tokenizer, args
        self.label_names, self.folder, self.title = label_names, folder, title
        self.pool_embeddings = pool_embeddings

    def signals(
        self, labeled: Dataset, pool: Dataset, held_out: Dataset | None, folder: Path
    ) -> EmbeddingSignals | None:
        """Returns the signals of these rows; `None` where no setting requires them.

        Collective: every rank must call this. Each gets the result of rank 0, which alone writes files.

        Args:
            labeled (`Dataset`): Tokenized rows with `labels`.
            pool (`Dataset`): N tokenized rows.
            held_out (`Dataset`, *optional*): Tokenized rows for which the probe predicts, too.
            folder (`Path`): Folder of the signals for these labels.

        Raises:
            TrainingError: The embeddings on disk are those of a pool of another size.
        """
        encoder = _Encoder(self.make_encoder, self.tokenizer, self.args)
        seed = derive_seed(self.args.seed, "graph") % 2**31
        signals = EmbeddingSignals.build(self.args, self.label_names, encoder.embed_texts, seed)
        if signals is None:
            return None
        task = get_task(self.args.task)
        task.require_class_per_row("embedding signals (such as label_name_prior or backbone_probe)")
        path = folder / SIGNALS_FILE
        kept = broadcast(read_arrays(path) if path.exists() else None)
        if kept is None:
            encoder.upper = any(signal.reads_upper_layers for signal in signals)
            embedded_pool = EmbeddedRows(self._embed_pool(encoder, pool))
            known = encoder.embed(labeled, self._text("embedding the labeled rows"))
            others = encoder.embed(labeled.select([]) if held_out is None else held_out)
            labels = task.label_array(labeled)
            signals.compute(EmbeddedRows(known, labels), embedded_pool, EmbeddedRows(others))
            kept = broadcast(signals.state_dict())
            if is_main():
                write_arrays(path, kept)
            self._warn(signals)
        signals.load_state_dict(kept)
        return signals

    def _embed_pool(self, encoder: _Encoder, pool: Dataset) -> np.ndarray:
        """Returns the pool's embeddings, `[H, N, D]`, from disk if the signals for other labels have stored them."""
        if self.pool_embeddings is not None:
            return self.pool_embeddings
        path = self.folder / EMBEDDINGS_FILE
        kept = broadcast(read_arrays(path)["layers"] if path.exists() else None)
        if kept is None:
            kept = broadcast(encoder.embed(pool, self._text("embedding the pool")))
            if is_main():
                write_arrays(path, {"layers": kept})
        if kept.shape[1] != len(pool):
            raise TrainingError(
                f"Expected the pool of {kept.shape[1]} rows that {self.folder} was begun with, got {len(pool)} rows: "
                "give the same pool, or another output_dir."
            )
        return kept

    def _text(self, what: str) -> str | None:
        return None if self.title is None else f"{self.title}: {what}"

    def _warn(self, signals: EmbeddingSignals) -> None:
        found = signals.out_of_distribution
        if found.alarming:
            logger.warning(
                "%.0f%% of the pool is unlike all labeled rows (5%% would be usual): %s.",
                100 * found.fraction,
                "these rows get no weight" if self.args.ood_filter else "check that it is the right pool",
            )


class _Encoder:
    """Embeds rows with the untrained backbone, which is made for the first row that must be embedded.

    Args:
        make (`Callable[[], PreTrainedModel]`): Function that returns the model.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        args (`SelfTrainingConfig`): Settings with device and precision.
    """

    def __init__(
        self, make: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerBase, args: SelfTrainingConfig
    ):
        self.make, self.tokenizer, self.args, self.upper = make, tokenizer, args, False

    @cached_property
    def model(self) -> PreTrainedModel:
        return self.make().to(self.args.device)

    def embed(self, rows: Dataset, progress: str | None = None) -> np.ndarray:
        """Returns embeddings `[H, N, D]`, of the upper layers where `upper` is set."""
        return embed_layers(self.model, rows, self.tokenizer, upper=self.upper, bf16=self.args.bf16, progress=progress)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Returns embeddings of the last layer, `[len(texts), D]`."""
        return self.embed(Dataset.from_dict(dict(self.tokenizer(texts, truncation=True))))[-1]
