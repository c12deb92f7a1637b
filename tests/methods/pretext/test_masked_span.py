"""The masked-span objective: the right loss, computed at the masked positions only, through every wrapper."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from hfssl.data.views.masking import IGNORE_INDEX, SpanMaskingView, TokenMaskingView, tokenize_for_masking
from hfssl.errors import DataError, ModelError
from hfssl.methods.pretext.masked_positions import MaskedPositionLogits
from hfssl.methods.pretext.masked_span import MaskedSpanConfig, MaskedSpanObjective, held_out_span_loss
from tests.helpers.ranks import logs, run_ranks

WORDS = [f"{first}{second}" for first in "bdfghklm" for second in "aeiou"]
SIZES = {
    "vocab_size": 45,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES, pad_token_id=0),
    "distilbert": DistilBertConfig(vocab_size=45, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    "deberta-v2": DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "deberta-v2 with its own head": DebertaV2Config(**SIZES, legacy=False),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
    "mpnet": MPNetConfig(**SIZES),
    "modernbert": ModernBertConfig(**SIZES, pad_token_id=0, cls_token_id=2, sep_token_id=3),
}


def tiny_model(config=None, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForMaskedLM.from_config(CONFIGS["bert"] if config is None else config)


@pytest.fixture(scope="module")
def tokenizer():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)})


@pytest.fixture(scope="module")
def dataset(tokenizer):
    generator = np.random.default_rng(0)
    strings = [" ".join(generator.choice(WORDS, generator.integers(3, 25))) for _ in range(40)]
    return tokenize_for_masking(Dataset.from_dict({"text": strings}), tokenizer, 64)


@pytest.fixture
def config(tmp_path):
    return MaskedSpanConfig(output_dir=str(tmp_path), seed=3, use_cpu=True)


@pytest.fixture
def batch(tokenizer, dataset, config):
    view = MaskedSpanObjective().build_views(tokenizer, config)["masked"]
    return view([row | {"row": i, "draw": 0} for i, row in enumerate(dataset.select(range(8)))])


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def objective_loss(model: nn.Module, config: MaskedSpanConfig, batch: dict) -> dict[str, torch.Tensor]:
    objective = MaskedSpanObjective()
    objective.setup(model, config)
    return objective.loss(model, None, {"masked": batch}, 0)


# --- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_equal_the_model_s_own(name, config, batch):
    """transformers' loss over all positions, and ours over the masked ones, for every kind of head."""
    ours, theirs = tiny_model(CONFIGS[name]).eval(), tiny_model(CONFIGS[name]).eval()
    objective = MaskedSpanObjective()
    objective.setup(ours, config)
    assert objective.describe()["head_at_masked_positions_only"]
    parts = objective.loss(ours, None, {"masked": batch}, 0)
    expected = theirs(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
    torch.testing.assert_close(parts["loss/masked"], expected.loss, rtol=0, atol=1e-5)
    predicted = batch["labels"] != IGNORE_INDEX
    hits = expected.logits.argmax(-1)[predicted] == batch["labels"][predicted]
    assert parts["masked_accuracy"].item() == pytest.approx(hits.float().mean().item())

    parts["loss/masked"].backward()
    expected.loss.backward()
    wanted = gradients(theirs)
    assert len(wanted) > 10
    for parameter, gradient in gradients(ours).items():
        torch.testing.assert_close(gradient, wanted[parameter], rtol=0, atol=1e-5)


def test_the_head_sees_the_masked_positions_only(config, batch):
    model = tiny_model()
    objective = MaskedSpanObjective()
    objective.setup(model, config)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: seen.append(output.shape))
    objective.loss(model, None, {"masked": batch}, 0)
    assert seen == [(1, len(batch["positions"]), 45)]
    # Outside of `loss` the model is what it was: all positions, also after an error in the middle of a forward.
    assert model(batch["input_ids"]).logits.shape == (*batch["input_ids"].shape, 45)
    with pytest.raises(IndexError):
        objective.loss(model, None, {"masked": batch | {"input_ids": batch["input_ids"] + 1000}}, 0)
    assert model(batch["input_ids"]).logits.shape == (*batch["input_ids"].shape, 45)


def test_number_of_items_is_the_number_of_masked_tokens(config, batch):
    count = MaskedSpanObjective().num_items(None, {"masked": batch})
    assert count == len(batch["positions"]) == (batch["labels"] != IGNORE_INDEX).sum()
    assert count > 8


def test_a_batch_with_nothing_to_predict_has_loss_and_gradients_zero(tokenizer, config):
    empty = tokenize_for_masking(Dataset.from_dict({"text": ["", ""]}), tokenizer, 16)
    view = SpanMaskingView(tokenizer, seed=0)
    model = tiny_model()
    parts = objective_loss(model, config, view([row | {"row": i, "draw": 0} for i, row in enumerate(empty)]))
    assert parts["loss/masked"].item() == 0
    assert parts["masked_accuracy"].item() == 0
    parts["loss/masked"].backward()
    assert all(not gradient.any() for gradient in gradients(model).values())
    assert len(gradients(model)) == len(list(model.parameters()))  # ranks must agree on who has a gradient


