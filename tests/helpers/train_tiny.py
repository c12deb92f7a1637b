"""A training run in a separate process, for tests that kill it or start it on two ranks; not a test itself.

Usage: python train_tiny.py BACKBONE OUTPUT_DIR '{"method": ..., "kill_at_step": ..., any training argument: ...}'
Writes OUTPUT_DIR/digest: a hash of the final weights, bit for bit; and the log and the weights.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.config.methods import METHODS, Method
from hfssl.data.tokenization import tokenize_dataset
from hfssl.inference.scoring import head_inputs
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.models.adapters import build_lora_config
from hfssl.models.backbones import load_tokenizer
from hfssl.models.heads import logit_layer
from hfssl.models.loading import load_classifier, load_masked_lm
from hfssl.runtime.distributed import leave_group

LABEL_NAMES = ["bad", "good", "plot"]
WORDS = [
    "the",
    "film",
    "movie",
    "bad",
    "good",
    "awful",
    "great",
    "story",
    "actor",
    "plot",
    "dull",
    "fun",
    "who",
    "what",
]


def make_dataset(rows: int, *, labels: bool, offset: int = 0, columns: int = 1) -> Dataset:
    """Texts of 2 to 9 words whose label shows in one of them; with two columns each has a second text."""
    texts = [
        " ".join(WORDS[(i * 7 + j * j + offset) % len(WORDS)] for j in range(2 + (i * 5) % 8)) for i in range(rows)
    ]
    parts: dict[str, list] = {"text": texts}
    if columns == 2:
        parts["text_pair"] = texts[1:] + texts[:1]
    if labels:
        parts["label"] = [i % len(LABEL_NAMES) for i in range(rows)]
    return Dataset.from_dict(parts)


def make_pool(rows: int, columns: int = 1) -> Dataset:
    """Pseudo-labeled rows as the rounds driver makes them."""
    pool = make_dataset(rows, labels=False, offset=3, columns=columns)
    probs = torch.softmax(torch.randn(rows, len(LABEL_NAMES), generator=torch.Generator().manual_seed(5)), -1)
    pool = pool.add_column("pseudo_probs", probs.tolist())
    return pool.add_column("weight", [0.5 + (i % 3) / 2 for i in range(rows)])


def make_trainer(
    backbone: str | Path,
    output_dir: str | Path,
    method: str = "supervised",
    lora: bool = False,
    eval_dataset: Dataset | None = None,
    columns: int = 1,
    **settings,
):
    """A trainer on the tiny backbone; `settings` are training arguments."""
    row = METHODS[method]
    dropout = settings.pop("dropout", True)
    defaults = {"max_steps": 8, "save_steps": 3, "logging_steps": 2, "per_device_train_batch_size": 4, "seed": 7}
    # With the papers' values a tiny model of random weights would accept no row, and eight steps move no average.
    small = {"confidence_threshold": 0.334, "ema_momentum": 0.5, "relative_threshold": 1.0, "fairness_weight": 1.0}
    small |= {"dash_gamma": 1.01, "label_warmup": 0.0, "ramp_up": 0.0, "n_sigma": 300.0}
    names = (
        {entry.name for entry in fields(row.config_class)} if issubclass(row.config_class, ConsistencyConfig) else ()
    )
    defaults |= {name: value for name, value in small.items() if name in names}
    args = row.config_class(
        output_dir=str(output_dir), use_cpu=True, disable_tqdm=True, max_length=32, **(defaults | settings)
    )
    masked = row.product == "masked_lm"
    model = load_masked_lm(backbone, seed=1) if masked else load_classifier(backbone, LABEL_NAMES, seed=1)
    if not dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.config.attention_probs_dropout_prob = 0.0
    tokenizer = load_tokenizer(backbone)
    # What is compared with supervised training begins with its head; other architectures are only trained.
    if names and "lambda_u" not in settings and model.config.model_type == "bert":
        spread_head(model, tokenizer)
    adapter = {"dropout": 0.1 if dropout else 0.0, "task": "masked_lm" if masked else "sequence_classification"}
    # The texts come with the columns that a driver adds; trainers that learn from texts alone leave them out.
    pool = make_pool(30, columns) if "labeled" in row.streams else make_dataset(40, labels=False)
    return row.trainer_class(
        model,
        args,
        train_dataset=make_dataset(11, labels=True, columns=columns) if "labeled" in row.streams else None,
        unlabeled_dataset=pool if "unlabeled" in row.streams else None,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        peft_config=build_lora_config(model, r=2, alpha=4, **adapter) if lora else None,
    )


def spread_head(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Scales and moves the fresh head so that it predicts all classes; as it is, all rows would have the same one."""
    rows = tokenize_dataset(make_dataset(30, labels=False, offset=3), tokenizer, 32)
    layer, inputs = logit_layer(model), head_inputs(model, rows, tokenizer)
    with torch.no_grad():
        logits = torch.as_tensor(inputs) @ layer.weight.T
        layer.weight *= 20
        if layer.bias is not None:
            layer.bias.copy_(-20 * logits.mean(0))


def weights_digest(model: torch.nn.Module) -> str:
    """Hash of all weights by name, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def flat_weights(model: torch.nn.Module) -> torch.Tensor:
    """All parameters of the model in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train_in_rank(backbone: str, output_dir: str, settings: dict[str, Any], row: Method | None = None) -> None:
    """Trains, or goes on from the newest checkpoint; kills this process in step `kill_at_step` of `settings`.

    `row` is the method's row where `METHODS` does not hold it yet. Writes `digest`, `history.json` and `weights.pt`.
    """
    gc.freeze()  # as in conftest.py
    settings = dict(settings)
    kill_at = settings.pop("kill_at_step", None)
    if row is not None:
        METHODS.setdefault(settings["method"], row)
    trainer = make_trainer(backbone, output_dir, **settings)
    if kill_at is not None:
        loss = trainer.objective.loss

        def deadly(model, labeled, unlabeled, step):
            parts = loss(model, labeled, unlabeled, step)
            if step == kill_at:  # between the forward and the backward pass
                os.kill(os.getpid(), signal.SIGKILL)
            return parts

        trainer.objective.loss = deadly
    trainer.train(resume_from_checkpoint=True)
    if trainer.args.process_index == 0:
        folder = Path(output_dir)
        torch.save(flat_weights(trainer.model), folder / "weights.pt")
        (folder / "digest").write_text(weights_digest(trainer.model))
        (folder / "history.json").write_text(json.dumps(trainer.state.log_history))
    leave_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_in_rank(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
