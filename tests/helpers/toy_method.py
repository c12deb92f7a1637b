"""A method as a contributor would write it, for the tests that prove that a file, a row and a recipe are enough."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.nn import functional as F

from hfssl.config.methods import Method
from hfssl.methods.supervised import SupervisedConfig, SupervisedObjective, SupervisedTrainer
from hfssl.training.forward import joint_logits

PAPER = "Semi-supervised Learning by Entropy Minimization (Grandvalet & Bengio 2004), equation 6"


@dataclass
class EntropyConfig(SupervisedConfig):
    """Arguments of `EntropyTrainer`."""

    lambda_u: float = field(default=0.1, metadata={"help": "Weight of the entropy of the unlabeled rows."})


class EntropyObjective(SupervisedObjective):
    """Cross-entropy on the labeled rows plus `lambda_u` times the mean entropy of the predictions on the pool."""

    paper = PAPER

    def setup(self, model, args):
        super().setup(model, args)
        self.lambda_u = args.lambda_u

    def loss(self, model, labeled, unlabeled, step):
        if self.lambda_u == 0:
            return super().loss(model, labeled, None, step)
        logits, pool_logits = joint_logits(model, labeled, unlabeled["plain"])
        entropy = -(pool_logits.softmax(-1) * pool_logits.log_softmax(-1)).sum(-1).mean()
        return {"loss/labeled": F.cross_entropy(logits, labeled["labels"]), "loss/entropy": self.lambda_u * entropy}


class EntropyTrainer(SupervisedTrainer):
    """Entropy minimization."""

    objective_class, config_class = EntropyObjective, EntropyConfig


ROW = Method(
    summary="fine-tuning with confident predictions on the pool",
    config="tests.helpers.toy_method:EntropyConfig",
    trainer="tests.helpers.toy_method:EntropyTrainer",
    paper=PAPER,
    streams=("labeled", "unlabeled"),
)
