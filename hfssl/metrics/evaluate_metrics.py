"""Provides the metrics of hfssl as `evaluate.Metric` classes.

`evaluate.load("f1")` downloads code. These classes are imported and work offline:

    from hfssl.metrics.evaluate_metrics import MacroF1
    MacroF1().compute(predictions=[0, 1], references=[0, 1])
"""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value

from hfssl.citations import GUO_2017
from hfssl.metrics.calibration import expected_calibration_error
from hfssl.metrics.classification import accuracy, macro_f1, nll

__all__ = ["METRICS", "Accuracy", "ExpectedCalibrationError", "MacroF1", "NegativeLogLikelihood"]

CLASS_INDICES = {"predictions": Value("int64"), "references": Value("int64")}
PROBABILITIES = {"predictions": Sequence(Value("float64")), "references": Value("int64")}
INDEX_INPUTS = "\nArgs:\n    predictions: class indices, shape [N].\n    references: true class indices, shape [N].\n"
PROBABILITY_INPUTS = (
    "\nArgs:\n    predictions: class probabilities, shape [N, K], rows sum to 1.\n"
    "    references: true class indices, shape [N].\n"
)


def _info(description: str, features: dict[str, Any], inputs: str, citation: str = "") -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description, citation=citation, inputs_description=inputs, features=Features(features)
    )


class Accuracy(evaluate.Metric):
    """Computes the fraction of correct predictions in `[0, 1]`; returns `{"accuracy": float}`."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Fraction of correct predictions.", CLASS_INDICES, INDEX_INPUTS)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": accuracy(np.asarray(predictions), np.asarray(references))}


class MacroF1(evaluate.Metric):
    """Computes the unweighted mean F1 over the classes that occur, in `[0, 1]`; returns `{"macro_f1": float}`."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Unweighted mean of the classes' F1.", CLASS_INDICES, INDEX_INPUTS)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"macro_f1": macro_f1(np.asarray(predictions), np.asarray(references))}


class NegativeLogLikelihood(evaluate.Metric):
    """Computes the mean negative log-likelihood of the true class in nats; returns `{"nll": float}`."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Mean negative log-likelihood in nats.", PROBABILITIES, PROBABILITY_INPUTS)

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        return {"nll": nll(predictions, np.asarray(references))}


class ExpectedCalibrationError(evaluate.Metric):
    """Computes the ECE over `bins` equally wide bins of confidence, in `[0, 1]`; returns `{"ece": float}`."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Expected calibration error.", PROBABILITIES, PROBABILITY_INPUTS, citation=GUO_2017)

    def _compute(self, predictions: list[list[float]], references: list[int], bins: int = 15) -> dict[str, float]:
        return {"ece": expected_calibration_error(predictions, np.asarray(references), bins=bins)}


METRICS: dict[str, type[evaluate.Metric]] = {
    "accuracy": Accuracy,
    "macro_f1": MacroF1,
    "nll": NegativeLogLikelihood,
    "ece": ExpectedCalibrationError,
}
