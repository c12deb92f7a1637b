"""Parses flags and YAML into dataclasses: defaults < YAML < command line, with all problems reported at once.

A plain `argparse.ArgumentParser` stops at the first bad value. Here the parser only defines the options and their
conversions; flags and YAML values are then converted one by one, so that a single `ConfigurationError` can name all
problems. Values from YAML go through the same conversion as flags: YAML 1.1 reads `1e-4` as a string, and it still
becomes a float.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hfssl.config.values import alternatives
from hfssl.errors import ConfigurationError, near_matches

__all__ = ["dataclass_parser", "early_value", "parse", "read_yaml"]

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

# Old name -> today's name. An old name is often spelled more like another option than like its own successor.
RENAMED_OPTIONS = {
    "alignment": "distribution_alignment",
    "class_shares": "class_prior",
    "draw": "selection_strategy",
    "filter_novel": "ood_filter",
    "frozen_probe": "backbone_probe",
    "graph": "label_spreading",
    "head_start": "head_init",
    "last_selection_fraction": "final_selection_fraction",
    "neighbor_smoothing": "knn_smoothing",
    "refit_head": "retrain_head",
    "sharpening": "sharpen_temperature",
    "student_start": "student_init",
    "teachers": "num_teachers",
    "texts": "include_report",
    "what": "artifact",
}


def dataclass_parser(dataclass_types: Sequence[type], **kwargs: Any) -> argparse.ArgumentParser:
    """Builds a parser with one flag per field, in a group for each class that declares fields, without transformers.

    Supported types are `str`, `int`, `float`, `bool` (`--x` and `--no-x`), `Literal` and each of them `| None`. For
    dataclasses over `TrainingArguments` use `transformers.HfArgumentParser`; `parse` accepts both.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, **kwargs)
    for cls in dataclass_types:
        hints = get_type_hints(cls)
        owners = {field.name: _owner(cls, field.name) for field in dataclasses.fields(cls)}
        for owner in dict.fromkeys(owners.values()):
            group = parser.add_argument_group((owner.__doc__ or owner.__name__).splitlines()[0])
            for field in dataclasses.fields(cls):
                if owners[field.name] is owner:
                    _add_flag(group, field, hints[field.name])
    return parser


def _owner(cls: type, name: str) -> type:
    """Returns the class of the hierarchy that declares the field `name`."""
    return next(base for base in cls.__mro__ if name in base.__dict__.get("__annotations__", {}))


