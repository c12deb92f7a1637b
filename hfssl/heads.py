"""The linear layer that makes the logits: finding it, and fitting it to a few labels in closed form or nearly so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from datasets import Dataset
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.errors import ModelError
from hfssl.modeling import evaluating, transformers_model

__all__ = [
    "HEAD_STARTS",
    "class_mean_weights",
    "confidence_scale",
    "logistic_weights",
    "logit_layer",
    "mixed_head_input",
    "one_vector_a_row",
    "seen_by_head",
    "soft_logistic_weights",
    "start_head",
]

ROWS_AT_ONCE = 64
# scikit-learn's 1 lost up to 8 points where classes are many, or features were not trained to tell them apart.
INVERSE_PENALTY = 10.0
MOST_ITERATIONS = 200
MOST_EXPONENT = 10.0  # of the factors that are tried: a head of next to no steps is next to not sure at all
NEVER = -100.0  # logit of a class that has no labels


def logit_layer(model: nn.Module) -> nn.Linear:
    """The last linear layer with `num_labels` outputs.

    Raises:
        ModelError: if there is none.
    """
    labels = transformers_model(model).config.num_labels
    fitting = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == labels]
    if not fitting:
        raise ModelError(
            f"Expected {type(transformers_model(model)).__name__} to end in a linear layer with {labels} outputs (its "
            "number of labels), found none: load it with AutoModelForSequenceClassification."
        )
    return fitting[-1]


@contextmanager
def mixed_head_input(model: nn.Module, partners: Tensor, share: float) -> Iterator[None]:
    """Within the block the logit layer sees share * h + (1 - share) * h[partners] in place of h, `[B, D]`."""

    def mix(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *others = inputs
        if hidden.dim() != 2 or len(hidden) != len(partners):
            raise ModelError(
                f"Expected one vector a row before the head, [{len(partners)}, D], got {list(hidden.shape)}: this "
                "architecture cannot be trained with mixup_alpha."
            )
        return (share * hidden + (1 - share) * hidden[partners.to(hidden.device)], *others)

    handle = logit_layer(model).register_forward_pre_hook(mix)
    try:
        yield
    finally:
        handle.remove()


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


def logistic_weights(
    features: Tensor, labels: Tensor, num_classes: int, *, inverse_penalty: float = INVERSE_PENALTY
) -> tuple[Tensor, Tensor]:
    """Weight and bias of multinomial logistic regression on the features, as SetFit's head (Tunstall et al. 2022).

    The penalty is on features that are centred and divided by their root mean squared distance from the mean, which
    makes it free of their scale. A class without rows is never predicted.

    Args:
        features: `[B, D]`, of two classes or more.
        labels: `[B]`.
        num_classes: K.
        inverse_penalty: C of scikit-learn, whose default is 1; 10 here by `benchmarks/NOTES.md`, 2026-11-26.

    Returns:
        `[K, D]` and `[K]`.
    """
    center = features.mean(dim=0)
    scale = (features - center).square().sum(dim=1).mean().sqrt().clamp_min(1e-6)
    scaled = ((features - center) / scale).double().cpu().numpy()
    fitted = LogisticRegression(C=inverse_penalty, max_iter=1000).fit(scaled, labels.cpu().numpy())
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # one row of differences
        coefficients, intercepts = (np.stack([-values[0] / 2, values[0] / 2]) for values in (coefficients, intercepts))
    weight = torch.zeros(num_classes, features.shape[1], dtype=features.dtype, device=features.device)
    bias = torch.full((num_classes,), NEVER, dtype=features.dtype, device=features.device)
    weight[fitted.classes_] = torch.from_numpy(coefficients).to(weight) / scale
    bias[fitted.classes_] = torch.from_numpy(intercepts).to(bias) - weight[fitted.classes_] @ center
    return weight, bias


def soft_logistic_weights(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, inverse_penalty: float = INVERSE_PENALTY
) -> tuple[np.ndarray, np.ndarray]:
    """`logistic_weights` for rows that count differently and whose labels are probabilities.

    Minimises sum_i w_i CE(q_i, softmax(W x_i + b)) + ||W||^2 / (2 C) over centred and scaled features, by L-BFGS.
    scikit-learn's would need each row once a class.

    Args:
        features: `[N, D]`.
        targets: `[N, K]`, each row's probabilities.
        weights: `[N]`, not negative, some above 0.
        inverse_penalty: C.

    Returns:
        `[K, D]` and `[K]`, float64.
    """
    center = features.mean(axis=0, dtype=np.float64)
    scale = max(np.sqrt(np.square(features - center).sum(axis=1).mean()), 1e-6)
    rows = np.column_stack([(features - center) / scale, np.ones(len(features))])  # [N, D + 1]
    shape = targets.shape[1], rows.shape[1]
    penalized = np.append(np.full(rows.shape[1] - 1, 1 / inverse_penalty), 0.0)  # the bias is free

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        layer = flat.reshape(shape)
        logs = log_softmax(rows @ layer.T, axis=1)
        loss = -(weights @ (targets * logs).sum(axis=1)) + (penalized * layer**2).sum() / 2
        gradient = (weights[:, None] * (np.exp(logs) - targets)).T @ rows + penalized * layer
        return loss, gradient.ravel()

    start = np.zeros(shape).ravel()
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": MOST_ITERATIONS})
    layer = found.x.reshape(shape)
    weight = layer[:, :-1] / scale
    return weight, layer[:, -1] - weight @ center


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

    if surplus(-MOST_EXPONENT) >= 0 or surplus(MOST_EXPONENT) <= 0:
        return 1.0
    return float(np.exp(brentq(surplus, -MOST_EXPONENT, MOST_EXPONENT)))


HEAD_STARTS = {"class_means": class_mean_weights, "logistic": logistic_weights}


@torch.no_grad()
def start_head(start: str, model: PreTrainedModel, labeled: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fits the logit layer to its own input over the labeled rows, as one of `HEAD_STARTS` says.

    Args:
        start: `"class_means"` or `"logistic"`.
        model: a classifier; its training flags stay as they are and no random number is drawn.
        labeled: tokenized rows with `labels`.
        tokenizer: pads the batches.

    Raises:
        ModelError: if the layer has no bias, or does not see one vector a row.
    """
    layer = logit_layer(model)
    if layer.bias is None:
        raise ModelError("Expected a logit layer with a bias for head_start, found one without: leave it out.")
    features = one_vector_a_row(_head_input(layer, model, labeled, tokenizer))
    labels = torch.tensor(labeled["labels"][:], device=features.device)
    weight, bias = HEAD_STARTS[start](features, labels, layer.out_features)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def one_vector_a_row(hidden: Tensor) -> Tensor:
    """What the logit layer sees, if that is `[B, D]`; `ModelError` else: there is no head to fit then."""
    if hidden.dim() != 2:
        raise ModelError(
            f"Expected one vector a row before the head, [B, D], got {list(hidden.shape)}: leave head_start and "
            "refit_head out."
        )
    return hidden


@contextmanager
def seen_by_head(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """Within the block each forward pass adds what the logit layer was given to the list."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _head_input(
    layer: nn.Linear, model: PreTrainedModel, labeled: Dataset, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """What the layer sees of each row, without dropout, `[B, D]`."""
    names = [name for name in labeled.column_names if name in tokenizer.model_input_names]
    with evaluating(model), seen_by_head(layer) as seen:
        for first in range(0, len(labeled), ROWS_AT_ONCE):
            rows = labeled.select_columns(names)[first : first + ROWS_AT_ONCE]
            model(**tokenizer.pad(dict(rows), return_tensors="pt").to(model.device))
    return torch.cat(seen)
