"""Fine-tuning on the labels: each option against overfitting in a real training run, and settings that it rejects."""

from __future__ import annotations

import pytest

from hfssl.errors import ConfigurationError
from tests.helpers.train_tiny import make_trainer, weights_digest

OPTIONS = {
    "r_drop": {"r_drop_alpha": 1.0},
    "mixup": {"mixup_alpha": 0.4},
    "l2_sp": {"l2_sp_alpha": 10.0},
    "average": {"weight_average_decay": 0.9},
    "wise_ft": {"wise_ft_alpha": 0.5},
    "layerwise": {"layerwise_lr_decay": 0.5},
    "class_means": {"head_init": "class_means"},
    "logistic": {"head_init": "logistic"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_changes_training_and_survives_being_stopped(tiny_backbone, tmp_path, name):
    def run(folder, **settings):
        trainer = make_trainer(tiny_backbone, tmp_path / folder, **settings)
        trainer.train(resume_from_checkpoint=True)
        return trainer

    plain = run("plain", save_strategy="no")
    whole = run("whole", save_strategy="no", **OPTIONS[name])
    assert weights_digest(whole.model) != weights_digest(plain.model)
    run("parts", max_steps=8, save_steps=3, **OPTIONS[name])
    (tmp_path / "parts" / "checkpoint-8" / "hfssl_complete").unlink()  # as if killed after step 6
    assert weights_digest(run("parts", **OPTIONS[name]).model) == weights_digest(whole.model)
    finished = run("parts", **OPTIONS[name])  # is loaded, and not trained further
    assert weights_digest(finished.model) == weights_digest(whole.model)


def test_l2_sp_keeps_the_body_near_its_start(tiny_backbone, tmp_path):
    def way(**settings):
        trainer = make_trainer(tiny_backbone, tmp_path, save_strategy="no", **settings)
        before = [p.detach().clone() for p in trainer.model.base_model.parameters()]
        trainer.train()
        after = trainer.model.base_model.parameters()
        return sum((a - b).square().sum().item() for a, b in zip(after, before, strict=True))

    assert way(l2_sp_alpha=100.0) < 0.9 * way()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"r_drop_alpha": -1.0}, "r_drop_alpha must not be negative"),
        ({"r_drop_alpha": 1.0, "mixup_alpha": 1.0}, "exclude each other"),
        ({"weight_average_decay": 1.0}, "weight_average_decay must be"),
        ({"wise_ft_alpha": 0.0}, "wise_ft_alpha must be"),
        ({"layerwise_lr_decay": 0.0}, "layerwise_lr_decay must be"),
        ({"method": "self_training", "mixup_alpha": 1.0}, "are for teachers"),
        ({"method": "masked_span", "weight_average_decay": 0.9, "load_best_model_at_end": True}, "exclude each other"),
    ],
)
def test_settings_that_cannot_work_are_refused(tiny_backbone, tmp_path, settings, sentence):
    if "load_best_model_at_end" in settings:
        settings = settings | {"eval_strategy": "steps", "eval_steps": 3}
    with pytest.raises(ConfigurationError, match=sentence):
        make_trainer(tiny_backbone, tmp_path, **settings)
