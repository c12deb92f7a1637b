"""Fitting the logit layer to what it is given: to the labels at the start, to all that was taught at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.errors import ModelError
from hfssl.functional.logistic_regression import logistic_weights, soft_logistic_weights
from hfssl.inference.scoring import head_inputs
from hfssl.models.heads import logit_layer
from hfssl.runtime.distributed import broadcast

__all__ = ["HEAD_INITS", "class_mean_weights", "confidence_scale", "init_head", "retrain_head"]

MAX_EXPONENT = 10.0  # of the factors that are tried: a head of next to no steps is next to not sure at all


def class_mean_weights(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear layer whose softmax is that of minus the squared distances to the class means.

    Prototypical networks (Snell et al. 2017, equation 8), w_k = 2 c_k and b_k = -||c_k||^2, both divided by the mean
    squared distance of a row to its own class's mean, which makes the logits free of the features' scale. A class
    without rows gets the mean of all rows.

    Args:
        features: `[B, D]`.
        labels: `[B]`.
        num_classes: K.

    Returns:
        `[K, D]` and `[K]`.
    """
    overall = features.mean(dim=0)
    means = torch.stack(
        [features[labels == k].mean(dim=0) if (labels == k).any() else overall for k in range(num_classes)]
    )
    scale = (features - means[labels]).square().sum(dim=1).mean().clamp_min(1e-6)
    return 2 * means / scale, -means.square().sum(dim=1) / scale


HEAD_INITS = {"class_means": class_mean_weights, "logistic": logistic_weights}


@torch.no_grad()
def init_head(
    start: str, model: PreTrainedModel, labeled: Dataset, tokenizer: PreTrainedTokenizerBase, *, bf16: bool = False
) -> None:
    """Fits the logit layer to its own input over the labeled rows, as one of `HEAD_INITS` says.

    All ranks come here with the same rows.

    Args:
        start: `"class_means"` or `"logistic"`.
        model: a classifier; its training flags stay as they are and no random number is drawn.
        labeled: tokenized rows with `labels`.
        tokenizer: pads the batches.
        bf16: whether the model computes in it, as in training.

    Raises:
        ModelError: if the layer has no bias, or does not see one vector a row.
    """
    layer = logit_layer(model)
    if layer.bias is None:
        raise ModelError("Expected a logit layer with a bias for head_init, found one without: leave it out.")
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        features = torch.from_numpy(head_inputs(model, labeled, tokenizer))
    weight, bias = HEAD_INITS[start](features, torch.tensor(labeled["labels"][:]), layer.out_features)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


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
) -> None:
    """Fits a student's logit layer anew to all that it was taught at once, and makes it as sure as it was.

    Kirichenko et al. 2023, "Last Layer Re-Training": a few steps of SGD leave a head that is behind its body. All
    ranks come here with the same rows.

    Args:
        model: a classifier, on the device to use.
        labeled: tokenized rows with `labels`.
        pool: tokenized rows with `pseudo_probs` and `weight`.
        tokenizer: pads the batches.
        lambda_u: the weight of the pool's rows beside the labeled ones.
        bf16: whether the model computes in it, as in training.
        progress: texts beside the progress bars over labeled rows and the pool.
    """
    layer = logit_layer(model)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        inputs = np.concatenate(
            [
                head_inputs(model, rows, tokenizer, progress=shown)
                for rows, shown in zip((labeled, pool), progress, strict=True)
            ]
        )
    taught = np.asarray(pool["pseudo_probs"][:], dtype=np.float64)
    given = np.eye(taught.shape[1])[np.asarray(labeled["labels"][:])]
    weights = np.append(np.ones(len(given)), lambda_u * np.asarray(pool["weight"][:], dtype=np.float64))
    weight, bias = soft_logistic_weights(inputs, np.concatenate([given, taught]), weights)
    # Averaged labels are less sure than right, and so is what is fitted to them with a penalty. The steps on the
    # labeled rows had made the head surer; where no label is held out, no temperature will.
    replaced = layer(torch.from_numpy(inputs).to(layer.weight)).double().cpu().numpy()
    scale = confidence_scale(inputs @ weight.T + bias, replaced)
    weight, bias = broadcast((scale * weight, scale * bias))
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))


def confidence_scale(logits: np.ndarray, reference: np.ndarray) -> float:
    """The factor on `logits` by which the most probable classes are, on average, as probable as by `reference`.

    It changes no label. 1 where no factor can do it: logits that are all equal, or a reference that is never unsure.

    Args:
        logits: `[N, K]`.
        reference: `[N, K]` logits.
    """
    wanted = softmax(reference, axis=1).max(axis=1).mean()

    def surplus(exponent: float) -> float:
        return softmax(np.exp(exponent) * logits, axis=1).max(axis=1).mean() - wanted

    if surplus(-MAX_EXPONENT) >= 0 or surplus(MAX_EXPONENT) <= 0:
        return 1.0
    return float(np.exp(brentq(surplus, -MAX_EXPONENT, MAX_EXPONENT)))
