"""The one `main()` behind the `hfssl` command and `recipes/train.py`: parse, call one function, print one summary.

What goes wrong ends here too: an error that the user can mend is one sentence on stderr and exit status 2, Ctrl-C is
130 with the way to go on. Only defects of our own show a traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfssl.config.arguments import DemoArguments, ExportArguments, FitArguments, PredictArguments, PushArguments
from hfssl.config.parsing import dataclass_parser, parse
from hfssl.errors import ConfigurationError, HfsslError
from hfssl.reporting.formatting import gains_row_by_row, kept_stage

__all__ = ["DEMO", "EXPORT", "FIT", "PREDICT", "PUSH", "TRAIN", "Verb", "closing_table", "main"]

USER_ERROR, INTERRUPTED = 2, 130

STAGE_TITLES = {
    "labels_only": "labels only",
    "pretext": "pretext",
    "self_training": "self-trained",
    "refit": "refit, all labels",
}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and torch write in Rust and C++ and raise errors of their own that carry no errno.
DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "failed writing file")
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
NOT_A_FOLDER = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@dataclass(frozen=True)
class Verb:
    """What the command line can do: `run(argv)` does it, `go_on` says how to continue after it was stopped."""

    purpose: str
    run: Callable[[Sequence[str]], None]
    go_on: str


def main(verb: Verb, argv: Sequence[str]) -> int:
    """Runs a verb with its options; returns the exit status: 0 done, 2 user error, 130 interrupted."""
    logging.getLogger("hfssl").addHandler(_WARNINGS)
    try:
        verb.run(argv)
    except KeyboardInterrupt as stop:
        _complain(f"{str(stop) or 'Interrupted.'} {verb.go_on}", "stopped")
        return INTERRUPTED
    except ConfigurationError as error:
        for problem in error.problems:
            _complain(problem, "error")
        return USER_ERROR
    except HfsslError as error:
        _complain(str(error), "error")
        return USER_ERROR
    except Exception as error:
        sentence = _storage_problem(error, verb.go_on)
        if sentence is None:
            raise
        _complain(sentence, "error")
        return USER_ERROR
    return 0


def run_fit(argv: Sequence[str]) -> None:
    """`hfssl fit`: the main job from a table to a saved, explained model."""
    usage = "hfssl fit --train TABLE --output-dir DIR [options]"
    (arguments,) = parse([FitArguments], argv, parser=dataclass_parser([FitArguments], usage=usage))

    from hfssl.pipeline.fit import fit

    _silence_libraries()
    results = fit(**arguments.keywords()).results
    print()
    print(closing_table(results))
    print()
    if row_by_row := gains_row_by_row(results):
        print(row_by_row.replace("−", "-"))  # not every terminal has the real minus sign
    print(results["verdict"]["sentence"])
    print()
    folder = Path(arguments.output_dir)
    print(f"Report:  {folder / 'report.html'}")
    print(f"Model:   {folder / 'model'}")
    print(f"Use it:  {_predict_command(arguments)}")


def run_predict(argv: Sequence[str]) -> None:
    """`hfssl predict`: a table with three more columns."""
    usage = "hfssl predict --model DIR --input FILE --output FILE [options]"
    (arguments,) = parse([PredictArguments], argv, parser=dataclass_parser([PredictArguments], usage=usage))

    from hfssl.deploy.predict import predict

    _silence_libraries()
    summary = predict(**asdict(arguments))
    print(f"{summary.rows:,} rows written to {arguments.output}; new columns: {', '.join(summary.columns)}.")
    if summary.empty:
        have = "row has" if summary.empty == 1 else "rows have"
        print(f"{summary.empty:,} {have} no text; the prediction is left empty there.")


def run_push(argv: Sequence[str]) -> None:
    """`hfssl push`: a run to the Hub, in one commit."""
    usage = "hfssl push DIR --repo-id ID [options]"
    argv = _folder_first(argv)
    (arguments,) = parse([PushArguments], argv, parser=dataclass_parser([PushArguments], usage=usage))

    from hfssl.deploy.push import push

    done = push(**{**asdict(arguments), "private": arguments.private or None})
    for name, size in done.files.items():
        print(f"{size:>14,} bytes  {name}")
    if done.url is None:
        print(f"Nothing was sent; {len(done.files)} files would go to {arguments.repo_id}.")
    else:
        print(f"{len(done.files)} files pushed: {done.url}")


def run_export(argv: Sequence[str]) -> None:
    """`hfssl export`: a model as ONNX and as int8, with what that costs."""
    usage = "hfssl export DIR [options]"
    argv = _folder_first(argv)
    (arguments,) = parse([ExportArguments], argv, parser=dataclass_parser([ExportArguments], usage=usage))

    from hfssl.deploy.onnx_export import TOLERANCE, export_onnx

    _silence_libraries()
    done = export_onnx(**asdict(arguments))
    for name, size in done.sizes.items():
        print(f"{size:>14,} bytes  {done.folder / name}")
    print(
        f"On random batches of several shapes the ONNX model's logits are PyTorch's to {done.difference:.0e} (at most "
        f"{TOLERANCE:.0e} is let through)."
    )
    if cost := done.cost:
        print(f"\nMeasured on {cost.rows:,} labeled rows of {cost.table}, in points (0-100).\n")
        print("           accuracy  labels changed")
        for name, value in cost.accuracy.items():
            changed = f"{100 * cost.changed[name]:.1f}" if name in cost.changed else "-"
            print(f"  {name:<7}  {100 * value:>8.1f}  {changed:>14}")
    elif arguments.int8:
        print("What int8 costs in accuracy was not measured, for want of labeled rows: give a table with --data.")


def run_demo(argv: Sequence[str]) -> None:
    """`hfssl demo`: a page to try a model on, until Ctrl-C."""
    usage = "hfssl demo DIR [options]"
    argv = _folder_first(argv)
    (arguments,) = parse([DemoArguments], argv, parser=dataclass_parser([DemoArguments], usage=usage))
    if find_spec("gradio") is None:
        raise ConfigurationError(
            'Expected the package gradio, which draws the page, but it is not installed: pip install "hfssl[demo]".'
        )

    from hfssl.deploy.demo import serve

    _silence_libraries()
    serve(**asdict(arguments), ready=lambda url: print(f"Page:  {url}  (Ctrl-C closes it)", flush=True))


def run_method(argv: Sequence[str]) -> None:
    """`recipes/train.py`: trains one method as a YAML file and the flags say."""
    from hfssl.cli.recipe import parse_recipe, train_recipe
    from hfssl.runtime.distributed import leave_group

    _silence_libraries()
    recipe = parse_recipe(argv)
    results = train_recipe(recipe)
    leave_group()
    if recipe.config.process_index != 0:
        return
    for split, metrics in results["metrics"].items():
        if metrics:
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(f"{recipe.method} on {split}: {numbers}")
    print(f"Model:   {Path(recipe.config.output_dir) / 'model'}")


def closing_table(results: Mapping[str, Any]) -> str:
    """The table that ends `hfssl fit`: one row a stage, in points (0-100), on test or else on validation rows."""
    measured = next((split for split in ("test", "validation") if _metrics(results, split)), None)
    if measured is None:
        title = "There were no labeled rows to measure on; give --test or --validation to see accuracies."
    else:
        rows = sum(results["data"]["counts"][measured].values())
        title = f"Measured on {rows:,} {measured} rows, in points (0-100); ECE is the calibration error."
    header = ["", "accuracy", "macro-F1", "ECE", "seconds", ""]
    table = [header]
    for stage in results["stages"]:
        metrics = (stage["metrics"][measured] if measured else None) or {}
        numbers = [f"{100 * metrics[key]:.1f}" if key in metrics else "-" for key in ("accuracy", "macro_f1", "ece")]
        kept = "<- kept" if stage["name"] == kept_stage(results) else ""
        name = STAGE_TITLES.get(stage["name"], stage["name"].replace("_", " "))
        table.append([name, *numbers, f"{stage['seconds']:.0f}", kept])
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for name, *numbers, kept in table:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join(["", name.ljust(widths[0]), *cells, kept]).rstrip())
    return "\n".join([title, "", *lines])


def _folder_first(argv: Sequence[str]) -> Sequence[str]:
    """The verb's first word names a folder without a flag: `hfssl push DIR`."""
    return ["--folder", *argv] if argv and not argv[0].startswith("-") else argv


