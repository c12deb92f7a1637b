"""Modules that only training needs: trained, restored after a restart, and never exported."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import hfssl
from hfssl.config.methods import METHODS
from hfssl.models.checkpoints import save_checkpoint
from hfssl.models.extra_modules import extra_modules_of
from hfssl.models.heads import logit_layer
from hfssl.training.stateful import METHOD_STATE
from tests.helpers import ROOT
from tests.helpers.projected import PROJECTED
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset, make_trainer, weights_digest


@pytest.fixture(autouse=True)
def toy_method(monkeypatch):
    monkeypatch.setitem(METHODS, "projected", PROJECTED)


def digests(trainer) -> tuple[str, str]:
    return weights_digest(trainer.model), weights_digest(trainer.extra_modules)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_they_are_stepped_and_resumed_to_the_same_bits(tiny_backbone, tmp_path, lora):
    def run(folder, **settings):
        trainer = make_trainer(tiny_backbone, tmp_path / folder, method="projected", lora=lora, **settings)
        before = digests(trainer)
        trainer.train(resume_from_checkpoint=True)
        assert before[1] != digests(trainer)[1]
        return digests(trainer)

    whole = run("whole", save_strategy="no")
    run("parts")
    (tmp_path / "parts/checkpoint-8/hfssl_complete").unlink()  # as if killed after step 6
    assert run("parts") == whole
    assert run("parts") == whole  # a finished run is loaded, and not trained further


def test_they_learn_at_the_rate_of_the_head_and_their_gradients_are_clipped(tiny_backbone, tmp_path):
    settings = {"head_learning_rate": 3e-3, "max_steps": 1, "logging_steps": 1, "save_strategy": "no"}
    trainer = make_trainer(tiny_backbone, tmp_path, method="projected", **settings)
    norms = []
    backward = trainer.training_step

    def watched(*args):
        loss = backward(*args)
        attached = dict(trainer.model.named_parameters())
        own = list(trainer.extra_modules.parameters())
        assert {id(parameter) for parameter in own} <= {id(parameter) for parameter in attached.values()}
        norms.append(sum(p.grad.square().sum() for p in attached.values() if p.grad is not None).sqrt().item())
        return loss

    trainer.training_step = watched
    trainer.train()
    rates = {id(p): group["initial_lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {rates[id(parameter)] for parameter in trainer.extra_modules.parameters()} == {3e-3}
    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(norms[0], rel=1e-5)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_they_are_in_the_checkpoint_and_not_in_a_model(tiny_backbone, tmp_path, lora):
    trainer = make_trainer(tiny_backbone, tmp_path / "run", method="projected", lora=lora, max_steps=4)
    given = set(trainer.model.state_dict())
    trainer.train()
    assert set(trainer.model.state_dict()) == given
    assert not extra_modules_of(trainer.model)
    states = torch.load(tmp_path / "run/checkpoint-3" / METHOD_STATE, weights_only=True)
    assert "projection.0.weight" in states["extra_modules"]
    trainer.save_model(str(tmp_path / "saved"))
    save_checkpoint(trainer.model, trainer.processing_class, tmp_path / "model", LABEL_NAMES)
    weights = [path for path in tmp_path.rglob("*.safetensors") if "checkpoint" not in path.name]
    assert len(weights) == 4  # of checkpoints 3 and 4, and of both ways to save
    for path in weights:
        assert not [name for name in load_file(path) if "projection" in name], path
    batch = {"input_ids": torch.arange(5, 13).view(2, 4)}
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits
        assert torch.equal(hfssl.from_pretrained(tmp_path / "model").eval()(**batch).logits, expected)


def test_the_best_model_is_loaded_without_a_word_about_missing_weights(tiny_backbone, tmp_path, caplog):
    trainer = make_trainer(
        tiny_backbone,
        tmp_path,
        method="projected",
        eval_dataset=make_dataset(9, labels=True),
        max_steps=6,
        eval_strategy="steps",
        eval_steps=3,
        load_best_model_at_end=True,
    )
    with caplog.at_level(logging.WARNING, logger="transformers"):
        trainer.train()
    assert trainer.state.best_model_checkpoint
    assert "missing keys" not in caplog.text
    best = load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors")
    assert torch.equal(trainer.model.state_dict()["classifier.weight"], best["classifier.weight"])


def test_a_method_with_extra_modules_draws_nothing_from_the_global_generator(tiny_backbone, tmp_path):
    states = []
    for method in ("supervised", "projected"):
        make_trainer(tiny_backbone, tmp_path, method=method)
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)
    first, second = (make_trainer(tiny_backbone, tmp_path, method="projected", seed=seed) for seed in (7, 8))
    assert weights_digest(first.extra_modules) != weights_digest(second.extra_modules)


def test_the_logit_layer_is_not_looked_for_in_them(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, method="projected")
    with trainer.extra_modules.attached_to(trainer.model):
        assert extra_modules_of(trainer.model) is trainer.extra_modules
        assert logit_layer(trainer.model) is trainer.model.classifier
    assert not extra_modules_of(trainer.model)


@pytest.mark.distributed
def test_two_ranks_equal_one_rank(tiny_backbone, tmp_path):
    settings = {"method": "projected", "dropout": False, "max_steps": 4, "logging_steps": 1, "save_steps": 4}
    settings["gradient_accumulation_steps"] = 2
    one = make_trainer(tiny_backbone, tmp_path / "one", per_device_train_batch_size=4, **settings)
    one.train()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    settings["per_device_train_batch_size"] = 2
    command = [*launcher, "tests.helpers.projected", str(tiny_backbone), str(tmp_path / "two"), json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    history = json.loads((tmp_path / "two/history.json").read_text())
    for key in ("loss", "loss/length", "grad_norm"):
        first = [log[key] for log in one.state.log_history if key in log]
        assert first == pytest.approx([log[key] for log in history if key in log], rel=2e-4)
    states = torch.load(tmp_path / "two/checkpoint-4" / METHOD_STATE, weights_only=True)["extra_modules"]
    for name, value in one.extra_modules.state_dict().items():
        torch.testing.assert_close(states[name], value, rtol=0, atol=2e-5)
