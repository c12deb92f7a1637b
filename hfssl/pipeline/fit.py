"""`fit`: the main job, stage by stage; each stage can be resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from peft import PeftConfig
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import logging

from hfssl.config.arguments import DEFAULT_BACKBONE, FitArguments
from hfssl.config.methods import METHODS
from hfssl.config.stages import STAGES
from hfssl.config.tasks import DEFAULT_TASK
from hfssl.data.audit import audit, released
from hfssl.data.in_memory import fingerprint, is_in_memory, memory_source
from hfssl.data.language_fit import language_warnings
from hfssl.data.prepare import COLUMNS, make_splits
from hfssl.data.sources import Source
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.errors import ConfigurationError, DamagedFile
from hfssl.evaluation.baselines import PROBE
from hfssl.evaluation.verdict import Verdict, judge
from hfssl.functional.class_priors import given_numbers, given_prior
from hfssl.inference.text_classifier import TextClassifier
from hfssl.models.adapters import describe_adapter
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import check_backbone, check_masked_lm, load_tokenizer
from hfssl.pipeline.artifacts import save_outcome
from hfssl.pipeline.budget import within_budget
from hfssl.pipeline.context import StageContext, make_context
from hfssl.pipeline.inputs import check_inputs, input_fingerprints, local_inputs
from hfssl.pipeline.plan import RunPlan, make_plan
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.run_folder import RunFolder, check_finished
from hfssl.pipeline.run_results import run_results
from hfssl.pipeline.runner import reported, run_final_stages, run_stages
from hfssl.pipeline.stage_record import StageRecord
from hfssl.pipeline.tidy import tidy
from hfssl.reporting.results import OUT_OF_FOLD, read_results
from hfssl.runtime.precision import device_problems
from hfssl.tasks.registry import get_task
from hfssl.training.extras import RunExtras

if TYPE_CHECKING:
    from hfssl.data.in_memory import TableLike
    from hfssl.inference.text_classifier import Texts

__all__ = ["FitResult", "fit"]

logger = logging.get_logger(__name__)

TABLES = ("train", "unlabeled", "validation", "test")


@dataclass(frozen=True)
class FitResult:
    """Holds the result of `fit`.

    Attributes:
        output_dir (`Path`): Folder of all files of the run.
        results (`dict[str, Any]`): Content of `results.json`.

    Example:
        >>> import hfssl
        >>> options = {"preset": "quick", "rounds": 0, "pretext": False, "quiet": True}
        >>> result = hfssl.fit(table, output_dir=str(folder), backbone=backbone, **options)
        >>> sorted(result.model().config.id2label.values())
        ['no', 'yes']
        >>> result.predict_proba(["a good film", "a dull film"]).shape
        (2, 2)
    """

    output_dir: Path
    results: dict[str, Any]

    def model(self) -> PreTrainedModel:
        """Returns the final model, with its label names."""
        return from_pretrained(self.output_dir / "model")

    def classifier(self) -> TextClassifier:
        """Returns the final model with its tokenizer, loaded once."""
        return _loaded_classifier(self.output_dir / "model")

    def predict(self, texts: Texts) -> list[Any]:
        """Returns the label of each text; see `TextClassifier.predict`.

        Args:
            texts (`Texts`): N texts, or pairs of texts.
        """
        return self.classifier().predict(texts)

    def predict_proba(self, texts: Texts) -> np.ndarray:
        """Returns calibrated probabilities, `[N, K]`, in the order of `classifier().label_names`.

        Args:
            texts (`Texts`): N texts, or pairs of texts.
        """
        return self.classifier().predict_proba(texts)


@lru_cache(maxsize=1)
def _loaded_classifier(folder: Path) -> TextClassifier:
    return TextClassifier(folder)


def fit(
    train: TableLike,
    *,
    output_dir: str | os.PathLike[str],
    unlabeled: TableLike | None = None,
    validation: TableLike | None = None,
    test: TableLike | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    class_names: str | Sequence[str] | None = None,
    missing_labels: str | Sequence[str] | None = None,
    keep_label_variants: bool = False,
    delimiter: str | None = None,
    encoding: str | None = None,
    decimal: Literal[".", ","] | None = None,
    sheet: str | None = None,
    group_column: str | None = None,
    id_column: str | None = None,
    view_columns: str | None = None,
    labels_per_class: int | None = None,
    max_unlabeled: int | None = None,
    max_test: int | None = None,
    backbone: str | os.PathLike[str] = DEFAULT_BACKBONE,
    revision: str | None = None,
    pooling: Literal["stock", "mean"] = "stock",
    adapter: Literal["none", "lora"] = "none",
    lora_r: int = 8,
    lora_alpha: int = 16,
    lora_dropout: float = 0.1,
    task: str = DEFAULT_TASK,
    preset: Literal["quick", "standard", "thorough"] = "standard",
    seed: int = 0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto",
    max_length: int = 128,
    max_steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    pretext: bool | None = None,
    rounds: int | None = None,
    validation_fraction: float = 0.0,
    pool_method: str = "self_training",
    refit: bool | None = None,
    class_prior: str | Mapping[str, float] | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    cross_fit: int | None = None,
    max_seconds: float | None = None,
    fail_below_baseline: bool = False,
    report_to: Literal["none", "trackio", "tensorboard", "wandb"] = "none",
    resume: bool = False,
    overwrite_output_dir: bool = False,
    keep_stages: bool = False,
    quiet: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
    peft_config: PeftConfig | None = None,
) -> FitResult:
    """Turns a table with a few labels into a saved, explained model.

    The stages: load and audit, split, pretext (by preset), labels only, folds of the labels, self-training, students
    of the folds (by preset), verdict, calibration, and evaluation with report, card and checkpoints. `output_dir` gets
    `results.json`, `report.html`, `README.md`, `model/`, `adapter/` (with LoRA), `splits/` and `stages/`.

    A table is a path, the id of a data set on the Hub, or data in memory: a `Dataset`, a `DatasetDict`, a pandas
    `DataFrame`, a dict of columns, or a list of dicts, of texts or of (text, label) pairs. All are read by the same
    rules. The other arguments are the flags of `hfssl fit`, whose help explains each; paths may be `Path`, and numbers
    numpy's.

    Args:
        train (`TableLike`): Table to learn from; rows without a label are unlabeled.
        output_dir (`str | os.PathLike`): Folder for all files of the run; see `resume` and `overwrite_output_dir`.
        unlabeled (`TableLike`, *optional*): More unlabeled rows; any label in it is ignored.
        validation (`TableLike`, *optional*): Labeled rows for the verdict and the calibration.
        test (`TableLike`, *optional*): Labeled rows for the report.
        text_column (`str`, defaults to `"text"`): Column that holds the text.
        text_pair_column (`str`, *optional*): Column with a second text, for tasks about pairs.
        label_column (`str`, defaults to `"label"`): Column that holds the label; missing, empty or null means
            unlabeled.
        class_names (`str | Sequence[str]`, *optional*): Names of the classes, of integer labels in order: a JSON file
            with a list of names, or the names with commas between. Default: the names in `labels.json` next to the
            table, if it exists.
        missing_labels (`str | Sequence[str]`, *optional*): Labels that mean unlabeled, with commas between them, in
            any case; a comma alone for none. Default: what spreadsheets write, such as #N/A, NULL, nan, None, - and ?.
        keep_label_variants (`bool`, defaults to `False`): Keep label names apart that differ only in case, space,
            Unicode form or invisible characters.
        delimiter (`str`, *optional*): Character between the columns of text files, or comma, semicolon, tab, pipe.
            Default: detected.
        encoding (`str`, *optional*): Encoding of text files, such as cp1252. Default: detected.
        decimal (`Literal['.', ',']`, *optional*): Decimal mark of labels that are numbers. Default: detected.
        sheet (`str`, *optional*): Sheet of a workbook. Default: the first one with the columns.
        group_column (`str`, *optional*): Column that holds the group (film, author); rows of a group are never on both
            sides of a split.
        id_column (`str`, *optional*): Column with a unique id of each row.
        view_columns (`str`, *optional*): Columns, with commas between them, whose texts views use (`strong_view:
            column=NAME`).
        labels_per_class (`int`, *optional*): Simulate few labels on a fully labeled table: cut off a test part, use
            this many labels per class, hide the others.
        max_unlabeled (`int`, *optional*): Use at most this many unlabeled rows.
        max_test (`int`, *optional*): Use at most this many test rows.
        backbone (`str | os.PathLike[str]`, defaults to `DEFAULT_BACKBONE`): Pretrained encoder to start from: a folder
            or a Hub model.
        revision (`str`, *optional*): Branch, tag or commit of a backbone on the Hub. Default: its main branch.
        pooling (`Literal['stock', 'mean']`, defaults to `"stock"`): 'stock' keeps the architecture's own head, so that
            plain transformers loads the result; 'mean' averages the token vectors, and loading the result then needs
            hfssl.
        adapter (`Literal['none', 'lora']`, defaults to `"none"`): 'none' trains all weights; 'lora' trains a small
            adapter and the head.
        lora_r (`int`, defaults to `8`): Rank of the adapter; a higher rank learns more and forgets more.
        lora_alpha (`int`, defaults to `16`): Scale of the adapter; its update is multiplied by alpha / r.
        lora_dropout (`float`, defaults to `0.1`): Dropout on the adapter's input; self-training needs a value above 0.
        task (`str`, defaults to `DEFAULT_TASK`): Kind of prediction; 'sequence_classification' is one label per text.
        preset (`Literal['quick', 'standard', 'thorough']`, defaults to `"standard"`): Duration of the run: minutes,
            tens of minutes, or hours.
        seed (`int`, defaults to `0`): Random seed. The same seed, machine and library versions give the same bits.
        precision (`Literal['auto', 'fp32', 'bf16']`, defaults to `"auto"`): Precision of matrix products in training
            and in predictions of the pool: 'auto' uses bf16 if the GPU or CPU has instructions for it. Weights and
            final probabilities are always fp32.
        device (`Literal['auto', 'cpu', 'cuda', 'mps', 'xpu']`, defaults to `"auto"`): Kind of device to compute on;
            'auto' takes an accelerator if torch finds one.
        max_length (`int`, defaults to `128`): Largest number of tokens per text; the rest is cut off.
        max_steps (`int`, *optional*): Optimizer steps of labels only and of each student. Default: set by the preset.
        batch_size (`int`, *optional*): Labeled rows in a batch of one device. Default: set by the preset.
        learning_rate (`float`, *optional*): Learning rate of the body, not of the head. Default: set by the preset;
            ten times that for an adapter.
        pretext (`bool`, *optional*): Whether to adapt the backbone to the raw texts first. Default: set by the preset.
        rounds (`int`, *optional*): Largest number of rounds of self-training; 0 for none. Default: set by the preset.
        validation_fraction (`float`, defaults to `0.0`): Share of the labels that is held out for the verdict and the
            calibration, from 0 to 0.5. Default: 0; all labels are learned from, and folds of them judge.
        pool_method (`str`, defaults to `"self_training"`): What uses the unlabeled rows: 'self_training' (rounds of
            teachers and a student), or a method that trains on both at once, such as 'freematch'; or several, with
            commas between.
        refit (`bool`, *optional*): Whether to train the selected stage again on all labels, including those held out
            by validation-fraction. Default: no.
        class_prior (`str | Mapping[str, float]`, *optional*): Class prior of the unlabeled rows, if you know it, such
            as 'ham=0.9, spam=0.1', or a JSON file with it. Default: estimated or not used, as set by the preset.
        class_weights (`str | Mapping[str, float]`, *optional*): Weights of the classes in the losses of labeled rows:
            'balanced', numbers such as 'ham=1, spam=5', or a JSON file with them. Default: all rows count alike.
        cross_fit (`int`, *optional*): Number of folds of the labels: models that learn from the other folds label the
            pool together, weigh each other, and judge. 0 for none. Default: set by the preset.
        max_seconds (`float`, *optional*): Time that the run may take; steps, folds and pool are cut down until it is
            expected to fit. Default: no limit.
        fail_below_baseline (`bool`, defaults to `False`): End with exit status 3 if the final model is not better,
            beyond noise, than always answering the most frequent label and than logistic regression on the frozen
            backbone.
        report_to (`Literal['none', 'trackio', 'tensorboard', 'wandb']`, defaults to `"none"`): Tracker for the metrics
            of every stage; it must be installed.
        resume (`bool`, defaults to `False`): Continue the run in output-dir.
        overwrite_output_dir (`bool`, defaults to `False`): Delete the run in output-dir and start a new one.
        keep_stages (`bool`, defaults to `False`): Keep the models and embeddings of all stages, which nothing needs
            once the run is finished; by default only their predictions and records stay.
        quiet (`bool`, defaults to `False`): Show no progress bars; only warnings and the closing summary.
        callbacks (`Sequence[TrainerCallback]`, defaults to `()`): Callbacks of every trainer of the run.
        compute_metrics (`Callable[[EvalPrediction], dict]`, *optional*): Function from logits `[N, K]` and labels to
            numbers by name, which are added to each stage's metrics on `validation` and `test`.
        peft_config (`PeftConfig`, *optional*): Adapter settings for the classifiers, in place of `lora_r` and others.

    Raises:
        ConfigurationError: Options do not fit together, or the folder holds another run; the error lists all problems.
        DataError: The table cannot be used as it is.
        ModelError: The backbone cannot be used as it is.
        DamagedFile: A file of the run that is resumed is not as it was written; the error says what to do.
        TrainingError: A loss is not finite.

    Example:
        >>> import hfssl
        >>> result = hfssl.fit(table, output_dir=str(folder), backbone=backbone, preset="quick", quiet=True)
        >>> result.results["final_stage"] in ("labels_only", "labels_only_after_pretext", "self_training", "refit")
        True
    """
    given = dict(locals())
    extras, arguments, sources = _checked(given)
    settings = arguments.keywords()
    if extras.peft_config is not None:
        settings["peft_config"] = describe_adapter(extras.peft_config)
    run = RunFolder(
        arguments.output_dir,
        settings,
        resume=arguments.resume,
        overwrite=arguments.overwrite_output_dir,
        inputs=local_inputs(arguments).values(),
    )
    try:
        with extras.in_use():
            finished = run.resumed and run.finished
            results = _finished_results(arguments, run) if finished else _run(arguments, run, sources)
    except DamagedFile as error:
        raise run.explained(error) from None
    finally:
        run.close()
    return FitResult(run.path, results)


def _finished_results(arguments: FitArguments, run: RunFolder) -> dict[str, Any]:
    """Returns the results of a run that needs nothing but a check of its files."""
    run.open()
    check_inputs(arguments, run.inputs()["inputs"], run.path)
    check_finished(run.path)
    if not arguments.keep_stages:
        tidy(run.path)  # where a kill came between the results and this
    return read_results(run.path)


def _checked(given: dict[str, Any]) -> tuple[RunExtras, FitArguments, dict[str, Source]]:
    """Returns the objects, the options and the data in memory among the arguments of `fit`; reports all problems."""
    problems: list[str] = []
    extras = RunExtras()
    try:
        extras = RunExtras(**{name: given.pop(name) for name in ("callbacks", "compute_metrics", "peft_config")})
    except ConfigurationError as error:
        problems += error.problems
    if extras.peft_config is not None:
        given["adapter"] = "lora"
    tables = {name: given[name] for name in TABLES if is_in_memory(given[name])}
    stand_ins = {name: f"{type(table).__name__} in memory" for name, table in tables.items()}
    try:
        values: dict[str, Any] = {**given, **stand_ins}
        arguments = FitArguments(**values)
    except ConfigurationError as error:
        raise ConfigurationError([*problems, *error.problems]) from None
    if problems:
        raise ConfigurationError(problems)
    wanted = [*(getattr(arguments, option) for option in COLUMNS), *arguments.view_column_names()]
    wanted = list(dict.fromkeys(column for column in wanted if column is not None))
    sources = {name: memory_source(table, wanted, split=name) for name, table in tables.items()}
    described = {name: fingerprint(source, wanted) for name, source in sources.items()}
    return extras, replace(arguments, **described), sources


def _run(arguments: FitArguments, run: RunFolder, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Runs the stages that are not done yet, and returns the results."""
    problems = device_problems(arguments.device)
    if problems:
        raise ConfigurationError(problems)
    check_backbone(arguments.backbone, revision=arguments.revision)
    tokenizer = load_tokenizer(arguments.backbone, max_length=arguments.max_length, revision=arguments.revision)
    splits, plan = _data(arguments, run, tokenizer, sources)
    context = within_budget(make_context(plan, run, splits, tokenizer))
    records = run_stages(context)
    audit([splits.manifest, *_manifests(records)]).raise_if_leaky()
    verdict = _judge(context, records)
    final = run_final_stages(context, verdict.selected_stage)
    if final:
        audit([released(splits.manifest, "validation"), *_manifests(final)]).raise_if_leaky()
    records |= final
    results = run_results(context, reported(records), verdict, list(final or [verdict.selected_stage])[-1])
    save_outcome(context, records, results)
    if not arguments.keep_stages:
        tidy(run.path)
    _loaded_classifier.cache_clear()  # of an earlier run in the same folder
    return results


