"""Implements `hfssl export`: a classifier as ONNX, checked against PyTorch, and as int8 with its cost in accuracy.

The exporter is that of torch (`torch.onnx.export(dynamo=True)`, which needs onnxscript). Hugging Face's optimum-onnx
0.0.1 requires transformers below 4.56, and torch's older tracer (`dynamo=False`) is deprecated. BERT (MiniLM),
RoBERTa, DistilBERT, DeBERTa-v2, ModernBERT and others are exported, with their stock heads and as hfssl's mean-pooled
classifier. Architectures that torch cannot export (Longformer, XLNet) raise an error of one sentence.

A `model.onnx` is written only if ONNX Runtime returns PyTorch's logits for batches of other shapes than that of the
export. int8 quantisation is dynamic: weights are stored as int8, and activations are scaled to uint8 by their range in
the batch, so that logits depend slightly on the other rows of the batch.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.data.loading import load_table
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.data.tokenization import pad_tokens, tokenize_dataset
from hfssl.deploy.onnx_runtime import INT8_FILE, ONNX_FILE, TOKENS, OnnxClassifier, require_onnx
from hfssl.errors import DataError, ModelError
from hfssl.inference.scoring import predict_logits
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import first_line, load_tokenizer
from hfssl.models.checkpoints import plain_model
from hfssl.models.mean_pooling import MeanPooledForSequenceClassification
from hfssl.pipeline.run_folder import model_and_splits
from hfssl.runtime.files import atomic_directory, write_json
from hfssl.tasks.registry import task_of

__all__ = ["TOLERANCE", "Cost", "Exported", "export_onnx"]

# Largest accepted difference of a logit from PyTorch's, relative to the largest logit of the batch: larger floats
# cannot agree better. Below a size of 1 the tolerance is that of 1.
TOLERANCE = 1e-4
RECORD_FILE = "export.json"
PROTOBUF_BYTES = 2**31  # an ONNX file cannot be larger
EXAMPLE_SHAPE = (2, 7)
# Rows and tokens of the batches that are compared; ModernBERT's local attention spans 128 tokens.
CHECKED_SHAPES = ((1, 1), (1, 12), (3, 2), (9, 31), (2, 192))
POSITIONS = 512  # positions of an architecture without a limit in its configuration
DYNAMIC = {0: "batch", 1: "length"}


@dataclass(frozen=True)
class Cost:
    """Holds the accuracies of PyTorch, ONNX and int8 on labeled rows.

    Args:
        table (`str`): Source of the rows.
        rows (`int`): Number of labeled rows.
        accuracy (`dict[str, float]`): `"PyTorch"`, `"ONNX"` and (if requested) `"int8"` -> accuracy in [0, 1].
        changed (`dict[str, float]`): `"ONNX"` and `"int8"` -> share of the rows, in [0, 1], with another predicted
            label than from PyTorch.
    """

    table: str
    rows: int
    accuracy: dict[str, float]
    changed: dict[str, float]


@dataclass(frozen=True)
class Exported:
    """Describes the result of `export_onnx`; all except `folder` is also in its `export.json`.

    Args:
        folder (`Path`): Folder of `model.onnx`, `model_int8.onnx` (if requested), `config.json` and the tokenizer.
        inputs (`list[str]`): Names of the inputs, each int64 `[N, L]` for any N and L; the output is `logits`, float32
            `[N, K]`.
        label_names (`list[str]`): The K class names in the order of the class numbers.
        difference (`float`): Largest difference of a logit from PyTorch's in the compared batches, relative to the
            largest logit of its batch, or to 1 where that is larger.
        sizes (`dict[str, int]`): ONNX file -> size in bytes.
        cost (`Cost | None`): Accuracies on labeled rows; `None` if nothing was measured.
    """

    folder: Path
    inputs: list[str]
    label_names: list[str]
    difference: float
    sizes: dict[str, int]
    cost: Cost | None


def export_onnx(
    folder: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    int8: bool = False,
    data: str | os.PathLike | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
) -> Exported:
    """Exports a classifier to ONNX for any batch size and length; writes files only after the check against PyTorch.

    Args:
        folder (`str | os.PathLike`): Folder of a finished run of `fit` (its `model/` is exported), of a model, or of
            an adapter, which is merged first.
        output (`str | os.PathLike`, *optional*): Folder to write; an earlier export is replaced. Default: `onnx/` in
            `folder`.
        int8 (`bool`, defaults to `False`): Whether to also write the dynamically quantised `model_int8.onnx`.
        data (`str | os.PathLike`, *optional*): Labeled table to measure accuracies on. Default: with `int8`, the test
            part of a run's splits.
        text_column (`str`, defaults to `"text"`): Column of `data` with the text.
        text_pair_column (`str`, *optional*): Column of `data` with the second text of a pair.
        label_column (`str`, defaults to `"label"`): Column of `data` with the label; rows without a label are left
            out.

    Raises:
        ConfigurationError: if a package of the extra `onnx` is missing.
        DataError: if `data` cannot be used, or holds no label.
        ModelError: if there is no classifier in `folder`, `output` holds other files, torch cannot export the
            architecture, or ONNX Runtime's logits differ from PyTorch's by more than 1e-4 of their size.

    Example:
        >>> import hfssl
        >>> from hfssl.models.checkpoints import save_checkpoint
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> save_checkpoint(model, tokenizer, folder, ["bad", "good"])
        >>> sorted(hfssl.export_onnx(folder).sizes)
        ['model.onnx']
    """
    require_onnx()
    folder = Path(folder)
    source, splits = model_and_splits(folder)
    output = folder / "onnx" if output is None else Path(output)
    _check_replaceable(output)
    model = plain_model(from_pretrained(source)).float().eval()
    tokenizer = load_tokenizer(source)
    label_names = [model.config.id2label[label] for label in range(model.config.num_labels)]  # pyright: ignore[reportArgumentType, reportOptionalSubscript]
    columns = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
    rows, table = _rows_to_measure(data, columns, label_names, splits if int8 else None)
    with atomic_directory(output) as temporary:
        model.config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        _write_onnx(model, tokenizer, temporary / ONNX_FILE)
        classifiers = {"ONNX": OnnxClassifier(temporary)}
        difference = _largest_difference(classifiers["ONNX"], model)
        if int8:
            _quantize(temporary / ONNX_FILE, temporary / INT8_FILE)
            classifiers["int8"] = OnnxClassifier(temporary, INT8_FILE)
        exported = Exported(
            folder=output,
            inputs=classifiers["ONNX"].inputs,
            label_names=label_names,
            difference=difference,
            sizes={path.name: path.stat().st_size for path in sorted(temporary.glob("*.onnx"))},
            cost=_cost(model, tokenizer, classifiers, rows, table) if rows is not None else None,
        )
        _write_record(temporary / RECORD_FILE, exported)
    return exported


def _check_replaceable(output: Path) -> None:
    if not output.exists() or (output / RECORD_FILE).is_file():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise ModelError(
            f"Expected a new or empty folder, or one that hfssl export wrote, but '{output}' holds something else: "
            "name another one with --output."
        )


def _rows_to_measure(
    data: str | os.PathLike | None, columns: dict[str, str | None], label_names: list[str], splits: Path | None
) -> tuple[Dataset | None, str]:
    """Returns the labeled rows of `data`, or else the test part of `splits`, and their name; `None` without any."""
    if data is None:
        test = None if splits is None else SemiSupervisedSplits.load(splits)["test"]
        return (test, f"{splits} (test)") if test else (None, "")
    table = load_table(data, label_names=label_names, **columns)  # pyright: ignore[reportArgumentType]
    rows = table.select(np.flatnonzero(np.asarray(table["label"]) >= 0))
    if not len(rows):
        raise DataError(
            f"Expected labeled rows in '{data}' to measure accuracies on, but none of its {len(table)} rows has a "
            "label: name the right column with --label-column, or leave --data out."
        )
    return rows, str(data)


def _write_record(path: Path, exported: Exported) -> None:
    found = {name: value for name, value in asdict(exported).items() if name != "folder"}
    versions = {name: version(name) for name in ("hfssl", "torch", "onnx", "onnxscript", "onnxruntime")}
    write_json(path, {"schema_version": 1, "tolerance": TOLERANCE, **found, "versions": versions})


class _Logits(nn.Module):
    """Wraps a classifier as a function of the tensors `names`, each `[N, L]`, that returns only logits `[N, K]`."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]):
        super().__init__()
        self.model, self.names = model, names
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def _write_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Exports the model with the inputs that its tokenizer makes and its `forward` accepts."""
    kind = model.config.get_text_config().model_type
    size = sum(weight.nbytes for weight in model.parameters())
    if size >= PROTOBUF_BYTES:
        raise ModelError(
            f"Expected a model of less than 2 GiB, which an ONNX file can hold, but its weights take {size:,} bytes: "
            "train a smaller backbone."
        )
    names = _input_names(model, tokenizer)
    example = _random_batch(model, tokenizer, *EXAMPLE_SHAPE, np.random.default_rng(0))
    try:
        with _quiet_upstream():
            program = torch.onnx.export(
                _Logits(model, names),
                tuple(example[name] for name in names),
                dynamo=True,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes={"inputs": (DYNAMIC,) * len(names)},
                verbose=False,
            )
            program.save(path, external_data=False)  # pyright: ignore[reportOptionalMemberAccess]
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            f"Expected an architecture that torch can export to ONNX, but not '{kind}': "
            f"{first_line(error.__cause__ or error).rstrip('.:')}; use a backbone such as BERT, RoBERTa, DistilBERT, "
            "DeBERTa-v2 or ModernBERT."
        ) from error


def _input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    taken = set(inspect.signature(model.forward).parameters)
    if isinstance(model, MeanPooledForSequenceClassification):  # accepts the inputs of its encoder
        taken = set(inspect.signature(model.encoder.forward).parameters)
    return [name for name in tokenizer.model_input_names if name in taken]


def _longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the largest number of tokens that both the tokenizer and the model's positions allow."""
    positions = model.config.get_text_config().to_dict().get("max_position_embeddings") or POSITIONS
    return min(tokenizer.model_max_length, positions)


