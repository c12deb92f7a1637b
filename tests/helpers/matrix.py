"""The cases of the behaviour matrix: every method x every behaviour x every way of training.

`tests.helpers.behaviours` holds the checks; `tests/methods/test_matrix.py` runs them over `METHODS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, product

from hfssl.config.methods import Method
from tests.helpers.encoders import BACKBONES

__all__ = ["BEHAVIOURS", "Behaviour", "Case", "all_cases", "pairwise", "select", "shard"]


@dataclass(frozen=True)
class Behaviour:
    """What must hold for every method, in which variants, and with which capability a method opts out of it.

    Attributes:
        opt_out: a name in `CAPABILITIES`; a method that lists it is expected to fail here.
        needs: a field of the method's config; methods without it have no such case.
        lora: with and without an adapter.
        dropout: on and off.
        accumulation: micro-batches a step.
        ranks: processes.
        backbone: architectures (`tests.helpers.encoders.save_backbone`).
        columns: text columns.
    """

    opt_out: str | None = None
    needs: str | None = None
    lora: tuple[bool, ...] = (False, True)
    dropout: tuple[bool, ...] = (True,)
    accumulation: tuple[int, ...] = (1,)
    ranks: tuple[int, ...] = (1,)
    backbone: tuple[str, ...] = ("bert",)
    columns: tuple[int, ...] = (1,)


BEHAVIOURS: dict[str, Behaviour] = {
    "accumulation": Behaviour(opt_out="no_exact_accumulation", dropout=(False,), accumulation=(8,)),
    "ranks": Behaviour(opt_out="couples_rows", dropout=(False,), accumulation=(1, 2), ranks=(2,)),
    "resume": Behaviour(dropout=(True, False), accumulation=(1, 2), ranks=(1, 2)),
    "lora": Behaviour(opt_out="no_lora", lora=(True,), dropout=(True, False), accumulation=(1, 2)),
    "lambda_u": Behaviour(
        opt_out="changes_labeled_loss", needs="lambda_u", dropout=(True, False), accumulation=(1, 2)
    ),
    "lambda_tiny": Behaviour(
        opt_out="changes_labeled_loss", needs="strong_view", dropout=(False,), accumulation=(1, 2)
    ),
    "architecture": Behaviour(needs="head_init", accumulation=(1, 2), backbone=BACKBONES, columns=(1, 2)),
    "card": Behaviour(accumulation=(1, 2)),
    "recipe": Behaviour(accumulation=(1, 2)),
}
"""Behaviour -> its variants; `tests.helpers.behaviours.CHECKS` has a function for each."""


CORE = ("resume", "lambda_u", "recipe")
"""Behaviours that each method meets in every run of the tests."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    method: str
    behaviour: str
    lora: bool = False
    dropout: bool = True
    accumulation: int = 1
    ranks: int = 1
    backbone: str = "bert"
    columns: int = 1

    @property
    def name(self) -> str:
        """The test's id, such as `self_training-resume-lora-dropout-x2-1rank`."""
        adapter, dropout = "lora" if self.lora else "full", "dropout" if self.dropout else "plain"
        name = f"{self.method}-{self.behaviour}-{adapter}-{dropout}-x{self.accumulation}-ranks{self.ranks}"
        return name if self.behaviour != "architecture" else f"{name}-{self.backbone}-columns{self.columns}"

    def reason_to_fail(self, method: Method) -> str | None:
        """Why this case is expected to fail for `method`; `None` where it must pass."""
        if self.lora and "no_lora" in method.opt_outs:
            return method.opt_outs["no_lora"]
        return method.opt_outs.get(BEHAVIOURS[self.behaviour].opt_out or "")


def all_cases(methods: Mapping[str, Method]) -> list[Case]:
    """Every case of these methods, in a fixed order."""
    return [
        Case(name, behaviour, *variant)
        for name, method in methods.items()
        for behaviour, kind in BEHAVIOURS.items()
        if kind.needs is None or kind.needs in {field.name for field in fields(method.config_class)}
        for variant in product(kind.lora, kind.dropout, kind.accumulation, kind.ranks, kind.backbone, kind.columns)
    ]


def pairwise(cases: Sequence[Case]) -> list[Case]:
    """A small subset in which the properties that meet in some case meet in a chosen one, too; see `_pairs`.

    Greedy and without chance: the case that covers most pairs comes first, the earlier one among equals.
    """
    pairs = {case: _pairs(case) for case in cases}
    missing = set().union(*pairs.values()) if pairs else set()
    chosen: set[Case] = set()
    times: Counter[str] = Counter()  # each method was chosen: of equal cases, that of the rarest method is taken
    while missing:
        best = max(cases, key=lambda case: (len(pairs[case] & missing), -times[case.method]))
        chosen.add(best)
        times[best.method] += 1
        missing -= pairs[best]
    return [case for case in cases if case in chosen]


def select(methods: Mapping[str, Method], *, whole: bool, part: str) -> list[Case]:
    """The cases of these methods that a run of pytest takes: all or a pairwise selection, and of these one shard."""
    cases = all_cases(methods)
    return shard(cases if whole else pairwise(cases), part)


def shard(cases: Sequence[Case], text: str) -> list[Case]:
    """Part I of N of the cases, for `text` of the form `I/N`: every N-th case, so that the parts take equally long.

    Raises:
        ValueError: `text` is not of this form, or I is not between 1 and N.
    """
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise ValueError(f"expected I/N with 1 <= I <= N, such as 1/4; got '{text}'.")
    return list(cases[int(number) - 1 :: int(parts)])


def _pairs(case: Case) -> set[frozenset]:
    """The pairs of properties that a selection must hold.

    With some twenty methods, each method in each variant of each behaviour would be hundreds of cases: a method meets
    the behaviours in `CORE`, and the variants meet each other, in whatever method. `--matrix` runs everything.
    """
    properties = vars(case).items()
    pairs = {frozenset(pair) for pair in combinations(properties, 2)}
    core = {frozenset((("method", case.method), ("behaviour", case.behaviour)))} if case.behaviour in CORE else set()
    return {pair for pair in pairs if not any(name == "method" for name, _ in pair)} | core
