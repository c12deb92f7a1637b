"""A toy method with a projection head that only training needs; run as a module it is `train_tiny` with that method.

Usage: python -m tests.helpers.projected BACKBONE OUTPUT_DIR '{any training argument: ...}'
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from hfssl.config.methods import METHODS
from hfssl.methods.supervised import SupervisedConfig, SupervisedObjective, SupervisedTrainer
from hfssl.models.extra_modules import extra_modules_of
from hfssl.models.mean_pooling import mean_over_tokens
from hfssl.runtime.distributed import leave_group
from hfssl.training.forward import model_inputs
from tests.helpers import train_tiny

PROJECTED = replace(METHODS["supervised"], trainer="tests.helpers.projected:ProjectedTrainer")


class ProjectedObjective(SupervisedObjective):
    """Cross-entropy, and a projection of the features that is drawn to length 1."""

    def extra_modules(self, model):
        width, classes = model.config.hidden_size, model.config.num_labels
        return {"projection": nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, classes))}

    def loss(self, model, labeled, unlabeled, step):
        output = model(**model_inputs(labeled), output_hidden_states=True)
        features = mean_over_tokens(output.hidden_states[-1], labeled["attention_mask"])
        lengths = extra_modules_of(model)["projection"](features).norm(dim=-1)
        return {
            "loss/labeled": F.cross_entropy(output.logits, labeled["labels"]),
            "loss/length": (lengths - 1).square().mean(),
        }


class ProjectedTrainer(SupervisedTrainer):
    objective_class = ProjectedObjective
    config_class = SupervisedConfig


if __name__ == "__main__":
    METHODS["projected"] = PROJECTED
    torch.set_num_threads(1)
    train_tiny.train_in_rank(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    leave_group()
