"""Behaviours that every method must have: one function per behaviour of the matrix, by real training."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel

from hfssl.cli.commands.train import main as train_command
from hfssl.config.methods import Method
from hfssl.methods.supervised import SupervisedConfig
from hfssl.models.auto import from_pretrained
from hfssl.models.loading import load_classifier, load_masked_lm
from hfssl.reporting.markdown import escape_markdown
from hfssl.training.trainer import SSLTrainer, last_complete_checkpoint
from tests.helpers.matrix import Case
from tests.helpers.ranks import logs, run_ranks
from tests.helpers.train_tiny import flat_weights, make_trainer, train_in_rank, weights_digest

__all__ = ["CHECKS", "Bench", "check"]

ROWS_IN_CARD = "11 labeled rows"  # of `make_trainer`
LABELS = {"praise": ["good", "great", "fun"], "blame": ["bad", "awful", "dull"], "ask": ["who", "what", "when"]}


@dataclass(frozen=True)
class Bench:
    """Where a case runs, and on what."""

    method: Method
    backbone: Path
    folder: Path
    recipes: Sequence[Path]

    def trainer(self, case: Case, name: str, **settings: Any) -> SSLTrainer:
        """A trainer of the case's method in a folder of its own; `settings` are training arguments."""
        return make_trainer(self.backbone, self.folder / name, **(_variant(case) | settings))

    def train(self, case: Case, name: str, **settings: Any) -> SSLTrainer:
        """The same, trained, or resumed where the folder holds a checkpoint."""
        trainer = self.trainer(case, name, **settings)
        trainer.train(resume_from_checkpoint=True)
        return trainer

    def train_ranks(self, case: Case, name: str, ranks: int, **settings: Any) -> list[int]:
        """The same in processes of its own; returns their exit codes."""
        settings = _variant(case) | settings
        arguments = (str(self.backbone), str(self.folder / name), settings, self.method)
        return run_ranks(train_in_rank, *arguments, log_dir=self.folder / f"{name}-logs", ranks=ranks)


def check(case: Case, bench: Bench) -> None:
    """Raises `AssertionError` where the method does not behave."""
    CHECKS[case.behaviour](case, bench)


def _variant(case: Case) -> dict[str, Any]:
    settings = {"method": case.method, "lora": case.lora, "dropout": case.dropout, "columns": case.columns}
    return settings | {"gradient_accumulation_steps": case.accumulation}


def _accumulation(case: Case, bench: Bench) -> None:
    """Batch 8 x 1 micro-batch = batch 1 x 8 micro-batches, up to the order of summation."""
    common = {"max_steps": 5, "logging_steps": 1, "save_strategy": "no"}
    whole = bench.train(case, "whole", **common, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    parts = bench.train(case, "parts", **common, per_device_train_batch_size=1)
    _assert_same_course(whole, parts.state.log_history, flat_weights(parts.model))


def _ranks(case: Case, bench: Bench) -> None:
    """Two ranks with batch 2 see the rows of one rank with batch 4, up to the order of summation."""
    common = {"max_steps": 6, "logging_steps": 1, "save_strategy": "no"}
    one = bench.train(case, "one", **common, per_device_train_batch_size=4)
    codes = bench.train_ranks(case, "two", case.ranks, **common, per_device_train_batch_size=2)
    assert codes == [0] * case.ranks, logs(bench.folder / "two-logs")
    history = json.loads((bench.folder / "two" / "history.json").read_text(encoding="utf-8"))
    _assert_same_course(one, history, torch.load(bench.folder / "two" / "weights.pt"))


def _assert_same_course(first: SSLTrainer, history: list[dict[str, float]], weights: torch.Tensor) -> None:
    for key in ("loss", "grad_norm"):
        expected = [log[key] for log in first.state.log_history if key in log]
        assert len(expected) == first.args.max_steps
        assert [log[key] for log in history if key in log] == pytest.approx(expected, rel=2e-4)
    torch.testing.assert_close(weights, flat_weights(first.model), rtol=0, atol=2e-5)


def _resume(case: Case, bench: Bench) -> None:
    """Killed in the middle of a step and resumed = never killed, bit for bit."""
    settings = {"max_steps": 8, "save_steps": 3, "per_device_train_batch_size": 4 // case.ranks}
    killed = bench.train_ranks(case, "killed", case.ranks, **settings, kill_at_step=5)
    assert -signal.SIGKILL in killed, logs(bench.folder / "killed-logs")
    assert last_complete_checkpoint(bench.folder / "killed").endswith("checkpoint-3")
    digests = []
    for name in ("killed", "whole"):
        if case.ranks == 1:
            digests.append(weights_digest(bench.train(case, name, **settings).model))
        else:
            codes = bench.train_ranks(case, name, case.ranks, **settings)
            assert codes == [0] * case.ranks, logs(bench.folder / f"{name}-logs")
            digests.append((bench.folder / name / "digest").read_text(encoding="utf-8"))
    assert digests[0] == digests[1]


def _lora(case: Case, bench: Bench) -> None:
    """An adapter learns, the rest of the model stays, and what is saved loads with the same logits."""
    trainer = bench.trainer(case, "run", max_steps=3, learning_rate=1e-2, save_strategy="no")
    trainable = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    assert any("lora_" in name for name in changed)
    assert changed <= trainable
    saved = bench.folder / "saved"
    trainer.save_model(str(saved))
    if bench.method.product == "masked_lm":
        loaded = PeftModel.from_pretrained(load_masked_lm(bench.backbone, seed=2), saved)
    else:
        loaded = from_pretrained(saved)
    assert torch.equal(_logits(loaded), _logits(trainer.model))


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 13).view(2, 4)).logits


