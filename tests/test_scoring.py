"""Scoring of pools: order, batches, MC dropout through plain models and LoRA, and that scoring changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import WORDS, tiny_bert_config
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import (
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hfssl.adapters import add_adapter
from hfssl.errors import ModelError
from hfssl.scoring import (
    MCDropoutResult,
    combine,
    dropout_active,
    mc_dropout,
    predict_logits,
    token_budget_batches,
)
from hfssl.uncertainty import bald, predictive_variance


def build(model_class, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config)


def tiny_bert(vocabulary: int, dropout: float = 0.1, **settings) -> BertForSequenceClassification:
    settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "num_labels": 3}
    settings |= {"initializer_range": 0.3}  # logits far enough apart to see what dropout does to them
    return build(BertForSequenceClassification, tiny_bert_config(vocabulary, **settings))


@pytest.fixture(scope="module")
def dataset(tiny_tokenizer) -> Dataset:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=length)) for length in generator.integers(1, 30, size=50)]
    return Dataset.from_dict({"text": texts, "label": [-1] * 50} | dict(tiny_tokenizer(texts)))


@pytest.fixture(scope="module")
def model(tiny_tokenizer) -> BertForSequenceClassification:
    return tiny_bert(len(tiny_tokenizer))


def test_logits_equal_one_row_at_a_time_in_dataset_order(model, dataset, tiny_tokenizer):
    logits = predict_logits(model, dataset, tiny_tokenizer, max_tokens=128)
    assert logits.shape == (50, 3)
    assert logits.dtype == np.float32
    model.eval()
    with torch.inference_mode():
        alone = [model(**tiny_tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in dataset["text"]]
    np.testing.assert_allclose(logits, np.stack(alone), atol=1e-5)


def test_a_selection_of_rows_keeps_its_own_order(model, dataset, tiny_tokenizer):
    rows = [7, 3, 40]
    everything = predict_logits(model, dataset, tiny_tokenizer)
    np.testing.assert_allclose(
        predict_logits(model, dataset.select(rows), tiny_tokenizer), everything[rows], atol=1e-5
    )
    assert predict_logits(model, dataset.select([]), tiny_tokenizer).shape == (0, 3)


def test_batches_keep_to_the_token_budget_and_hold_each_row_once():
    lengths = np.random.default_rng(0).integers(1, 100, size=500)
    batches = token_budget_batches(lengths, 400)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(rows) * lengths[rows].max() <= 400 for rows in batches)
    assert len(batches) < 1.2 * lengths.sum() / 400 + 1
    assert [rows.tolist() for rows in token_budget_batches(np.array([3, 900]), 400)] == [[1], [0]]


def test_scoring_leaves_training_flags_and_random_states_alone(dataset, tiny_tokenizer):
    model = tiny_bert(len(tiny_tokenizer))
    model.train()
    model.bert.embeddings.eval()
    flags = [module.training for module in model.modules()]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    predict_logits(model, dataset, tiny_tokenizer)
    mc_dropout(model, dataset, tiny_tokenizer, passes=2, seed=0)
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(model, dataset, tiny_tokenizer):
    first = mc_dropout(model, dataset, tiny_tokenizer, passes=3, seed=1, max_tokens=256)
    torch.rand(7)  # what ran before must not matter
    again = mc_dropout(model, dataset, tiny_tokenizer, passes=3, seed=1, max_tokens=256)
    other = mc_dropout(model, dataset, tiny_tokenizer, passes=3, seed=2, max_tokens=256)
    assert np.array_equal(first.mean_probs, again.mean_probs)
    assert np.array_equal(first.bald, again.bald)
    assert not np.array_equal(first.mean_probs, other.mean_probs)
    assert np.array_equal(first.deterministic_probs, other.deterministic_probs)


def test_mc_dropout_describes_the_rows(model, dataset, tiny_tokenizer):
    result = mc_dropout(model, dataset, tiny_tokenizer, passes=8, seed=0, max_tokens=256)
    probs = torch.softmax(torch.from_numpy(predict_logits(model, dataset, tiny_tokenizer)), dim=-1).numpy()
    np.testing.assert_allclose(result.deterministic_probs, probs, atol=1e-5)
    assert np.array_equal(result.predicted, probs.argmax(axis=-1))
    np.testing.assert_allclose(result.mean_probs.sum(axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(result.entropy, -(result.mean_probs * np.log(result.mean_probs)).sum(-1), atol=1e-5)
    assert (result.bald > 0).all()
    assert (result.bald <= result.entropy + 1e-6).all()
    assert (result.predicted_class_variance > 0).all()
    assert (result.predicted_class_variance <= 0.25).all()


def test_many_passes_estimate_the_same_mean_however_they_are_stacked(model, dataset, tiny_tokenizer):
    few_rows = dataset.select(range(4))
    stacked = mc_dropout(model, few_rows, tiny_tokenizer, passes=400, seed=0, max_tokens=8192)
    one_by_one = mc_dropout(model, few_rows, tiny_tokenizer, passes=400, seed=0, max_tokens=1)
    np.testing.assert_allclose(stacked.mean_probs, one_by_one.mean_probs, atol=0.05)
    np.testing.assert_allclose(
        np.sqrt(stacked.predicted_class_variance), np.sqrt(one_by_one.predicted_class_variance), atol=0.03
    )


def test_one_pass_has_no_disagreement(model, dataset, tiny_tokenizer):
    result = mc_dropout(model, dataset, tiny_tokenizer, passes=1, seed=0)
    assert not result.bald.any()
    assert not result.predicted_class_variance.any()
    assert not np.allclose(result.mean_probs, result.deterministic_probs)


def test_a_model_without_dropout_is_refused(dataset, tiny_tokenizer):
    with pytest.raises(ModelError, match="no dropout"):
        mc_dropout(tiny_bert(len(tiny_tokenizer), dropout=0.0), dataset, tiny_tokenizer, passes=3, seed=0)


def test_weights_that_are_not_finite_are_refused(dataset, tiny_tokenizer):
    model = tiny_bert(len(tiny_tokenizer))
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="finite"):
        predict_logits(model, dataset, tiny_tokenizer)


def spread(model, batch) -> float:
    """Largest difference between two passes with dropout on; no LoRA output is zero at the start, so B is filled."""
    with dropout_active(model), torch.inference_mode():
        return (model(**batch).logits - model(**batch).logits).abs().max().item()


def test_lora_and_frozen_body_both_drop(dataset, tiny_tokenizer):
    batch = tiny_tokenizer(dataset["text"][:8], padding=True, return_tensors="pt")
    for body, adapter, differ in ((0.0, 0.0, False), (0.0, 0.5, True), (0.5, 0.0, True)):
        config = LoraConfig(target_modules=["query", "value"], lora_dropout=adapter, init_lora_weights=False)
        model = add_adapter(tiny_bert(len(tiny_tokenizer), dropout=body), config, seed=0)
        assert (spread(model, batch) > 1e-3) is differ
    both = LoraConfig(target_modules=["query"], lora_dropout=0.1)
    both = add_adapter(tiny_bert(len(tiny_tokenizer), dropout=0.1), both, seed=0)
    assert mc_dropout(both, dataset, tiny_tokenizer, passes=3, seed=0).bald.max() > 0


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "num_labels": 3}
# Every dropout but the attention's is off, so that only the attention's own flag can make the passes differ.
ATTENTION_ONLY = {
    "bert": (
        BertForSequenceClassification,
        tiny_bert_config(120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, initializer_range=0.3),
    ),
    "roberta": (
        RobertaForSequenceClassification,
        RobertaConfig(vocab_size=120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, **SMALL),
    ),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig(
            vocab_size=120, dim=32, n_layers=2, n_heads=2, hidden_dim=64, dropout=0.0, attention_dropout=0.5,
            seq_classif_dropout=0.0,
        ),
    ),
    "deberta": (
        DebertaV2ForSequenceClassification,
        DebertaV2Config(vocab_size=120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, **SMALL),
    ),
    "modernbert": (
        ModernBertForSequenceClassification,
        ModernBertConfig(vocab_size=120, attention_dropout=0.5, pad_token_id=0, **SMALL),
    ),
}  # fmt: skip


WAYS = [(name, way) for name in ATTENTION_ONLY for way in ("eager", "sdpa") if (name, way) != ("deberta", "sdpa")]


@pytest.mark.parametrize(("name", "attention"), WAYS)
def test_attention_dropout_is_active(name, attention):
    model_class, config = ATTENTION_ONLY[name]
    config._attn_implementation = attention
    model = build(model_class, config).eval()
    ids = torch.arange(5, 25).reshape(2, 10)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        assert torch.equal(model(**batch).logits, model(**batch).logits)
    assert spread(model, batch) > 1e-6


class WithBatchNormAndLayerDrop(nn.Module):
    """Counts what was in training mode during a forward pass."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout, self.layers = nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x):
        assert not self.training  # LayerDrop asks the encoder's own flag
        return self.dropout(self.norm(x))


