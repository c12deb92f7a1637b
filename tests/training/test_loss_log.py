"""Means of the loss's components, and the first step that was not finite, by hand."""

from __future__ import annotations

import pytest
import torch

from hfssl.errors import TrainingError
from hfssl.training.loss_log import LossLog, loss_terms

CPU = torch.device("cpu")


def test_means_are_over_batches_and_ranks_and_start_again():
    log = LossLog(CPU, gather=lambda own: torch.stack([own.view(()), torch.tensor(9.0)]))  # another rank added up 9
    assert not log
    log.add({"loss/a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    log.add({"loss/a": torch.tensor(2.0), "b": torch.tensor(8.0)}, share=0.5)
    log.notes["rows"] = 7.0
    assert log
    assert log.means() == {"loss/a": (2.0 + 9.0) / 2 / 2, "b": (8.0 + 9.0) / 2 / 2, "rows": 7.0}
    assert not log
    log.add({"b": torch.tensor(3.0)})
    assert log.means() == {"b": 6.0}  # no note a second time, and nothing of what was logged


def test_the_first_bad_step_of_any_rank_stops_all(tmp_path):
    other = [-1]
    log = LossLog(CPU, gather=lambda own: torch.cat([own, torch.tensor(other)]))
    log.check(torch.tensor(1.0), 1)
    log.raise_if_not_finite(9, tmp_path)
    log.check(torch.tensor(float("inf")), 4)
    log.check(torch.tensor(float("nan")), 5)
    with pytest.raises(TrainingError, match="at step 4 of 9; no checkpoint had been written yet"):
        log.raise_if_not_finite(9, tmp_path)
    other[0] = 3
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "hfssl_complete").touch()
    with pytest.raises(TrainingError, match=r"at step 3 of 9; the last good state is in .*checkpoint-2"):
        log.raise_if_not_finite(9, tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (torch.tensor(1.0), "from Mine.loss, got a Tensor: return"),
        ({"labeled": torch.tensor(1.0)}, "with an entry 'loss/...' from Mine.loss, got labeled: rename"),
        ({"loss/labeled": torch.ones(3)}, r"got shape \[3\] for 'loss/labeled': take its mean"),
        ({"loss/labeled": 0.5}, "got a float for 'loss/labeled'"),
    ],
    ids=["tensor", "name", "vector", "float"],
)
def test_an_objective_that_returns_something_else_is_told_what_was_expected(parts, message):
    with pytest.raises(TrainingError, match=message):
        loss_terms(parts, "Mine")
