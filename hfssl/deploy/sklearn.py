"""`SSLClassifier`: `hfssl.fit` as an estimator of scikit-learn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from hfssl.config.arguments import DEFAULT_BACKBONE
from hfssl.config.values import plain_value
from hfssl.data.label_column import UNLABELED
from hfssl.errors import DataError
from hfssl.inference.text_classifier import TextClassifier
from hfssl.pipeline.fit import fit

__all__ = ["SSLClassifier"]


class SSLClassifier(ClassifierMixin, BaseEstimator):
    """Trains a text classifier from few labels and many unlabeled texts; the label -1 means unlabeled.

    It works with `clone`, `Pipeline`, `cross_val_score`, `GridSearchCV` and `pickle`. `X` is a list, array or series
    of N texts; a table or an array with one column of them; or with two columns, for pairs of texts. Cells that are
    numbers are read as words.

    Args:
        backbone (`str | os.PathLike`, defaults to MiniLM): Pretrained model to start from: a folder or a Hub model.
        preset (`str`, defaults to `"standard"`): Duration of the training: `"quick"`, `"standard"` or `"thorough"`.
        output_dir (`str | os.PathLike`, *optional*): Folder for the run's report and all files. Default: a temporary
            one, which is deleted; the model stays in memory.
        random_state (`int`, defaults to `0`): Random seed, of the same bits for the same machine and versions.
        options (`Mapping[str, Any]`, *optional*): Further arguments of `hfssl.fit`, such as `{"rounds": 0}`.

    Attributes:
        classes_ (`np.ndarray`): The K class labels, sorted, as they stand in `y`.
        classifier_ (`TextClassifier`): The final model.
        results_ (`dict[str, Any]`): Content of the run's `results.json`, with the verdict.

    Example:
        >>> import hfssl
        >>> labels = [1, 0, 1, 0, 1, 0, -1, -1]
        >>> estimator = hfssl.SSLClassifier(backbone=backbone, preset="quick", options={"quiet": True})
        >>> estimator.fit(texts, labels).predict(["a good film", "a dull film"]).shape
        (2,)
    """

    def __init__(
        self,
        backbone: str | os.PathLike[str] = DEFAULT_BACKBONE,
        *,
        preset: Literal["quick", "standard", "thorough"] = "standard",
        output_dir: str | os.PathLike[str] | None = None,
        random_state: int = 0,
        options: Mapping[str, Any] | None = None,
    ):
        self.backbone, self.preset, self.output_dir = backbone, preset, output_dir
        self.random_state, self.options = random_state, options

    def __sklearn_tags__(self) -> Any:
        """Returns scikit-learn's tags: texts, checked by the rules of tables; accuracy depends on the backbone."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.no_validation = True, True, True
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any) -> SSLClassifier:
        """Trains on the texts; those whose label is -1 (or missing) are the unlabeled data.

        Args:
            X (`Any`): N texts, or pairs of texts.
            y (`Any`): Labels, `[N]`: numbers or names; -1, `None` or NaN for an unlabeled text.

        Raises:
            DataError: if the texts or labels cannot be used.
            ConfigurationError: if an option is wrong.
        """
        texts, labels = _texts(X), _labels(y)
        if len(texts) != len(labels):
            raise DataError(f"expected as many labels as texts, got {len(labels):,} labels and {len(texts):,} texts.")
        given = [label for label in labels if label is not None]
        check_classification_targets(np.asarray(given))
        classes = np.unique(np.asarray(given))
        if len(classes) < 2:
            found = "no class" if not len(classes) else f"one class ({classes[0]!r})"
            raise DataError(f"expected labels of at least two classes, got {found}: label texts of another class.")
        names = [str(value) for value in classes]
        table: dict[str, list[Any]] = {"text": [row[0] for row in texts]}
        if len(texts[0]) > 1:
            table["text_pair"] = [row[1] for row in texts]
        table["label"] = [None if label is None else str(label) for label in labels]
        with tempfile.TemporaryDirectory(prefix="hfssl-") as temporary:
            result = fit(
                table,
                output_dir=Path(temporary) / "run" if self.output_dir is None else self.output_dir,
                backbone=self.backbone,
                preset=self.preset,  # pyright: ignore[reportArgumentType]
                seed=0 if self.random_state is None else self.random_state,
                class_names=names,
                missing_labels=(),
                keep_label_variants=True,
                **{"text_pair_column": "text_pair"} if "text_pair" in table else {},
                **dict(self.options or {}),
            )
            self.classifier_ = TextClassifier(result.output_dir / "model")
        self.classes_, self.results_ = classes, result.results
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns calibrated probabilities, `[N, K]` float32, in the order of `classes_`.

        Args:
            X (`Any`): N texts, or pairs of texts.

        Raises:
            DataError: if a text is missing or empty.
        """
        check_is_fitted(self)
        texts = _texts(X)
        probs = self.classifier_.predict_proba([row if len(row) > 1 else row[0] for row in texts])  # pyright: ignore[reportGeneralTypeIssues]
        missing = np.flatnonzero(np.isnan(probs).any(axis=1))
        if len(missing):
            raise DataError(f"expected a text in each row, got none in row {missing[0]}: leave such rows out.")
        return probs

    def predict(self, X: Any) -> np.ndarray:
        """Returns the class of each text, `[N]`.

        Args:
            X (`Any`): N texts, or pairs of texts.

        Raises:
            DataError: if a text is missing or empty.
        """
        numbers = self.predict_proba(X).argmax(axis=1)  # before `classes_`, which an unfitted estimator lacks
        return self.classes_[numbers]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Returns the accuracy on the labeled rows; those with -1 are left out.

        Args:
            X (`Any`): N texts, or pairs of texts.
            y (`Any`): Labels, `[N]`.
            sample_weight (`Any`, *optional*): Weights of the rows, `[N]`.
        """
        texts, labels = _texts(X), _labels(y)
        rows = [number for number, label in enumerate(labels) if label is not None]
        right = self.predict([texts[row] for row in rows]) == np.asarray([labels[row] for row in rows])
        weights = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return float(np.average(right, weights=weights))