def _random_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int, length: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Samples ordinary tokens, `[rows, length]`; all rows except the first are padded at random."""
    config = model.config.get_text_config()
    ordinary = np.setdiff1d(np.arange(min(config.vocab_size, len(tokenizer))), tokenizer.all_special_ids)
    types = config.to_dict().get("type_vocab_size") or 1
    tokens = []
    for size in [length, *rng.integers(1, length + 1, size=rows - 1)]:
        row = {"input_ids": rng.choice(ordinary, size).tolist(), "attention_mask": [1] * int(size)}
        tokens.append(row | {"token_type_ids": rng.integers(types, size=size).tolist()})
    return pad_tokens(tokens, tokenizer)


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference of two arrays, relative to the largest value expected, or to 1 if that is larger.

    Args:
        found (`np.ndarray`): Logits, `[N, K]`.
        expected (`np.ndarray`): Logits, `[N, K]`.

    Example:
        >>> import numpy as np
        >>> relative_difference(np.array([[200.0, -3.0]]), np.array([[200.0, -2.0]]))
        0.005
    """
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _largest_difference(classifier: OnnxClassifier, model: PreTrainedModel) -> float:
    """Returns the largest difference of a logit between ONNX Runtime and PyTorch, over batches of several shapes.

    The difference is relative to the largest logit of the batch; see `TOLERANCE`.

    Raises:
        ModelError: if the difference is above `TOLERANCE`, or ONNX Runtime cannot run a batch.
    """
    rng = np.random.default_rng(1)
    # Two less than the number of positions: the first two of RoBERTa and related models are for no token.
    longest = max(1, _longest(model, classifier.tokenizer) - 2)
    worst = 0.0
    for rows, length in CHECKED_SHAPES:
        length = min(length, longest)
        batch = _random_batch(model, classifier.tokenizer, rows, length, rng)
        shape = f"a batch of {rows} rows of at most {length} tokens"
        with torch.inference_mode():
            expected = model(**{name: batch[name] for name in classifier.inputs}).logits.numpy()
        try:
            found = classifier.logits(batch)  # pyright: ignore[reportArgumentType]
        except Exception as error:  # its exceptions have no other common base
            raise ModelError(
                f"Expected ONNX Runtime to run the exported '{model.config.model_type}' on {shape}, but: "
                f"{first_line(error)}: use another backbone."
            ) from error
        difference = relative_difference(found, expected)
        if not difference <= TOLERANCE:  # NaN included
            raise ModelError(
                f"Expected ONNX Runtime to give PyTorch's logits to {TOLERANCE:g}, but on {shape} one differs by "
                f"{difference:.2g} of the largest, {np.abs(expected).max():.2g}: nothing was exported; predict with "
                "PyTorch, or train another backbone."
            )
        worst = max(worst, difference)
    return worst


