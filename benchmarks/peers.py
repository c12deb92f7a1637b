"""The peers of `compare.py`: what each does with the rows of a cell.

They get the same backbone and rows as hfssl, each with its usual few-label settings, which are stated once below. What
a library's documentation leaves open was chosen on rows of the *training* part of trec6 (16 labels a class, 800
held-out rows, 3 seeds), never on a test part. Nothing heavy is imported before a peer runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LABELS_ONLY", "PEERS", "Answer", "Task", "embed", "setfit_steps"]

MAX_LENGTH = 128  # tokens a text, as in `hfssl fit`

# The larger rate of BERT's own recipe (Devlin et al. 2019), and more passes than its three, which few rows need (Zhang
# et al. 2021).
TRAINER_FULL: dict[str, Any] = {
    "learning_rate": 5e-5,
    "max_steps": 300,
    "per_device_train_batch_size": 16,
    "warmup_steps": 0.1,
}
# peft's own example of sequence classification; its default layers for BERT are query and value.
TRAINER_LORA: dict[str, Any] = {**TRAINER_FULL, "learning_rate": 1e-3}
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1}
# The library's defaults, written out.
SETFIT: dict[str, Any] = {
    "num_epochs": 1,
    "batch_size": 16,
    "body_learning_rate": 2e-5,
    "sampling_strategy": "oversampling",
}
# SetFit trains on pairs, which grow as the square of the rows: 9,144 steps for 77 classes x 5. One step takes about
# 0.6 s for short texts on two cores, so this many stay below 15 minutes.
SETFIT_MAX_STEPS = 1200
# scikit-learn's C=1 is a strong penalty on vectors of length 1: no row of the pool ever reached the threshold of
# self-training. On the development rows C=10 against C=1: 58.5 against 57.5, self-training 60.1 against 57.5.
LOGISTIC_REGRESSION: dict[str, Any] = {"C": 10.0, "max_iter": 1000}
# The library's default. Its other criterion, `k_best`, was no better on the development rows for k = 10, 100 and 500.
SELF_TRAINING: dict[str, Any] = {"criterion": "threshold", "threshold": 0.75}
# Of 7, 10, 20 and 50 neighbours the best on the development rows (48.5); the default, the RBF kernel, had 42.9.
LABEL_SPREADING: dict[str, Any] = {"kernel": "knn", "n_neighbors": 50, "alpha": 0.2}


@dataclass(frozen=True)
class Task:
    """What a peer gets: L labeled, U unlabeled and N test texts, and the backbone."""

    backbone: str
    texts: list[str]  # L
    labels: np.ndarray  # [L] class numbers
    unlabeled: list[str]  # U
    test: list[str]  # N
    num_classes: int  # K
    seed: int
    folder: Path  # for what a library wants to write


@dataclass(frozen=True)
class Answer:
    """Probabilities `[N, K]` of the test texts, and what a reader of the table must know."""

    probs: np.ndarray
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A method: what it does, what is imported before the clock starts, and its settings as they are kept."""

    run: Callable[[Task], Answer]
    modules: tuple[str, ...]
    settings: dict[str, Any]


# --- stock Trainer, labels only --------------------------------------------------------------------------------------


def trainer_full(task: Task) -> Answer:
    """All weights, by stock `Trainer` on stock `AutoModelForSequenceClassification`."""
    return _trained(task, _stock_classifier(task), TRAINER_FULL)


def trainer_lora(task: Task) -> Answer:
    """A LoRA adapter and the head, by stock `Trainer`."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(_stock_classifier(task), LoraConfig(task_type="SEQ_CLS", **LORA))
    return _trained(task, model, TRAINER_LORA)


def _stock_classifier(task: Task) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(task.seed)  # the fresh head is drawn from the global generator
    return AutoModelForSequenceClassification.from_pretrained(
        task.backbone, num_labels=task.num_classes, dtype=torch.float32
    )


def _trained(task: Task, model: Any, settings: dict[str, Any]) -> Answer:
    import torch
    from datasets import Dataset
    from scipy.special import softmax
    from transformers import Trainer, TrainingArguments

    from hfssl.models.backbones import load_tokenizer

    tokenizer = load_tokenizer(task.backbone, max_length=MAX_LENGTH)

    def tokens(texts: list[str]) -> Dataset:
        return Dataset.from_dict(dict(tokenizer(texts, truncation=True)))

    args = TrainingArguments(
        **settings,
        output_dir=str(task.folder),
        seed=task.seed,
        save_strategy="no",
        report_to="none",
        per_device_eval_batch_size=64,
        dataloader_pin_memory=torch.cuda.is_available(),  # else torch warns at each loader
    )
    train = tokens(task.texts).add_column("labels", task.labels.tolist())
    trainer = Trainer(model, args, train_dataset=train, processing_class=tokenizer)
    trainer.train()
    return Answer(softmax(trainer.predict(tokens(task.test)).predictions, axis=-1))


# --- SetFit, labels only ---------------------------------------------------------------------------------------------


def setfit(task: Task) -> Answer:
    """SetFit (Tunstall et al. 2022): contrastive tuning on pairs of labeled rows, then logistic regression."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    steps = setfit_steps(task.labels, SETFIT["batch_size"])
    capped = steps > SETFIT_MAX_STEPS
    model = SetFitModel.from_pretrained(task.backbone)
    body = model.model_body
    body.max_seq_length = min(MAX_LENGTH, body.max_seq_length or MAX_LENGTH)
    args = TrainingArguments(
        **SETFIT,
        output_dir=str(task.folder),
        seed=task.seed,
        max_steps=SETFIT_MAX_STEPS if capped else -1,
        save_strategy="no",
        report_to="none",
    )
    rows = Dataset.from_dict({"text": task.texts, "label": task.labels.tolist()})
    trainer = Trainer(model=model, args=args, train_dataset=rows)
    trainer.train()
    probs = model.predict_proba(task.test, as_numpy=True)
    taken = trainer.st_trainer.state.global_step
    notes = {"steps": taken, "capped": f"{taken} of {steps} steps"} if capped else {"steps": taken}
    return Answer(_all_classes(probs, model.model_head.classes_, task.num_classes), notes)


