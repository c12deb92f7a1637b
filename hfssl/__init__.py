"""Trains a small, trustworthy Hugging Face model from few labels and many unlabeled texts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hfssl.runtime.threads import set_wait_policy

__version__ = "0.1.0.dev0"

set_wait_policy()  # OpenMP reads it when torch is loaded, so not later

# Public name -> its module. Names are imported on first use (PEP 562), so that `import hfssl` and `hfssl --help` do
# not wait for torch.
_PUBLIC = {
    "AdaMatchConfig": "hfssl.methods.consistency.adamatch",
    "AdaMatchTrainer": "hfssl.methods.consistency.adamatch",
    "ContrastiveConfig": "hfssl.methods.contrastive",
    "ContrastiveTrainer": "hfssl.methods.contrastive",
    "DashConfig": "hfssl.methods.consistency.dash",
    "DashTrainer": "hfssl.methods.consistency.dash",
    "FitResult": "hfssl.pipeline.fit",
    "FixMatchConfig": "hfssl.methods.consistency.fixmatch",
    "FixMatchTrainer": "hfssl.methods.consistency.fixmatch",
    "FlexMatchConfig": "hfssl.methods.consistency.flexmatch",
    "FlexMatchTrainer": "hfssl.methods.consistency.flexmatch",
    "FreeMatchConfig": "hfssl.methods.consistency.freematch",
    "FreeMatchTrainer": "hfssl.methods.consistency.freematch",
    "MaskedSpanConfig": "hfssl.methods.pretext.masked_span",
    "MaskedSpanTrainer": "hfssl.methods.pretext.masked_span",
    "MeanTeacherConfig": "hfssl.methods.consistency.mean_teacher",
    "MeanTeacherTrainer": "hfssl.methods.consistency.mean_teacher",
    "MethodTrainer": "hfssl.training.trainer",
    "MixMatchConfig": "hfssl.methods.consistency.mixmatch",
    "MixMatchTrainer": "hfssl.methods.consistency.mixmatch",
    "MixTextConfig": "hfssl.methods.consistency.mixtext",
    "MixTextTrainer": "hfssl.methods.consistency.mixtext",
    "MultiHeadConfig": "hfssl.methods.consistency.multi_head",
    "MultiHeadTrainer": "hfssl.methods.consistency.multi_head",
    "Objective": "hfssl.training.objective",
    "PiModelConfig": "hfssl.methods.consistency.pi_model",
    "PiModelTrainer": "hfssl.methods.consistency.pi_model",
    "PseudoLabelConfig": "hfssl.methods.consistency.pseudo_label",
    "PseudoLabelTrainer": "hfssl.methods.consistency.pseudo_label",
    "SSLClassifier": "hfssl.deploy.sklearn",
    "SSLConfig": "hfssl.training.config",
    "SSLTrainer": "hfssl.training.trainer",
    "SelfTraining": "hfssl.methods.self_training.rounds",
    "SelfTrainingConfig": "hfssl.methods.self_training.config",
    "SelfTrainingTrainer": "hfssl.methods.self_training.student",
    "SoftMatchConfig": "hfssl.methods.consistency.softmatch",
    "SoftMatchTrainer": "hfssl.methods.consistency.softmatch",
    "SupervisedConfig": "hfssl.methods.supervised",
    "SupervisedTrainer": "hfssl.methods.supervised",
    "TemporalEnsemblingConfig": "hfssl.methods.consistency.temporal_ensembling",
    "TemporalEnsemblingTrainer": "hfssl.methods.consistency.temporal_ensembling",
    "TextClassifier": "hfssl.inference.text_classifier",
    "UDAConfig": "hfssl.methods.consistency.uda",
    "UDATrainer": "hfssl.methods.consistency.uda",
    "VATConfig": "hfssl.methods.consistency.vat",
    "VATTrainer": "hfssl.methods.consistency.vat",
    "audit": "hfssl.data.audit",
    "build_lora_config": "hfssl.models.adapters",
    "export_onnx": "hfssl.deploy.onnx_export",
    "few_label_splits": "hfssl.data.splits",
    "fit": "hfssl.pipeline.fit",
    "from_pretrained": "hfssl.models.auto",
    "joint_logits": "hfssl.training.forward",
    "leave_group": "hfssl.runtime.distributed",
    "load_classifier": "hfssl.models.loading",
    "load_masked_lm": "hfssl.models.loading",
    "load_table": "hfssl.data.loading",
    "load_tokenizer": "hfssl.models.backbones",
    "merge": "hfssl.models.adapters",
    "push": "hfssl.deploy.push",
    "tokenize_dataset": "hfssl.data.tokenization",
}

# Literal list for type checkers; a test compares it with `_PUBLIC`.
__all__ = [
    "AdaMatchConfig",
    "AdaMatchTrainer",
    "ContrastiveConfig",
    "ContrastiveTrainer",
    "DashConfig",
    "DashTrainer",
    "FitResult",
    "FixMatchConfig",
    "FixMatchTrainer",
    "FlexMatchConfig",
    "FlexMatchTrainer",
    "FreeMatchConfig",
    "FreeMatchTrainer",
    "MaskedSpanConfig",
    "MaskedSpanTrainer",
    "MeanTeacherConfig",
    "MeanTeacherTrainer",
    "MethodTrainer",
    "MixMatchConfig",
    "MixMatchTrainer",
    "MixTextConfig",
    "MixTextTrainer",
    "MultiHeadConfig",
    "MultiHeadTrainer",
    "Objective",
    "PiModelConfig",
    "PiModelTrainer",
    "PseudoLabelConfig",
    "PseudoLabelTrainer",
    "SSLClassifier",
    "SSLConfig",
    "SSLTrainer",
    "SelfTraining",
    "SelfTrainingConfig",
    "SelfTrainingTrainer",
    "SoftMatchConfig",
    "SoftMatchTrainer",
    "SupervisedConfig",
    "SupervisedTrainer",
    "TemporalEnsemblingConfig",
    "TemporalEnsemblingTrainer",
    "TextClassifier",
    "UDAConfig",
    "UDATrainer",
    "VATConfig",
    "VATTrainer",
    "__version__",
    "audit",
    "build_lora_config",
    "export_onnx",
    "few_label_splits",
    "fit",
    "from_pretrained",
    "joint_logits",
    "leave_group",
    "load_classifier",
    "load_masked_lm",
    "load_table",
    "load_tokenizer",
    "merge",
    "push",
    "tokenize_dataset",
]

if TYPE_CHECKING:  # imports for editors and type checkers
    from hfssl.data.audit import audit
    from hfssl.data.loading import load_table
    from hfssl.data.splits import few_label_splits
    from hfssl.data.tokenization import tokenize_dataset
    from hfssl.deploy.onnx_export import export_onnx
    from hfssl.deploy.push import push
    from hfssl.deploy.sklearn import SSLClassifier
    from hfssl.inference.text_classifier import TextClassifier
    from hfssl.methods.consistency.adamatch import AdaMatchConfig, AdaMatchTrainer
    from hfssl.methods.consistency.dash import DashConfig, DashTrainer
    from hfssl.methods.consistency.fixmatch import FixMatchConfig, FixMatchTrainer
    from hfssl.methods.consistency.flexmatch import FlexMatchConfig, FlexMatchTrainer
    from hfssl.methods.consistency.freematch import FreeMatchConfig, FreeMatchTrainer
    from hfssl.methods.consistency.mean_teacher import MeanTeacherConfig, MeanTeacherTrainer
    from hfssl.methods.consistency.mixmatch import MixMatchConfig, MixMatchTrainer
    from hfssl.methods.consistency.mixtext import MixTextConfig, MixTextTrainer
    from hfssl.methods.consistency.multi_head import MultiHeadConfig, MultiHeadTrainer
    from hfssl.methods.consistency.pi_model import PiModelConfig, PiModelTrainer
    from hfssl.methods.consistency.pseudo_label import PseudoLabelConfig, PseudoLabelTrainer
    from hfssl.methods.consistency.softmatch import SoftMatchConfig, SoftMatchTrainer
    from hfssl.methods.consistency.temporal_ensembling import TemporalEnsemblingConfig, TemporalEnsemblingTrainer
    from hfssl.methods.consistency.uda import UDAConfig, UDATrainer
    from hfssl.methods.consistency.vat import VATConfig, VATTrainer
    from hfssl.methods.contrastive import ContrastiveConfig, ContrastiveTrainer
    from hfssl.methods.pretext.masked_span import MaskedSpanConfig, MaskedSpanTrainer
    from hfssl.methods.self_training.config import SelfTrainingConfig
    from hfssl.methods.self_training.rounds import SelfTraining
    from hfssl.methods.self_training.student import SelfTrainingTrainer
    from hfssl.methods.supervised import SupervisedConfig, SupervisedTrainer
    from hfssl.models.adapters import build_lora_config, merge
    from hfssl.models.auto import from_pretrained
    from hfssl.models.backbones import load_tokenizer
    from hfssl.models.loading import load_classifier, load_masked_lm
    from hfssl.pipeline.fit import FitResult, fit
    from hfssl.runtime.distributed import leave_group
    from hfssl.training.config import SSLConfig
    from hfssl.training.forward import joint_logits
    from hfssl.training.objective import Objective
    from hfssl.training.trainer import MethodTrainer, SSLTrainer


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hfssl' has no attribute '{name}'")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
