"""The trainer of the consistency methods: bad input, columns of the user, the graph term, schedules."""

from __future__ import annotations

import csv
import json
import logging

import pytest
import torch
from datasets import Dataset
from transformers import BertForMaskedLM

from hfssl.cli.commands.train import main as train_command
from hfssl.errors import ConfigurationError, DataError, ModelError
from hfssl.methods.consistency.fixmatch import FixMatchConfig, FixMatchTrainer
from hfssl.models.backbones import load_tokenizer
from hfssl.models.loading import load_classifier
from tests.helpers.encoders import tiny_bert_config
from tests.helpers.train_tiny import make_dataset, weights_digest


@pytest.fixture
def make(tiny_backbone, tmp_path):
    def trainer(pool, labeled=None, **settings):
        defaults = {"max_steps": 2, "per_device_train_batch_size": 2, "save_strategy": "no", "logging_steps": 1}
        args = FixMatchConfig(str(tmp_path), use_cpu=True, disable_tqdm=True, **(defaults | settings))
        return FixMatchTrainer(
            load_classifier(tiny_backbone, ["a", "b", "c"], seed=1),
            args,
            train_dataset=make_dataset(9, labels=True) if labeled is None else labeled,
            unlabeled_dataset=pool,
            processing_class=load_tokenizer(tiny_backbone),
        )

    return trainer


