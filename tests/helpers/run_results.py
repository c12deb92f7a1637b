"""Results and evidence of a made-up run, for tests of the report; not a test itself."""

from __future__ import annotations

import numpy as np


def make_results(names, rows: int = 60, seed: int = 0):
    """Results and evidence of a made-up run with `len(names)` classes and `rows` test rows."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), rows)
    probs = {}
    for stage, strength in (("labels_only", 2.0), ("self_training", 4.0)):
        logits = rng.normal(size=(rows, len(names)))
        logits[np.arange(rows), labels] += strength
        probs[stage] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    metrics = {"accuracy": 0.8125, "macro_f1": 0.75, "nll": 0.5, "ece": 0.0625}
    results = {
        "schema_version": 2,
        "seed": 7,
        "command": "hfssl fit --train a.csv",
        "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "2 cores", "accelerator": None},
        "data": {
            "counts": {
                "labeled": dict.fromkeys(names, 16),
                "unlabeled": {"(unlabeled)": 1234},
                "validation": {},
                "test": {name: int((labels == i).sum()) for i, name in enumerate(names)},
            },
            "label_names": list(names),
            "warnings": ["3 rows were cut."],
        },
        "stages": [
            {"name": "labels_only", "metrics": {"validation": None, "test": metrics}, "seconds": 3.21, "config": {}},
            {
                "name": "self_training",
                "metrics": {"validation": None, "test": metrics | {"accuracy": 0.875}},
                "seconds": 125.0,
                "config": {"learning_rate": 5e-5, "lora": {"r": 16}},
            },
        ],
        "verdict": {
            "use_unlabeled": True,
            "gain": 0.0625,
            "interval": [-0.01, 0.135],
            "reasons": ["It helped on the proxy."],
            "sentence": "The unlabeled rows helped by 6.3 points.",
        },
        "selected_stage": "self_training",
        "final_stage": "self_training",
        "temperature": 1.25,
    }
    evidence = {
        "curves": {
            "labels_only": [{"step": s, "loss": 2.0 / (s + 1)} for s in range(5)],
            "self_training": [{"step": s, "loss": 3.0 / (s + 1)} for s in range(60)]
            + [{"step": 60, "eval_loss": 1.0}],
        },
        "predictions": {"test": {"labels": labels.tolist(), "probs": {s: p.tolist() for s, p in probs.items()}}},
        "rounds": [
            {
                "round": 1, "selected": 100, "per_class": {}, "mean_weight": 0.5, "mean_bald": 0.1,
                "pool_agreement": None, "pseudo_label_accuracy": 0.75, "validation": None, "seconds": 4.0,
            },
            {
                "round": 2, "selected": 200, "per_class": {}, "mean_weight": 0.6, "mean_bald": 0.05,
                "pool_agreement": 0.9, "pseudo_label_accuracy": 0.875, "validation": None, "seconds": 4.0,
            },
        ],
        "examples": [
            {"text": "surely wrong", "label": 0, "predicted": 1, "probability": 0.99},
            {"text": "right", "label": 1, "predicted": 1, "probability": 0.995},
            {"text": "less surely wrong", "label": names[1], "predicted": names[0], "probability": 0.6},
        ],
        "warnings": ["3 rows were cut.", "The pool is small."],
    }  # fmt: skip
    return results, evidence