def _architecture(case: Case, bench: Bench) -> None:
    """Other architectures learn, from one or two text columns, and what is saved predicts the same."""
    settings = {"max_steps": 2, "learning_rate": 1e-2, "save_strategy": "no", "logging_steps": 1}
    trainer = bench.trainer(case, "run", **settings, per_device_train_batch_size=2)
    before = flat_weights(trainer.model)
    trainer.train()
    assert not torch.equal(flat_weights(trainer.model), before)
    trainer.save_model(str(bench.folder / "saved"))
    assert torch.equal(_logits(from_pretrained(bench.folder / "saved")), _logits(trainer.model))


def _lambda_u(case: Case, bench: Bench) -> None:
    """Without weight, the unlabeled rows change nothing: supervised training, bit for bit."""
    common = {"max_steps": 6, "save_strategy": "no", "learning_rate": 1e-3}
    ours = {field.name: field.default for field in fields(bench.method.config_class)}
    stock = {field.name: field.default for field in fields(SupervisedConfig) if field.name in ours}
    common = {name: value for name, value in stock.items() if value != ours[name]} | common
    supervised = bench.train(case, "supervised", **common, method="supervised")
    without, with_pool = (bench.train(case, f"run-{weight}", **common, lambda_u=weight) for weight in (0.0, 0.5))
    assert weights_digest(without.model) == weights_digest(supervised.model)
    assert weights_digest(with_pool.model) != weights_digest(supervised.model)


def _lambda_tiny(case: Case, bench: Bench) -> None:
    """The unlabeled branch itself changes nothing: with weight 1e-9 its run equals supervised training to 1e-6.

    With plain gradient descent: AdamW divides a gradient of 1e-9 by its own size.
    """
    common = {"max_steps": 6, "save_strategy": "no", "learning_rate": 1e-2, "optim": "sgd", "warmup_steps": 0}
    common |= {"head_learning_rate": 1e-2, "head_init": "random"}
    supervised = bench.train(case, "supervised", **common, method="supervised")
    tiny = bench.train(case, "tiny", **common, lambda_u=1e-9, ramp_up=0.0, label_warmup=0.0)
    assert any("loss/unlabeled" in log for log in tiny.state.log_history)
    torch.testing.assert_close(flat_weights(tiny.model), flat_weights(supervised.model), rtol=0, atol=1e-6)
    assert weights_digest(supervised.model) != weights_digest(bench.trainer(case, "start").model)


def _card(case: Case, bench: Bench) -> None:
    """The trainer's card names the method, its paper and the rows that it was trained on."""
    trainer = bench.train(case, "run", max_steps=2, save_strategy="no")
    trainer.create_model_card()
    card = (bench.folder / "run" / "README.md").read_text(encoding="utf-8")
    assert f"trained with hfssl's `{type(trainer).__name__}`" in card
    assert f"- Method: {escape_markdown(bench.method.paper)}" in card
    assert ("(a LoRA adapter)" in card) == case.lora
    for stream, dataset in (("labeled", trainer.train_dataset), ("unlabeled", trainer.unlabeled_dataset)):
        assert (dataset is not None) == (stream in bench.method.streams)
        assert dataset is None or f" {len(dataset)} {stream} " in card


def _recipe(case: Case, bench: Bench) -> None:
    """Every recipe file of the method is parsed and trained in small by the recipe's `main()`."""
    assert bench.recipes
    for path in bench.recipes:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert recipe["method"] == case.method
        out = bench.folder / path.stem
        table = _small_table(bench.folder / f"{path.stem}.csv", recipe)
        words = ["--config", str(path), "--train", str(table), "--test=", "--validation=", "--unlabeled="]
        words += ["--labels_per_class", "4", "--backbone", str(bench.backbone), "--output_dir", str(out)]
        words += ["--max_steps", "3", "--per_device_train_batch_size", "4", "--max_length", "16", "--use_cpu", "true"]
        words += ["--gradient_accumulation_steps", str(case.accumulation), "--disable_tqdm", "true"]
        assert train_command([*words, "--adapter", "lora" if case.lora else "none"]) == 0
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        assert results["method"] == case.method
        assert (out / "model" / "tokenizer.json").is_file()
        if bench.method.product == "classifier":
            assert from_pretrained(out / "model").config.id2label == dict(enumerate(sorted(LABELS)))
            assert 0 <= results["metrics"]["test"]["accuracy"] <= 1
        else:  # a backbone for the next recipe
            assert load_classifier(out / "model", ["a", "b"], seed=0).config.num_labels == 2


def _small_table(path: Path, recipe: dict[str, Any]) -> Path:
    """60 rows of three classes, each with words of its own, in the columns that the recipe names."""
    names = [recipe.get(f"{part}_column") for part in ("text", "label", "group")]
    header = [names[0] or "text", names[1] or "label", *([names[2]] if names[2] else [])]
    lines = [",".join(header)]
    for number in range(60):
        label = list(LABELS)[number % 3]
        words = LABELS[label]
        text = f"{words[number % 3]} {words[number % 2]} the film is number {number} of it"
        lines.append(",".join([text, label, f"group {number // 2}"][: len(header)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


CHECKS: dict[str, Callable[[Case, Bench], None]] = {
    "accumulation": _accumulation,
    "ranks": _ranks,
    "resume": _resume,
    "lora": _lora,
    "architecture": _architecture,
    "lambda_u": _lambda_u,
    "lambda_tiny": _lambda_tiny,
    "card": _card,
    "recipe": _recipe,
}
