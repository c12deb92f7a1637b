"""Variants of a preset for the wide grid: fields that differ, given by name or as JSON.

    python benchmarks/compare.py --grid wide --rows development --methods hfssl_standard --variant one_teacher
    python benchmarks/compare.py ... --variant 'short={"self_training": {"max_steps": 60}}'

A dictionary is merged into that of the preset, to any depth; anything else takes the place of what was there.
`options` holds further keyword arguments of `fit`, such as `{"options": {"refit": false}}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from typing import Any

__all__ = ["VARIANTS", "applied", "changed_settings", "current_settings", "merged", "read_variant"]

OPTIONS = "options"  # of `fit`, which are not fields of a preset

# Pieces of the presets, each taken away, added or enlarged alone; `ablation.py` has more, on fewer data sets.
VARIANTS: dict[str, dict[str, Any]] = {
    "one_teacher": {"self_training": {"num_teachers": 1}},
    "no_contrastive": {"contrastive": None},
    "no_probe": {"self_training": {"backbone_probe": False}},
    "no_names": {"self_training": {"label_name_prior": False}},
    "no_average": {"self_training": {"weight_average_decay": 0.0}},
    "no_alignment": {"self_training": {"distribution_alignment": "none"}},
    "soup": {"self_training": {"model_soup": True}},
    "five_folds": {"cross_fit": 5},
    "neighbors": {"self_training": {"neighbor_votes": True}},
    "hold_out": {"cross_fit": 0, "options": {"validation_fraction": 0.2}},
    "refit": {"cross_fit": 0, "options": {"validation_fraction": 0.2, "refit": True}},
}


def read_variant(given: str) -> tuple[str, dict[str, Any]]:
    """Name and overrides of `NAME` (one of `VARIANTS`) or `NAME=JSON`; ends the program where it is neither."""
    name, found, text = given.partition("=")
    if not found:
        if name not in VARIANTS:
            raise SystemExit(f"Expected NAME=JSON or one of {', '.join(VARIANTS)} as a variant, got {given!r}.")
        return name, VARIANTS[name]
    try:
        overrides = json.loads(text)
    except ValueError as error:
        raise SystemExit(f"Expected JSON behind the name of the variant {name!r}: {error}.") from None
    if not name.replace("_", "").isalnum() or not isinstance(overrides, dict):
        raise SystemExit(f"Expected a name of letters, digits and _, then a JSON object, got {given!r}.")
    return name, overrides


def merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the overrides; both may be nested, neither is changed."""
    result = dict(settings)
    for name, value in overrides.items():
        below = result.get(name)
        if isinstance(value, Mapping) and is_dataclass(below) and not isinstance(below, type):
            result[name] = replace(below, **merged(vars(below), value))
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            result[name] = merged(below, value)
        else:
            result[name] = tuple(value) if isinstance(value, list) else value
    return result


def _varied(preset: str, overrides: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The preset with the overrides, and further options of `fit`.

    Raises:
        LookupError: names the overrides that are no fields of a preset.
    """
    from hfssl.pipeline.presets import PRESETS

    options = dict(overrides.get(OPTIONS, {}))
    own = {name: value for name, value in overrides.items() if name != OPTIONS}
    before = PRESETS[preset]
    known = {field.name: getattr(before, field.name) for field in fields(before)}
    if unknown := sorted(own.keys() - known.keys()):
        raise LookupError(
            f"Expected fields of a preset ({', '.join(known)}) or {OPTIONS!r} in a variant, got {', '.join(unknown)}."
        )
    return replace(before, **merged({name: known[name] for name in own}, own)), options


def current_settings(preset: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a run with this preset and these overrides has for settings today, as JSON holds it."""
    return _all_settings(*_varied(preset, overrides))


def changed_settings(preset: str, overrides: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """The settings of a kept cell that a run would have another value for today; what is new since does not count."""
    try:
        today = current_settings(preset, overrides)
    except LookupError:
        return sorted(name for name in overrides if name != OPTIONS)
    groups = [group for group in today if group in before]
    return [name for group in groups for name, value in before[group].items() if today[group].get(name) != value]


def _all_settings(varied: Any, options: dict[str, Any]) -> dict[str, Any]:
    from hfssl.config.arguments import FitArguments

    with_default = [field for field in fields(FitArguments) if field.default is not MISSING]
    defaults = {field.name: field.default for field in with_default}
    return json.loads(json.dumps({"values": asdict(varied), OPTIONS: options, "defaults": defaults}))


@contextmanager
def applied(preset: str, overrides: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Puts the varied preset in the place of the preset; yields all its settings, and further options of `fit`."""
    from hfssl.pipeline.presets import PRESETS

    varied, options = _varied(preset, overrides)
    before, PRESETS[preset] = PRESETS[preset], varied
    try:
        yield _all_settings(varied, options), options
    finally:
        PRESETS[preset] = before
