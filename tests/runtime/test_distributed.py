"""Decisions that several ranks must share during training: when to stop, and that all of them do."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from pathlib import Path

import pytest

from hfssl.errors import Interrupted, TrainingError
from hfssl.runtime.distributed import any_rank, broadcast, is_main, wait_for_everyone
from hfssl.training.trainer import last_complete_checkpoint
from tests.helpers.ranks import logs, run_ranks
from tests.helpers.train_tiny import make_trainer, weights_digest

pytestmark = pytest.mark.distributed


def test_one_process_agrees_with_itself(tmp_path):
    value = {"any": "object"}
    assert broadcast(value) is value
    assert (any_rank(True), any_rank(False), is_main()) == (True, False, True)
    wait_for_everyone()


def train_and_stop(how: str, backbone: str, folder: str) -> None:
    """Trains, interrupted or with a bad loss on rank 1 at step 5; writes what each rank met, and its weights."""
    rank = int(os.environ["RANK"])
    settings = {"method": "self_training", "per_device_train_batch_size": 2, "save_steps": 3}
    trainer = make_trainer(backbone, folder, **settings)
    loss = trainer.objective.loss

    def disturbed(model, labeled, unlabeled, step):
        parts = loss(model, labeled, unlabeled, step)
        if rank == 1 and step == 4 and how == "nan":
            parts = {name: value * math.nan for name, value in parts.items()}
        if step == 4 and (how == "interrupt_all" or (how == "interrupt" and rank == 1)):
            # Rank 0 hears of it while it waits for rank 1's gradients, or a little later.
            threading.Timer(0.3 if rank == 0 else 0.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        return parts

    trainer.objective.loss = disturbed
    met = {"error": None}
    try:
        trainer.train(resume_from_checkpoint=True)
    except (Interrupted, TrainingError) as error:
        met = {"error": type(error).__name__, "message": str(error)}
    met |= {"step": trainer.state.global_step, "digest": weights_digest(trainer.model)}
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(met))


@pytest.fixture
def stopped(tiny_backbone, tmp_path):
    def run(how: str, name: str) -> list[dict]:
        folder = tmp_path / name
        args = (how, str(tiny_backbone), str(folder))
        assert run_ranks(train_and_stop, *args, log_dir=folder, ranks=2, timeout=60) == [0, 0], logs(folder)
        return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]

    return run


def test_a_bad_loss_on_one_rank_stops_all_with_the_same_message(stopped, tmp_path):
    first, second = stopped("nan", "a")
    assert first["error"] == second["error"] == "TrainingError"
    assert first["message"] == second["message"]
    assert "at step 5 of 8" in first["message"]
    assert last_complete_checkpoint(tmp_path / "a").endswith("checkpoint-3")


@pytest.mark.parametrize("how", ["interrupt", "interrupt_all"])
def test_an_interrupt_stops_all_ranks_at_one_step_and_resuming_gives_the_same_bits(stopped, tmp_path, how):
    whole = stopped("undisturbed", "a")
    assert whole[0] == whole[1]
    assert (whole[0]["error"], whole[0]["step"]) == (None, 8)
    met = stopped(how, "b")
    assert met[0] == met[1]
    assert met[0]["error"] == "Interrupted"
    assert last_complete_checkpoint(tmp_path / "b").endswith(f"checkpoint-{met[0]['step']}")
    assert stopped("undisturbed", "b") == whole
