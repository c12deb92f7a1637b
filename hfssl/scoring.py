"""Fast inference over pools: logits of every row, and MC dropout reduced batch by batch.

Scoring changes nothing: the model's training flags come back as they were and the global random state is not touched,
so a pool may be scored in the middle of a training run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from hfssl.errors import ModelError
from hfssl.trunk import Trunk, find_trunk
from hfssl.uncertainty import bald, entropy, predictive_variance

__all__ = [
    "MCDropoutResult",
    "combine",
    "dropout_active",
    "evaluating",
    "mc_dropout",
    "predict_logits",
    "token_budget_batches",
]

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class MCDropoutResult:
    """What T stochastic passes (of one model, or of several) say about N rows and K classes, in dataset order."""

    mean_probs: np.ndarray  # [N, K], mean over the stochastic passes
    deterministic_probs: np.ndarray  # [N, K], of a pass without dropout; mean over the models
    predictive_variance: np.ndarray  # [N, K], population variance over the stochastic passes
    bald: np.ndarray  # [N] in nats

    @property
    def predicted(self) -> np.ndarray:
        """`[N]` int64, argmax of the deterministic probabilities."""
        return self.deterministic_probs.argmax(axis=-1)

    @property
    def predicted_class_variance(self) -> np.ndarray:
        """`[N]`, variance over the passes of the predicted class's probability."""
        return np.take_along_axis(self.predictive_variance, self.predicted[:, None], axis=1)[:, 0]

    @property
    def entropy(self) -> np.ndarray:
        """`[N]` in nats, of `mean_probs`."""
        return entropy(torch.from_numpy(self.mean_probs)).numpy()


