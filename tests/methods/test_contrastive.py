"""The contrastive stage: the loss by hand, batches by class, and the effect of training on the encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from hfssl.data.sampler import LABELED, ClassRowStream
from hfssl.errors import ConfigurationError
from hfssl.functional.losses import pair_similarity_loss, same_class, supervised_contrastive_loss
from hfssl.methods.contrastive import ContrastiveTrainer
from hfssl.models.introspection import body_and_head_parameters
from hfssl.training.forward import mean_features
from tests.helpers.train_tiny import make_trainer


def test_loss_by_hand():
    # Rows 0 and 1 are one class and point the same way, row 2 is alone and at right angles. At T = 1 rows 0 and 1 each
    # have log(e^1 / (e^1 + e^0)) for their positive; row 2 has none and does not count.
    features = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    loss = supervised_contrastive_loss(features, same_class(torch.tensor([0, 0, 1])), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)
    # Row 2 joins the class: rows 0 and 1 have positives at cosine 1 and 0, row 2 has two at cosine 0 among two.
    loss = supervised_contrastive_loss(features, same_class(torch.tensor([0, 0, 0])), temperature=0.5)
    each = -(0.5 * (2 - math.log(math.exp(2) + 1)) + 0.5 * (0 - math.log(math.exp(2) + 1)))
    assert loss.item() == pytest.approx((2 * each + math.log(2)) / 3, abs=1e-6)


def test_without_positives_the_loss_is_zero_and_so_is_its_gradient():
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = supervised_contrastive_loss(features, same_class(torch.tensor([0, 1, 2])), temperature=0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros(3, 4))


def test_pair_loss_by_hand():
    # Rows 0 and 1 are one class at a cosine of 0.6; row 2 is another, at 1 to row 0 and at 0.6 to row 1.
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.5, 0.0]])
    loss = pair_similarity_loss(features, same_class(torch.tensor([0, 0, 1])))
    assert loss.item() == pytest.approx((0.4**2 + (1**2 + 0.6**2) / 2) / 2)
    # Pairs of one kind alone are all there is; a row has no pair with itself.
    alike = pair_similarity_loss(features, same_class(torch.tensor([0, 0, 0])))
    assert alike.item() == pytest.approx((0.4**2 + 0**2 + 0.4**2) / 3)
    different = pair_similarity_loss(features, same_class(torch.tensor([0, 1, 2])))
    assert different.item() == pytest.approx((0.6**2 + 1**2 + 0.6**2) / 3)


def test_a_row_without_a_pair_has_no_pair_loss_and_no_gradient():
    features = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = pair_similarity_loss(features, same_class(torch.tensor([2])))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros(1, 4))


@pytest.mark.parametrize(("classes", "per_class", "size"), [(3, 5, 12), (77, 4, 32), (6, 1, 8), (2, 9, 7)])
def test_batches_hold_several_rows_of_each_of_their_classes(classes, per_class, size):
    labels = [i % classes for i in range(classes * per_class)]
    stream = ClassRowStream(labels, seed=3, name=LABELED)
    batches = stream.batches(0, size)
    seen = set()
    for _ in range(300):
        batch = next(batches)
        assert len(batch) == size
        counts = torch.bincount(torch.tensor([labels[key.row] for key in batch]), minlength=classes)
        assert counts[counts > 0].min() >= 2 or per_class == 1
        assert (counts > 0).sum() == min(classes, size // 2)
        seen |= {key.row for key in batch}
        if per_class >= size // min(classes, size // 2) + 1:
            assert len({key.row for key in batch}) == size  # no row twice where there are enough
    assert seen == set(range(len(labels)))


def test_a_batch_depends_on_the_seed_and_its_number_alone():
    labels = [i % 4 for i in range(20)]
    stream, other = ClassRowStream(labels, 1, LABELED), ClassRowStream(labels, 2, LABELED)
    batches = stream.batches(0, 8)
    first = [next(batches) for _ in range(6)]
    assert next(ClassRowStream(labels, 1, LABELED).batches(4, 8)) == first[4]
    assert next(other.batches(4, 8)) != first[4]
    assert len({tuple(batch) for batch in first}) == 6


@pytest.mark.parametrize("loss", ["supcon", "cosine"])
def test_training_draws_classes_together_and_leaves_the_head_alone(tiny_backbone, tmp_path, loss):
    settings = {"max_steps": 100, "learning_rate": 3e-3, "per_device_train_batch_size": 8, "save_strategy": "no"}
    settings["contrastive_loss"] = loss
    trainer = make_trainer(tiny_backbone, tmp_path, method="contrastive", logging_steps=5, **settings)
    assert isinstance(trainer, ContrastiveTrainer)
    _, head = body_and_head_parameters(trainer.model)
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if name in head}
    rows = trainer.train_dataset
    batch = trainer.processing_class.pad({"input_ids": rows["input_ids"][:]}, return_tensors="pt")
    labels = torch.tensor(rows["labels"][:])

    def margin() -> float:
        """Mean cosine of rows of one class minus that of rows of different ones."""
        trainer.model.eval()
        with torch.no_grad():
            features = F.normalize(mean_features(trainer.model, batch), dim=-1)
        cosine, same = features @ features.T, labels[:, None] == labels[None]
        return (cosine[same].mean() - cosine[~same].mean()).item()

    start = margin()
    trainer.train()
    losses = [entry["loss/contrastive"] for entry in trainer.state.log_history if "loss/contrastive" in entry]
    assert losses[-1] < losses[0] - 0.15  # at best log(positives), about 1.5
    assert margin() > start + 0.08
    after = dict(trainer.model.named_parameters())
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_temperature_that_is_not_positive_is_refused(tiny_backbone, tmp_path):
    with pytest.raises(ConfigurationError, match="contrastive_temperature must be positive, got 0"):
        make_trainer(tiny_backbone, tmp_path, method="contrastive", contrastive_temperature=0)


def test_an_unknown_loss_is_refused(tiny_backbone, tmp_path):
    with pytest.raises(ConfigurationError, match="contrastive_loss must be 'supcon' or 'cosine', got 'triplet'"):
        make_trainer(tiny_backbone, tmp_path, method="contrastive", contrastive_loss="triplet")
