"""Regularisation against overfitting to a few labels: formulas by hand, and each option in a real training run."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from hfssl.errors import ConfigurationError
from hfssl.functional.regularization import draw_mixup, mixup_loss, r_drop_loss
from hfssl.training.weight_averaging import StartingPoint, WeightAverage, mean_of_weights
from tests.helpers.train_tiny import make_trainer, weights_digest

OPTIONS = {
    "r_drop": {"r_drop_alpha": 1.0},
    "mixup": {"mixup_alpha": 0.4},
    "l2_sp": {"l2_sp_alpha": 10.0},
    "average": {"weight_average_decay": 0.9},
    "wise_ft": {"wise_ft_alpha": 0.5},
    "layerwise": {"layerwise_lr_decay": 0.5},
    "class_means": {"head_init": "class_means"},
    "logistic": {"head_init": "logistic"},
}


def logits_of(*probs: float) -> torch.Tensor:
    return torch.tensor([probs]).log()


def test_r_drop_of_two_views_of_one_row():
    first, second, label = logits_of(0.5, 0.5), logits_of(0.8, 0.2), torch.tensor([0])
    likelihood = (math.log(1 / 0.5) + math.log(1 / 0.8)) / 2
    forth = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    back = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert r_drop_loss(first, second, label, 0.0).item() == pytest.approx(likelihood)
    assert r_drop_loss(first, second, label, 3.0).item() == pytest.approx(likelihood + 3 * (forth + back) / 4)
    assert r_drop_loss(second, second, label, 3.0).item() == pytest.approx(math.log(1 / 0.8))


def test_mixup_is_the_mean_of_two_cross_entropies():
    logits = torch.cat([logits_of(0.9, 0.1), logits_of(0.4, 0.6)])
    labels, partners = torch.tensor([0, 1]), torch.tensor([1, 0])
    own = (math.log(1 / 0.9) + math.log(1 / 0.6)) / 2
    other = (math.log(1 / 0.1) + math.log(1 / 0.4)) / 2
    loss = mixup_loss(logits, labels, partners, 0.7)
    assert loss.item() == pytest.approx(0.7 * own + 0.3 * other)


def test_the_draw_of_mixup_depends_on_seed_and_step_alone():
    shares = [draw_mixup(6, 0.4, seed=1, step=step)[0] for step in range(200)]
    assert 0.5 <= min(shares) < 0.6
    assert max(shares) > 0.99  # Beta(0.4, 0.4) has most of its mass near 0 and 1
    share, partners = draw_mixup(6, 0.4, seed=1, step=3)
    assert sorted(partners.tolist()) == list(range(6))
    again, same = draw_mixup(6, 0.4, seed=1, step=3)
    assert (again, same.tolist()) == (share, partners.tolist())
    assert draw_mixup(6, 0.4, seed=2, step=3)[0] != share


def test_the_penalty_of_l2_sp_is_half_alpha_times_the_squared_way(tiny_backbone, tmp_path):
    model = make_trainer(tiny_backbone, tmp_path).model
    start = StartingPoint(model)
    assert start.penalty(model, 3.0).item() == 0
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[0, 0] += 2.0
        model.classifier.weight += 1.0  # the head is free
    assert start.penalty(model, 3.0).item() == pytest.approx(3.0 / 2 * 4.0)
    start.penalty(model, 3.0).backward()
    assert embeddings.grad[0, 0].item() == pytest.approx(3.0 * 2.0)
    assert embeddings.grad.abs().sum().item() == pytest.approx(3.0 * 2.0)


def test_a_soup_is_the_mean_of_the_weights_and_leaves_its_models_alone(tiny_backbone, tmp_path):
    first = make_trainer(tiny_backbone, tmp_path).model.eval()
    second, third = deepcopy(first), deepcopy(first)
    with torch.no_grad():
        second.get_input_embeddings().weight[0, 0] += 3.0
        third.classifier.weight[1, 2] -= 6.0
    before = [weights_digest(model) for model in (first, second, third)]
    soup = mean_of_weights([first, second, third])
    assert [weights_digest(model) for model in (first, second, third)] == before
    expected = deepcopy(first)
    with torch.no_grad():
        expected.get_input_embeddings().weight[0, 0] += 1.0
        expected.classifier.weight[1, 2] -= 2.0
    for name, parameter in expected.named_parameters():
        assert torch.allclose(soup.get_parameter(name), parameter, atol=1e-6), name
    assert soup.get_parameter("classifier.weight").requires_grad
    assert not soup.training


def test_wise_ft_ends_between_the_start_and_the_trained_weights(tiny_backbone, tmp_path):
    model = make_trainer(tiny_backbone, tmp_path).model
    start = StartingPoint(model)
    embeddings, head = model.get_input_embeddings().weight, model.classifier.weight
    before, head_before = embeddings[0, 0].item(), head[0, 0].item()
    with torch.no_grad():
        embeddings[0, 0] += 2.0
        head += 1.0
    start.interpolate(model, 0.75)
    assert embeddings[0, 0].item() == pytest.approx(before + 0.75 * 2.0)
    assert head[0, 0].item() == pytest.approx(head_before + 1.0)  # the head has no start worth keeping


def test_wise_ft_of_an_adapter_is_that_of_the_weights_it_is_merged_into(tiny_backbone, tmp_path):
    def merged(folder, **settings):
        trainer = make_trainer(tiny_backbone, tmp_path / folder, lora=True, save_strategy="no", **settings)
        pretrained = deepcopy(trainer.model).merge_and_unload().base_model.state_dict()
        trainer.train()
        return pretrained, trainer.model.merge_and_unload().base_model.state_dict()

    before, trained = merged("trained")
    same, between = merged("between", wise_ft_alpha=0.75)
    changed = 0
    for name, start in before.items():
        assert torch.equal(start, same[name])
        torch.testing.assert_close(between[name], start + 0.75 * (trained[name] - start), atol=1e-6, rtol=1e-4)
        changed += not torch.equal(start, trained[name])
    assert changed > 0


def test_the_moving_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, decay=0.5)
    for step, weight in enumerate([1.0, 2.0, 4.0], start=1):
        model.weight.data.fill_(weight)
        average.update(model, step)
    # Decays 1/10, 2/11, 3/12: 0.9, then 0.9 * 2/11 + 2 * 9/11, then that / 4 + 4 * 3/4.
    expected = (0.9 * 2 / 11 + 2 * 9 / 11) / 4 + 3
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(expected)


def test_the_moving_average_of_a_long_run_decays_as_asked():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, decay=0.5)
    model.weight.data.fill_(8.0)
    average.update(model, step=1000)
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(4.0)


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_changes_training_and_survives_being_stopped(tiny_backbone, tmp_path, name):
    def run(folder, **settings):
        trainer = make_trainer(tiny_backbone, tmp_path / folder, **settings)
        trainer.train(resume_from_checkpoint=True)
        return trainer

    plain = run("plain", save_strategy="no")
    whole = run("whole", save_strategy="no", **OPTIONS[name])
    assert weights_digest(whole.model) != weights_digest(plain.model)
    run("parts", max_steps=8, save_steps=3, **OPTIONS[name])
    (tmp_path / "parts" / "checkpoint-8" / "hfssl_complete").unlink()  # as if killed after step 6
    assert weights_digest(run("parts", **OPTIONS[name]).model) == weights_digest(whole.model)
    finished = run("parts", **OPTIONS[name])  # is loaded, and not trained further
    assert weights_digest(finished.model) == weights_digest(whole.model)


def test_l2_sp_keeps_the_body_near_its_start(tiny_backbone, tmp_path):
    def way(**settings):
        trainer = make_trainer(tiny_backbone, tmp_path, save_strategy="no", **settings)
        before = [p.detach().clone() for p in trainer.model.base_model.parameters()]
        trainer.train()
        after = trainer.model.base_model.parameters()
        return sum((a - b).square().sum().item() for a, b in zip(after, before, strict=True))

    assert way(l2_sp_alpha=100.0) < 0.9 * way()


def test_the_penalty_is_a_component_of_the_students_loss_too(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, method="self_training", l2_sp_alpha=1.0, save_strategy="no")
    trainer.train()
    assert all("loss/l2_sp" in log for log in trainer.state.log_history if "loss" in log)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"r_drop_alpha": -1.0}, "r_drop_alpha must not be negative"),
        ({"r_drop_alpha": 1.0, "mixup_alpha": 1.0}, "exclude each other"),
        ({"weight_average_decay": 1.0}, "weight_average_decay must be"),
        ({"wise_ft_alpha": 0.0}, "wise_ft_alpha must be"),
        ({"layerwise_lr_decay": 0.0}, "layerwise_lr_decay must be"),
        ({"method": "self_training", "mixup_alpha": 1.0}, "are for teachers"),
        ({"method": "masked_span", "weight_average_decay": 0.9, "load_best_model_at_end": True}, "exclude each other"),
    ],
)
def test_settings_that_cannot_work_are_refused(tiny_backbone, tmp_path, settings, sentence):
    if "load_best_model_at_end" in settings:
        settings = settings | {"eval_strategy": "steps", "eval_steps": 3}
    with pytest.raises(ConfigurationError, match=sentence):
        make_trainer(tiny_backbone, tmp_path, **settings)
