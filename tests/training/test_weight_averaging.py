"""Starting point, moving average and mean of weights against numbers worked out by hand."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from hfssl.training.weight_averaging import StartingPoint, WeightAverage, mean_of_weights
from tests.helpers.train_tiny import make_trainer, weights_digest


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
