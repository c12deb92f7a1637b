"""Models of a backbone: fresh and loaded weights, heads, the encoder handed on, and rejected weights."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertForMaskedLM

from hfssl.errors import ModelError
from hfssl.models.loading import load_classifier, load_masked_lm, transfer_encoder
from tests.helpers.encoders import ENCODERS, make_encoder, tiny_bert_config

NAMES = ["plot", "fresh", "rotten"]


def test_the_body_is_the_checkpoints_and_the_head_comes_from_the_seed(tiny_backbone):
    state = torch.get_rng_state()
    first = load_classifier(tiny_backbone, NAMES, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    again, other = load_classifier(tiny_backbone, NAMES, seed=1), load_classifier(tiny_backbone, NAMES, seed=2)
    for name, weight in AutoModel.from_pretrained(tiny_backbone).state_dict().items():
        assert torch.equal(weight, first.bert.state_dict()[name]), name
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.config.id2label == {0: "plot", 1: "fresh", 2: "rotten"}
    assert first.config.label2id == {"plot": 0, "fresh": 1, "rotten": 2}
    assert first.config.problem_type == "single_label_classification"
    assert first.name_or_path == str(tiny_backbone)


def test_a_head_in_the_checkpoint_is_replaced_even_if_it_fits(tiny_backbone, tmp_path):
    trained = load_classifier(tiny_backbone, NAMES, seed=5)
    trained.save_pretrained(tmp_path)
    fresh = load_classifier(tmp_path, ["yes", "no", "maybe"], seed=1)
    assert not torch.equal(fresh.classifier.weight, trained.classifier.weight)
    assert torch.equal(fresh.classifier.weight, load_classifier(tiny_backbone, NAMES, seed=1).classifier.weight)
    assert load_classifier(tmp_path, ["yes", "no"], seed=1).classifier.weight.shape == (2, 32)


def test_float32_even_if_the_checkpoint_is_bfloat16(tiny_backbone, tmp_path):
    AutoModel.from_pretrained(tiny_backbone, dtype=torch.bfloat16).save_pretrained(tmp_path)
    for model in (load_classifier(tmp_path, NAMES, seed=0), load_masked_lm(tmp_path, seed=0)):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_loading_says_nothing_and_leaves_the_loggers_alone(tiny_backbone, caplog, capsys):
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    load_classifier(tiny_backbone, NAMES, seed=0)
    load_masked_lm(tiny_backbone, seed=0)
    assert caplog.text == ""
    assert capsys.readouterr().err == ""
    assert logger.level == level


@pytest.mark.parametrize("name", ENCODERS)
def test_other_architectures_keep_their_bodies_too(name, tmp_path):
    with torch.random.fork_rng():
        make_encoder(name).save_pretrained(tmp_path)
    stored = {key: value for key, value in load_file(tmp_path / "model.safetensors").items() if "pooler" not in key}
    for model in (
        load_classifier(tmp_path, NAMES, seed=0),
        load_classifier(tmp_path, NAMES, seed=0, pooling="mean"),
        load_masked_lm(tmp_path, seed=0),
    ):
        body = model.base_model.state_dict()
        assert all(torch.equal(value, body[key]) for key, value in stored.items())


def test_dropout_before_the_head(tiny_backbone, tmp_path):
    assert load_classifier(tiny_backbone, NAMES, seed=0, classifier_dropout=0.4).dropout.p == 0.4
    assert load_classifier(tiny_backbone, NAMES, seed=0, pooling="mean", classifier_dropout=0.4).dropout.p == 0.4
    make_encoder("distilbert").save_pretrained(tmp_path)
    assert load_classifier(tmp_path, NAMES, seed=0, classifier_dropout=0.4).dropout.p == 0.4


def test_a_missing_pooler_is_fresh_and_missing_body_weights_are_an_error(copy_of_backbone):
    file = copy_of_backbone / "model.safetensors"
    weights = load_file(file)
    without_pooler = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(without_pooler, file, metadata={"format": "pt"})
    one, two = load_classifier(copy_of_backbone, NAMES, seed=1), load_classifier(copy_of_backbone, NAMES, seed=2)
    assert not torch.equal(one.bert.pooler.dense.weight, two.bert.pooler.dense.weight)

    del without_pooler["encoder.layer.1.output.dense.weight"]
    save_file(without_pooler, file, metadata={"format": "pt"})
    for load in (
        lambda: load_classifier(copy_of_backbone, NAMES, seed=0),
        lambda: load_masked_lm(copy_of_backbone, seed=0),
    ):
        with pytest.raises(ModelError, match=r"1 are missing.*encoder.layer.1.output.dense.weight"):
            load()


def test_weights_under_another_prefix_are_an_error_and_not_a_random_body(copy_of_backbone):
    file = copy_of_backbone / "model.safetensors"
    save_file(
        {f"student.net.{name}": value for name, value in load_file(file).items()}, file, metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match="other names"):
        load_classifier(copy_of_backbone, NAMES, seed=0)
    with pytest.raises(ModelError, match="other names"):
        load_masked_lm(copy_of_backbone, seed=0)


def test_weights_of_another_size_than_the_config_says(copy_of_backbone):
    config = json.loads((copy_of_backbone / "config.json").read_text())
    (copy_of_backbone / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(ModelError, match="another shape"):
        load_classifier(copy_of_backbone, NAMES, seed=0)


def test_the_new_masked_language_head_is_tied_to_the_embeddings(tiny_backbone):
    model, again, other = (load_masked_lm(tiny_backbone, seed=seed) for seed in (1, 1, 2))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    transform, same, different = (m.cls.predictions.transform.dense.weight for m in (model, again, other))
    assert torch.equal(transform, same)
    assert not torch.equal(transform, different)


def test_a_masked_language_head_in_the_checkpoint_is_kept(tmp_path):
    with torch.random.fork_rng():
        stored = BertForMaskedLM(tiny_bert_config(120))
    stored.save_pretrained(tmp_path)
    loaded = load_masked_lm(tmp_path, seed=0)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in stored.state_dict().items())


def test_untied_embeddings_without_a_head_are_refused(copy_of_backbone):
    config = json.loads((copy_of_backbone / "config.json").read_text())
    (copy_of_backbone / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ModelError, match="tie_word_embeddings"):
        load_masked_lm(copy_of_backbone, seed=0)


@pytest.mark.parametrize("pooling", ["stock", "mean"])
def test_the_adapted_encoder_goes_on_to_the_classifier(tiny_backbone, pooling):
    language_model = load_masked_lm(tiny_backbone, seed=0)
    with torch.no_grad():
        for parameter in language_model.parameters():
            parameter.add_(0.01)
    classifier = load_classifier(tiny_backbone, NAMES, seed=0, pooling=pooling)
    pooler = classifier.base_model.pooler.dense.weight.clone()
    head = classifier.classifier.weight.clone()
    transfer_encoder(language_model, classifier)
    for name, value in language_model.bert.state_dict().items():
        assert torch.equal(value, classifier.base_model.state_dict()[name]), name
    assert torch.equal(pooler, classifier.base_model.pooler.dense.weight)
    assert torch.equal(head, classifier.classifier.weight)


def test_the_adapted_encoder_can_be_kept_as_a_backbone_like_the_one_it_came_from(tiny_backbone, tmp_path):
    language_model = load_masked_lm(tiny_backbone, seed=0)
    encoder = load_classifier(tiny_backbone, NAMES, seed=0).base_model
    pooler = encoder.pooler.dense.weight.clone()
    with torch.no_grad():
        language_model.bert.encoder.layer[0].output.dense.weight.add_(0.01)
    transfer_encoder(language_model, encoder)
    encoder.save_pretrained(tmp_path)
    again = load_classifier(tmp_path, NAMES, seed=0).bert.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in language_model.bert.state_dict().items())
    assert torch.equal(pooler, again["pooler.dense.weight"])


def test_encoders_that_do_not_match_are_refused_and_nothing_is_copied(tiny_backbone):
    target = load_classifier(tiny_backbone, NAMES, seed=0)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    deeper = BertForMaskedLM(tiny_bert_config(target.config.vocab_size, num_hidden_layers=3))
    wider = BertForMaskedLM(tiny_bert_config(target.config.vocab_size, intermediate_size=48))
    for source in (deeper, wider, make_encoder("roberta")):
        with pytest.raises(ModelError, match="same encoder"):
            transfer_encoder(source, target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
