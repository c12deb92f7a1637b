"""hfssl: a few labels and a lot of unlabeled data in, a small, trustworthy Hugging Face model out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# Public name -> the module that it lives in. They are imported when first asked for (PEP 562), so that `import hfssl`
# and `hfssl --help` do not wait for torch.
_PUBLIC = {
    "ContrastiveConfig": "hfssl.configs",
    "ContrastiveTrainer": "hfssl.trainers",
    "FitResult": "hfssl.pipeline",
    "MaskedSpanConfig": "hfssl.configs",
    "MaskedSpanTrainer": "hfssl.trainers",
    "SSLConfig": "hfssl.configs",
    "SSLTrainer": "hfssl.trainer",
    "SelfTraining": "hfssl.rounds",
    "SelfTrainingConfig": "hfssl.self_training_config",
    "SelfTrainingTrainer": "hfssl.trainers",
    "SupervisedConfig": "hfssl.configs",
    "SupervisedTrainer": "hfssl.trainers",
    "audit": "hfssl.data.audit",
    "build_lora_config": "hfssl.adapters",
    "few_label_splits": "hfssl.data.splits",
    "export_onnx": "hfssl.export",
    "fit": "hfssl.pipeline",
    "from_pretrained": "hfssl.modeling",
    "load_classifier": "hfssl.modeling",
    "load_table": "hfssl.data.loading",
    "load_tokenizer": "hfssl.backbones",
    "merge": "hfssl.adapters",
    "push": "hfssl.hub",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:  # what editors and type checkers read instead
    from hfssl.adapters import build_lora_config, merge
    from hfssl.backbones import load_tokenizer
    from hfssl.configs import ContrastiveConfig, MaskedSpanConfig, SSLConfig, SupervisedConfig
    from hfssl.data.audit import audit
    from hfssl.data.loading import load_table
    from hfssl.data.splits import few_label_splits
    from hfssl.export import export_onnx
    from hfssl.hub import push
    from hfssl.modeling import from_pretrained, load_classifier
    from hfssl.pipeline import FitResult, fit
    from hfssl.rounds import SelfTraining
    from hfssl.self_training_config import SelfTrainingConfig
    from hfssl.trainer import SSLTrainer
    from hfssl.trainers import ContrastiveTrainer, MaskedSpanTrainer, SelfTrainingTrainer, SupervisedTrainer


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hfssl' has no attribute '{name}'")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
