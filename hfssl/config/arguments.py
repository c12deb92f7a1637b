"""Defines the user's options as plain dataclasses: the flags of `hfssl fit` and the keys of a recipe's YAML.

The module imports no slow libraries, so that `--help` is fast. Each field's help text is the flag's help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.util import find_spec
from typing import Any, Literal, get_type_hints

from hfssl.config.stages import STAGES
from hfssl.config.tasks import DEFAULT_TASK, TASKS, unknown_task
from hfssl.config.values import plain_value, type_problem
from hfssl.errors import ConfigurationError, near_matches

__all__ = [
    "AdapterArguments",
    "CleanArguments",
    "DataArguments",
    "DemoArguments",
    "ExportArguments",
    "FitArguments",
    "ModelArguments",
    "PredictArguments",
    "PushArguments",
    "ViewsArguments",
    "missing_trackers",
]

# Option -> types of values that Python takes in addition to text; not metadata, all of which argparse would get.
IN_PYTHON: dict[str, tuple[type, ...]] = {
    "class_names": (list, tuple),
    "missing_labels": (list, tuple, set, frozenset),
    "class_prior": (dict,),
    "class_weights": (dict,),
}
TRACKERS = ("trackio", "tensorboard", "wandb")
OWN_COLUMNS = ("text", "text_pair", "label", "labels", "hidden_label", "group", "id", "truncated", "input_ids")
DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"


def missing_trackers(report_to: Sequence[str]) -> list[str]:
    """Returns a sentence for each supported tracker that is requested and not installed."""
    return [
        f"report_to names {name}, which is not installed; run pip install 'hfssl[{name}]', or set report_to to none."
        for name in report_to
        if name in TRACKERS and find_spec(name) is None
    ]


@dataclass
class _Checked:
    """Reports all bad values at once: each class adds its sentences to `problems()`.

    Paths and numpy scalars become plain values first. A field in `IN_PYTHON` also takes values of these types, which
    the command line spells as text.
    """

    def __post_init__(self):
        found = self._type_problems()
        wrong = bool(found)
        try:
            found += self.problems()
        except (TypeError, ValueError, AttributeError):
            if not wrong:  # else it compares a value of a wrong type that is required
                raise
        if found:
            raise ConfigurationError(found)

    def _type_problems(self) -> list[str]:
        """Makes values plain; returns a sentence for each wrong type, and puts the default in its place."""
        found, hints = [], get_type_hints(type(self))
        for entry in fields(self):
            value = plain_value(getattr(self, entry.name))
            if isinstance(value, IN_PYTHON.get(entry.name, ())):
                value = _plain_collection(value)
            elif (problem := type_problem(entry.name, value, hints[entry.name])) is not None:
                found.append(problem)
                value = value if entry.default is MISSING else entry.default
            setattr(self, entry.name, value)
        return found

    def problems(self) -> list[str]:
        """Returns all problems of the values, one sentence each; subclasses add their own."""
        return []

    def _at_least(self, least: int, *names: str) -> list[str]:
        values = {name: value for name, value in vars(self).items() if name in names and value is not None}
        return [f"{name} must be at least {least}, got {value}." for name, value in values.items() if value < least]


def _plain_collection(values: Any) -> Any:
    """Returns a dict, or another collection as a list, of plain values."""
    if isinstance(values, dict):
        return {plain_value(key): plain_value(value) for key, value in values.items()}
    ordered = sorted(values, key=str) if isinstance(values, set | frozenset) else values
    return [plain_value(value) for value in ordered]


@dataclass
class DataArguments(_Checked):
    """The data"""

    train: str = field(
        metadata={
            "metavar": "TABLE",
            "help": "Table to train on: CSV, TSV, JSON, Parquet, Feather or Excel file (or one of them compressed), a "
            "folder of them, a folder written by `save_to_disk`, or a Hub data set. `TABLE:SPLIT` names a split or a "
            "sheet. Rows without a label are unlabeled.",
        }
    )
    unlabeled: str | None = field(
        default=None, metadata={"metavar": "TABLE", "help": "More unlabeled rows; any label in it is ignored."}
    )
    validation: str | None = field(
        default=None,
        metadata={
            "metavar": "TABLE",
            "help": "Labeled rows for the verdict and the calibration, which no model learns from. Default: none; "
            "`fit` judges by folds of the labels.",
        },
    )
    test: str | None = field(
        default=None,
        metadata={
            "metavar": "TABLE",
            "help": "Labeled rows for the report; they are used neither for training nor for selection. Of a table "
            "with splits, its split `test`.",
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    text_pair_column: str | None = field(
        default=None, metadata={"help": "Column with a second text, for tasks about pairs."}
    )
    label_column: str = field(
        default="label", metadata={"help": "Column that holds the label; missing, empty or null means unlabeled."}
    )
    class_names: str | None = field(
        default=None,
        metadata={
            "help": "Names of the classes, of integer labels in order: a JSON file with a list of names, or the names "
            "with commas between. Default: the names in `labels.json` next to the table, if it exists.",
        },
    )
    missing_labels: str | None = field(
        default=None,
        metadata={
            "metavar": "VALUES",
            "help": "Labels that mean unlabeled, with commas between them, in any case; a comma alone for none. "
            "Default: what spreadsheets write, such as #N/A, NULL, nan, None, - and ?.",
        },
    )
    keep_label_variants: bool = field(
        default=False,
        metadata={
            "help": "Keep label names apart that differ only in case, space, Unicode form or invisible characters."
        },
    )
    delimiter: str | None = field(
        default=None,
        metadata={
            "metavar": "CHARACTER",
            "help": "Character between the columns of text files, or comma, semicolon, tab, pipe. Default: detected.",
        },
    )
    encoding: str | None = field(
        default=None,
        metadata={"metavar": "NAME", "help": "Encoding of text files, such as cp1252. Default: detected."},
    )
    decimal: Literal[".", ","] | None = field(
        default=None, metadata={"help": "Decimal mark of labels that are numbers. Default: detected."}
    )
    sheet: str | None = field(
        default=None,
        metadata={"metavar": "NAME", "help": "Sheet of a workbook. Default: the first one with the columns."},
    )
    group_column: str | None = field(
        default=None,
        metadata={
            "help": "Column that holds the group (film, author); rows of a group are never on both sides of a split."
        },
    )
    id_column: str | None = field(default=None, metadata={"help": "Column with a unique id of each row."})
    view_columns: str | None = field(
        default=None,
        metadata={"help": "Columns, with commas between them, whose texts views use (`strong_view: column=NAME`)."},
    )
    labels_per_class: int | None = field(
        default=None,
        metadata={
            "help": "Simulate few labels on a fully labeled table: cut off a test part, use this many labels per "
            "class, hide the others."
        },
    )
    max_unlabeled: int | None = field(default=None, metadata={"help": "Use at most this many unlabeled rows."})
    max_test: int | None = field(default=None, metadata={"help": "Use at most this many test rows."})

    def problems(self) -> list[str]:
        """Returns the problems of the base class, and those of this class's values."""
        found = super().problems()
        found += self._at_least(1, "max_test", "labels_per_class") + self._at_least(0, "max_unlabeled")
        columns = ("text_column", "text_pair_column", "label_column", "group_column", "id_column")
        used: dict[str, str] = {}
        for name, column in ((name, value) for name, value in vars(self).items() if name in columns and value):
            if column in used and "group_column" not in (name, used[column]):
                found.append(f"{used[column]} and {name} both name the column '{column}'; give each its own.")
            used.setdefault(column, name)
        for column in sorted({*used, *OWN_COLUMNS} & set(self.view_column_names())):
            found.append(f"view_columns: '{column}' has another use; give the column of a view a name of its own.")
        return found

    def view_column_names(self) -> list[str]:
        """Returns the names in `view_columns`."""
        return [name.strip() for name in (self.view_columns or "").split(",") if name.strip()]


