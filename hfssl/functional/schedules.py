"""Computes schedules over the steps of a run: weights that ramp up, thresholds that anneal."""

from __future__ import annotations

import math

__all__ = ["RAMP_SHAPES", "TSA_SCHEDULES", "curriculum_threshold", "ramp_up", "tsa_threshold"]

RAMP_SHAPES = ("linear", "cosine", "gaussian")
TSA_SCHEDULES = ("none", "linear", "exp", "log")


def ramp_up(step: int, total_steps: int, *, fraction: float, shape: str = "linear", start: float = 0.0) -> float:
    """Returns the factor in [0, 1] on the weight of the unlabeled loss.

    With t = clip((step / total_steps - start) / fraction, 0, 1) the factor is t (`"linear"`), (1 - cos(pi t)) / 2
    (`"cosine"`, Berthelot et al. 2022, section 3.4) or exp(-5 (1 - t)^2) (`"gaussian"`, Laine & Aila 2017, section 3).
    It is 0 before the share `start` of the steps, and 1 from there on if `fraction` is 0.

    Args:
        step (`int`): Number of optimizer steps taken.
        total_steps (`int`): Number of optimizer steps of the run.
        fraction (`float`): Share of the steps over which the weight grows.
        shape (`str`, defaults to `"linear"`): One of `RAMP_SHAPES`.
        start (`float`, defaults to 0.0): Share of the steps before the growth begins.

    Example:
        >>> ramp_up(20, 100, fraction=0.4)
        0.5
    """
    elapsed = step / max(1, total_steps) - start
    if elapsed < 0:
        return 0.0
    t = 1.0 if fraction == 0 else min(1.0, elapsed / fraction)
    match shape:
        case "linear":
            return t
        case "cosine":
            return (1 - math.cos(math.pi * t)) / 2
        case "gaussian":
            return math.exp(-5 * (1 - t) ** 2)
    raise ValueError(f"Expected a shape among {', '.join(RAMP_SHAPES)}, got '{shape}'.")


def tsa_threshold(step: int, total_steps: int, num_classes: int, schedule: str) -> float:
    """Returns the largest probability of the label at which a labeled row still counts (Xie et al. 2020, app. A.2).

    eta = alpha (1 - 1/K) + 1/K with t = step / total_steps and alpha = t (`"linear"`), exp(5 (t - 1)) (`"exp"`) or 1 -
    exp(-5 t) (`"log"`); 1 for `"none"`.

    Args:
        step (`int`): Number of optimizer steps taken.
        total_steps (`int`): Number of optimizer steps of the run.
        num_classes (`int`): Number K of classes.
        schedule (`str`): One of `TSA_SCHEDULES`.

    Example:
        >>> tsa_threshold(50, 100, 2, "linear")
        0.75
    """
    t = min(1.0, step / max(1, total_steps))
    match schedule:
        case "none":
            return 1.0
        case "linear":
            alpha = t
        case "exp":
            alpha = math.exp(5 * (t - 1))
        case "log":
            alpha = 1 - math.exp(-5 * t)
        case _:
            raise ValueError(f"Expected a schedule among {', '.join(TSA_SCHEDULES)}, got '{schedule}'.")
    return alpha * (1 - 1 / num_classes) + 1 / num_classes


def curriculum_threshold(step: int, total_steps: int, num_classes: int, fraction: float) -> float:
    """Returns the smallest confidence of a target that counts: easy rows first (Bengio et al. 2009).

    It falls linearly from 1 to 1/K, which every target reaches, over the share `fraction` of the steps.

    Args:
        step (`int`): Number of optimizer steps taken.
        total_steps (`int`): Number of optimizer steps of the run.
        num_classes (`int`): Number K of classes.
        fraction (`float`): Share of the steps with a curriculum; 0 has none.

    Example:
        >>> curriculum_threshold(25, 100, 2, fraction=0.5)
        0.75
    """
    if fraction == 0:
        return 0.0
    t = step / max(1, total_steps) / fraction
    return 0.0 if t >= 1 else 1 - t * (1 - 1 / num_classes)
