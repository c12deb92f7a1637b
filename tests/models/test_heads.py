"""The logit layer: found in every architecture, with mixed rows as its input."""

from __future__ import annotations

import torch

from hfssl.models.backbones import load_tokenizer
from hfssl.models.heads import mixed_head_input
from hfssl.models.loading import load_classifier
from tests.helpers.train_tiny import LABEL_NAMES


def test_the_head_sees_mixed_rows_within_the_block_only(tiny_backbone):
    model = load_classifier(tiny_backbone, LABEL_NAMES, seed=0)
    tokenizer = load_tokenizer(tiny_backbone)
    batch = tokenizer(["the film", "bad story"], return_tensors="pt")
    with torch.no_grad():
        plain = model(**batch).logits
        with mixed_head_input(model, torch.tensor([1, 0]), 0.75):
            mixed = model(**batch).logits
        torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * plain.flip(0))  # a linear layer mixes its output alike
        assert torch.equal(model(**batch).logits, plain)