@dataclass
class ModelArguments(_Checked):
    """The model"""

    backbone: str = field(
        default=DEFAULT_BACKBONE,
        metadata={"metavar": "MODEL", "help": "Pretrained encoder to start from: a folder or a Hub model."},
    )
    revision: str | None = field(
        default=None,
        metadata={"help": "Branch, tag or commit of a backbone on the Hub. Default: its main branch."},
    )
    pooling: Literal["stock", "mean"] = field(
        default="stock",
        metadata={
            "help": "'stock' keeps the architecture's own head, so that plain transformers loads the result; 'mean' "
            "averages the token vectors, and loading the result then needs hfssl."
        },
    )


@dataclass
class AdapterArguments(_Checked):
    """The adapter"""

    adapter: Literal["none", "lora"] = field(
        default="none", metadata={"help": "'none' trains all weights; 'lora' trains a small adapter and the head."}
    )
    lora_r: int = field(
        default=8, metadata={"help": "Rank of the adapter; a higher rank learns more and forgets more."}
    )
    lora_alpha: int = field(
        default=16, metadata={"help": "Scale of the adapter; its update is multiplied by alpha / r."}
    )
    lora_dropout: float = field(
        default=0.1, metadata={"help": "Dropout on the adapter's input; self-training needs a value above 0."}
    )

    def problems(self) -> list[str]:
        """Returns the problems of the base class, and those of this class's values."""
        found = super().problems() + self._at_least(1, "lora_r", "lora_alpha")
        if not 0 <= self.lora_dropout < 1:
            found.append(f"lora_dropout must be at least 0 and below 1, got {self.lora_dropout}.")
        return found


