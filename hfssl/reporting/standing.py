"""Words for how the final model compares with the simplest alternatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfssl.reporting.formatting import signed_interval, signed_points
from hfssl.reporting.results import OUT_OF_FOLD, part_title
from hfssl.reporting.task_facts import task_facts

__all__ = ["BASELINE_TITLES", "standing_sentence"]

BASELINE_TITLES: Mapping[str, str] = {"majority": "most frequent label", "probe": "probe of the frozen backbone"}
"""Name of a baseline -> its name in tables."""

LONG = {
    "majority": "always answering the most frequent label",
    "probe": "logistic regression on the frozen backbone",
}


def standing_sentence(results: Mapping[str, Any]) -> str | None:
    """Returns one sentence that names the baselines that the final model does not beat; `None` if it beats all.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
    """
    standing = results.get("standing")
    if standing is None:
        return None
    worse = [one for one in standing["compared"] if not one["is_better"]]
    if not worse:
        return None
    part, decision = standing["part"], task_facts(results).decision
    own = {entry["name"]: entry["metrics"].get(part) for entry in results["baselines"]}
    named = " and ".join(
        f"{LONG[one['baseline']]} ({decision.with_unit(own[one['baseline']][decision.name])}; "
        f"{signed_points(one['gain'])} points, 95% interval {signed_interval(one['interval'])})"
        for one in worse
    )
    verb = "is not better than" if any(one["gain"] <= 0 for one in worse) else "is not shown to be better than"
    rows = f"{standing['rows']:,} {part_title(part)} rows"
    rows = f"the {standing['rows']:,} labeled rows" if part == OUT_OF_FOLD else rows
    return f"On {rows} the final model {verb} {named}."
