"""LoRA: where adapters go, round trips with labels, merging."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, pipeline

from hfssl.errors import ConfigurationError, ModelError
from hfssl.inference.scoring import mc_dropout, predict_logits
from hfssl.models.adapters import (
    LABELS_FILE,
    add_adapter,
    build_lora_config,
    load_adapter,
    merge,
    save_adapter,
    trainable_copy,
)
from hfssl.models.auto import from_pretrained
from hfssl.models.introspection import body_and_head_parameters
from hfssl.models.loading import load_classifier, load_masked_lm
from tests.helpers.encoders import logits, make_encoder, tiny_bert_config

NAMES = ["plot", "fresh", "rotten"]
TARGETS = {
    "roberta": {"query", "key", "value", "dense"},
    "deberta-v2": {"query_proj", "key_proj", "value_proj", "dense"},
    "modernbert": {"Wqkv", "Wo", "Wi"},
    "distilbert": {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"},
}


@pytest.fixture
def two_label_base(tmp_path, tiny_tokenizer):
    """A full model with two labels: the base from which a three-class adapter could not be loaded by peft alone."""
    folder = tmp_path / "base"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(tiny_bert_config(len(tiny_tokenizer), num_labels=2)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def trained(base, **settings) -> PeftModel:
    """A three-class adapter after a few steps' worth of noise, so that no part of it is as it began."""
    model = load_classifier(base, NAMES, seed=0, **settings)
    model = add_adapter(model, build_lora_config(model), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_a_fresh_adapter_comes_from_its_seed_and_changes_nothing_yet(tiny_backbone, batch):
    plain = logits(load_classifier(tiny_backbone, NAMES, seed=0), batch)
    state = torch.get_rng_state()
    models = []
    for seed in (1, 1, 2):
        model = load_classifier(tiny_backbone, NAMES, seed=0)
        models.append(add_adapter(model, build_lora_config(model), seed=seed))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(logits(model, batch), plain) for model in models)
    first, same, other = (dict(model.named_parameters()) for model in models)
    drawn = [name for name in first if "lora_A" in name]
    assert all(torch.equal(first[name], same[name]) for name in drawn)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("task", ["sequence_classification", "masked_lm"])
def test_targets_of_each_architecture_are_the_encoders_linear_layers(name, task, tmp_path):
    with torch.random.fork_rng():
        make_encoder(name).save_pretrained(tmp_path)
    if task == "masked_lm":
        plain = load_masked_lm(tmp_path, seed=0)
    else:
        plain = load_classifier(tmp_path, NAMES, seed=0)
    body, head = body_and_head_parameters(plain)
    model = add_adapter(plain, build_lora_config(plain, task=task), seed=0)
    adapted = {part.split(".lora_A")[0] for part, _ in model.named_parameters() if "lora_A" in part}
    inside = {path.removeprefix("base_model.model.") for path in adapted}
    assert {path.split(".")[-1] for path in inside} == TARGETS[name]
    assert all(f"{path}.weight" in body for path in inside)
    trainable = [path for path, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in path or "modules_to_save" in path for path in trainable)
    saved = {path.split("base_model.model.")[1].replace(".modules_to_save.default", "") for path in trainable}
    if task == "sequence_classification":
        assert set(head) <= saved
    else:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert any("transform" in path or "dense" in path for path in saved & set(head))


def test_berts_pooler_is_trained_with_the_head_and_not_adapted(tiny_backbone):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    names = [
        name for name, p in add_adapter(model, build_lora_config(model), seed=0).named_parameters() if p.requires_grad
    ]
    pooler = [name for name in names if "pooler" in name]
    assert len(pooler) == 2
    assert all("modules_to_save" in name for name in pooler)


def test_targets_can_be_chosen_and_misspelled_ones_are_named(tiny_backbone):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    with pytest.raises(ConfigurationError, match="'qeury'.*Did you mean 'query'") as caught:
        build_lora_config(model, target_modules=["qeury", "value", "classifier"])
    assert len(caught.value.problems) == 2
    model = add_adapter(model, build_lora_config(model, target_modules=["query", "value"], r=4), seed=0)
    adapted = {name.split(".")[-4] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"query", "value"}


@pytest.mark.parametrize("pooling", ["stock", "mean"])
def test_round_trip_with_three_classes_on_a_two_label_base(two_label_base, tmp_path, batch, pooling, caplog):
    model = trained(two_label_base, pooling=pooling)
    save_adapter(model, tmp_path / "adapter", NAMES)
    files = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", LABELS_FILE}
    for loaded in (load_adapter(tmp_path / "adapter"), from_pretrained(tmp_path / "adapter")):
        assert torch.equal(logits(loaded, batch), logits(model, batch))
        assert loaded.config.id2label == {0: "plot", 1: "fresh", 2: "rotten"}
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_loaded_adapter_can_be_trained_on(two_label_base, tmp_path):
    model = trained(two_label_base)
    save_adapter(model, tmp_path / "adapter", NAMES)
    loaded = load_adapter(tmp_path / "adapter", trainable=True)
    names = [{name for name, p in m.named_parameters() if p.requires_grad} for m in (model, loaded)]
    assert names[0] == names[1]


