"""Implements `hfssl predict`: predicts labels for tables of any length in constant memory, written atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm

from hfssl.data.tables import parquet_schema, read_rows
from hfssl.data.writing import table_writer
from hfssl.deploy.text_classifier import TextClassifier
from hfssl.errors import DataError, near_matches
from hfssl.inference.scoring import predict_logits
from hfssl.runtime.files import atomic_file

__all__ = ["PredictionSummary", "predict"]

CHUNK_ROWS = 2048  # rows in memory at once; enough for sorting by length to save most of the padding
ARROW_TYPES = {str: pa.string(), float: pa.float64()}


@dataclass(frozen=True)
class PredictionSummary:
    """Describes the result of `predict`.

    Args:
        rows (`int`): Number of rows written.
        empty (`int`): Number of rows without any text, whose prediction is empty.
        columns (`list[str]`): Names of the new columns, as written.
    """

    rows: int
    empty: int
    columns: list[str]


def predict(
    model: str | os.PathLike,
    input: str | os.PathLike,
    output: str | os.PathLike,
    *,
    text_column: str = "text",
    text_pair_column: str | None = None,
    max_length: int | None = None,
    max_tokens: int = 8192,
    overwrite: bool = False,
    quiet: bool = False,
) -> PredictionSummary:
    """Writes the rows of `input`, in their order, with a label, its probability and the entropy to `output`.

    The new columns are `predicted_label`, `probability` (of that label, in [0, 1]) and `entropy` (of all labels, in
    nats); a name that the input already contains gets the suffix `_2` (`_3`, ...). The whole input is checked before
    the first prediction.

    Args:
        model (`str | os.PathLike`): Folder of a full model or an adapter, or a Hub id.
        input (`str | os.PathLike`): CSV, TSV, JSON-lines or Parquet file.
        output (`str | os.PathLike`): File to write, of one of these kinds.
        text_column (`str`, defaults to `"text"`): Column with the text.
        text_pair_column (`str`, *optional*): Column with the second text of a pair.
        max_length (`int`, *optional*): Number of tokens at which texts are cut. Default: the limit of the model's
            tokenizer.
        max_tokens (`int`, defaults to `8192`): Largest number of tokens in one forward pass, padding included.
        overwrite (`bool`, defaults to `False`): Whether to replace an existing `output`.
        quiet (`bool`, defaults to `False`): Whether to hide the progress bar.

    Raises:
        DataError: if the input is malformed or lacks a column, or if `output` exists.
        ConfigurationError: if the suffix of `output` is unknown.
        ModelError: if the model cannot be loaded.
    """
    source, target = Path(input), Path(output)
    if target.exists() and not overwrite:
        raise DataError(f"The output file '{target}' exists; choose another name, or replace it with --overwrite.")
    wanted = [text_column] if text_pair_column is None else [text_column, text_pair_column]
    columns, count = _scan(source, wanted)
    classifier = TextClassifier(model, max_length)
    new = classifier.task.prediction_columns
    names = _free_names(columns, new)
    kinds = {name: ARROW_TYPES[kind] for name, kind in zip(names, new.values(), strict=True)}
    with atomic_file(target) as temporary, table_writer(temporary, target.suffix, source, columns, kinds) as writer:
        rows, empty = read_rows(source), 0
        with tqdm(total=count, desc="Predicting", unit=" rows", disable=True if quiet else None) as bar:
            while chunk := [row for _, row in islice(rows, CHUNK_ROWS)]:
                texts = [tuple(_as_text(row.get(column)) for column in wanted) for row in chunk]
                filled = [index for index, parts in enumerate(texts) if any(part.strip() for part in parts)]
                labeled = _predictions(classifier, [texts[index] for index in filled], max_tokens)
                predictions = dict(zip(filled, labeled, strict=True))
                nothing = (None,) * len(names)
                writer.write(
                    [row | dict(zip(names, predictions.get(i, nothing), strict=True)) for i, row in enumerate(chunk)]
                )
                empty += len(chunk) - len(filled)
                bar.update(len(chunk))
    return PredictionSummary(count, empty, names)


def _predictions(classifier: TextClassifier, texts: list[tuple[str, ...]], max_tokens: int) -> list[tuple[Any, ...]]:
    """Returns the values of the task's prediction columns for each text or pair."""
    if not texts:
        return []
    rows = classifier.tokenized(texts)
    logits = predict_logits(classifier.model, rows, classifier.tokenizer, max_tokens=max_tokens)
    probs = classifier.task.probs(torch.from_numpy(logits)).numpy()  # [N, K]
    return classifier.task.describe(probs, classifier.label_names)


def _scan(path: Path, wanted: Sequence[str]) -> tuple[list[str], int]:
    """Reads the whole table once, to report broken rows early; returns its columns and its number of rows."""
    columns: dict[str, None] = {}
    if path.suffix.lower() == ".parquet" and path.exists():
        columns, count = dict.fromkeys(parquet_schema(path).names), pq.read_metadata(path).num_rows
    else:
        count = 0
        for _, row in read_rows(path):
            columns |= dict.fromkeys(row)
            count += 1
    if count == 0:
        raise DataError(f"Expected rows in '{path}', found none; check how it was written.")
    for name in wanted:
        if name not in columns:
            hint = near_matches(name, list(columns))
            raise DataError(f"Expected a column '{name}' in '{path}', found {', '.join(columns)}.{hint}")
    return list(columns), count


def _free_names(columns: Sequence[str], new: Iterable[str]) -> list[str]:
    """Returns the names of the new columns, with a number where the table already has such a column."""
    names = []
    for name in new:
        free, number = name, 2
        while free in columns:
            free, number = f"{name}_{number}", number + 1
        names.append(free)
    return names


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