def _add_flag(group: argparse._ArgumentGroup, field: dataclasses.Field, hint: Any) -> None:
    kind = next(iter(alternatives(hint) - {type(None)}))
    flag = "--" + field.name.replace("_", "-")
    required = field.default is dataclasses.MISSING
    text = field.metadata.get("help", "")
    if required:
        text += " Required."
    elif field.default not in (None, False):
        text += f" Default: {field.default}."
    settings: dict[str, Any] = {"dest": field.name, "help": text}
    if kind is bool:
        group.add_argument(flag, action="store_true", **settings)
        if field.default is not False:  # a flag that is off by default needs no opposite
            opposite = f"The opposite of {flag}."
            group.add_argument("--no-" + flag[2:], dest=field.name, action="store_false", help=opposite)
    elif get_origin(kind) is Literal:
        group.add_argument(flag, choices=get_args(kind), **settings)
    else:
        usual = {int: "N", float: "X"}.get(kind, field.name.rpartition("_")[2].upper())
        group.add_argument(flag, type=kind, metavar=field.metadata.get("metavar", usual), **settings)


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError(f"expected true or false, got '{text}'.")
    return BOOLEANS[text.lower()]


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML file of `key: value` lines; dashes in keys become underscores, a repeated key is an error."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            loader = yaml.SafeLoader(file)
            node = loader.get_single_node()
            values = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise ConfigurationError(f"Cannot read the YAML file '{path}': {error.strerror}.") from error
    except yaml.MarkedYAMLError as error:
        found = [(error.context, error.context_mark), (error.problem, error.problem_mark)]
        parts = [f"{text} (line {mark.line + 1}, column {mark.column + 1})" for text, mark in found if text and mark]
        raise ConfigurationError(f"'{path}' is not valid YAML: {', '.join(parts)}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"'{path}' is not valid YAML: {' '.join(str(error).split())}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"'{path}' should hold `key: value` lines, but holds a {type(values).__name__}.")
    keys = [str(key.value).replace("-", "_") for key, _ in node.value]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:  # YAML itself would silently use the last one
        raise ConfigurationError([f"{key}: given more than once in '{path}'; keep one of them." for key in twice])
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def early_value(argv: Sequence[str], name: str) -> str | None:
    """Returns the value of `--NAME` in `argv`, or else of `NAME` in the YAML file of `--config`, or else `None`.

    The function reads an option that decides which other options exist.

    Raises:
        ConfigurationError: if the YAML file cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", nargs="?")
    first.add_argument(f"--{name}", nargs="?", dest="value")
    known, _ = first.parse_known_args(list(argv))
    return known.value or (read_yaml(known.config).get(name) if known.config else None)


def parse(
    dataclass_types: Sequence[type],
    argv: Sequence[str],
    yaml_path: str | os.PathLike | None = None,
    *,
    parser: argparse.ArgumentParser | None = None,
    ignore: Sequence[str] = (),
) -> tuple[Any, ...]:
    """Creates one instance of each dataclass from defaults < YAML < `argv`.

    Args:
        dataclass_types (`Sequence[type]`): The dataclasses; no two may share a field.
        argv (`Sequence[str]`): Command-line words. `--config FILE` names a YAML file, `--help` prints the help and
            exits, and an empty value (`--test=`) sets an option to None if it may be that.
        yaml_path (`str | os.PathLike`, *optional*): YAML file that is read if `argv` names none.
        parser (`argparse.ArgumentParser`, *optional*): Parser that defines the conversion of each option;
            `dataclass_parser(dataclass_types)` by default.
        ignore (`Sequence[str]`, defaults to `()`): Options and YAML keys that are read elsewhere.

    Raises:
        ConfigurationError: if there is any unknown key, bad value or missing value; `problems` holds all of them.
    """
    parser = dataclass_parser(dataclass_types) if parser is None else parser
    parser.add_argument(
        "--config",
        metavar="YAML",
        help="File with `option: value` lines, or the `results.json` of a run to repeat; flags win over it.",
    )
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        sys.exit(0)
    actions = {action.dest: action for action in reversed(parser._actions)}  # --x and not its opposite --no-x
    words, problems = _words(parser, argv)
    values: dict[str, Any] = {}
    bad: set[str] = set()

    from_file: dict[str, Any] = {}
    try:
        yaml_path = _from_words(*words.pop("config")) if "config" in words else yaml_path
        from_file = read_yaml(yaml_path) if yaml_path else {}
        if yaml_path and "command" in from_file and "stages" in from_file:  # results.json: repeats its run
            from_file = {}
            repeated, _ = _words(parser, shlex.split(read_yaml(yaml_path)["command"])[2:])
            words = repeated | words
    except ConfigurationError as error:
        problems += error.problems
    except ValueError as error:
        problems.append(f"--config: {error}")
    hints = {name: hint for cls in dataclass_types for name, hint in get_type_hints(cls).items()}
    for name in [name for name in from_file if name not in ignore]:
        try:
            values[name] = _from_yaml(name, from_file[name], actions, hints)
        except ValueError as error:
            problems.append(f"{name} (in '{yaml_path}'): {error}")
            bad.add(name)
    for name in [name for name in words if name not in ignore]:
        action, given = words[name]
        try:
            empty = given == [""] and type(None) in alternatives(
                hints[name]
            )  # `--test=` removes the value in the file
            values[name] = None if empty else _from_words(action, given)
        except ValueError as error:
            problems.append(f"{action.option_strings[-1]}: {error}")
            bad.add(name)

    instances = tuple(_instance(cls, values, bad, actions, problems) for cls in dataclass_types)
    if problems:
        raise ConfigurationError(problems)
    return instances


def _words(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[dict[str, tuple[argparse.Action, list[str]]], list[str]]:
    """Splits `argv` into option name -> (option, its words), plus a sentence for each word that no option takes."""
    options = {option: action for action in parser._actions for option in action.option_strings}
    flags = sorted(option for option in options if option.startswith("--") and "_" not in option)
    found: dict[str, tuple[argparse.Action, list[str]]] = {}
    problems: list[str] = []
    current: list[str] | None = None
    for word in argv:
        if not word.startswith("--"):
            if current is None:
                problems.append(f"'{word}' does not follow any option; options start with --.")
            else:
                current.append(word)
            continue
        flag, equals, value = word.partition("=")
        action = options.get(flag.replace("_", "-"))
        current = [value] if equals else []
        if action is None:
            problems.append(f"{flag}: unknown option.{_hint(flag, flags)}")
        else:
            found[action.dest] = (action, current)
    return found, problems


def _hint(given: str, known: Sequence[str]) -> str:
    """Returns a sentence with today's name of a renamed option or flag, else with the nearest of the known ones."""
    new = RENAMED_OPTIONS.get(given.removeprefix("--").replace("-", "_"), "")
    new = "--" + new.replace("_", "-") if given.startswith("--") else new
    return f" Its name is now '{new}'." if new in known else near_matches(given, known)


