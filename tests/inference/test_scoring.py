"""Scoring of pools: order, batches, ranks, MC dropout through plain models and LoRA; scoring changes nothing."""

from __future__ import annotations

import gc
import os
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import AutoTokenizer, BertForSequenceClassification

from hfssl.data.batching import WINDOW_ROWS
from hfssl.errors import ModelError
from hfssl.inference.scoring import dropout_active, layer_embeddings, mc_dropout, mean_embeddings, predict_logits
from hfssl.models.adapters import add_adapter
from hfssl.runtime import cpu_kernels
from tests.helpers.encoders import ATTENTION_ONLY, build, tiny_bert_config
from tests.helpers.ranks import logs, run_ranks
from tests.helpers.token_rows import make_dataset


def tiny_bert(vocabulary: int, dropout: float = 0.1, **settings) -> BertForSequenceClassification:
    settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "num_labels": 3}
    settings |= {"initializer_range": 0.3}  # logits far enough apart to see what dropout does to them
    return build(BertForSequenceClassification, tiny_bert_config(vocabulary, **settings))


@pytest.fixture(scope="module")
def dataset(tiny_tokenizer) -> Dataset:
    return make_dataset(tiny_tokenizer)


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


def test_passes_in_bf16_hold_twice_as_many_tokens(model, tiny_tokenizer):
    rows = Dataset.from_dict(dict(tiny_tokenizer(["good film"] * 2000)))
    seen = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    with handle:
        predict_logits(model, rows, tiny_tokenizer)
        exact = max(seen)
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            predict_logits(model, rows, tiny_tokenizer)
    assert 1500 < exact <= 1536
    assert 3000 < max(seen) <= 3072


def test_embeddings_are_means_over_the_tokens_of_each_layer(model, dataset, tiny_tokenizer):
    found = layer_embeddings(model, dataset, tiny_tokenizer, [1, -1])
    for row in (0, 17, 49):
        ids = torch.tensor([dataset[row]["input_ids"]])
        with torch.no_grad():
            hidden = model.eval()(input_ids=ids, output_hidden_states=True).hidden_states
        for layer, vectors in zip((1, -1), found, strict=True):
            np.testing.assert_allclose(vectors[row], hidden[layer][0].mean(dim=0), atol=1e-5)
    np.testing.assert_array_equal(mean_embeddings(model, dataset, tiny_tokenizer), found[1])


def test_bf16_statistics_are_near_those_of_fp32_and_reuse_the_trunk(model, dataset, tiny_tokenizer, caplog):
    exact = mc_dropout(model, dataset, tiny_tokenizer, passes=4, top_layers=1, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = mc_dropout(model, dataset, tiny_tokenizer, passes=4, top_layers=1, seed=0)
    assert rounded.mean_probs.dtype == np.float32
    np.testing.assert_allclose(rounded.deterministic_probs, exact.deterministic_probs, atol=0.05)
    assert not np.array_equal(rounded.deterministic_probs, exact.deterministic_probs)
    assert "runs the whole model" not in caplog.text


def test_pools_of_several_windows_keep_their_order_and_only_the_results_grow(model, tiny_tokenizer):
    few = make_dataset(tiny_tokenizer, rows=50, longest=6)
    many = Dataset.from_dict({name: few[name][:] * 2020 for name in ("input_ids", "attention_mask")})
    assert len(many) > 2 * WINDOW_ROWS

    def peak(rows: int) -> tuple[int, np.ndarray]:
        gc.collect()
        thresholds = gc.get_threshold()
        gc.set_threshold(100, 2, 2)  # else what transformers leaves in cycles waits, more of it with more batches
        tracemalloc.start()  # it sees what numpy allocates
        logits = predict_logits(model, many.select(range(rows)), tiny_tokenizer)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        gc.set_threshold(*thresholds)
        return used, logits

    (first, _), (second, logits) = peak(WINDOW_ROWS), peak(len(many))
    np.testing.assert_allclose(logits, np.tile(predict_logits(model, few, tiny_tokenizer), (2020, 1)), atol=1e-5)
    growth = (len(many) - WINDOW_ROWS) * 3 * 4  # logits of three classes; an int64 a row would be two thirds of it
    assert second - first < 1.5 * growth  # Python's own garbage varies by a hundred kB


def test_passes_have_the_cheap_operations(model, dataset, tiny_tokenizer, monkeypatch):
    drawn, draw = [], cpu_kernels._bits
    monkeypatch.setattr(cpu_kernels, "_bits", lambda shape: drawn.append(shape) or draw(shape))
    mc_dropout(model, dataset, tiny_tokenizer, passes=2, seed=0)
    assert drawn
    kinds = []
    norm = next(module for module in model.modules() if isinstance(module, nn.LayerNorm))
    with norm.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype)):
        predict_logits(model, dataset, tiny_tokenizer, max_tokens=10**6)
        with torch.autocast("cpu", torch.bfloat16):
            predict_logits(model, dataset, tiny_tokenizer, max_tokens=10**6)
    assert kinds == [torch.float32, torch.bfloat16]


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
    assert set((8 * result.variation_ratio).round(5)) <= set(range(6))  # whole votes, at most 8 - ceil(8 / 3)
    assert result.variation_ratio.max() > 0


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