def test_batch_norm_and_layer_drop_stay_in_eval_mode():
    model = WithBatchNormAndLayerDrop().train()
    mean = model.norm.running_mean.clone()
    with dropout_active(model):
        output = model(torch.full((64, 4), 3.0))
    assert (output == 0).any()
    assert torch.equal(mean, model.norm.running_mean)
    assert model.training
    assert model.norm.training


def test_combining_models_equals_one_run_over_all_their_passes():
    """Two models, three passes each, two rows, two classes; the joint numbers from the stacked passes themselves."""
    passes = torch.tensor(
        [
            [[[0.9, 0.1], [0.5, 0.5]], [[0.8, 0.2], [0.4, 0.6]], [[0.7, 0.3], [0.6, 0.4]]],
            [[[0.2, 0.8], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]], [[0.3, 0.7], [0.5, 0.5]]],
        ]
    )

    def result(probs):
        return MCDropoutResult(
            mean_probs=probs.mean(0).numpy(),
            deterministic_probs=probs[0].numpy(),
            predictive_variance=predictive_variance(probs).numpy(),
            bald=bald(probs).numpy(),
        )

    joint = combine([result(probs) for probs in passes])
    stacked = passes.flatten(0, 1)
    np.testing.assert_allclose(joint.mean_probs, stacked.mean(0), atol=1e-6)
    np.testing.assert_allclose(joint.predictive_variance, predictive_variance(stacked), atol=1e-6)
    np.testing.assert_allclose(joint.bald, bald(stacked), atol=1e-6)
    # By hand, first row, first class: 0.9 0.8 0.7 0.2 0.4 0.3 have mean 0.55 and mean square 2.23 / 6.
    assert joint.predictive_variance[0, 0] == pytest.approx(2.23 / 6 - 0.55**2, abs=1e-6)
    np.testing.assert_allclose(joint.deterministic_probs[0], [0.55, 0.45], atol=1e-6)
    assert joint.predicted.tolist() == [0, 0]