def _convert(action: argparse.Action, text: str) -> Any:
    """Converts one word by the option's own conversion and choices."""
    kind = action.type or (_boolean if action.nargs == 0 else str)
    try:
        value = kind(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        expected = {int: "a whole number", float: "a number"}.get(kind)
        raise ValueError(f"expected {expected}, got '{text}'." if expected else str(error)) from error
    if action.choices is not None and value not in action.choices:
        choices = [str(choice) for choice in action.choices]
        raise ValueError(f"expected one of {', '.join(choices)}; got '{text}'.{near_matches(text, choices)}")
    return value


def _from_words(action: argparse.Action, words: list[str]) -> Any:
    if action.nargs == 0:
        if words:
            raise ValueError(f"takes no value, got '{' '.join(words)}'.")
        return action.const
    if action.nargs == "?" and not words:
        return action.const
    if not words:
        raise ValueError("expected a value, got nothing.")
    if action.nargs == "+":
        return [_convert(action, word) for word in words]
    if len(words) > 1:
        raise ValueError(f"expected one value, got {len(words)}: {' '.join(words)}; quote a value that has spaces.")
    return _convert(action, words[0])


def _from_yaml(name: str, value: Any, actions: Mapping[str, argparse.Action], hints: Mapping[str, Any]) -> Any:
    if name not in actions or name not in hints:
        raise ValueError(f"unknown key.{_hint(name, sorted(actions.keys() & hints.keys()))}")
    action, kinds = actions[name], alternatives(hints[name])
    if value is None:
        if type(None) in kinds:
            return None
        raise ValueError("expected a value, got null.")
    if isinstance(value, list) and action.nargs == "+":
        return [_convert(action, str(item)) for item in value]
    if isinstance(value, dict | list):
        if type(value) in {get_origin(kind) or kind for kind in kinds}:
            return value
        raise ValueError(f"expected one value, got {json.dumps(value, default=str)}.")
    if isinstance(value, bool):
        if bool in kinds:
            return value
        # YAML 1.1 reads yes, no, on and off as booleans: `eval_strategy: no` is not the word "no".
        raise ValueError(f"YAML reads this value as {str(value).lower()}; put quotes around it.")
    converted = _convert(action, str(value))
    return [converted] if action.nargs == "+" else converted


def _instance(
    cls: type, values: dict[str, Any], bad: set[str], actions: Mapping[str, argparse.Action], problems: list[str]
) -> Any:
    """Creates an instance of `cls`, or returns None after adding its errors to `problems`."""
    given, missing = {}, []
    for field in dataclasses.fields(cls):
        if field.init and field.name in values:
            given[field.name] = values[field.name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            missing.append(field.name)
    problems += [f"{actions[name].option_strings[-1]} is required." for name in missing if name not in bad]
    if missing:
        return None
    try:
        return cls(**given)
    except ConfigurationError as error:
        problems += error.problems
    except ValueError as error:  # the stock checks of TrainingArguments
        problems.append(str(error))
    return None