POOL = Dataset.from_dict({"text": [f"a fun plot {word}" for word in ("film", "movie", "story", "actor") * 3]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lambda_u": -1.0}, "lambda_u must not be negative, got -1.0; 0 switches it off."),
        ({"confidence_threshold": 1.5}, "confidence_threshold must be from 0 to 1, got 1.5."),
        ({"strong_view": "tpyos"}, "strong_view: view 'tpyos': expected steps among .* Did you mean 'typos'"),
        ({"ramp_up": 2.0}, "ramp_up is a share of the steps from 0 to 1, got 2.0."),
        ({"ramp_shape": "square"}, "ramp_shape must be one of linear, cosine, gaussian, got 'square'."),
        ({"mixup_alpha": 0.2}, "mixup_alpha is an option of supervised training; set it to 0"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        FixMatchConfig(str(tmp_path), use_cpu=True, **settings)


def test_all_wrong_settings_come_at_once(tmp_path):
    with pytest.raises(ConfigurationError) as found:
        FixMatchConfig(str(tmp_path), use_cpu=True, lambda_u=-1.0, confidence_threshold=-0.1, graph_neighbors=0)
    assert len(found.value.problems) == 3


def test_a_missing_pool_and_missing_labels(make):
    with pytest.raises(DataError, match="Expected unlabeled rows for FixMatchTrainer, found none"):
        make(None)
    with pytest.raises(DataError, match="Expected unlabeled rows"):
        make(POOL.select([]))
    assert make(None, lambda_u=0.0).train().global_step == 2


def test_missing_texts_of_a_column_are_counted(make):
    pool = POOL.add_column("text_strong", ["fun", "", *["good plot"] * 10])
    with pytest.raises(
        DataError, match=r"column 'text_strong' of every unlabeled row, found none in 1 of 12 .* row 1"
    ):
        make(pool, strong_view="column=text_strong")
    with pytest.raises(ConfigurationError, match="Expected the column 'text_weak' of a view in the unlabeled rows"):
        make(POOL, weak_view="column=text_weak")


def test_tokens_alone_do_not_do_for_a_view_of_texts(make, tiny_backbone):
    tokens = Dataset.from_dict({"input_ids": [[2, 7, 3]] * 8})
    with pytest.raises(DataError, match="Expected the column 'text' in the unlabeled rows for the step 'typos'"):
        make(tokens, strong_view="typos+token_cutoff")
    assert make(tokens, strong_view="token_cutoff").train().global_step == 2


def test_small_and_useless_pools_are_told_and_work(make, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        trainer = make(POOL.select(range(3)))
        assert trainer.train().global_step == 2
        assert "The pool has 3 rows, fewer than the 8 of one step" in caplog.text
        caplog.clear()
        make(make_dataset(9, labels=False))
    assert "Every unlabeled text is among the labeled ones" in caplog.text


def test_columns_of_the_user_reach_the_strong_view(make):
    pool = POOL.add_column("text_strong", [f"who {text}" for text in POOL["text"]])
    trainer = make(pool, strong_view="column=text_strong")
    batch = next(iter(trainer.get_train_dataloader()))["unlabeled"]
    who = trainer.processing_class.convert_tokens_to_ids("who")
    assert (batch["strong"]["input_ids"] == who).any(1).all()
    assert not (batch["weak"]["input_ids"] == who).any()
    assert torch.equal(batch["weak"]["row"], batch["strong"]["row"])


def test_columns_of_a_table_reach_the_views_of_a_recipe(tmp_path, tiny_backbone):
    table = tmp_path / "reviews.csv"
    with open(table, "w", newline="") as file:
        rows = [(f"a {('good', 'bad')[i % 2]} film {i}", ("x", "y")[i % 2] if i < 16 else "", f"fun {i}")
                for i in range(40)]  # fmt: skip
        csv.writer(file).writerows([("text", "label", "text_strong"), *rows])
    words = ["--method", "fixmatch", "--train", str(table), "--backbone", str(tiny_backbone), "--use_cpu", "true"]
    words += ["--max_steps", "2", "--per_device_train_batch_size", "2", "--disable_tqdm", "true"]
    words += ["--strong_view", "column=text_strong", "--output_dir", str(tmp_path / "run")]
    assert train_command(words) == 2  # the recipe does not name the column
    words[-1] = str(tmp_path / "second")
    assert train_command([*words, "--view_columns", "text_strong"]) == 0
    assert json.loads((tmp_path / "second" / "results.json").read_text())["method"] == "fixmatch"


def test_the_graph_term_uses_the_neighbours_of_the_frozen_encoder(make):
    trainer = make(POOL, graph_weight=1.0, graph_neighbors=2, max_steps=4)
    trainer.train()
    table = trainer.objective.graph.table
    assert table.shape == (12, 2)
    assert not (table == torch.arange(12)[:, None]).any()
    same = torch.arange(12) % 4  # rows with the same text are nearest
    assert (same[table] == same[:, None]).all()
    assert all("loss/graph" in log for log in trainer.state.log_history if "loss" in log)
    state = trainer.objective.state_dict()
    assert torch.equal(state["graph"]["table"], table)


def test_spans_are_filled_once_by_a_masked_language_model(make, tmp_path, tiny_backbone):
    tokenizer = load_tokenizer(tiny_backbone)
    with torch.random.fork_rng():
        BertForMaskedLM(tiny_bert_config(len(tokenizer))).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    trainer = make(POOL, strong_view=f"infill={tmp_path / 'lm'}+token_cutoff")
    trainer.train()
    filled = trainer.unlabeled_dataset[f"infill={tmp_path / 'lm'}"]
    assert all(text.strip() for text in filled)
    assert sum(text != own for text, own in zip(filled, POOL["text"], strict=True)) > 6
    (kept,) = (tmp_path / "infill").glob("*.json")
    before = kept.stat().st_mtime_ns
    make(POOL, strong_view=f"infill={tmp_path / 'lm'}").train()
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(ModelError, match="Expected a masked-language head in .* found none"):
        make(POOL, strong_view=f"infill={tiny_backbone}").train()


def test_warm_restarts_go_with_a_method(make):
    settings = {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}, "max_steps": 8}
    trainer = make(POOL, warmup_steps=0, **settings)
    trainer.train()
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert rates[4] > rates[3]  # the second cycle begins
    assert rates[0] > rates[1] > rates[2] > rates[3]


def test_noise_on_embeddings_trains_and_repeats(make):
    digests = {
        weights_digest(_trained(make(POOL, confidence_threshold=0.0, strong_view="gaussian_noise:0.5")))
        for _ in range(2)
    }
    assert len(digests) == 1
    assert digests != {weights_digest(_trained(make(POOL, confidence_threshold=0.0, strong_view="dropout")))}


def _trained(trainer):
    trainer.train()
    return trainer.model
