"""Backbones and heads: rejected input, fresh and loaded weights, and round trips through disk."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizerFast,
    GPT2Config,
    GPT2Model,
    pipeline,
)

from hfssl.errors import ModelError
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import check_backbone, load_tokenizer
from hfssl.models.introspection import body_and_head_parameters
from hfssl.models.loading import load_classifier, load_masked_lm, transfer_encoder
from hfssl.models.mean_pooling import mean_over_tokens
from tests.helpers.encoders import ENCODERS, make_encoder, tiny_bert_config

NAMES = ["plot", "fresh", "rotten"]


@pytest.fixture
def batch(tiny_tokenizer):
    return tiny_tokenizer(["the film was great", "dull"], padding=True, return_tensors="pt")


@pytest.fixture
def copy_of_backbone(tiny_backbone, tmp_path):
    return shutil.copytree(tiny_backbone, tmp_path / "backbone")


def logits(model, batch):
    with torch.inference_mode():
        return model.eval()(**batch).logits


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


def test_body_and_head_parameters(tiny_backbone):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    body, head = body_and_head_parameters(model)
    assert head == ["classifier.weight", "classifier.bias"]
    assert sorted(body + head) == sorted(name for name, _ in model.named_parameters())
    _, head = body_and_head_parameters(load_masked_lm(tiny_backbone, seed=0))
    assert "cls.predictions.transform.dense.weight" in head
    assert "cls.predictions.decoder.weight" not in head


def test_a_saved_stock_model_needs_plain_transformers_only(tiny_backbone, tiny_tokenizer, tmp_path, batch):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(plain) is BertForSequenceClassification
    assert torch.equal(logits(plain, batch), logits(model, batch))
    assert pipeline("text-classification", str(tmp_path))("great fun")[0]["label"] in NAMES
    assert torch.equal(logits(from_pretrained(tmp_path), batch), logits(model, batch))


def test_mean_over_tokens_by_hand():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]]])
    assert mean_over_tokens(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 4.0]]


def test_mean_pooling_round_trip(tiny_backbone, tiny_tokenizer, tmp_path, batch):
    model = load_classifier(tiny_backbone, NAMES, seed=0, pooling="mean")
    with torch.inference_mode():
        hidden = model.encoder(**batch).last_hidden_state
        expected = model.classifier(mean_over_tokens(hidden, batch["attention_mask"]))
    assert torch.equal(logits(model, batch), expected)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, batch), expected)
    assert loaded.config.id2label == {0: "plot", 1: "fresh", 2: "rotten"}
    assert pipeline("text-classification", str(tmp_path))("great fun")[0]["label"] in NAMES
    with pytest.raises(ValueError, match="MeanPooledConfig"):
        AutoModel.from_pretrained(tmp_path)
    loss = loaded(**batch, labels=torch.tensor([2, 0])).loss
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(expected, torch.tensor([2, 0])))


def test_transformers_without_hfssl_refuses_a_mean_pooled_model(tiny_backbone, tmp_path):
    load_classifier(tiny_backbone, NAMES, seed=0, pooling="mean").save_pretrained(tmp_path)
    code = f"from transformers import AutoConfig; AutoConfig.from_pretrained({str(tmp_path)!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "hfssl-mean-pooled" in run.stderr


def test_mean_pooling_takes_no_gradient_to_what_it_does_not_read(tiny_backbone, batch):
    model = load_classifier(tiny_backbone, NAMES, seed=0, pooling="mean")
    model(**batch, labels=torch.tensor([2, 0])).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_folders_that_hold_no_usable_backbone(tmp_path, copy_of_backbone):
    with pytest.raises(ModelError, match="no such folder"):
        check_backbone(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        check_backbone(tmp_path / "empty")

    (copy_of_backbone / "model.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"Expected model\.safetensors .* no weights"):
        check_backbone(copy_of_backbone)
    (copy_of_backbone / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, which hfssl does not read"):
        check_backbone(copy_of_backbone)

    (copy_of_backbone / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="readable safetensors"):
        load_classifier(copy_of_backbone, NAMES, seed=0)
    (copy_of_backbone / "config.json").write_text("{not json")
    with pytest.raises(ModelError, match=r"config\.json"):
        check_backbone(copy_of_backbone)
    (copy_of_backbone / "config.json").write_text('{"model_type": "of-the-future"}')
    with pytest.raises(ModelError, match=r"config\.json"):
        check_backbone(copy_of_backbone)


def test_an_unknown_id_offline_is_one_clear_sentence():
    with pytest.raises(ModelError, match=r"neither in the local cache nor can it be reached") as caught:
        check_backbone("nobody/nothing")
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_an_architecture_without_a_classification_head(copy_of_backbone):
    (copy_of_backbone / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match="no sequence-classification head for the architecture 'vit'"):
        check_backbone(copy_of_backbone)


def test_an_architecture_without_a_masked_language_head(tmp_path):
    GPT2Model(GPT2Config(vocab_size=120, n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="masked-language head"):
        load_masked_lm(tmp_path, seed=0)


def test_a_backbone_is_no_trained_classifier(tiny_backbone):
    with pytest.raises(ModelError, match="not a backbone"):
        from_pretrained(tiny_backbone)


def test_a_tokenizer_without_vocabulary_or_padding_is_refused(tiny_backbone, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfilm\ngreat\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "good")
    assert load_tokenizer(tmp_path / "good")("great film")["input_ids"] == [2, 6, 5, 3]
    (tmp_path / "headless").mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(tiny_backbone / file, tmp_path / "headless")
    with pytest.raises(ModelError, match="vocabulary is missing"):  # transformers would make up one of five tokens
        load_tokenizer(tmp_path / "headless")
    with pytest.raises(ModelError, match="no such folder"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.fixture
def model_with_code(tiny_backbone, tiny_tokenizer, tmp_path, monkeypatch):
    """A folder whose model brings code that leaves a mark when it is run; returns folder and mark."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, mark = tmp_path / "model", tmp_path / "was_run"
    load_classifier(tiny_backbone, ["a", "b"], seed=0).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    (folder / "strange.py").write_text(
        "from pathlib import Path\n"
        "from transformers import BertConfig, BertForSequenceClassification\n"
        f"Path({str(mark)!r}).touch()\n"
        "class StrangeConfig(BertConfig):\n    model_type = 'strange'\n"
        "class StrangeModel(BertForSequenceClassification):\n    config_class = StrangeConfig\n"
    )
    return folder, mark


@pytest.mark.parametrize("kind", ["strange", "bert"])
def test_code_that_comes_with_a_model_is_run_only_if_the_user_says_so(model_with_code, kind):
    folder, mark = model_with_code
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "strange.StrangeConfig", "AutoModelForSequenceClassification": "strange.StrangeModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": auto_map}))
    if kind == "bert":  # transformers knows what to do without that code
        assert from_pretrained(folder).config.label2id == {"a": 0, "b": 1}
    else:
        for load in (from_pretrained, check_backbone):
            with pytest.raises(ModelError, match="has its own code, which was not run"):
                load(folder)
    assert not mark.exists()
    model = from_pretrained(folder, trust_remote_code=True)
    assert type(model).__name__ == "StrangeModel"
    assert mark.exists()
