"""A training run in a process of its own, for tests that kill it or start it on two ranks; not a test itself.

Usage: python train_tiny.py BACKBONE OUTPUT_DIR '{"method": ..., "kill_at_step": ..., any training argument: ...}'
Writes OUTPUT_DIR/digest: a hash of the final weights, bit for bit.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import torch
from datasets import Dataset

from hfssl.config.methods import METHODS
from hfssl.models.adapters import build_lora_config
from hfssl.models.backbones import load_tokenizer
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


def make_dataset(rows: int, *, labels: bool, offset: int = 0) -> Dataset:
    """Texts of 2 to 9 words whose label shows in one of them."""
    texts = [
        " ".join(WORDS[(i * 7 + j * j + offset) % len(WORDS)] for j in range(2 + (i * 5) % 8)) for i in range(rows)
    ]
    columns: dict[str, list] = {"text": texts}
    if labels:
        columns["label"] = [i % len(LABEL_NAMES) for i in range(rows)]
    return Dataset.from_dict(columns)


def make_pool(rows: int) -> Dataset:
    """Pseudo-labeled rows as the rounds driver makes them."""
    pool = make_dataset(rows, labels=False, offset=3)
    probs = torch.softmax(torch.randn(rows, len(LABEL_NAMES), generator=torch.Generator().manual_seed(5)), -1)
    pool = pool.add_column("pseudo_probs", probs.tolist())
    return pool.add_column("weight", [0.5 + (i % 3) / 2 for i in range(rows)])


def make_trainer(
    backbone: str | Path,
    output_dir: str | Path,
    method: str = "supervised",
    lora: bool = False,
    eval_dataset: Dataset | None = None,
    **settings,
):
    """A trainer on the tiny backbone; `settings` are training arguments."""
    trainer_class = METHODS[method].trainer_class
    dropout = settings.pop("dropout", True)
    defaults = {"max_steps": 8, "save_steps": 3, "logging_steps": 2, "per_device_train_batch_size": 4, "seed": 7}
    args = trainer_class.config_class(
        output_dir=str(output_dir), use_cpu=True, disable_tqdm=True, max_length=32, **(defaults | settings)
    )
    masked = method == "masked_span"
    model = load_masked_lm(backbone, seed=1) if masked else load_classifier(backbone, LABEL_NAMES, seed=1)
    if not dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.config.attention_probs_dropout_prob = 0.0
    task = "masked_lm" if masked else "sequence_classification"
    return trainer_class(
        model,
        args,
        train_dataset=None if masked else make_dataset(11, labels=True),
        unlabeled_dataset={"masked_span": make_dataset(40, labels=False), "self_training": make_pool(30)}.get(method),
        eval_dataset=eval_dataset,
        processing_class=load_tokenizer(backbone),
        peft_config=build_lora_config(model, r=2, alpha=4, dropout=0.1, task=task) if lora else None,
    )


def weights_digest(model: torch.nn.Module) -> str:
    """Hash of all weights by name, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def run(backbone: str, output_dir: Path, settings: dict) -> None:
    """What the usage says, in this process."""
    gc.freeze()  # as in conftest.py
    kill_at = settings.pop("kill_at_step", None)
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
        (output_dir / "digest").write_text(weights_digest(trainer.model))
        (output_dir / "history.json").write_text(json.dumps(trainer.state.log_history))


def main() -> None:
    torch.set_num_threads(1)
    run(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))


if __name__ == "__main__":
    main()
    leave_group()