# --- ranks -----------------------------------------------------------------------------------------------------------


def score_on_a_rank(tokenizer_dir: str, folder: str, broken: bool) -> None:
    """Scores a pool of several windows and one of few batches; keeps the results and how many rows were computed.

    If `broken`, one row of the large pool has logits that are not finite.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        torch.distributed.init_process_group("gloo")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = tiny_bert(len(tokenizer))
    if broken:
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("?")] = float("nan")
    computed = []
    model.register_forward_hook(lambda *args: computed.append(len(args[-1].logits)))
    small, large = make_dataset(tokenizer), make_dataset(tokenizer, rows=WINDOW_ROWS + 100, longest=4, last="?")
    kept: dict[str, np.ndarray] = {"message": np.array("")}
    try:
        kept["logits"] = predict_logits(model, large, tokenizer)
        kept["rows"] = np.array(sum(computed))
        one_batch = mc_dropout(model, small.select(range(3)), tokenizer, passes=3, seed=4)
        for top_layers in (None, 1):
            result = mc_dropout(model, small, tokenizer, passes=3, seed=4, top_layers=top_layers, max_tokens=128)
            kept |= {f"{field.name}-{top_layers}": getattr(result, field.name) for field in fields(result)}
        kept["one_batch"] = one_batch.bald
    except ModelError as error:
        kept["message"] = np.array(str(error))
    np.savez(Path(folder) / f"rank-{rank}.npz", **kept)


@pytest.fixture
def on_ranks(tiny_tokenizer_dir, tmp_path):
    def run(ranks: int, broken: bool = False) -> list[dict[str, np.ndarray]]:
        folder = tmp_path / str(ranks)
        args = (str(tiny_tokenizer_dir), str(folder), broken)
        codes = run_ranks(score_on_a_rank, *args, log_dir=folder, ranks=ranks, timeout=60)
        assert codes == [0] * ranks, logs(folder)
        return [dict(np.load(folder / f"rank-{rank}.npz")) for rank in range(ranks)]

    return run


@pytest.mark.distributed
def test_two_ranks_share_the_rows_and_each_has_the_bits_of_one_rank(on_ranks):
    [alone], both = on_ranks(1), on_ranks(2)
    everything = alone.pop("rows")
    assert everything == WINDOW_ROWS + 100
    shares = [rank.pop("rows") for rank in both]
    assert sum(shares) == everything
    assert max(shares) < 0.6 * everything
    for rank in both:
        assert rank.keys() == alone.keys()
        assert all(np.array_equal(rank[name], alone[name]) for name in alone)
    assert alone["bald-1"].max() > 0


@pytest.mark.distributed
def test_what_one_rank_cannot_score_stops_all_with_the_same_message(on_ranks):
    first, second = on_ranks(2, broken=True)
    assert "Expected finite logits" in str(first["message"])
    assert first["message"] == second["message"]