def setfit_steps(labels: Sequence[int] | np.ndarray, batch_size: int = 16) -> int:
    """Steps of one epoch of SetFit: all pairs (a row with itself, too), the rarer kind repeated to balance the two.

    Args:
        labels: `[L]` class numbers.
        batch_size: pairs a step. Default `16`.
    """
    counts = np.bincount(labels)
    alike = int(np.sum(counts * (counts + 1) // 2))
    different = len(labels) * (len(labels) + 1) // 2 - alike
    return -(-2 * max(alike, different) // batch_size)


# --- scikit-learn on frozen embeddings -------------------------------------------------------------------------------


def logistic_regression(task: Task) -> Answer:
    """Labels only."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(**LOGISTIC_REGRESSION, random_state=task.seed)
    return _asked(model.fit(embed(task.backbone, task.texts), task.labels), task)


def self_training(task: Task) -> Answer:
    """Self-training of logistic regression: sure predictions on the pool become labels, until none is added."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import SelfTrainingClassifier

    inner = LogisticRegression(**LOGISTIC_REGRESSION, random_state=task.seed)
    model = SelfTrainingClassifier(inner, **SELF_TRAINING).fit(*_with_pool(task))
    return _asked(model, task, pseudo_labels=int(np.sum(model.labeled_iter_ > 0)))


def label_spreading(task: Task) -> Answer:
    """Label spreading (Zhou et al. 2004) over the graph of nearest neighbours."""
    from sklearn.semi_supervised import LabelSpreading

    return _asked(LabelSpreading(**LABEL_SPREADING).fit(*_with_pool(task)), task)


def _with_pool(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[L + U, D]` and labels `[L + U]`, -1 for the pool."""
    labels = np.concatenate([task.labels, np.full(len(task.unlabeled), -1)])
    return embed(task.backbone, task.texts + task.unlabeled), labels


def _asked(model: Any, task: Task, **notes: Any) -> Answer:
    with np.errstate(invalid="ignore"):  # label spreading divides by 0 where no label reached any neighbour
        probs = model.predict_proba(embed(task.backbone, task.test))
    return Answer(_all_classes(probs, model.classes_, task.num_classes), notes)


def _all_classes(probs: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """The columns at their class numbers; rows that say nothing (NaN) become uniform."""
    whole = np.zeros((len(probs), num_classes))
    whole[:, np.asarray(classes, dtype=np.int64)] = probs
    whole[~np.isfinite(whole).all(axis=1)] = 1 / num_classes
    return whole


def embed(backbone: str, texts: list[str], *, batch_size: int = 64) -> np.ndarray:
    """`[N, D]` sentence vectors of the frozen backbone as its authors make them: mean over the tokens, length 1."""
    import torch
    from transformers import AutoModel

    from hfssl.models.backbones import load_tokenizer

    tokenizer = load_tokenizer(backbone, max_length=MAX_LENGTH)
    model = AutoModel.from_pretrained(backbone, dtype=torch.float32).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    ids = tokenizer(texts, truncation=True)["input_ids"]
    order = np.argsort([-len(row) for row in ids], kind="stable")  # rows of like length together: little padding
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt").to(model.device)
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
    return vectors


# --- all peers -------------------------------------------------------------------------------------------------------

EMBEDDING = ("transformers.models.auto.modeling_auto", "transformers.modeling_utils", "hfssl.models.backbones")
TRAINER = ("datasets", "transformers.models.auto.modeling_auto", "transformers.trainer", "hfssl.models.backbones")
PEERS = {
    "trainer_full": Peer(trainer_full, TRAINER, TRAINER_FULL),
    "trainer_lora": Peer(trainer_lora, (*TRAINER, "peft"), TRAINER_LORA | LORA),
    "setfit": Peer(setfit, ("datasets", "setfit"), SETFIT | {"most_steps": SETFIT_MAX_STEPS}),
    "logistic_regression": Peer(logistic_regression, (*EMBEDDING, "sklearn.linear_model"), LOGISTIC_REGRESSION),
    "self_training": Peer(
        self_training,
        (*EMBEDDING, "sklearn.linear_model", "sklearn.semi_supervised"),
        LOGISTIC_REGRESSION | SELF_TRAINING,
    ),
    "label_spreading": Peer(label_spreading, (*EMBEDDING, "sklearn.semi_supervised"), LABEL_SPREADING),
}
LABELS_ONLY = ("trainer_full", "trainer_lora")  # what hfssl must beat by means of the pool