def combine(results: Sequence[MCDropoutResult]) -> MCDropoutResult:
    """The result that one run over all passes of all models would have given; equally many passes each.

    The passes are a mixture: its variance is the mean of the models' variances plus the variance of their means, and
    the mean entropy that BALD subtracts is, for each model, H(mean) - BALD (Lakshminarayanan et al. 2017 for the
    ensemble; Houlsby et al. 2011 for BALD).
    """
    mean = np.mean([result.mean_probs for result in results], axis=0)
    second_moment = np.mean([result.predictive_variance + result.mean_probs**2 for result in results], axis=0)
    mean_entropy = np.mean([result.entropy - result.bald for result in results], axis=0)
    return MCDropoutResult(
        mean_probs=mean,
        deterministic_probs=np.mean([result.deterministic_probs for result in results], axis=0),
        predictive_variance=np.maximum(second_moment - mean**2, 0.0),
        bald=np.maximum(entropy(torch.from_numpy(mean)).numpy() - mean_entropy, 0.0),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts the model in eval mode and gives every submodule its own training flag back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def dropout_active(model: nn.Module) -> Iterator[None]:
    """Within the block dropout draws, and all else of the model is in eval mode (batch norm, LayerDrop, ...).

    Switched on are the `nn.Dropout*` modules, LoRA's `lora_dropout` among them, and the attention modules' own flag:
    the attention functions of transformers (eager, SDPA, flash) drop if and only if `self.training` of the attention
    module is set. Only that module's flag is set, not those of what it contains. Dropout that a model calls as a
    function in other places (BART's layers) stays off.
    """
    with evaluating(model):
        for module in model.modules():
            # transformers names every module that computes attention so; containers of that name ignore the flag.
            if isinstance(module, DROPOUTS) or "Attention" in type(module).__name__:
                module.training = True
        yield


def token_budget_batches(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Row numbers in batches of rows of similar length, longest first (too little memory shows at once).

    Args:
        lengths: `[N]`, tokens in each row.
        max_tokens: most tokens in a batch, padding included; a longer row makes a batch of its own.

    Returns:
        Arrays of row numbers; each row is in exactly one.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def predict_logits(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int = 8192,
    device: torch.device | str | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Logits of every row, in eval mode.

    Args:
        model: a sequence classifier with K labels, plain or with an adapter.
        dataset: N tokenized rows (`input_ids`, `attention_mask`, ...); other columns are not read.
        tokenizer: pads the batches.
        max_tokens: most tokens in a batch, padding included.
        device: where to compute; the model is moved there and stays. Default: where the model is.
        progress: text beside a progress bar over rows; `None` shows no bar.

    Returns:
        `[N, K]` float32, in dataset order.

    Raises:
        ModelError: if a logit is not finite.
    """
    if device is not None:
        model.to(device)
    logits = np.zeros((len(dataset), model.config.num_labels), dtype=np.float32)
    with evaluating(model), torch.inference_mode():
        for rows, batch in _batches(model, dataset, tokenizer, max_tokens, progress):
            logits[rows] = _finite_logits(model, batch).cpu().numpy()
    return logits


def mc_dropout(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    passes: int,
    seed: int,
    top_layers: int | None = None,
    max_tokens: int = 8192,
    progress: str | None = None,
) -> MCDropoutResult:
    """T stochastic passes with dropout on (Gal & Ghahramani 2016), reduced per batch: nothing of size T x N is kept.

    Dropout is drawn from seeds derived from (`seed`, batch number, pass), apart from the global random state: the same
    arguments on the same machine give the same bits, whatever ran before.

    Args:
        model: a sequence classifier with K labels, plain or with an adapter, on the device to use.
        dataset: N tokenized rows (`input_ids`, `attention_mask`, ...); other columns are not read.
        tokenizer: pads the batches.
        passes: T, at least 1.
        seed: of the dropout masks.
        top_layers: dropout acts in so many upper layers and in the head, and all below runs once (`hfssl.trunk`);
            `None` drops everywhere, as in the paper, at the price of full passes.
        max_tokens: most tokens in one forward pass, padding included.
        progress: text beside a progress bar over rows; `None` shows no bar.

    Raises:
        ModelError: if dropout changes nothing (all probabilities are 0), or if a logit is not finite.
    """
    count, classes = len(dataset), model.config.num_labels
    results = {
        field.name: np.zeros(count if field.name == "bald" else (count, classes), dtype=np.float32)
        for field in fields(MCDropoutResult)
    }
    trunk = None
    for index, (rows, batch) in enumerate(_batches(model, dataset, tokenizer, max_tokens, progress)):
        with torch.inference_mode():
            with evaluating(model):
                if index == 0 and top_layers is not None:
                    trunk = find_trunk(model, {name: value[:4] for name, value in batch.items()}, top_layers)
                with trunk.recording() if trunk else nullcontext():
                    deterministic = _finite_logits(model, batch)
            stochastic = _stochastic_logits(model, batch, passes, (seed, index), max_tokens, trunk)
            if index == 0:
                _check_dropout_acts(stochastic, deterministic)
            for name, value in _reduce(stochastic, deterministic).items():
                results[name][rows] = value.cpu().numpy()
    return MCDropoutResult(**results)


def _batches(
    model: PreTrainedModel, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_tokens: int, progress: str | None
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Yields (row numbers, padded batch on the model's device)."""
    columns = [name for name in tokenizer.model_input_names if name in dataset.column_names]
    dataset = dataset.select_columns(columns).with_format(None)
    if len(dataset) == 0:
        return
    lengths = pc.list_value_length(dataset.with_format("arrow")[:]["input_ids"]).to_numpy()
    collate = DataCollatorWithPadding(tokenizer)
    with tqdm(total=len(dataset), desc=progress, unit=" rows", disable=progress is None) as bar:
        for rows in token_budget_batches(lengths, max_tokens):
            chosen = dataset[rows]
            batch = collate([dict(zip(columns, values, strict=True)) for values in zip(*chosen.values(), strict=True)])
            yield rows, {name: value.to(model.device) for name, value in batch.items()}
            bar.update(len(rows))


def _stochastic_logits(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    passes: int,
    seeds: tuple[int, int],
    max_tokens: int,
    trunk: Trunk | None,
) -> Tensor:
    """`[T, n, K]`. A batch below the token budget goes through several times at once, by repeating its rows."""
    at_once = max(1, max_tokens // batch["input_ids"].numel())
    logits = []
    with dropout_active(model):
        for first in range(0, passes, at_once):
            copies = min(at_once, passes - first)
            repeated = {name: value.repeat(copies, 1) for name, value in batch.items()}
            with _own_random_state(model.device, (*seeds, first)), trunk.replaying(copies) if trunk else nullcontext():
                logits.append(_finite_logits(model, repeated).unflatten(0, (copies, -1)))
    return torch.cat(logits)


@contextmanager
def _own_random_state(device: torch.device, seeds: tuple[int, ...]) -> Iterator[None]:
    """Seeds the generators that dropout draws from and puts their state back afterwards."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
    on_accelerator = device.type != "cpu"
    devices = [device] if on_accelerator else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if on_accelerator else "cuda"):
        # Not torch.manual_seed: it would seed the accelerators of the other ranks, too, whose state is not put back.
        torch.random.default_generator.manual_seed(seed)
        if on_accelerator:
            torch.get_device_module(device).manual_seed(seed)
        yield


def _finite_logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    logits = model(**batch).logits.float()
    if not torch.isfinite(logits).all():
        raise ModelError(
            "Expected finite logits, but the model gave NaN or infinity for at least one row: its weights are broken, "
            "most often by a training run with too large a learning rate; train again with a smaller one."
        )
    return logits


def _check_dropout_acts(stochastic: Tensor, deterministic: Tensor) -> None:
    if torch.allclose(stochastic, deterministic.expand_as(stochastic), rtol=1e-4, atol=1e-5):
        raise ModelError(
            "Expected MC dropout's passes to differ, but all are equal to the pass without dropout, so uncertainty "
            "would be 0 for every row: the model has no dropout; give it some (hidden_dropout_prob or "
            "classifier_dropout of its config, or the adapter's dropout), or use a method without uncertainty."
        )


def _reduce(stochastic: Tensor, deterministic: Tensor) -> dict[str, Tensor]:
    """The fields of `MCDropoutResult` for one batch, from logits `[T, n, K]` and `[n, K]`."""
    probs = stochastic.softmax(dim=-1)
    return {
        "mean_probs": probs.mean(dim=0),
        "deterministic_probs": deterministic.softmax(dim=-1),
        "predictive_variance": predictive_variance(probs),
        "bald": bald(probs),
    }