def test_the_model_learns_a_text_by_heart(tokenizer, config):
    texts = ["ba be bi bo bu da de di do du"] * 8
    data = tokenize_for_masking(Dataset.from_dict({"text": texts}), tokenizer, 16)
    view, model = SpanMaskingView(tokenizer, seed=0), tiny_model()
    objective = MaskedSpanObjective()
    objective.setup(model, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        rows = [row | {"row": i, "draw": step} for i, row in enumerate(data)]
        parts = objective.loss(model, None, {"masked": view(rows)}, step)
        parts["loss/masked"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(parts["loss/masked"].item())
    assert losses[0] > 3  # log 45 = 3.8
    assert np.mean(losses[-5:]) < 1
    assert held_out_span_loss(model, data, objective.held_out_view(tokenizer, config), 8) < 1


# --- wrappers and other heads ---------------------------------------------------------------------------------------


class _SmoothedHead(nn.Module):
    """A head that looks at a token's neighbours: not position-wise."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden + hidden.roll(1, dims=1))


class _FlatHead(_SmoothedHead):
    """A head that insists on the shape of the batch."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[0] == 1:
            raise ValueError("expected the whole batch")
        return self.head(hidden)


@pytest.mark.parametrize("head_class", [_SmoothedHead, _FlatHead])
def test_falls_back_to_the_full_forward_where_the_head_is_not_position_wise(head_class, config, batch, caplog):
    model = tiny_model().eval()
    model.cls = head_class(model.cls)
    model.get_output_embeddings = lambda: model.cls.head.predictions.decoder
    objective = MaskedSpanObjective()
    with caplog.at_level(logging.INFO, logger="hfssl"):
        objective.setup(model, config)
    assert "cannot be run on the masked positions alone" in caplog.text
    assert not objective.describe()["head_at_masked_positions_only"]
    loss = objective.loss(model, None, {"masked": batch}, 0)["loss/masked"]
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()))


def test_lora(config, batch):
    """`task_type=None`: peft has no type for masked language models."""
    plain = tiny_model().eval()
    lora = LoraConfig(task_type=None, r=4, target_modules=["query", "value"], modules_to_save=["transform"])
    model = get_peft_model(copy.deepcopy(plain), lora).eval()
    objective = MaskedSpanObjective()
    objective.setup(model, config)
    assert objective.describe()["head_at_masked_positions_only"]
    loss = objective.loss(model, None, {"masked": batch}, 0)["loss/masked"]
    # A fresh adapter adds nothing.
    torch.testing.assert_close(loss, objective_loss(plain, config, batch)["loss/masked"])
    loss.backward()
    names = list(gradients(model))
    assert any("lora_B" in name for name in names)
    assert any("transform.modules_to_save" in name for name in names)
    assert not any("word_embeddings" in name or "decoder" in name for name in names)
    merged = model.merge_and_unload()
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight


def test_data_parallel_uses_the_full_forward(config, batch):
    """It splits the batch among devices, so that positions in the whole batch would point to other tokens."""
    model = tiny_model().eval()
    objective = MaskedSpanObjective()
    objective.setup(model, config)
    expected = objective.loss(model, None, {"masked": batch}, 0)["loss/masked"]
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: seen.append(output.shape))
    loss = objective.loss(nn.DataParallel(model), None, {"masked": batch}, 0)["loss/masked"]
    torch.testing.assert_close(loss, expected)
    assert seen == [(*batch["input_ids"].shape, 45)]


