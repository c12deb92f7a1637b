"""The contrastive stage: moves labeled rows of one class closer to each other before a head is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from hfssl.citations import SIMCSE
from hfssl.functional.losses import pair_similarity_loss, supervised_contrastive_loss
from hfssl.tasks.registry import get_task
from hfssl.training.config import SSLConfig
from hfssl.training.forward import Batch, mean_features
from hfssl.training.objective import Objective
from hfssl.training.trainer import MethodTrainer

__all__ = ["ContrastiveConfig", "ContrastiveTrainer", "SupervisedContrastiveObjective"]


class SupervisedContrastiveObjective(Objective):
    """Moves the labeled rows of one class closer to each other in the encoder's space; the head does not change.

    Each row enters twice, under two dropout masks (Gao et al. 2021), so that a class with one row has a positive, too.
    The features are means over the tokens, for which sentence encoders were trained. The configuration's
    `contrastive_loss` compares them. Rows are compared within one batch of one device: unlike with other objectives,
    accumulating small batches is not the same as a large one.
    """

    paper: str = (
        "Supervised Contrastive Learning (Khosla et al. 2020), equation 2; two dropout views after SimCSE (Gao 2021)"
    )
    citation: str = (
        """@inproceedings{khosla2020supervised,
  title = {Supervised Contrastive Learning},
  author = {Khosla, Prannay and Teterwak, Piotr and Wang, Chen and Sarna, Aaron and Tian, Yonglong and Isola, Phillip
            and Maschinot, Aaron and Liu, Ce and Krishnan, Dilip},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}

"""
        + SIMCSE
    )
    product = "encoder"
    compares_rows = True

    def setup(self, model: nn.Module, args: ContrastiveConfig) -> None:
        self.task = get_task(args.task)
        self.task.require_row_vectors("contrastive")
        self.compare, self._settings = pair_similarity_loss, {}
        if args.contrastive_loss == "supcon":
            self._settings = {"contrastive_temperature": args.contrastive_temperature}
            self.compare = partial(supervised_contrastive_loss, temperature=args.contrastive_temperature)
        else:
            self.paper = (
                "Efficient Few-Shot Learning Without Prompts (Tunstall et al. 2022), the loss of section 3.1; two "
                "dropout views after SimCSE (Gao 2021)"
            )
            self.citation = SIMCSE  # SetFit's comes with the option

    def loss(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch] | None, step: int
    ) -> dict[str, torch.Tensor]:
        twice = {name: torch.cat([values, values]) for name, values in labeled.items()}
        return {"loss/contrastive": self.compare(mean_features(model, twice), self.task.alike(twice["labels"]))}

    def describe(self) -> dict[str, Any]:
        return super().describe() | self._settings


@dataclass
class ContrastiveConfig(SSLConfig):
    """Holds the arguments of `ContrastiveTrainer`: the contrastive stage of a classifier.

    Example:
        >>> import hfssl
        >>> hfssl.ContrastiveConfig(output_dir=str(folder), contrastive_loss="cosine").contrastive_loss
        'cosine'
    """

    max_steps: int = field(default=100, metadata={"help": "Number of optimizer steps."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    per_device_train_batch_size: int = field(
        default=32, metadata={"help": "Number of labeled rows in a batch of one device. Each row enters twice."}
    )
    contrastive_loss: str = field(
        default="supcon",
        metadata={
            "help": "Loss of the stage. 'supcon' (Khosla et al. 2020) separates a row's own class from the others in "
            "the batch; 'cosine' moves the cosines of pairs to 1 within a class and to 0 between classes (SetFit, "
            "Tunstall et al. 2022)."
        },
    )
    contrastive_temperature: float = field(
        default=0.1,
        metadata={"help": "Temperature that divides the similarities of 'supcon'; 0.1 as in Khosla et al. (2020)."},
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        if self.contrastive_loss not in ("supcon", "cosine"):
            found.append(f"contrastive_loss must be 'supcon' or 'cosine', got '{self.contrastive_loss}'.")
        if self.contrastive_temperature <= 0:
            found.append(f"contrastive_temperature must be positive, got {self.contrastive_temperature}.")
        return found


class ContrastiveTrainer(MethodTrainer):
    """Trains the body of a classifier in the contrastive stage; fine-tune its head afterwards.

    Example:
        >>> import hfssl
        >>> trainer = hfssl.ContrastiveTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.ContrastiveConfig(output_dir=str(folder), max_steps=2, disable_tqdm=True, use_cpu=True),
        ...     train_dataset=dataset,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = SupervisedContrastiveObjective
    config_class = ContrastiveConfig