@pytest.mark.parametrize("pooling", ["stock", "mean"])
def test_merged_equals_unmerged_and_is_a_plain_model(two_label_base, tiny_tokenizer, tmp_path, batch, pooling):
    model = trained(two_label_base, pooling=pooling)
    expected = logits(model, batch)
    merged = merge(model)
    torch.testing.assert_close(logits(merged, batch), expected, atol=1e-5, rtol=0)
    assert all(p.requires_grad for name, p in merged.named_parameters() if "pooler" not in name)
    merged.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits(plain, batch), expected, atol=1e-5, rtol=0)
    if pooling == "stock":
        assert type(plain) is BertForSequenceClassification
    answers = pipeline("text-classification", str(tmp_path / "model"), top_k=None)(["great fun"])[0]
    assert {answer["label"] for answer in answers} == set(NAMES)


def test_a_changed_base_is_noticed(two_label_base, tmp_path, batch):
    model = trained(two_label_base)
    save_adapter(model, tmp_path / "adapter", NAMES)
    moved = tmp_path / "moved"
    two_label_base.rename(moved)
    with pytest.raises(ModelError, match="no such folder"):
        load_adapter(tmp_path / "adapter")
    assert torch.equal(logits(load_adapter(tmp_path / "adapter", base=moved), batch), logits(model, batch))

    changed = BertForSequenceClassification.from_pretrained(moved)
    with torch.no_grad():
        changed.bert.encoder.layer[1].output.dense.weight[0, 0] += 1
    changed.save_pretrained(moved)
    with pytest.raises(ModelError, match="differ from it"):
        load_adapter(tmp_path / "adapter", base=moved)


def test_an_adapter_on_an_adapted_body_names_the_body_it_was_trained_on(two_label_base, tmp_path, batch):
    body = load_classifier(two_label_base, NAMES, seed=0)
    with torch.no_grad():
        body.bert.embeddings.word_embeddings.weight.mul_(1.5)  # as a pretext stage would change it
    body.save_pretrained(tmp_path / "adapted")
    model = add_adapter(body, build_lora_config(body), seed=0)
    save_adapter(model, tmp_path / "adapter", NAMES)
    with pytest.raises(ModelError, match="after a pretext stage"):
        load_adapter(tmp_path / "adapter")
    save_adapter(model, tmp_path / "adapter", NAMES, base_model=tmp_path / "adapted")
    assert torch.equal(logits(load_adapter(tmp_path / "adapter"), batch), logits(model, batch))


def test_dropout_before_the_head_survives(two_label_base, tmp_path):
    save_adapter(trained(two_label_base, classifier_dropout=0.45), tmp_path / "adapter", NAMES)
    assert load_adapter(tmp_path / "adapter").config.classifier_dropout == 0.45


def test_scores_through_a_loaded_adapter_are_the_same(two_label_base, tmp_path, tiny_tokenizer):
    texts = ["the film was great", "dull", "what a good story"] * 5
    dataset = Dataset.from_dict(dict(tiny_tokenizer(texts)))
    model = trained(two_label_base)
    save_adapter(model, tmp_path / "adapter", NAMES)
    loaded = load_adapter(tmp_path / "adapter")
    assert np.array_equal(
        predict_logits(model, dataset, tiny_tokenizer), predict_logits(loaded, dataset, tiny_tokenizer)
    )
    first, second = (mc_dropout(m, dataset, tiny_tokenizer, passes=3, seed=0) for m in (model, loaded))
    assert first.bald.max() > 0
    assert np.array_equal(first.mean_probs, second.mean_probs)


def test_folders_that_hold_no_adapter_of_ours(two_label_base, tmp_path):
    model = trained(two_label_base)
    with pytest.raises(ModelError, match="3 label names"):
        save_adapter(model, tmp_path / "adapter", ["yes", "no"])
    assert not (tmp_path / "adapter").exists()
    model.save_pretrained(tmp_path / "by_peft_alone")
    with pytest.raises(ModelError, match=LABELS_FILE):
        load_adapter(tmp_path / "by_peft_alone")
    save_adapter(model, tmp_path / "adapter", NAMES)
    assert json.loads((tmp_path / "adapter" / LABELS_FILE).read_text())["label_names"] == NAMES
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(tmp_path / "adapter")


def test_a_base_given_by_a_relative_path_is_found_from_elsewhere(two_label_base, tmp_path, batch, monkeypatch):
    monkeypatch.chdir(two_label_base.parent)
    model = trained(two_label_base.name)
    save_adapter(model, tmp_path / "adapter", NAMES)
    monkeypatch.chdir("/")
    assert torch.equal(logits(load_adapter(tmp_path / "adapter"), batch), logits(model, batch))


def test_a_loaded_adapter_is_trained_on_as_it_was_trained(two_label_base, tmp_path, tiny_tokenizer):
    model = trained(two_label_base)
    save_adapter(model, tmp_path / "adapter", NAMES)
    loaded = from_pretrained(tmp_path / "adapter")
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    fresh = trainable_copy(loaded)

    def learned(model):
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    assert learned(fresh) == learned(model)
    assert not learned(loaded)
    save_adapter(fresh, tmp_path / "again", NAMES)
    settings = [json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("adapter", "again")]
    assert settings[0] == settings[1]


def test_a_full_model_is_trained_on_in_full(two_label_base):
    model = load_classifier(two_label_base, NAMES, seed=0).requires_grad_(False)
    fresh = trainable_copy(model)
    assert all(parameter.requires_grad for parameter in fresh.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