def gradients_of_a_rank(folder: Path) -> None:
    """Rank 0 saves the gradients that the ranks have after one backward pass, each on a batch of its own."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model = BertForMaskedLM.from_pretrained(folder / "model").eval()
    objective = MaskedSpanObjective()
    objective.setup(model, MaskedSpanConfig(output_dir=str(folder), use_cpu=True))
    wrapped = nn.parallel.DistributedDataParallel(model)
    batch = torch.load(folder / f"batch{rank}.pt")
    objective.loss(wrapped, None, {"masked": batch}, 0)["loss/masked"].backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in model.named_parameters()}, folder / "gradients.pt")
    torch.distributed.barrier()


@pytest.mark.distributed
def test_gradients_are_synchronised_between_two_ranks(tmp_path, tokenizer, dataset, config):
    view = SpanMaskingView(tokenizer, seed=0)
    rows = [row | {"row": i, "draw": 0} for i, row in enumerate(dataset.select(range(8)))]
    batches = [view(rows[:4]), view(rows[4:])]
    model = tiny_model().eval()
    model.save_pretrained(tmp_path / "model")
    for rank, part in enumerate(batches):
        torch.save(part, tmp_path / f"batch{rank}.pt")
        (objective_loss(model, config, part)["loss/masked"] / 2).backward()  # DDP averages over the ranks
    assert run_ranks(gradients_of_a_rank, tmp_path, log_dir=tmp_path / "logs", ranks=2) == [0, 0], logs(
        tmp_path / "logs"
    )
    for name, gradient in torch.load(tmp_path / "gradients.pt").items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, rtol=0, atol=1e-6)


def test_an_encoder_without_head_gets_one_tied_to_its_embeddings(tmp_path):
    """MiniLM's folder holds an encoder only; training its head must train the same matrix as the embeddings."""
    BertModel(CONFIGS["bert"]).save_pretrained(tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(
        model.bert.embeddings.word_embeddings.weight,
        BertModel.from_pretrained(tmp_path).embeddings.word_embeddings.weight,
    )


@pytest.mark.parametrize("model_class", [BertModel, BertForSequenceClassification])
def test_models_without_a_masked_language_head_are_refused(model_class, config):
    with pytest.raises(ModelError, match="masked-language head.*load_masked_lm"):
        MaskedSpanObjective().setup(model_class(CONFIGS["bert"]), config)


# --- views and settings ---------------------------------------------------------------------------------------------


def test_views_follow_the_configuration(tokenizer, tmp_path):
    span = MaskedSpanConfig(output_dir=str(tmp_path), seed=1, mask_probability=0.3, max_span_words=2, use_cpu=True)
    token = MaskedSpanConfig(output_dir=str(tmp_path), masking="token", use_cpu=True)
    objective = MaskedSpanObjective()
    view = objective.build_views(tokenizer, span)["masked"]
    assert isinstance(view, SpanMaskingView)
    assert (view.seed, view.mask_probability) == (1, 0.3)
    assert isinstance(objective.build_views(tokenizer, token)["masked"], TokenMaskingView)
    objective.setup(tiny_model(), span)
    described = objective.describe()
    assert described["mask_probability"] == 0.3
    assert described["max_span_words"] == 2
    assert "SpanBERT" in described["paper"]


def test_setup_leaves_modes_and_random_state_alone(config):
    model = tiny_model().train()
    model.bert.encoder.layer[0].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    MaskedSpanObjective().setup(model, config)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)


# --- held-out loss --------------------------------------------------------------------------------------------------


def test_held_out_loss_is_the_mean_over_masked_tokens(tokenizer, dataset, config):
    model = tiny_model()
    view = MaskedSpanObjective().held_out_view(tokenizer, config)
    whole = view([row | {"row": i, "draw": 0} for i, row in enumerate(dataset)])
    model.eval()
    with torch.no_grad():
        logits = model(whole["input_ids"], attention_mask=whole["attention_mask"]).logits
    expected = F.cross_entropy(logits.flatten(0, 1), whole["labels"].flatten()).item()
    for batch_size in (7, 40):
        assert held_out_span_loss(model, dataset, view, batch_size) == pytest.approx(expected, abs=1e-5)


def test_held_out_loss_leaves_the_model_and_every_random_state_alone(tokenizer, dataset, config):
    model = tiny_model().train()
    model.cls.eval()
    modes = [module.training for module in model.modules()]
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    view = MaskedSpanObjective().held_out_view(tokenizer, config)
    values = {held_out_span_loss(model, dataset, view, 16) for _ in range(2)}
    assert len(values) == 1
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()
    assert not model.bert._forward_hooks  # the one of the evaluation is gone
    assert not gradients(model)


def test_held_out_masks_are_not_those_of_training(tokenizer, dataset, config):
    objective = MaskedSpanObjective()
    row = dataset[0] | {"row": 0, "draw": 0}
    training, held_out = objective.build_views(tokenizer, config)["masked"], objective.held_out_view(tokenizer, config)
    assert not torch.equal(training([row])["labels"], held_out([row])["labels"])


def test_held_out_rows_without_words_are_an_error(tokenizer, config):
    empty = tokenize_for_masking(Dataset.from_dict({"text": ["", ""]}), tokenizer, 16)
    with pytest.raises(DataError, match="at least one word"):
        held_out_span_loss(tiny_model(), empty, SpanMaskingView(tokenizer, seed=0), 2)


def test_a_copy_of_the_model_carries_no_live_hook(config, batch):
    """Teachers are deep copies: the copied hook must stay asleep while the student's forward is under way."""
    model = tiny_model().eval()
    objective = MaskedSpanObjective()
    objective.setup(model, config)
    teacher = copy.deepcopy(model)
    shapes = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: shapes.append(teacher(batch["input_ids"]).logits.shape)
    )
    objective.loss(model, None, {"masked": batch}, 0)
    assert shapes == [(*batch["input_ids"].shape, 45)]


def test_logits_object_can_be_taken_off(batch):
    model = BertForMaskedLM(CONFIGS["bert"])
    logits_at = MaskedPositionLogits(model)
    assert len(model.bert._forward_hooks) == 1
    logits_at.close()
    assert not model.bert._forward_hooks
