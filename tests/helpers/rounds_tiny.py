"""Rounds of self-training of a tiny model, for tests that run them in separate processes; not a test itself."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

import hfssl.methods.self_training.round_store
from hfssl.data.tokenization import tokenize_dataset
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.round_store import RoundStore
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.methods.supervised import SupervisedConfig, SupervisedTrainer
from hfssl.models.adapters import build_lora_config
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import load_tokenizer
from hfssl.models.checkpoints import save_checkpoint
from hfssl.models.loading import load_classifier
from hfssl.training.trainer import SSLTrainer
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset

POOL_ROWS = 40
MAX_LENGTH = 16


def hidden_labels(rows: int = POOL_ROWS) -> np.ndarray:
    """True labels of the pool; every fifth is not known."""
    return np.array([-1 if i % 5 == 0 else i % 3 for i in range(rows)])


def digest(model: torch.nn.Module) -> str:
    """Hash of all weights that the model uses, bit for bit."""
    result = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if "original_module" not in name:  # peft keeps the head that it replaced, and a reloaded one is another
            result.update(name.encode() + tensor.numpy().tobytes())
    return result.hexdigest()


def train_teacher(backbone: str | Path, folder: Path) -> Path:
    """A folder with a classifier that predicts each class for some rows of the pool."""
    tokenizer = load_tokenizer(backbone)
    trainer = SupervisedTrainer(
        load_classifier(backbone, LABEL_NAMES, seed=3),
        SupervisedConfig(
            output_dir=str(folder / "checkpoints"),
            max_steps=40,
            learning_rate=3e-3,
            head_learning_rate=3e-3,
            max_length=MAX_LENGTH,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=make_dataset(11, labels=True),
        processing_class=tokenizer,
    )
    trainer.train()
    save_checkpoint(trainer.model, tokenizer, folder / "model", LABEL_NAMES)
    return folder / "model"


def run_rounds(
    backbone: str | Path,
    teacher: str | Path,
    folder: str | Path,
    *,
    labeled_texts: list[str] | None = None,
    pool_rows: int = POOL_ROWS,
    pool_texts: list[str] | None = None,
    pool_labels: bool = False,
    hidden: np.ndarray | None = None,
    lora: bool = False,
    validation: bool | Dataset = True,
    **settings: Any,
) -> SelfTraining:
    """Runs the rounds, or what is left of them in `folder`; `settings` are training arguments."""
    defaults = {"max_steps": 6, "save_steps": 2, "logging_steps": 3, "per_device_train_batch_size": 4, "seed": 7}
    defaults |= {"rounds": 2, "mc_passes": 3, "learning_rate": 1e-3}
    config = SelfTrainingConfig(
        output_dir=str(Path(folder) / "checkpoints"),
        use_cpu=True,
        disable_tqdm=True,
        max_length=MAX_LENGTH,
        **(defaults | settings),
    )
    tokenizer = load_tokenizer(backbone)

    def tokens(rows: int, *, labels: bool, offset: int = 0):
        return tokenize_dataset(make_dataset(rows, labels=labels, offset=offset), tokenizer, MAX_LENGTH)

    def student(seed: int):
        return load_classifier(backbone, LABEL_NAMES, seed=seed)

    rounds = SelfTraining(
        student,
        config,
        processing_class=tokenizer,
        label_names=LABEL_NAMES,
        output_dir=folder,
        peft_config=build_lora_config(student(0), r=2, alpha=4, dropout=0.1) if lora else None,
    )
    pool = tokens(pool_rows, labels=pool_labels, offset=3)
    if pool_texts is not None:
        pool = tokenize_dataset(Dataset.from_dict({"text": pool_texts}), tokenizer, MAX_LENGTH)
    labeled = tokens(11, labels=True)
    if labeled_texts is not None:
        columns = {"text": labeled_texts, "label": [i % 3 for i in range(len(labeled_texts))]}
        labeled = tokenize_dataset(Dataset.from_dict(columns), tokenizer, MAX_LENGTH)
    if validation is True:
        validation = make_dataset(9, labels=True, offset=5)
    return rounds.fit(
        from_pretrained(teacher),
        labeled,
        pool,
        validation=tokenize_dataset(validation, tokenizer, MAX_LENGTH) if validation else None,
        hidden_labels=hidden,
    )


def self_train(backbone, folder, **settings) -> SelfTraining:
    """Two rounds on a tiny pool."""
    config = SelfTrainingConfig(
        output_dir=str(folder),
        use_cpu=True,
        disable_tqdm=True,
        max_length=16,
        max_steps=4,
        logging_steps=2,
        save_strategy="no",
        per_device_train_batch_size=4,
        rounds=2,
        mc_passes=2,
        stop_agreement=1.0,
        **settings,
    )
    tokenizer = load_tokenizer(backbone)
    labeled = tokenize_dataset(make_dataset(11, labels=True), tokenizer, 16)
    pool = tokenize_dataset(make_dataset(30, labels=False, offset=3), tokenizer, 16)
    rounds = SelfTraining(
        lambda seed: load_classifier(backbone, LABEL_NAMES, seed=seed),
        config,
        processing_class=tokenizer,
        label_names=LABEL_NAMES,
        output_dir=folder,
    )
    return rounds.fit(load_classifier(backbone, LABEL_NAMES, seed=9), labeled, pool)


def rounds_that_die(kill: dict | None, backbone: str, teacher: str, folder: str, options: dict) -> None:
    """`run_rounds` in a rank of its own: rank `kill["rank"]` kills itself in round `kill["round"]` at `kill["at"]`.

    Without `kill` it writes `rank-N.json` below `folder`: what this rank holds in the end.
    """
    rank = int(os.environ.get("RANK", "0"))
    if kill is not None and kill["rank"] == rank:
        PLACES[kill["at"]](kill["round"])
    hidden = hidden_labels(options.get("pool_rows", POOL_ROWS))
    rounds = run_rounds(backbone, teacher, folder, hidden=hidden, **options)
    held = {
        "digest": digest(rounds.student_),
        "transduction": rounds.transduction_.tolist(),
        "labeled_iter": rounds.labeled_iter_.tolist(),
        "termination_condition": rounds.termination_condition_,
        "rounds": rounds.rounds_,
    }
    (Path(folder) / f"rank-{rank}.json").write_text(json.dumps(held))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, is_the_moment: Callable[..., bool]) -> None:
    work = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if is_the_moment(*args):
            _die()
        return work(*args, **kwargs)

    setattr(owner, name, deadly)


def _mid_step(number: int) -> None:
    def fifth_step(trainer: SSLTrainer, *_: Any) -> bool:
        return f"round {number + 1} of" in trainer.title and trainer.state.global_step == 4

    _before(SSLTrainer, "training_step", fifth_step)


def _after_pseudo_labels(number: int) -> None:
    _before(SelfTraining, "_train_student", lambda rounds, current, *_: current == number)


def _before_the_line(number: int) -> None:
    store = hfssl.methods.self_training.round_store
    _before(store, "append_json_line", lambda path, record: record["round"] == number)


def _after_the_line(number: int) -> None:
    _before(RoundStore, "tidy", lambda store, current: current == number)


PLACES = {
    "mid_step": _mid_step,
    "after_pseudo_labels": _after_pseudo_labels,
    "before_the_line": _before_the_line,
    "after_the_line": _after_the_line,
}
