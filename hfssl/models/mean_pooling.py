"""Defines a sequence classifier that averages over the tokens, for encoders whose first token is not trained.

It is an explicit option and not a stock architecture. The saved folder has its own `model_type`, so that plain
transformers raises an error instead of loading it with another pooling and silently different logits. Importing
`hfssl.models.loading` registers it for `AutoModelForSequenceClassification` and `pipeline`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput

__all__ = ["MeanPooledConfig", "MeanPooledForSequenceClassification", "mean_over_tokens"]


class MeanPooledConfig(PreTrainedConfig):
    """Configures `MeanPooledForSequenceClassification`.

    Args:
        text_config (`dict | PreTrainedConfig`, *optional*): Configuration of the encoder.
        classifier_dropout (`float`, defaults to `0.1`): Dropout probability between the mean and the last layer.
    """

    model_type = "hfssl-mean-pooled"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    text_config: dict | PreTrainedConfig | None = None
    classifier_dropout: float = 0.1


def mean_over_tokens(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns the mean over all tokens except padding.

    Args:
        hidden (`Tensor`): `[N, L, D]` hidden states.
        attention_mask (`Tensor`): `[N, L]`, 1 for tokens and 0 for padding. A row without tokens gives zeros.

    Returns:
        `[N, D]`.
    """
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class MeanPooledForSequenceClassification(PreTrainedModel):
    """Classifies by an encoder, the mean over its tokens, dropout, and one linear layer."""

    config_class = MeanPooledConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: MeanPooledConfig):
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.text_config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.text_config.hidden_size, config.num_labels)
        self.freeze_unused()
        self.post_init()

    def freeze_unused(self) -> None:
        """Freezes the pooler that some encoders have, since this model does not use it."""
        for name, child in self.encoder.named_children():
            if name == "pooler":
                child.requires_grad_(False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Computes logits, and the loss for `labels` `[N]`; ids and mask are `[N, L]`, embeddings `[N, L, D]`."""
        if token_type_ids is not None:  # some encoders, such as DistilBERT, do not accept them
            kwargs["token_type_ids"] = token_type_ids
        num_items = kwargs.pop("num_items_in_batch", None)
        encoded = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        hidden = encoded.last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], device=hidden.device)
        logits = self.classifier(self.dropout(mean_over_tokens(hidden, attention_mask)))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, pooled_logits=logits, config=self.config, num_items_in_batch=num_items
            )
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


AutoConfig.register(MeanPooledConfig.model_type, MeanPooledConfig)
AutoModelForSequenceClassification.register(MeanPooledConfig, MeanPooledForSequenceClassification)
