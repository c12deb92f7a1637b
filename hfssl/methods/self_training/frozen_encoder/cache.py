"""What the backbone's embeddings say of the pool, found once for all rounds and for a refit, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.errors import TrainingError
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import (
    Neighborhood,
    asks_around,
    embed_layers,
    find_neighborhood,
)
from hfssl.runtime.distributed import broadcast, is_main
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.seeding import derive_seed

__all__ = ["look_around"]

logger = logging.get_logger(__name__)

NEIGHBORHOOD, EMBEDDINGS = "neighborhood.npz", "embeddings.npz"


def look_around(
    make_encoder: Callable[[], PreTrainedModel],
    labeled: Dataset,
    pool: Dataset,
    held_out: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    args: SelfTrainingConfig,
    *,
    label_names: Sequence[str],
    folder: Path,
    pool_folder: Path,
    title: str | None,
) -> Neighborhood | None:
    """What the backbone's embeddings say of the pool; `None` where no setting asks for it.

    All ranks come here; each gets what the main process found, which alone writes.

    Args:
        make_encoder: returns a model with the backbone's own weights; called only where something is to be embedded.
        labeled: tokenized rows with `labels`.
        pool: N tokenized rows.
        held_out: tokenized rows that the probe is asked of, too.
        tokenizer: pads the batches.
        args: what is asked, and the seed of the graph.
        label_names: K names.
        folder: keeps what was found for these labels.
        pool_folder: keeps the pool's embeddings, which other labels leave as they are.
        title: beside the progress bars; `None` shows none.

    Raises:
        TrainingError: `pool_folder` was begun with a pool of another size.
    """
    path = folder / NEIGHBORHOOD
    if not asks_around(args):
        return None
    around = broadcast(Neighborhood.load(path))
    if around is None:
        encoder = make_encoder().to(args.device)
        found = find_neighborhood(
            encoder,
            labeled,
            _embedded_pool(encoder, pool, tokenizer, args, pool_folder, title),
            tokenizer,
            num_classes=len(label_names),
            graph=args.label_spreading != "none",
            label_names=label_names if args.label_name_prior else None,
            probe=args.backbone_probe,
            held_out=held_out,
            neighbors=args.knn_smoothing > 0,
            bf16=args.bf16,
            seed=derive_seed(args.seed, "graph") % 2**31,
            title=title,
        )
        around = broadcast(found)
        if is_main():
            around.save(path)
        if around.alarming:
            logger.warning(
                "%.0f%% of the pool is unlike all labeled rows (5%% would be usual): %s.",
                100 * around.novel.mean(),
                "these rows get no weight" if args.ood_filter else "check that it is the right pool",
            )
    return around


def _embedded_pool(
    encoder: PreTrainedModel,
    pool: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    args: SelfTrainingConfig,
    folder: Path,
    title: str | None,
) -> np.ndarray:
    """`[H, N, D]` by the backbone, from `folder` where an earlier look has left them."""
    path = folder / EMBEDDINGS
    kept = broadcast(read_arrays(path)["layers"] if path.exists() else None)
    if kept is None:
        progress = None if title is None else f"{title}: embedding the pool"
        found = embed_layers(encoder, pool, tokenizer, probe=args.backbone_probe, bf16=args.bf16, progress=progress)
        kept = broadcast(found)
        if is_main():
            write_arrays(path, {"layers": kept})
    if kept.shape[1] != len(pool):
        raise TrainingError(
            f"Expected the pool of {kept.shape[1]} rows that {folder} was begun with, got {len(pool)} rows: give the "
            "same pool, or another output_dir."
        )
    return kept
