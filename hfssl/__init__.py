"""Trains a small, trustworthy Hugging Face model from few labels and many unlabeled texts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# Public name -> its module. Names are imported on first use (PEP 562), so that `import hfssl` and `hfssl --help` do
# not wait for torch.
_PUBLIC = {
    "ContrastiveConfig": "hfssl.methods.contrastive",
    "ContrastiveTrainer": "hfssl.methods.contrastive",
    "FitResult": "hfssl.pipeline.fit",
    "MaskedSpanConfig": "hfssl.methods.pretext.masked_span",
    "MaskedSpanTrainer": "hfssl.methods.pretext.masked_span",
    "SSLConfig": "hfssl.training.config",
    "SSLTrainer": "hfssl.training.trainer",
    "SelfTraining": "hfssl.methods.self_training.rounds",
    "SelfTrainingConfig": "hfssl.methods.self_training.config",
    "SelfTrainingTrainer": "hfssl.methods.self_training.student",
    "SupervisedConfig": "hfssl.methods.supervised",
    "SupervisedTrainer": "hfssl.methods.supervised",
    "audit": "hfssl.data.audit",
    "build_lora_config": "hfssl.models.adapters",
    "few_label_splits": "hfssl.data.splits",
    "export_onnx": "hfssl.deploy.onnx_export",
    "fit": "hfssl.pipeline.fit",
    "from_pretrained": "hfssl.models.auto",
    "load_classifier": "hfssl.models.loading",
    "load_table": "hfssl.data.loading",
    "load_tokenizer": "hfssl.models.backbones",
    "merge": "hfssl.models.adapters",
    "push": "hfssl.deploy.push",
}

# Literal list for type checkers; a test compares it with `_PUBLIC`.
__all__ = [
    "ContrastiveConfig",
    "ContrastiveTrainer",
    "FitResult",
    "MaskedSpanConfig",
    "MaskedSpanTrainer",
    "SSLConfig",
    "SSLTrainer",
    "SelfTraining",
    "SelfTrainingConfig",
    "SelfTrainingTrainer",
    "SupervisedConfig",
    "SupervisedTrainer",
    "__version__",
    "audit",
    "build_lora_config",
    "export_onnx",
    "few_label_splits",
    "fit",
    "from_pretrained",
    "load_classifier",
    "load_table",
    "load_tokenizer",
    "merge",
    "push",
]

if TYPE_CHECKING:  # imports for editors and type checkers
    from hfssl.data.audit import audit
    from hfssl.data.loading import load_table
    from hfssl.data.splits import few_label_splits
    from hfssl.deploy.onnx_export import export_onnx
    from hfssl.deploy.push import push
    from hfssl.methods.contrastive import ContrastiveConfig, ContrastiveTrainer
    from hfssl.methods.pretext.masked_span import MaskedSpanConfig, MaskedSpanTrainer
    from hfssl.methods.self_training.config import SelfTrainingConfig
    from hfssl.methods.self_training.rounds import SelfTraining
    from hfssl.methods.self_training.student import SelfTrainingTrainer
    from hfssl.methods.supervised import SupervisedConfig, SupervisedTrainer
    from hfssl.models.adapters import build_lora_config, merge
    from hfssl.models.auto import from_pretrained
    from hfssl.models.backbones import load_tokenizer
    from hfssl.models.loading import load_classifier
    from hfssl.pipeline.fit import FitResult, fit
    from hfssl.training.config import SSLConfig
    from hfssl.training.trainer import SSLTrainer


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hfssl' has no attribute '{name}'")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
