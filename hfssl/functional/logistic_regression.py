"""Fits multinomial logistic regression to hard or soft labels, in coordinates where few steps converge."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["logistic_weights", "soft_logistic_weights", "softmax_regression"]

# Larger than scikit-learn's 1: see benchmarks/NOTES.md, 2026-11-26.
INVERSE_PENALTY = 10.0
MAX_ITERATIONS = 200
STEEPEST, SMALLEST_CHANGE = 1e-5, 1e-9  # stopping rule of the search: largest gradient entry, length of last step
NEVER = -100.0  # logit of a class that has no labels


def logistic_weights(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    inverse_penalty: float = INVERSE_PENALTY,
    with_bias: bool = True,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Fits multinomial logistic regression to the features, as SetFit does for its head (Tunstall et al. 2022).

    Features are centred and divided by their root mean squared distance from the mean, so that the penalty does not
    depend on their scale. A class without rows is never predicted. The result equals scikit-learn's.

    Args:
        features (`Tensor`): `[B, D]`, rows of at least two classes.
        labels (`Tensor`): `[B]` class numbers.
        num_classes (`int`): Number of classes K.
        inverse_penalty (`float`, defaults to `INVERSE_PENALTY`): Inverse strength of the penalty, C of scikit-learn
            (whose default is 1); see `benchmarks/NOTES.md`, 2026-11-26.
        with_bias (`bool`, defaults to `True`): Whether the layer has a bias; else it is 0, and a class without rows
            has the logit `NEVER` at the mean of the features.
        class_weights (`Tensor`, *optional*): `[K]`, weight of the rows of each class. Default: 1.

    Returns:
        Weight `[K, D]` and bias `[K]`.
    """
    present, numbers = torch.unique(labels.cpu(), return_inverse=True)
    if len(present) == 2:  # scikit-learn fits one vector: the difference of two that are penalized half as much
        inverse_penalty /= 2
    fitted = soft_logistic_weights(
        features.cpu().numpy(),
        np.eye(len(present))[numbers],
        np.ones(len(labels)) if class_weights is None else class_weights.double().cpu().numpy()[labels.cpu().numpy()],
        inverse_penalty=inverse_penalty,
        with_bias=with_bias,
    )
    weight = torch.zeros(num_classes, features.shape[1], dtype=features.dtype, device=features.device)
    bias = torch.full((num_classes,), NEVER, dtype=features.dtype, device=features.device)
    if not with_bias:
        mean = features.mean(dim=0)
        weight, bias = weight + NEVER * mean / mean.square().sum().clamp_min(1e-12), torch.zeros_like(bias)
    weight[present], bias[present] = (torch.from_numpy(values).to(features) for values in fitted)
    return weight, bias


def soft_logistic_weights(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    inverse_penalty: float = INVERSE_PENALTY,
    with_bias: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Fits `logistic_weights` to rows with weights and soft labels.

    scikit-learn's estimator would need a copy of each row for every class.

    Args:
        features (`np.ndarray`): `[N, D]`.
        targets (`np.ndarray`): `[N, K]`, each row's probabilities.
        weights (`np.ndarray`): `[N]`, not negative, some above 0.
        inverse_penalty (`float`, defaults to `INVERSE_PENALTY`): Inverse strength of the penalty, C of scikit-learn.
        with_bias (`bool`, defaults to `True`): Whether the layer has a bias; else it is 0.

    Returns:
        Weight `[K, D]` and bias `[K]`, float64.
    """
    mean_square = np.square(features - features.mean(axis=0, dtype=np.float64)).sum(axis=1).mean()
    penalty = max(mean_square, 1e-12) / inverse_penalty
    return softmax_regression(features, targets, weights, penalty=penalty, with_bias=with_bias)


@torch.no_grad()
def softmax_regression(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    penalty: float,
    bias_penalty: float = 0.0,
    offset: np.ndarray | None = None,
    with_bias: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimises sum_i w_i CE(q_i, softmax(W (x_i - m) + b + o_i)) + penalty ||W||^2 / 2 + bias_penalty ||b||^2 / 2.

    m is the mean of the features. L-BFGS (Liu and Nocedal 1989) searches along the principal axes of the features,
    each divided by the root of the curvature at equal probabilities of all classes. The variances of an encoder's
    features differ so much that the search would take many more steps without this (`benchmarks/NOTES.md`,
    2026-11-29).

    Args:
        features (`np.ndarray`): `[N, D]`.
        targets (`np.ndarray`): `[N, K]`, each row's probabilities.
        weights (`np.ndarray`): `[N]`, not negative, some above 0.
        penalty (`float`): Strength of the L2 penalty on the weight, above 0.
        bias_penalty (`float`, defaults to `0.0`): Strength of the L2 penalty on the bias.
        offset (`np.ndarray`, *optional*): `[N, K]`, a fixed term added to the logits.
        with_bias (`bool`, defaults to `True`): Whether there is a bias b; without it, b and m are 0.

    Returns:
        Weight `[K, D]` and bias `[K]`, float64, for the features themselves, not for x - m.
    """
    rows, targets, weights = (torch.as_tensor(values, dtype=torch.float64) for values in (features, targets, weights))
    center, classes = with_bias * rows.mean(dim=0), targets.shape[1]
    left, spread, axes = torch.linalg.svd(rows - center, full_matrices=False)
    variance = (1 - 1 / classes) / classes  # variance of an indicator where all classes are equally probable
    curvature = (variance * weights.mean() * spread**2 + penalty).sqrt()
    bias_curvature = (variance * weights.sum() + bias_penalty).sqrt()
    rows = torch.cat([left * (spread / curvature), (with_bias / bias_curvature).expand(len(rows), 1)], dim=1)
    penalties = torch.cat([penalty / curvature**2, bias_penalty / bias_curvature[None] ** 2])
    fixed = 0.0 if offset is None else torch.as_tensor(offset, dtype=torch.float64)
    layer = torch.zeros(classes, rows.shape[1], dtype=torch.float64, requires_grad=True)

    @torch.no_grad()
    def loss() -> Tensor:
        logs = torch.log_softmax(rows @ layer.T + fixed, dim=1)
        layer.grad = (weights[:, None] * (logs.exp() - targets)).T @ rows + penalties * layer
        return (penalties * layer**2).sum() / 2 - weights @ (targets * logs).sum(dim=1)

    torch.optim.LBFGS(
        [layer],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=STEEPEST,
        tolerance_change=SMALLEST_CHANGE,
        line_search_fn="strong_wolfe",
    ).step(loss)
    weight = (layer[:, :-1] / curvature) @ axes
    return weight.numpy(), (layer[:, -1] / bias_curvature - weight @ center).numpy()
