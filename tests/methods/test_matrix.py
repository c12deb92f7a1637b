"""The behaviour matrix: behaviours of every entry of `METHODS`. A new method is tested by its row.

A pairwise selection of the cases runs by default; `--matrix` runs all of them, `--shard I/N` the I-th of N parts.
A method opts out of a behaviour by a capability (`Method.opt_outs`). Such a case must then fail: an unnecessary
opt-out fails the test.
"""

from __future__ import annotations

import pytest

from hfssl.config.methods import CAPABILITIES, METHODS
from tests.helpers import ROOT
from tests.helpers.behaviours import CHECKS, Bench, check
from tests.helpers.encoders import save_backbone
from tests.helpers.matrix import BEHAVIOURS, CORE, Case, all_cases, pairwise, select, shard


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    options = metafunc.config.option
    chosen = select(METHODS, whole=options.matrix, part=options.shard)
    metafunc.parametrize("case", [pytest.param(case, id=case.name, marks=_marks(case)) for case in chosen])


ALIKE = ("resume", "recipe")  # behaviours of the engine; every method goes through them with --slow
FOREMOST = ("supervised", "masked_span", "self_training", "fixmatch")


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    reason = case.reason_to_fail(METHODS[case.method])
    marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
    if case.behaviour == "architecture" or (case.behaviour in ALIKE and case.method not in FOREMOST):
        marks.append(pytest.mark.slow)
    return [*marks, pytest.mark.distributed] if case.ranks > 1 else marks


@pytest.fixture(scope="session")
def backbone_of(tmp_path_factory, tiny_backbone, tiny_tokenizer):
    """The folder of a tiny backbone, by the name of its architecture."""
    folders = {"bert": tiny_backbone}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("backbone")
            save_backbone(name, tiny_tokenizer, folders[name])
        return folders[name]

    return folder


def test_behaviour(case, backbone_of, tmp_path):
    recipes = sorted((ROOT / "recipes" / case.method).glob("*.yaml"))
    check(case, Bench(METHODS[case.method], backbone_of(case.backbone), tmp_path, recipes))


def test_every_behaviour_has_a_check_and_every_opt_out_a_behaviour():
    assert set(BEHAVIOURS) == set(CHECKS)
    assert {kind.opt_out for kind in BEHAVIOURS.values()} - {None} == set(CAPABILITIES)


def test_the_selection_covers_all_pairs_with_few_cases():
    def pairs(cases):
        found = [[pair for pair in sorted(vars(case).items()) if pair[0] != "method"] for case in cases]
        return {(first, second) for items in found for first in items for second in items}

    cases = all_cases(METHODS)
    selection = pairwise(cases)
    assert pairs(selection) == pairs(cases)
    wanted = {(case.method, case.behaviour) for case in cases if case.behaviour in CORE}
    assert wanted <= {(case.method, case.behaviour) for case in selection}
    assert len(selection) < len(cases) / 10
    assert pairwise(cases) == selection


def test_shards_are_the_whole():
    cases = all_cases(METHODS)
    parts = [shard(cases, f"{number}/3") for number in (1, 2, 3)]
    assert sorted((case for part in parts for case in part), key=cases.index) == cases
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", ""])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match="expected I/N"):
        shard(all_cases(METHODS), text)