def _silence_libraries() -> None:
    """Turns off the progress bars of loading and mapping: a user wants to see the bars of the work, which are ours."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()


def _metrics(results: Mapping[str, Any], split: str) -> list[Mapping[str, float]]:
    return [stage["metrics"][split] for stage in results["stages"] if stage["metrics"].get(split)]


def _predict_command(arguments: FitArguments) -> str:
    column = "" if arguments.text_column == "text" else f" --text-column {arguments.text_column}"
    if arguments.text_pair_column:
        column += f" --text-pair-column {arguments.text_pair_column}"
    return f"hfssl predict --model {Path(arguments.output_dir) / 'model'} --input new.csv --output out.csv{column}"


def _storage_problem(error: Exception, go_on: str) -> str | None:
    """One sentence for an error whose cause is the disk rather than us; None for all others."""
    where = f"'{error.filename}'" if isinstance(error, OSError) and error.filename else "the output folder"
    link: BaseException | None = error
    while link is not None:  # libraries wrap what the system told them
        full = link.errno in DISK_FULL if isinstance(link, OSError) and link.errno else False
        if full or any(words in str(link) for words in DISK_FULL_WORDS):
            return f"There is no room on the disk for {where}: free some space. {go_on}"
        link = link.__cause__ or link.__context__
    if isinstance(error, OSError) and error.errno in NOT_ALLOWED:
        return f"The system does not allow access to {where}: choose another folder or change its permissions."
    if isinstance(error, OSError) and error.errno in NOT_A_FOLDER:
        return (
            f"{where} cannot be written: a file stands where a folder is expected, or the other way round; choose "
            "another name."
        )
    return None


class _Warnings(logging.Handler):
    """Shows our own warnings as the command's other messages are shown, without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        if os.environ.get("RANK", "0") == "0":
            tqdm.write(f"hfssl: warning: {record.getMessage()}", file=sys.stderr)


_WARNINGS = _Warnings(logging.WARNING)


def _complain(message: str, kind: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # every rank of a distributed run meets the same error
        print(f"hfssl: {kind}: {message.strip()}", file=sys.stderr)


FIT = Verb(
    "from a table with a few labels to a trained, explained model",
    run_fit,
    "Finished work is kept: run the same command with --resume to go on.",
)
PREDICT = Verb("label new rows with a trained model", run_predict, "No output was written.")
PUSH = Verb(
    "put a run's model, adapter, card and results on the Hub",
    run_push,
    "A push is one commit: it is there as a whole or not at all; run the same command again.",
)
EXPORT = Verb(
    "write a model as ONNX and int8, checked against PyTorch",
    run_export,
    "Nothing was written; run the same command again.",
)
DEMO = Verb("open a page on which to try a model", run_demo, "The page was not opened.")
TRAIN = Verb(
    "train one method as a recipe says",
    run_method,
    "Checkpoints are kept: run the same command with --resume_from_checkpoint true to go on.",
)
