"""Temperature scaling: one temperature, fitted on held-out labels and folded into the head's last linear layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import PreTrainedModel

from hfssl.errors import ModelError
from hfssl.models.heads import logit_layer
from hfssl.models.introspection import evaluating
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["fit_temperature", "fold_temperature", "match_temperature"]

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
GRID_POINTS, GRID_ZOOMS = 121, 5  # each zoom narrows the bracket 60-fold: log T to about 1e-8
CHECK_TOKENS = 8
CHECK_TOLERANCE = 1e-5


def fit_temperature(
    logits: ArrayLike, labels: ArrayLike, prior_scale: float = 0.5, *, task: Task | None = None
) -> float:
    """Returns the most probable temperature T: the minimum of N * nll(logits / T) + (log T)^2 / (2 * prior_scale^2).

    Temperature scaling (Guo et al. 2017, section 4.2, equation 9) with a log-normal prior around T = 1. The prior
    matters because N is small: where every held-out prediction is right, maximum likelihood moves T to 0, that is, to
    full certainty from a handful of rows.

    Args:
        logits (`ArrayLike`): Uncalibrated logits, `[N, K]`; the result for N = 0 is 1.0, the mode of the prior.
        labels (`ArrayLike`): Classes of the rows, `[N]`, none of them -1.
        prior_scale (`float`, defaults to 0.5): Standard deviation of log T under the prior; 0.5 puts 68% of the mass
            between 0.61 and 1.65.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.

    Returns:
        T in `[0.05, 20]`; above 1 where the model is overconfident.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape[:1] != logits.shape[:1]:
        raise ValueError(f"Expected logits [N, K] and labels [N], got shapes {logits.shape} and {labels.shape}.")
    if not prior_scale > 0:
        raise ValueError(f"Expected a positive prior_scale, got {prior_scale}.")
    if labels.size == 0:
        return 1.0
    if not np.isfinite(logits).all():
        raise ValueError("Expected finite logits.")
    task = get_task() if task is None else task
    scores, truth = torch.from_numpy(logits), task.targets(labels, logits.shape[1])

    def objective(log_temperature: float) -> float:
        units = task.units(scores / math.exp(log_temperature), {})
        summed_nll = task.loss(units.logits, truth, reduction="sum")
        return summed_nll.item() + log_temperature**2 / (2 * prior_scale**2)

    return _lowest(objective)


def match_temperature(logits: ArrayLike, probs: ArrayLike, *, task: Task | None = None) -> float:
    """Returns the temperature T at which softmax(logits / T) is closest to given probabilities, in cross-entropy.

    A student that has learned the probabilities of a calibrated ensemble is calibrated on rows that neither has
    learned from as far as it is as sure as the ensemble.

    Args:
        logits (`ArrayLike`): Logits of the student for N rows, `[N, K]`, N > 0.
        probs (`ArrayLike`): Calibrated probabilities of the ensemble for their units, `[M, K]`.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.

    Returns:
        T in `[0.05, 20]`.
    """
    task = get_task() if task is None else task
    scores, targets = (torch.from_numpy(np.asarray(values, dtype=np.float64)) for values in (logits, probs))

    def objective(log_temperature: float) -> float:
        units = task.units(scores / math.exp(log_temperature), {})
        return task.loss(units.logits, targets).item()

    return _lowest(objective)


def _lowest(objective: Callable[[float], float]) -> float:
    """Returns the temperature whose logarithm has the lowest value of a function."""
    # A grid, because the sum can have two minima; only the likelihood alone has a single one in T.
    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    for _ in range(GRID_ZOOMS):
        grid = np.linspace(low, high, GRID_POINTS)
        best = int(np.argmin([objective(u) for u in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID_POINTS - 1)]
    return float(math.exp(grid[best]))


def fold_temperature(model: PreTrainedModel, temperature: float) -> None:
    """Divides weight and bias of the head's last linear layer by T, in place.

    Plain `transformers` (and `pipeline()`) then returns softmax(logits / T) without a temperature of its own. The
    layer is the last linear one with `config.num_labels` outputs. A random input tests this choice: if the logits are
    not divided by T to 1e-5, the weights are restored.

    Args:
        model (`PreTrainedModel`): A sequence-classification model in float32 with its stock head; adapters, if any,
            are merged.
        temperature (`float`): T > 0.

    Raises:
        ModelError: Adapters are still attached, or no layer makes the logits.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"Expected a positive, finite temperature, got {temperature}.")
    if any(isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for module in model.modules()):
        raise ModelError(
            "Expected a plain model to fold the temperature into, got one with adapters attached: merge them first "
            "(`model = model.merge_and_unload()`)."
        )
    layer = logit_layer(model)
    before, summed = _logits_of_random_input(model, layer)
    parameters = [parameter for parameter in (layer.weight, layer.bias) if parameter is not None]
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.div_(temperature)
    after, _ = _logits_of_random_input(model, layer)
    wanted = before / temperature
    # The rounding error of a logit near 0 is as large as that of the large terms whose sum it is.
    rounding = CHECK_TOLERANCE * max(1.0, summed / temperature)
    if not torch.allclose(after, wanted, rtol=CHECK_TOLERANCE, atol=rounding):
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
        raise ModelError(
            f"Expected the last linear layer of {type(model).__name__} to make its logits, but dividing that layer by "
            f"{temperature:g} does not divide the logits: use a float32 model with the architecture's stock head, or "
            "apply the temperature to the logits yourself."
        )


def _logits_of_random_input(model: PreTrainedModel, layer: nn.Linear) -> tuple[torch.Tensor, float]:
    """Returns the logits `[1, K]` of one row of random tokens, the same row in each call, without dropout.

    The second value is the largest sum |W| |h| + |b| of the sizes of the terms of an output of `layer`; 0 if the layer
    is not used.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.randint(vocabulary, (1, CHECK_TOKENS), generator=generator).to(model.device)
    summed = [0.0]

    def add_up(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        bias = None if layer.bias is None else layer.bias.abs()
        summed.append(nn.functional.linear(inputs[0].abs(), layer.weight.abs(), bias).max().item())

    handle = layer.register_forward_pre_hook(add_up)
    try:
        with evaluating(model), torch.no_grad():
            logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    finally:
        handle.remove()
    return logits, max(summed)
