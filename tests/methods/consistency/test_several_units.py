"""Several units per row: a task of yes-or-no labels uses the same thresholds, banks and losses."""

from __future__ import annotations

from math import log

import pytest
import torch
from datasets import Dataset

from hfssl.config.methods import METHODS
from hfssl.config.tasks import TASKS
from tests.helpers.by_hand import tokens_batch, trainable_table
from tests.helpers.toy_labels import NAME, ROW


def logit(p):
    return log(p / (1 - p))


@pytest.fixture
def run(monkeypatch):
    """Makes a method's objective for two labels; token -> probabilities of the two labels."""
    monkeypatch.setitem(TASKS, NAME, ROW)
    table = [[0.8, 0.3], [0.4, 0.6], [0.97, 0.02], [0.5, 0.96], [0.6, 0.2], [0.7, 0.9]]
    model = trainable_table(table)
    model.logits.weight.data = torch.tensor([[logit(p) for p in row] for row in table], dtype=torch.float64)

    def step(method, number=0, objective=None, **settings):
        if objective is None:
            row = METHODS[method]
            args = row.config_class("unused", use_cpu=True, max_steps=10, task=NAME, ramp_up=0.0, **settings)
            objective = row.trainer_class.objective_class()
            objective.setup(model, args)
            objective.see_data(None, Dataset.from_dict({"text": ["a"] * 2}))
        labeled = tokens_batch([0, 1]) | {"labels": torch.tensor([[1, 0], [0, 1]])}
        views = {"weak": tokens_batch([2, 3], [0, 1]), "strong": tokens_batch([4, 5], [0, 1])}
        parts = objective.loss(model, labeled, views, number)
        objective.after_step(model, number + 1)
        return {name: value.item() for name, value in parts.items()}, objective

    return step


LABELED = -(log(0.8) + log(0.7) + log(0.6) + log(0.6)) / 4


def test_fixmatch_takes_each_label_by_itself(run):
    parts, _ = run("fixmatch")
    assert parts["loss/labeled"] == pytest.approx(LABELED)
    # Row 0: label 0 is yes (.97), label 1 is no (.98). Row 1: label 0 is open (.5), label 1 is yes (.96).
    assert parts["loss/unlabeled"] == pytest.approx(-(log(0.6) + log(0.8) + log(0.9)) / 4)
    assert parts["pool_utilisation"] == pytest.approx(3 / 4)


def test_a_bank_has_a_line_for_each_label_of_each_row(run):
    _, objective = run("flexmatch")
    assert objective.threshold.bank.values[:, 0].tolist() == [1, 0, -1, 1]  # yes, no, open, yes
    # sigma = [1, 2], one unused: beta = [1/2, 1]; thresholds .95 / 3 and .95: the open unit (a tie is no) counts now.
    parts, _ = run("flexmatch", number=1, objective=objective)
    assert parts["pool_utilisation"] == pytest.approx(1.0)


def test_the_pi_model_compares_probabilities_of_yes_and_no(run):
    parts, _ = run("pi_model", lambda_u=1.0)
    squares = [(0.97 - 0.6) ** 2, (0.02 - 0.2) ** 2, (0.5 - 0.7) ** 2, (0.96 - 0.9) ** 2]
    assert parts["loss/unlabeled"] == pytest.approx(sum(squares) / 4)


def test_annealing_leaves_out_single_labels(run):
    # eta = (3/10) (1/2) + 1/2 = .65: units at .8 and .7 are left out, those at .6 stay.
    parts, _ = run("uda", number=3)
    assert parts["loss/labeled"] == pytest.approx(-log(0.6), rel=1e-6)


@pytest.mark.parametrize("method", ["softmatch", "freematch", "adamatch", "dash", "mixmatch", "temporal_ensembling"])
def test_the_others_run(run, method):
    parts, objective = run(method)
    again, _ = run(method, number=1, objective=objective)
    assert all(torch.isfinite(torch.tensor(value)) for value in (*parts.values(), *again.values()))
