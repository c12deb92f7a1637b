"""Temperature: the fit against numbers worked out by hand, the folding on every stock head that we support."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
)

from hfssl.errors import ModelError
from hfssl.evaluation.temperature_scaling import (
    _logits_of_random_input,
    fit_temperature,
    fold_temperature,
    match_temperature,
)

SHAPE = {"vocab_size": 50, "max_position_embeddings": 40, "num_labels": 3}
BERT_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32} | SHAPE
CONFIGS = {
    "bert": BertConfig(**BERT_SHAPE),
    "roberta": RobertaConfig(**BERT_SHAPE),
    # As many labels as hidden units: then the head's first layer has K outputs too.
    "roberta_square_head": RobertaConfig(**BERT_SHAPE | {"num_labels": 16}),
    "deberta_v2": DebertaV2Config(**BERT_SHAPE),
    "distilbert": DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **SHAPE),
    "modernbert": ModernBertConfig(**BERT_SHAPE | {"pad_token_id": 0}),
    "gpt2_no_bias": GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=40, num_labels=3),
}


def make_model(name: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(CONFIGS[name]).eval()


def logits_of(model):
    tokens = torch.tensor([[5, 9, 12, 30, 7, 8]])
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits


def test_temperature_of_one_gap_by_hand():
    # Four rows with logits (2, 0), three of them of class 0. The likelihood is best where sigmoid(2 / T) = 3/4, that
    # is 2 / T = ln 3, T = 2 / ln 3 = 1.8205. A prior this wide says nothing.
    logits, labels = [[2.0, 0.0]] * 4, np.array([0, 0, 0, 1])
    assert fit_temperature(logits, labels, prior_scale=1e4) == pytest.approx(2 / math.log(3), rel=1e-4)


def test_prior_pulls_towards_one_by_hand():
    # As above, u = log T, b = 1/T. Setting the derivative to zero: -N b g (sigmoid(g b) - 3/4) + u / s^2 = 0.
    # Ask for g b = ln 4: sigmoid = 4/5, T = 2 / ln 4 = 1.4427, u = ln T = .36651, so
    # s^2 = u / (N b g * .05) = .36651 / (4 * 1.38629 * .05) = 1.32190.
    temperature = 2 / math.log(4)
    prior_scale = math.sqrt(math.log(temperature) / (4 * math.log(4) * 0.05))
    logits, labels = [[2.0, 0.0]] * 4, np.array([0, 0, 0, 1])
    assert prior_scale == pytest.approx(math.sqrt(1.32190), rel=1e-4)
    assert fit_temperature(logits, labels, prior_scale=prior_scale) == pytest.approx(temperature, rel=1e-5)


def test_a_few_rows_that_are_all_right_do_not_make_it_certain():
    logits, labels = [[3.0, 0.0]] * 5, np.zeros(5, dtype=int)
    assert 0.5 < fit_temperature(logits, labels) < 1.0


def test_overconfidence_gives_a_temperature_above_one_and_no_rows_give_one():
    logits, labels = [[8.0, 0.0]] * 10, np.array([0] * 6 + [1] * 4)
    assert fit_temperature(logits, labels) > 3
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=int)) == 1.0


def test_fit_finds_the_lowest_of_two_valleys_as_a_fine_grid_does():
    rng = np.random.default_rng(0)
    for _ in range(20):
        logits = rng.normal(size=(12, 4)) * rng.uniform(0.1, 20)
        labels = rng.integers(0, 4, 12)
        scale = rng.uniform(0.2, 2)

        def objective(u, logits=logits, labels=labels, scale=scale):
            scaled = logits / math.exp(u)
            log_norm = np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1)) + scaled.max(1)
            return (log_norm - scaled[np.arange(12), labels]).sum() + u**2 / (2 * scale**2)

        grid = np.linspace(math.log(0.05), math.log(20), 4001)
        lowest = min(objective(u) for u in grid)
        assert objective(math.log(fit_temperature(logits, labels, prior_scale=scale))) <= lowest + 1e-9


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, 0.0]], np.array([-1]), "unlabeled"),
        ([[1.0, 0.0]], np.array([2]), "0 to 1"),
        ([[math.inf, 0.0]], np.array([0]), "finite"),
        ([1.0, 0.0], np.array([0]), "shapes"),
    ],
)
def test_fit_refuses_what_it_cannot_use(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("name", CONFIGS)
def test_folding_divides_the_logits_of_every_stock_head(name):
    model = make_model(name)
    before = logits_of(model)
    fold_temperature(model, 2.5)
    torch.testing.assert_close(logits_of(model), before / 2.5, rtol=1e-5, atol=1e-6)


def test_folded_temperature_survives_saving(tmp_path):
    model = make_model("bert")
    before = logits_of(model)
    fold_temperature(model, 0.7)
    model.save_pretrained(tmp_path)
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits_of(reloaded), before / 0.7, rtol=1e-5, atol=1e-6)


def test_a_logit_that_large_terms_cancel_out_in_is_no_reason_to_refuse():
    """Float32 leaves as large an error on logits near 0 as on the large terms that were added up to them."""
    model = make_model("bert")
    with torch.no_grad():
        model.classifier.weight.mul_(1e6)
        model.classifier.bias -= _logits_of_random_input(model, model.classifier)[0][0]
        weight = model.classifier.weight.clone()
    fold_temperature(model, 1.07202)
    torch.testing.assert_close(model.classifier.weight, weight / 1.07202)


def test_folding_leaves_modes_gradients_and_the_global_generator_alone():
    model = make_model("bert").train()
    model.bert.encoder.eval()
    state = torch.get_rng_state()
    fold_temperature(model, 1.3)
    assert model.training
    assert not model.bert.encoder.training
    assert model.classifier.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_adapters_must_be_merged_first():
    adapted = get_peft_model(make_model("bert"), LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2)).eval()
    with pytest.raises(ModelError, match="merge"):
        fold_temperature(adapted, 2.0)
    with pytest.raises(ModelError, match="merge"):
        fold_temperature(adapted.base_model.model, 2.0)  # the inner model carries the adapters too
    merged = adapted.merge_and_unload()
    before = logits_of(merged)
    fold_temperature(merged, 2.0)
    torch.testing.assert_close(logits_of(merged), before / 2.0, rtol=1e-5, atol=1e-6)


def test_a_head_that_does_more_after_its_last_layer_is_refused_and_left_as_it_was():
    model = make_model("bert")
    model.classifier.register_forward_hook(lambda module, inputs, output: output + 1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match="stock head"):
        fold_temperature(model, 2.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_a_fitting_layer_is_refused():
    model = make_model("bert")
    model.config.num_labels = 7
    with pytest.raises(ModelError, match="7 outputs"):
        fold_temperature(model, 2.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="positive"):
        fold_temperature(make_model("bert"), temperature)


def test_a_student_gets_the_temperature_at_which_it_is_as_sure_as_the_ensemble():
    """Logits of 2 log 3 are 9 to 1; the ensemble says 3 to 1, which is half of them in logarithms."""
    logits = np.array([[2 * np.log(3), 0.0], [0.0, 2 * np.log(3)]])
    assert match_temperature(logits, [[0.75, 0.25], [0.25, 0.75]]) == pytest.approx(2, rel=1e-5)
    assert match_temperature(logits, [[0.9, 0.1], [0.1, 0.9]]) == pytest.approx(1, rel=1e-5)
    # It has no prior: two rows suffice. Where they disagree, the student can be sure of nothing.
    assert match_temperature(logits, [[0.25, 0.75], [0.75, 0.25]]) == pytest.approx(20)
    assert match_temperature(logits, [[1.0, 0.0], [0.0, 1.0]]) < 0.3
    # One row at 3 to 1 and one at 1 to 1: the mean of the probabilities of the more probable class is 5 / 8.
    assert match_temperature(logits, [[0.75, 0.25], [0.5, 0.5]]) == pytest.approx(2 * np.log(3) / np.log(5 / 3))