def _labels(y: Any) -> list[Any]:
    """Returns labels as plain values, `None` for an unlabeled row."""
    if y is None:
        raise DataError("expected labels y, got None: give one a text, -1 for an unlabeled one.")
    if not isinstance(y, list | tuple):  # of a list with -1 and names, numpy would make names of all
        array = np.asarray(y)
        y = array.ravel() if array.ndim == 2 and array.shape[1] == 1 else array
    values = [plain_value(value) for value in y]
    return [None if value is None or value == UNLABELED or value != value else value for value in values]


def _texts(X: Any) -> list[tuple[Any, ...]]:
    """Returns rows of one text, or of two."""
    if issparse(X):
        raise TypeError("SSLClassifier reads texts; sparse matrices are not supported: give the texts themselves.")
    if isinstance(X, list) and X and all(isinstance(row, tuple) for row in X):
        rows = X
    else:
        array = np.asarray(X, dtype=object) if not hasattr(X, "to_numpy") else X.to_numpy(dtype=object)  # pyright: ignore[reportAttributeAccessIssue]
        if array.ndim not in (1, 2) or not array.size:
            raise DataError(
                f"expected texts, [N] or [N, 1] (or [N, 2] for pairs), got an array of shape {array.shape}: give a "
                "list of texts. Found array with 0 sample(s) or a wrong number of dimensions."
            )
        rows = [tuple(row) for row in (array if array.ndim == 2 else array[:, None])]
    if len(rows[0]) > 2 or any(not isinstance(cell, str | None) for cell in rows[0]):
        return [(" ".join(str(plain_value(cell)) for cell in row),) for row in rows]
    return rows