def _manifests(records: Mapping[str, StageRecord]) -> list[dict[str, Any]]:
    return [manifest for record in records.values() for manifest in record.manifests]


def _judge(context: StageContext, records: Mapping[str, StageRecord]) -> Verdict:
    """Returns the verdict on the stages, with their alarms, and with their notes among its reasons."""
    evidence = context.held_out.evidence(context.plan.judged)
    alarms = [alarm for record in records.values() for alarm in record.alarms]
    verdict = judge(evidence.probs, evidence.labels, alarms=alarms, task=context.task, **evidence.difference)
    notes = [note for record in records.values() for note in record.notes]
    if not len(evidence.labels) and (said := context.held_out.baselines(OUT_OF_FOLD).get(PROBE)) is not None:
        right = context.task.right(said, context.held_out.part_labels(OUT_OF_FOLD))
        notes.append(
            f"Logistic regression on the frozen backbone, each label predicted by the others, is right on "
            f"{right.sum()} of {len(right)}."
        )
    return replace(verdict, reasons=[*verdict.reasons, *evidence.remarks, *notes])


def _data(
    arguments: FitArguments, run: RunFolder, tokenizer: PreTrainedTokenizerBase, sources: Mapping[str, Source]
) -> tuple[SemiSupervisedSplits, RunPlan]:
    """Returns splits and plan; a resumed run reads its splits from the folder, also after a change of the tables."""
    preset = PRESETS[arguments.preset]
    if run.resumed:
        run.open()
        check_inputs(arguments, run.inputs()["inputs"], run.path)
        splits = SemiSupervisedSplits.load(run.splits)
        plan = make_plan(arguments, preset, splits)
    else:
        column = get_task(arguments.task).label_column
        held_out = arguments.validation_fraction
        splits = make_splits(
            arguments, arguments.seed, label_column=column, validation_fraction=held_out, in_memory=sources
        )
        texts = [text for part in ("labeled", "unlabeled") for text in splits[part]["text"][:]]
        splits.manifest["warnings"] += language_warnings(texts, tokenizer, arguments.backbone)
        if arguments.class_weights not in (None, "balanced"):
            given_numbers(arguments.class_weights, splits.manifest["label_names"], "class_weights")
        if arguments.class_prior is not None:
            given_prior(arguments.class_prior, splits.manifest["label_names"])
            if not len(splits["unlabeled"]):
                raise ConfigurationError(
                    "class_prior is that of the unlabeled rows, of which there are none: add some, or leave it out."
                )
        plan = make_plan(arguments, preset, splits)
        _check_methods(plan)
        if "pretext" in plan.stages:
            check_masked_lm(arguments.backbone, revision=arguments.revision)
        fingerprints = input_fingerprints(arguments)
        run.open()  # only after all checks of the input
        splits.save(run.splits)
        run.save_inputs(fingerprints)
        splits = SemiSupervisedSplits.load(run.splits)
    for warning in splits.manifest["warnings"]:
        logger.warning(warning)
    return splits, plan


def _check_methods(plan: RunPlan) -> None:
    """Refuses a plan with a method that is not defined for the task of the run.

    Raises:
        ConfigurationError: names the first such method, and those that are defined.
    """
    methods = [STAGES[name].method for name in plan.stages]
    methods += ["contrastive"] if plan.preset.contrastive is not None else []
    supported = {name: method.tasks for name, method in METHODS.items()}
    for method in methods:
        if method is not None:
            plan.task.require_method(method, supported)
