"""Fast inference over pools: logits of every row, and MC dropout reduced batch by batch.

Scoring changes nothing: the model's training flags are restored and the global random state is not touched, so a pool
may be scored in the middle of a training run. Rows are read a window at a time (`hfssl.data.batching`), so that only
the results grow with the pool.

Collective: every rank must call these functions, with the same arguments. The ranks share the batches, and every rank
returns the whole result. On ranks of one kind of device this is the result of a single rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.data.batching import token_budget_batches, token_windows
from hfssl.errors import ModelError
from hfssl.functional.uncertainty import bald, predictive_variance
from hfssl.inference.predictions import MCDropoutResult
from hfssl.inference.trunk import Trunk, find_trunk
from hfssl.models.heads import head_rows, logit_layer, seen_by_head
from hfssl.models.introspection import evaluating
from hfssl.models.mean_pooling import mean_over_tokens
from hfssl.runtime.cpu_kernels import cheap_operations
from hfssl.runtime.distributed import failing_together, rank_and_world, sum_over_ranks
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = [
    "dropout_active",
    "head_inputs",
    "layer_embeddings",
    "mc_dropout",
    "mean_embeddings",
    "predict_logits",
    "token_budget_batches",
]

# The fastest budgets for a model of MiniLM's size; on a CPU larger batches fall out of the caches. In bf16 tensors are
# half as large, and each pass casts all weights.
CPU_TOKENS, CPU_BF16_TOKENS, ACCELERATOR_TOKENS = 1536, 3072, 8192
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@contextmanager
def dropout_active(model: nn.Module) -> Iterator[None]:
    """Turns dropout on within the block; all other parts of the model are in eval mode (batch norm, LayerDrop, ...).

    Dropout is on in the `nn.Dropout*` modules, LoRA's `lora_dropout` among them, and in the attention modules: the
    attention functions of transformers (eager, SDPA, flash) drop if and only if `self.training` of the attention
    module is set. Only that module's flag is set, not those of its children. Dropout that a model calls as a function
    in other places (BART's layers) stays off.

    Args:
        model (`nn.Module`): The model; its training flags are restored after the block.
    """
    with evaluating(model):
        for module in model.modules():
            # Every module of transformers that computes attention has this name; containers ignore the flag.
            if isinstance(module, DROPOUTS) or "Attention" in type(module).__name__:
                module.training = True
        yield


def predict_logits(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int | None = None,
    device: torch.device | str | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Returns the logits of every row, in eval mode.

    Args:
        model (`PreTrainedModel`): A sequence classifier with K labels, plain or with an adapter.
        dataset (`Dataset`): N tokenized rows (`input_ids`, `attention_mask`, ...); other columns are not read.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        max_tokens (`int`, *optional*): Largest number of tokens in a batch, padding included. Default: 1,536 on a CPU
            (3,072 under autocast), 8,192 elsewhere.
        device (`torch.device` or `str`, *optional*): Device to compute on; the model is moved there and stays.
            Default: the model's device.
        progress (`str`, *optional*): Title of a progress bar over rows; `None` shows no bar.

    Returns:
        `[N, K]` float32, in dataset order.

    Raises:
        ModelError: A logit is not finite.
    """
    if device is not None:
        model.to(device)
    logits = np.zeros((len(dataset), model.config.num_labels), dtype=np.float32)

    def score(number: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": _finite_logits(model, batch)}

    with evaluating(model), torch.inference_mode():
        _fill({"logits": logits}, score, model, dataset, tokenizer, _token_budget(model, max_tokens), progress)
    return logits


def mean_embeddings(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Returns the mean of the last layer's vectors over the tokens of each row, in eval mode.

    Args:
        model (`PreTrainedModel`): As for `layer_embeddings`.
        dataset (`Dataset`): As for `layer_embeddings`.
        tokenizer (`PreTrainedTokenizerBase`): As for `layer_embeddings`.
        max_tokens (`int`, *optional*): As for `predict_logits`.
        progress (`str`, *optional*): Title of a progress bar over rows; `None` shows no bar.

    Returns:
        `[N, D]` float32, in dataset order.
    """
    return layer_embeddings(model, dataset, tokenizer, [-1], max_tokens=max_tokens, progress=progress)[0]


def layer_embeddings(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    layers: Sequence[int],
    *,
    max_tokens: int | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Returns the means of the vectors of H layers over the tokens of each row, in eval mode.

    Args:
        model (`PreTrainedModel`): An encoder or a classifier, plain or with an adapter, on the device to use.
        dataset (`Dataset`): N tokenized rows (`input_ids`, `attention_mask`, ...); other columns are not read.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        layers (`Sequence[int]`): Numbers of the H layers; 0 is the word embeddings, -1 the last layer.
        max_tokens (`int`, *optional*): As for `predict_logits`.
        progress (`str`, *optional*): Title of a progress bar over rows; `None` shows no bar.

    Returns:
        `[H, N, D]` float32, in dataset order.
    """
    width = model.config.get_text_config().hidden_size
    embeddings = np.zeros((len(layers), len(dataset), width), dtype=np.float32)

    def score(number: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = model(**batch, output_hidden_states=True).hidden_states
        means = [mean_over_tokens(hidden[layer].float(), batch["attention_mask"]) for layer in layers]
        return {str(i): mean for i, mean in enumerate(means)}

    with evaluating(model), torch.inference_mode():
        outputs = {str(i): rows for i, rows in enumerate(embeddings)}
        _fill(outputs, score, model, dataset, tokenizer, _token_budget(model, max_tokens), progress)
    return embeddings


def head_inputs(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Returns the inputs of the logit layer for each row, in eval mode.

    Args:
        model (`PreTrainedModel`): As for `predict_logits`, on the device to use.
        dataset (`Dataset`): As for `predict_logits`.
        tokenizer (`PreTrainedTokenizerBase`): As for `predict_logits`.
        max_tokens (`int`, *optional*): As for `predict_logits`.
        progress (`str`, *optional*): Title of a progress bar over rows; `None` shows no bar.

    Returns:
        `[N, D]` float32, in dataset order.

    Raises:
        ModelError: The input of the layer is not one vector per row.
    """
    layer = logit_layer(model)
    inputs = np.zeros((len(dataset), layer.in_features), dtype=np.float32)

    def score(number: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        model(**batch)
        return {"inputs": head_rows(model, seen.pop(), batch["input_ids"]).float()}

    with evaluating(model), torch.inference_mode(), seen_by_head(layer) as seen:
        _fill({"inputs": inputs}, score, model, dataset, tokenizer, _token_budget(model, max_tokens), progress)
    return inputs


def mc_dropout(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    passes: int,
    seed: int,
    top_layers: int | None = None,
    max_tokens: int | None = None,
    progress: str | None = None,
    task: Task | None = None,
) -> MCDropoutResult:
    """Runs T stochastic passes with dropout (Gal & Ghahramani 2016) over a pool.

    Passes are reduced batch by batch, so that no array of size T x N is stored.

    Dropout uses seeds derived from (`seed`, batch number, pass), separate from the global random state: the same
    arguments on the same machine give the same bits, whatever ran before and however many ranks share the batches.

    Args:
        model (`PreTrainedModel`): A sequence classifier with K labels, plain or with an adapter, on the device to use.
        dataset (`Dataset`): N tokenized rows (`input_ids`, `attention_mask`, ...); other columns are not read.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        passes (`int`): Number T of passes, at least 1.
        seed (`int`): Random seed of the dropout masks.
        top_layers (`int`, *optional*): Number of upper layers in which, with the head, dropout acts. All layers below
            run once (`hfssl.inference.trunk`). `None` drops everywhere, as in the paper, at the cost of full passes.
        max_tokens (`int`, *optional*): Largest number of tokens in one forward pass, padding included. Default: 1,536
            on a CPU (3,072 under autocast), 8,192 elsewhere.
        progress (`str`, *optional*): Title of a progress bar over rows; `None` shows no bar.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.

    Raises:
        ModelError: Dropout changes nothing (the model has no dropout), or a logit is not finite.
    """
    task = get_task() if task is None else task
    max_tokens = _token_budget(model, max_tokens)
    count, outputs = len(dataset), model.config.num_labels
    units = task.units_per_row(outputs)  # P
    classes = task.unit_probs(np.zeros((1, outputs), dtype=np.float32)).shape[-1]
    shapes = {"bald": (count,) if units == 1 else (count, units)}
    results = {
        field.name: np.zeros(shapes.get(field.name, (count, units * classes)), dtype=np.float32)
        for field in fields(MCDropoutResult)
    }
    trunk = None
    if top_layers is not None and count:
        with evaluating(model), torch.inference_mode():
            trunk = find_trunk(model, _first_rows(model, dataset, tokenizer), top_layers)

    def score(number: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with evaluating(model), trunk.recording() if trunk else nullcontext():
            deterministic = _finite_logits(model, batch)
        stochastic = _stochastic_logits(model, batch, passes, (seed, number), max_tokens, trunk)
        if number == 0:
            _check_dropout_acts(stochastic, deterministic)
        reduced = _reduce(stochastic, deterministic, task)
        rows = len(deterministic)
        return {name: value.reshape(rows, *results[name].shape[1:]) for name, value in reduced.items()}

    with torch.inference_mode():
        _fill(results, score, model, dataset, tokenizer, max_tokens, progress)
    flat = {"bald": (-1,)}
    return MCDropoutResult(**{n: values.reshape(flat.get(n, (-1, classes))) for n, values in results.items()})


def _token_budget(model: PreTrainedModel, max_tokens: int | None) -> int:
    if max_tokens:
        return max_tokens
    if model.device.type != "cpu":
        return ACCELERATOR_TOKENS
    return CPU_BF16_TOKENS if torch.is_autocast_enabled("cpu") else CPU_TOKENS


def _first_rows(
    model: PreTrainedModel, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, count: int = 4
) -> dict[str, Tensor]:
    window = next(token_windows(dataset, tokenizer, rows=count))
    return _to_device(window.padded(np.arange(window.stop)), model.device)


def _to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _fill(
    results: dict[str, np.ndarray],
    score: Callable[[int, dict[str, Tensor]], dict[str, Tensor]],
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    progress: str | None,
) -> None:
    """Fills `results` (`[N, ...]`, zeros) with the output of `score` for each batch.

    Each batch is scored on one rank. The ranks add up their results after every window, which also synchronises them.
    """
    (rank, world), number = rank_and_world(), 0
    bar = tqdm(total=len(dataset), desc=progress, unit=" rows", disable=progress is None)
    with bar, cheap_operations(model):
        for window in token_windows(dataset, tokenizer):
            with failing_together(ModelError):
                for rows in window.batches(max_tokens):
                    if number % world == rank:
                        for name, value in score(number, _to_device(window.padded(rows), model.device)).items():
                            results[name][rows] = value.cpu().numpy()
                    number += 1
                    bar.update(len(rows))
            for array in results.values():
                sum_over_ranks(array[window.start : window.stop], model.device)
            del window  # before the next one is read


def _stochastic_logits(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    passes: int,
    seeds: tuple[int, int],
    max_tokens: int,
    trunk: Trunk | None,
) -> Tensor:
    """Returns logits `[T, n, K]`; a batch below the token budget runs several passes at once, as repeated rows."""
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
    """Seeds the generators that dropout uses and restores their state afterwards."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
    on_accelerator = device.type != "cpu"
    devices = [device] if on_accelerator else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if on_accelerator else "cuda"):
        # Not torch.manual_seed: it also seeds the accelerators of the other ranks, whose state is not restored.
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


def _reduce(stochastic: Tensor, deterministic: Tensor, task: Task) -> dict[str, Tensor]:
    """Returns the fields of `MCDropoutResult` for a batch, from logits `[T, n, outputs]` and `[n, outputs]`."""
    probs = task.unit_probs(stochastic)
    return {
        "mean_probs": probs.mean(dim=0),
        "deterministic_probs": task.unit_probs(deterministic),
        "predictive_variance": predictive_variance(probs),
        "vote_shares": nn.functional.one_hot(probs.argmax(dim=-1), probs.shape[-1]).float().mean(dim=0),
        "bald": bald(probs),
    }