@dataclass
class FitArguments(AdapterArguments, ModelArguments, DataArguments):
    """The run"""

    task: str = field(
        default=DEFAULT_TASK,
        metadata={
            "metavar": "TASK",
            "help": "Kind of prediction; 'sequence_classification' is one label per text.",
        },
    )
    output_dir: str = field(kw_only=True, metadata={"help": "Folder for the model, the report and all results."})
    preset: Literal["quick", "standard", "thorough"] = field(
        default="standard", metadata={"help": "Duration of the run: minutes, tens of minutes, or hours."}
    )
    seed: int = field(
        default=0, metadata={"help": "Random seed. The same seed, machine and library versions give the same bits."}
    )
    precision: Literal["auto", "fp32", "bf16"] = field(
        default="auto",
        metadata={
            "help": "Precision of matrix products in training and in predictions of the pool: 'auto' uses bf16 if the "
            "GPU or CPU has instructions for it. Weights and final probabilities are always fp32."
        },
    )
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = field(
        default="auto",
        metadata={"help": "Kind of device to compute on; 'auto' takes an accelerator if torch finds one."},
    )
    max_length: int = field(default=128, metadata={"help": "Largest number of tokens per text; the rest is cut off."})
    max_steps: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps of labels only and of each student. Default: set by the preset."},
    )
    batch_size: int | None = field(
        default=None,
        metadata={"help": "Labeled rows in a batch of one device. Default: set by the preset."},
    )
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the body, not of the head. Default: set by the preset; ten times that for an "
            "adapter."
        },
    )
    pretext: bool | None = field(
        default=None,
        metadata={"help": "Whether to adapt the backbone to the raw texts first. Default: set by the preset."},
    )
    rounds: int | None = field(
        default=None,
        metadata={"help": "Largest number of rounds of self-training; 0 for none. Default: set by the preset."},
    )
    validation_fraction: float = field(
        default=0.0,
        metadata={
            "help": "Share of the labels that is held out for the verdict and the calibration, from 0 to 0.5. "
            "Default: 0; all labels are learned from, and folds of them judge."
        },
    )
    pool_method: str = field(
        default="self_training",
        metadata={
            "metavar": "METHOD",
            "help": "What uses the unlabeled rows: 'self_training' (rounds of teachers and a student), or a method "
            "that trains on labels and pool at once, such as 'freematch'; 'both' teaches SoftMatch with the "
            "pseudo-labels of self-training as anchors. Several with commas between are compared.",
        },
    )
    refit: bool | None = field(
        default=None,
        metadata={
            "help": "Whether to train the selected stage again on all labels, including those held out by "
            "validation-fraction. Default: no."
        },
    )
    class_prior: str | None = field(
        default=None,
        metadata={
            "metavar": "SHARES",
            "help": "Class prior of the unlabeled rows, if you know it, such as 'ham=0.9, spam=0.1', or a JSON "
            "file with it. Default: estimated or not used, as set by the preset.",
        },
    )
    class_weights: str | None = field(
        default=None,
        metadata={
            "metavar": "WEIGHTS",
            "help": "Weights of the classes in the losses of labeled rows: 'balanced', numbers such as 'ham=1, "
            "spam=5', or a JSON file with them. Default: all rows count alike.",
        },
    )
    cross_fit: int | None = field(
        default=None,
        metadata={
            "help": "Number of folds of the labels: models that learn from the other folds label the pool together, "
            "weigh each other, and judge. 0 for none. Default: set by the preset."
        },
    )
    max_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Time that the run may take; steps, folds and pool are cut down until it is expected to fit. "
            "Default: no limit."
        },
    )
    fail_below_baseline: bool = field(
        default=False,
        metadata={
            "help": "End with exit status 3 if the final model is not better, beyond noise, than always answering the "
            "most frequent label and than logistic regression on the frozen backbone."
        },
    )
    report_to: Literal["none", "trackio", "tensorboard", "wandb"] = field(
        default="none",
        metadata={"help": "Tracker for the metrics of every stage; it must be installed."},
    )
    resume: bool = field(default=False, metadata={"help": "Continue the run in output-dir."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete the run in output-dir and start a new one."}
    )
    keep_stages: bool = field(
        default=False,
        metadata={
            "help": "Keep the models and embeddings of all stages, which nothing needs once the run is finished; by "
            "default only their predictions and records stay."
        },
    )
    quiet: bool = field(
        default=False, metadata={"help": "Show no progress bars; only warnings and the closing summary."}
    )

    def problems(self) -> list[str]:
        """Returns the problems of the base class, and those of this class's values."""
        found = super().problems() + self._at_least(0, "seed", "rounds", "cross_fit") + self._at_least(4, "max_length")
        found += self._at_least(1, "max_steps", "batch_size") + missing_trackers([self.report_to])
        if self.task not in TASKS:
            found.append(unknown_task(self.task))
        known = ["self_training", *(name for name, stage in STAGES.items() if stage.on_request)]
        for name in self.pool_methods:
            if name not in known:
                found.append(
                    f"pool_method must be one of {', '.join(known)}, or several with commas between, got '{name}'."
                    f"{near_matches(name, known)}"
                )
        if self.cross_fit == 1:
            found.append("cross_fit must be 0 or at least 2 folds, got 1.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            found.append(f"learning_rate must be above 0, got {self.learning_rate}.")
        if self.class_prior is not None and self.rounds == 0:
            found.append("class_prior is for self-training only, and rounds is 0: leave out one of the two.")
        if not 0 <= self.validation_fraction <= 0.5:
            found.append(f"validation_fraction must be from 0 to 0.5, got {self.validation_fraction}.")
        if self.validation_fraction and self.validation is not None:
            found.append(
                "validation_fraction holds out labels where there are no other rows to judge by, but validation gives "
                "such rows: leave out one of the two."
            )
        if self.refit and self.validation is not None:
            found.append(
                "refit learns from the labels that were held out, but the rows of --validation are never learned "
                "from: leave out one of the two."
            )
        elif self.refit and not self.validation_fraction:
            found.append(
                "refit learns from the labels that were held out, and none are: all are learned from in any case. "
                "Leave it out, or hold some out by validation_fraction=0.2."
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            found.append(f"max_seconds must be above 0, got {self.max_seconds}.")
        if self.resume and self.overwrite_output_dir:
            found.append("resume and overwrite_output_dir exclude each other; give one of them.")
        return found

    @property
    def pool_methods(self) -> list[str]:
        """Returns the names in `pool_method`; `both` needs the pseudo-labels of self-training."""
        names = [name.strip() for name in self.pool_method.split(",")]
        return ["self_training", *names] if "both" in names and "self_training" not in names else names

    def keywords(self) -> dict[str, Any]:
        """Returns the keyword arguments of `hfssl.fit`: every field that is not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class CleanArguments(_Checked):
    """The cleaning"""

    folder: str = field(metadata={"metavar": "DIR", "help": "A finished run of hfssl fit."})
    dry_run: bool = field(default=False, metadata={"help": "Only print what would be deleted, and its size."})


@dataclass
class ExportArguments(_Checked):
    """The export"""

    folder: str = field(metadata={"metavar": "DIR", "help": "A run of hfssl fit, or a folder of a model or adapter."})
    output: str | None = field(
        default=None,
        metadata={
            "metavar": "DIR",
            "help": "Folder to write: new, empty, or of an earlier export, which is replaced. Default: onnx/ in DIR.",
        },
    )
    int8: bool = field(
        default=False,
        metadata={"help": "Also write a quantised model (weights as int8) and measure its cost in accuracy."},
    )
    data: str | None = field(
        default=None,
        metadata={
            "metavar": "TABLE",
            "help": "Labeled table to measure accuracies on. Default: with --int8, the test part of a run.",
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column of the table that holds the text."})
    text_pair_column: str | None = field(
        default=None, metadata={"help": "Column of the table with a second text, for tasks about pairs."}
    )
    label_column: str = field(default="label", metadata={"help": "Column of the table that holds the label."})


@dataclass
class PushArguments(_Checked):
    """The push"""

    folder: str = field(metadata={"metavar": "DIR", "help": "A run of hfssl fit, or a folder of a model or adapter."})
    repo_id: str = field(
        metadata={"metavar": "ID", "help": "Repository: name or namespace/name; created if it does not exist."}
    )
    artifact: Literal["model", "adapter", "both"] = field(
        default="model", metadata={"help": "For a run, what to push: the merged model, the LoRA adapter, or both."}
    )
    private: bool = field(default=False, metadata={"help": "Make the repository private, if it is new."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to push to, created if it does not exist. Default: main."}
    )
    include_report: bool = field(
        default=False,
        metadata={"help": "Also push the report, which shows some of your texts. Default: no texts are pushed."},
    )
    license: str | None = field(
        default=None, metadata={"metavar": "ID", "help": "License id for the card of a run, such as apache-2.0."}
    )
    dry_run: bool = field(default=False, metadata={"help": "List the files without sending them."})
    message: str = field(default="Push with hfssl", metadata={"help": "Commit message."})


@dataclass
class DemoArguments(_Checked):
    """The page"""

    folder: str = field(metadata={"metavar": "DIR", "help": "A run of hfssl fit, or a folder of a model or adapter."})
    host: str = field(
        default="127.0.0.1",
        metadata={
            "help": "Address to listen at. With 0.0.0.0 all who reach this machine can use the page and see your "
            "labeled texts."
        },
    )
    port: int = field(default=7860, metadata={"help": "Port to listen at; 0 for a free one."})

    def problems(self) -> list[str]:
        """Returns the problems of the base class, and those of this class's values."""
        found = super().problems()
        if not 0 <= self.port <= 65535:
            found.append(f"port must be at least 0 and at most 65535, got {self.port}.")
        return found


@dataclass
class PredictArguments(_Checked):
    """The prediction"""

    model: str = field(
        metadata={
            "metavar": "DIR",
            "help": "A run of hfssl fit, a folder of a model, an adapter or an ONNX export, or a Hub model.",
        }
    )
    input: str = field(metadata={"metavar": "FILE", "help": "Table to label: CSV, TSV, JSONL or Parquet."})
    output: str = field(
        metadata={"metavar": "FILE", "help": "Table to write: all columns of the input and three new ones."}
    )
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    text_pair_column: str | None = field(default=None, metadata={"help": "Column with a second text."})
    max_length: int | None = field(
        default=None,
        metadata={"help": "Largest number of tokens per text. Default: the limit of the model's tokenizer."},
    )
    max_tokens: int = field(
        default=8192, metadata={"help": "Largest number of tokens in one forward pass, padding included."}
    )
    top_k: int = field(
        default=1, metadata={"help": "Number of most probable labels to write, with their probabilities."}
    )
    all_probabilities: bool = field(
        default=False, metadata={"help": "Also write the probability of every label, a column each."}
    )
    for_spreadsheet: bool = field(
        default=False,
        metadata={
            "help": "Write CSV or TSV for a spreadsheet: with a byte order mark, and an apostrophe before texts that "
            "would be run as formulas."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace the output file if it exists."})
    quiet: bool = field(default=False, metadata={"help": "Show no progress bar."})

    def problems(self) -> list[str]:
        """Returns the problems of the base class, and those of this class's values."""
        return super().problems() + self._at_least(4, "max_length", "max_tokens") + self._at_least(1, "top_k")


@dataclass
class EvaluateArguments(_Checked):
    """The evaluation"""

    model: str = field(
        metadata={
            "metavar": "DIR",
            "help": "A run of hfssl fit, a folder of a model, an adapter or an ONNX export, or a Hub model.",
        }
    )
    data: str = field(metadata={"metavar": "FILE", "help": "Labeled table to measure the model on."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    text_pair_column: str | None = field(default=None, metadata={"help": "Column with a second text."})
    label_column: str = field(default="label", metadata={"help": "Column that holds the label."})
    slice_column: str | None = field(
        default=None, metadata={"help": "Column by whose values the accuracy is shown, too."}
    )
    output: str | None = field(default=None, metadata={"metavar": "FILE", "help": "JSON file to write the result to."})
    max_length: int | None = field(
        default=None,
        metadata={"help": "Largest number of tokens per text. Default: the limit of the model's tokenizer."},
    )
    min_accuracy: float | None = field(
        default=None,
        metadata={"help": "Accuracy from 0 to 1 below which the exit status is 3. Default: no limit."},
    )

    def problems(self) -> list[str]:
        """Returns the problems of the base class, and those of this class's values."""
        found = super().problems() + self._at_least(4, "max_length")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            found.append(f"min_accuracy must be at least 0 and at most 1, got {self.min_accuracy}.")
        return found


@dataclass
class ViewsArguments(_Checked):
    """The views"""

    input: str = field(metadata={"metavar": "TABLE", "help": "Table with texts: CSV, TSV, JSONL or Parquet."})
    views: str = field(
        default="typos+word_drop, word_swap, casing",
        metadata={
            "help": "Views with commas between them, each a list of steps joined by '+', such as "
            "'word_drop:0.1+token_cutoff'."
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    rows: int = field(default=10, metadata={"help": "Number of rows that are shown."})
    backbone: str | None = field(
        default=None, metadata={"help": "Backbone whose tokens 'token_cutoff' and 'span_cutoff' hide."}
    )
    seed: int = field(default=0, metadata={"help": "Random seed of the views."})

    def problems(self) -> list[str]:
        """Returns the problems of the base class, and those of this class's values."""
        return super().problems() + self._at_least(1, "rows")
