"""The engine's invariants, each by real training runs of a tiny model."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch

from hfssl.errors import Interrupted, TrainingError
from hfssl.runtime import cpu_kernels
from hfssl.training.trainer import COMPLETE_MARKER, last_complete_checkpoint
from tests.helpers.ranks import logs, run_ranks
from tests.helpers.train_tiny import make_dataset, make_trainer, run, weights_digest

METHODS = ["supervised", "self_training", "masked_span"]


def train(backbone, folder, **settings):
    trainer = make_trainer(backbone, folder, **settings)
    trainer.train()
    return trainer


def weights(trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def in_processes(backbone, folder, ranks: int = 1, **settings) -> list[int]:
    """Trains in fresh processes; returns their exit codes. What they say lies beside the folder."""
    return run_ranks(run, str(backbone), folder, settings, log_dir=folder.with_suffix(".logs"), ranks=ranks)


@pytest.mark.parametrize("method", METHODS)
def test_accumulating_small_batches_equals_one_large_batch(tiny_backbone, tmp_path, method):
    """Batch 8 x accumulation 1 = batch 1 x accumulation 8, loss, gradient norm and weights."""
    common = {"method": method, "dropout": False, "max_steps": 5, "logging_steps": 1, "save_strategy": "no"}
    whole = train(tiny_backbone, tmp_path / "a", per_device_train_batch_size=8, **common)
    parts = train(
        tiny_backbone, tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=8, **common
    )
    for key in ("loss", "grad_norm"):
        first, second = ([log[key] for log in run.state.log_history if key in log] for run in (whole, parts))
        assert len(first) == 5
        assert first == pytest.approx(second, rel=2e-4)
    torch.testing.assert_close(weights(whole), weights(parts), rtol=0, atol=2e-5)


def test_lambda_u_zero_is_supervised_to_the_last_bit(tiny_backbone, tmp_path):
    supervised = train(tiny_backbone, tmp_path / "a", method="supervised", max_steps=12, save_strategy="no")
    without = train(
        tiny_backbone, tmp_path / "b", method="self_training", lambda_u=0.0, max_steps=12, save_strategy="no"
    )
    with_pool = train(
        tiny_backbone, tmp_path / "c", method="self_training", lambda_u=0.5, max_steps=12, save_strategy="no"
    )
    assert weights_digest(without.model) == weights_digest(supervised.model)
    assert weights_digest(with_pool.model) != weights_digest(supervised.model)


@pytest.mark.parametrize("lora", [False, True])
def test_evaluating_does_not_change_training(tiny_backbone, tmp_path, lora):
    silent = train(tiny_backbone, tmp_path / "a", max_steps=6, lora=lora, save_strategy="no")
    watched = make_trainer(
        tiny_backbone,
        tmp_path / "b",
        eval_dataset=make_dataset(9, labels=True),
        max_steps=6,
        lora=lora,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=2,
    )
    watched.train()
    assert sum("eval_loss" in log for log in watched.state.log_history) == 3
    assert weights_digest(watched.model) == weights_digest(silent.model)


def test_components_are_logged_and_sum_to_the_loss(tiny_backbone, tmp_path):
    trainer = train(
        tiny_backbone,
        tmp_path,
        method="self_training",
        max_steps=4,
        logging_steps=2,
        gradient_accumulation_steps=2,
        save_strategy="no",
    )
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 2
    for log in logs:
        assert log["loss/labeled"] + log["loss/pseudo_labeled"] == pytest.approx(log["loss"], rel=1e-5)
        assert 0 <= log["pseudo_label_agreement"] <= 1


def test_the_head_learns_at_its_own_rate_and_frozen_weights_have_no_optimizer_state(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, learning_rate=1e-4, head_learning_rate=3e-3)
    for parameter in trainer.model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    optimizer = trainer.create_optimizer()
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(trainer.model.named_parameters())
    assert rate[id(named["classifier.weight"])] == rate[id(named["classifier.bias"])] == 3e-3
    assert rate[id(named["bert.encoder.layer.0.attention.self.query.weight"])] == 1e-4
    assert not any(id(p) in rate for name, p in named.items() if "embeddings" in name)
    assert len(rate) == sum(p.requires_grad for p in named.values())


def test_frozen_word_embeddings_stay_as_they_are(tiny_backbone, tmp_path):
    trainer = train(tiny_backbone, tmp_path, freeze_embeddings=True)
    embeddings = trainer.model.get_input_embeddings().weight
    before = make_trainer(tiny_backbone, tmp_path).model
    assert torch.equal(embeddings, before.get_input_embeddings().weight)
    assert embeddings not in trainer.optimizer.state
    named = dict(before.named_parameters())
    frozen = [name for name, value in trainer.model.named_parameters() if torch.equal(value, named[name])]
    assert len(frozen) == 1  # and all else has learned


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, max_steps=8, save_steps=2)
    loss = trainer.objective.loss

    def poisoned(model, labeled, unlabeled, step):
        parts = loss(model, labeled, unlabeled, step)
        return {name: value * (math.nan if step == 5 else 1.0) for name, value in parts.items()}

    trainer.objective.loss = poisoned
    with pytest.raises(TrainingError, match=r"at step 6 of 8; the last good state is in .*checkpoint-4"):
        trainer.train()
    assert last_complete_checkpoint(tmp_path).endswith("checkpoint-4")


def test_the_first_interrupt_saves_and_says_where_and_resuming_gives_the_same_bits(tiny_backbone, tmp_path):
    undisturbed = train(tiny_backbone, tmp_path / "a", method="self_training")
    trainer = make_trainer(tiny_backbone, tmp_path / "b", method="self_training", save_steps=100)
    loss = trainer.objective.loss

    def interrupting(model, labeled, unlabeled, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(model, labeled, unlabeled, step)

    trainer.objective.loss = interrupting
    with pytest.raises(Interrupted, match=r"after step 5 of 8; state saved in .*checkpoint-5"):
        trainer.train()
    resumed = make_trainer(tiny_backbone, tmp_path / "b", method="self_training", save_steps=100)
    resumed.train(resume_from_checkpoint=True)
    assert weights_digest(resumed.model) == weights_digest(undisturbed.model)


def test_an_unfinished_checkpoint_is_passed_over(tiny_backbone, tmp_path):
    train(tiny_backbone, tmp_path, max_steps=6, save_steps=3)
    assert last_complete_checkpoint(tmp_path).endswith("checkpoint-6")
    (tmp_path / "checkpoint-6" / COMPLETE_MARKER).unlink()
    assert last_complete_checkpoint(tmp_path).endswith("checkpoint-3")


def test_resuming_a_finished_run_takes_no_further_step(tiny_backbone, tmp_path):
    first = train(tiny_backbone, tmp_path, max_steps=5)  # 5 steps end in the middle of an epoch of 2
    again = make_trainer(tiny_backbone, tmp_path, max_steps=5)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 5
    assert weights_digest(again.model) == weights_digest(first.model)


def test_progress_says_what_is_being_done(tiny_backbone, tmp_path, capfd):
    trainer = make_trainer(tiny_backbone, tmp_path, max_steps=2, save_strategy="no")
    assert not capfd.readouterr().out  # quiet runs print no log lines
    from hfssl.runtime.progress import NamedProgress

    trainer.add_callback(NamedProgress("labels only"))
    trainer.train()
    assert "labels only: 100%" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("method", "lora"),
    [
        ("supervised", False),
        ("self_training", False),
        ("self_training", True),
        ("masked_span", False),
        ("contrastive", True),
    ],
)
def test_kill_in_the_middle_of_a_step_and_resume_gives_the_same_bits(tiny_backbone, tmp_path, method, lora):
    settings = {"method": method, "lora": lora, "gradient_accumulation_steps": 2}
    undisturbed = train(tiny_backbone, tmp_path / "a", **settings)
    codes = in_processes(tiny_backbone, tmp_path / "b", kill_at_step=5, **settings)
    assert codes == [-signal.SIGKILL], logs(tmp_path / "b.logs")
    assert last_complete_checkpoint(tmp_path / "b").endswith("checkpoint-3")
    resumed = make_trainer(tiny_backbone, tmp_path / "b", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert weights_digest(resumed.model) == weights_digest(undisturbed.model)


@pytest.mark.distributed
@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_equal_one_rank(tiny_backbone, tmp_path, method):
    """Batch 4 on two ranks sees the rows of batch 8 on one, and ends with the same weights up to summation order."""
    settings = {"method": method, "dropout": False, "max_steps": 6, "logging_steps": 1, "save_strategy": "no"}
    one = train(tiny_backbone, tmp_path / "one", per_device_train_batch_size=4, **settings)
    codes = in_processes(tiny_backbone, tmp_path / "two", ranks=2, per_device_train_batch_size=2, **settings)
    assert codes == [0, 0], logs(tmp_path / "two.logs")
    history = json.loads((tmp_path / "two" / "history.json").read_text())
    for key in ("loss", "grad_norm"):
        first = [log[key] for log in one.state.log_history if key in log]
        assert first == pytest.approx([log[key] for log in history if key in log], rel=2e-4)


@pytest.mark.distributed
@pytest.mark.parametrize("method", ["self_training", "masked_span"])
def test_two_ranks_killed_and_resumed_give_the_same_bits(tiny_backbone, tmp_path, method):
    settings = {"method": method, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    assert in_processes(tiny_backbone, tmp_path / "a", ranks=2, **settings) == [0, 0], logs(tmp_path / "a.logs")
    assert -signal.SIGKILL in in_processes(tiny_backbone, tmp_path / "b", ranks=2, kill_at_step=5, **settings)
    assert not (tmp_path / "b" / "digest").exists()
    assert in_processes(tiny_backbone, tmp_path / "b", ranks=2, **settings) == [0, 0], logs(tmp_path / "b.logs")
    assert (tmp_path / "b" / "digest").read_text() == (tmp_path / "a" / "digest").read_text()


def test_dropout_s_masks_are_the_cheap_ones(tiny_backbone, tmp_path, monkeypatch):
    drawn, draw = [], cpu_kernels._bits
    monkeypatch.setattr(cpu_kernels, "_bits", lambda shape: drawn.append(shape) or draw(shape))
    settings = {"method": "supervised", "max_steps": 2, "save_strategy": "no"}
    trainer = train(tiny_backbone, tmp_path / "a", **settings)
    layers = trainer.model.config.num_hidden_layers
    each = 2 + 3 * layers  # embeddings and head; attention, its output and the feed-forward of each layer
    assert len(drawn) >= 2 * each
    assert len(drawn) % each == 0
    drawn.clear()
    train(tiny_backbone, tmp_path / "b", **settings, activation_checkpointing=True)
    assert not drawn
