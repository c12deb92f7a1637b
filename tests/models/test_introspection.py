"""Parts of a model: the parameters of body and head."""

from __future__ import annotations

from hfssl.models.introspection import body_and_head_parameters
from hfssl.models.loading import load_classifier, load_masked_lm

NAMES = ["plot", "fresh", "rotten"]


def test_body_and_head_parameters(tiny_backbone):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    body, head = body_and_head_parameters(model)
    assert head == ["classifier.weight", "classifier.bias"]
    assert sorted(body + head) == sorted(name for name, _ in model.named_parameters())
    _, head = body_and_head_parameters(load_masked_lm(tiny_backbone, seed=0))
    assert "cls.predictions.transform.dense.weight" in head
    assert "cls.predictions.decoder.weight" not in head