def _quantize(source: Path, target: Path) -> None:
    """Quantises weights to 7 bits, since CPUs without VNNI saturate on 8, with one scale per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet_upstream():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


def _cost(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    classifiers: dict[str, OnnxClassifier],
    rows: Dataset,
    table: str,
) -> Cost:
    labels = np.asarray(rows["label"], dtype=np.int64)
    tokens = tokenize_dataset(rows, tokenizer, _longest(model, tokenizer))
    task = task_of(model.config)
    logits = {"PyTorch": predict_logits(model, tokens, tokenizer, max_tokens=TOKENS)}
    logits |= {name: classifier.predict_logits(tokens) for name, classifier in classifiers.items()}
    probs = {name: task.probs(found) for name, found in logits.items()}
    predicted = {name: task.predicted(found) for name, found in probs.items()}
    return Cost(
        table=table,
        rows=len(labels),
        accuracy={name: float(task.right(found, labels).mean()) for name, found in probs.items()},
        changed={name: float(np.mean(predicted[name] != predicted["PyTorch"])) for name in classifiers},
    )


@contextmanager
def _quiet_upstream() -> Iterator[None]:
    """Hides internal messages of exporter and quantiser; their errors are still raised."""
    root, nothing, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(nothing)  # onnxruntime uses `logging.warning`, which would set up a root handler
    logging.disable(max(level, logging.WARNING))
    try:
        # torch prints its graph to stderr before it raises an error.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            for message, category in (
                ("# The axis name: .* will not be used", UserWarning),  # one name for the same axis of all inputs
                ("`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning),  # from torch 2.13's exporter
            ):
                warnings.filterwarnings("ignore", message=message, category=category)
            yield
    finally:
        logging.disable(level)
        root.removeHandler(nothing)
