"""Fits the logit layer to its inputs: to the labels before training, to labels and pseudo-labels after it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from datasets import Dataset
from scipy.optimize import brentq
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.functional.logistic_regression import logistic_weights, soft_logistic_weights
from hfssl.inference.scoring import head_inputs
from hfssl.models.heads import logit_layer
from hfssl.runtime.distributed import broadcast
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["HEAD_INITS", "class_mean_weights", "confidence_scale", "init_head", "retrain_head"]

MAX_EXPONENT = 10.0  # log of the largest factor; a head predicts almost equal probabilities after few steps


def class_mean_weights(
    features: Tensor, labels: Tensor, num_classes: int, *, with_bias: bool = True
) -> tuple[Tensor, Tensor]:
    """Returns the linear layer whose logits are minus the squared distances to the class means, up to a constant.

    Prototypical networks (Snell et al. 2017, equation 8): w_k = 2 c_k and b_k = -||c_k||^2. Both are divided by the
    mean squared distance of a row to the mean of its own class, which makes the logits independent of the scale of the
    features. A class without rows gets the mean of all rows.

    Args:
        features (`Tensor`): Features of the rows, `[B, D]`.
        labels (`Tensor`): Classes of the rows, `[B]`.
        num_classes (`int`): Number K of classes.
        with_bias (`bool`, defaults to `True`): Whether the layer has a bias. Without it the means are brought to one
            length, so that all biases would be equal, and the bias is 0.

    Returns:
        Weight `[K, D]` and bias `[K]`.
    """
    overall = features.mean(dim=0)
    means = torch.stack(
        [features[labels == k].mean(dim=0) if (labels == k).any() else overall for k in range(num_classes)]
    )
    if not with_bias:
        lengths = means.norm(dim=1, keepdim=True).clamp_min(1e-12)
        means = means / lengths * lengths.mean()
    scale = (features - means[labels]).square().sum(dim=1).mean().clamp_min(1e-6)
    return 2 * means / scale, -with_bias * means.square().sum(dim=1) / scale


HEAD_INITS = {"class_means": class_mean_weights, "logistic": logistic_weights}


@torch.no_grad()
def init_head(
    start: str,
    model: PreTrainedModel,
    labeled: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    bf16: bool = False,
    task: Task | None = None,
    class_weights: Tensor | None = None,
) -> None:
    """Fits the logit layer to its own input over the labeled rows, with one of `HEAD_INITS`.

    Collective: every rank must call this, with the same rows. No random number is drawn.

    Args:
        start (`str`): Key of `HEAD_INITS`: `"class_means"` or `"logistic"`.
        model (`PreTrainedModel`): A classifier; its training flags stay as they are.
        labeled (`Dataset`): Tokenized rows with `labels`.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        bf16 (`bool`, defaults to `False`): Whether the model computes in bf16, as in training.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.
        class_weights (`Tensor`, *optional*): Weights of the K classes in the logistic regression, `[K]`.

    Raises:
        ModelError: The input of the layer is not one vector per row.
    """
    layer = logit_layer(model)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        features = torch.from_numpy(head_inputs(model, labeled, tokenizer))
    task = get_task() if task is None else task
    weighing = {"class_weights": class_weights} if class_weights is not None and start == "logistic" else {}
    fit = partial(HEAD_INITS[start], with_bias=layer.bias is not None, **weighing)
    weight, bias = task.head_weights(fit, features, task.label_array(labeled), layer.out_features)
    _set_weights(layer, weight, bias)


@torch.no_grad()
def retrain_head(
    model: PreTrainedModel,
    labeled: Dataset,
    pool: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lambda_u: float,
    bf16: bool = False,
    progress: Sequence[str | None] = (None, None),
    task: Task | None = None,
    class_weights: Tensor | None = None,
) -> None:
    """Fits a student's logit layer again, to all labels and pseudo-labels at once, and preserves its mean confidence.

    Last-layer retraining (Kirichenko et al. 2023): a few steps of SGD do not fit the head to its trained body.
    Collective: every rank must call this, with the same rows.

    Args:
        model (`PreTrainedModel`): A classifier, on the device to use.
        labeled (`Dataset`): Tokenized rows with `labels`.
        pool (`Dataset`): Tokenized rows with `pseudo_probs` and `weight`.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        lambda_u (`float`): Factor on the weights of the pool's rows; labeled rows have weight 1.
        bf16 (`bool`, defaults to `False`): Whether the model computes in bf16, as in training.
        progress (`Sequence[str | None]`, defaults to `(None, None)`): Titles of the progress bars over labeled rows
            and pool; `None` shows no bar.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.
        class_weights (`Tensor`, *optional*): Weights of the labeled rows of the K classes, `[K]`. Default: 1.
    """
    layer, task = logit_layer(model), get_task() if task is None else task
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        inputs = np.concatenate(
            [
                head_inputs(model, rows, tokenizer, progress=shown)
                for rows, shown in zip((labeled, pool), progress, strict=True)
            ]
        )
    pseudo_labels = np.asarray(pool["pseudo_probs"][:], dtype=np.float64)
    weights, labels = lambda_u * np.asarray(pool["weight"][:], dtype=np.float64), task.label_array(labeled)
    known = None if class_weights is None else class_weights.double().cpu().numpy()[labels]

    def fit(features: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if known is not None:  # labeled rows come first
            rows = np.concatenate([known * rows[: len(known)], rows[len(known) :]])
        return soft_logistic_weights(features, targets, rows, with_bias=layer.bias is not None)

    weight, bias = task.soft_head_weights(fit, inputs, labels, pseudo_labels, weights)
    # Averaged pseudo-labels are underconfident, and so is a penalised head that is fitted to them. The trained head,
    # fitted to labeled rows too, is more confident. Its confidence is taken over, as there are no held-out labels here
    # on which a temperature could be fitted.
    replaced = layer(torch.from_numpy(inputs).to(layer.weight)).double().cpu().numpy()
    scale = confidence_scale(inputs @ weight.T + bias, replaced, task)
    weight, bias = broadcast((scale * weight, scale * bias))
    _set_weights(layer, torch.from_numpy(weight), torch.from_numpy(bias))


def _set_weights(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Sets the weights of a layer in place; the heads of decoders have no bias."""
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.copy_(bias)


def confidence_scale(logits: np.ndarray, reference: np.ndarray, task: Task | None = None) -> float:
    """Returns the factor on `logits` that gives them the mean confidence of `reference`; it changes no prediction.

    Confidence is the probability of the most probable class. The result is 1 if no factor exists: if the logits are
    all equal, or the confidence of the reference is 1.

    Args:
        logits (`np.ndarray`): Logits to be scaled, `[N, K]`.
        reference (`np.ndarray`): Logits with the wanted confidence, `[N, K]`.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.
    """
    task = get_task() if task is None else task
    wanted = task.unit_probs(reference).max(axis=1).mean()

    def surplus(exponent: float) -> float:
        return task.unit_probs(np.exp(exponent) * logits).max(axis=1).mean() - wanted

    if surplus(-MAX_EXPONENT) >= 0 or surplus(MAX_EXPONENT) <= 0:
        return 1.0
    return float(np.exp(brentq(surplus, -MAX_EXPONENT, MAX_EXPONENT)))
