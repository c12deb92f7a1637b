"""Methods that reach into the model: VAT's perturbation, TMix's hidden states, several heads, averaged weights."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from hfssl.errors import ConfigurationError
from hfssl.functional.regularization import draw_mixup
from hfssl.methods.consistency.pseudo_margins import class_quantiles
from hfssl.models.adapters import add_adapter, build_lora_config
from hfssl.models.extra_modules import ExtraModules
from hfssl.models.hidden_mixup import mixed_hidden_states, mixup_layers
from hfssl.models.loading import load_classifier
from hfssl.runtime.seeding import derive_seed
from hfssl.training.ema_teacher import EmaTeacher
from hfssl.training.perturbations import adversarial_perturbation
from tests.helpers.by_hand import HandBench, trainable_table


class StackConfig(PreTrainedConfig):
    model_type = "hfssl-test-stack"


class Stack(PreTrainedModel):
    """Word embeddings, `depth` layers that do nothing, and logits that are the mean over the tokens."""

    config_class = StackConfig

    def __init__(self, vectors, depth=3):
        vectors = torch.tensor(vectors, dtype=torch.float64)
        config = StackConfig(num_labels=vectors.shape[1], hidden_size=vectors.shape[1])
        config.num_hidden_layers = depth
        super().__init__(config)
        self.words = nn.Embedding.from_pretrained(vectors, freeze=False)
        self.layers = nn.ModuleList(nn.Identity() for _ in range(depth))

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, **_):
        hidden = self.words(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        mask = attention_mask[:, :, None].to(hidden.dtype)
        return SequenceClassifierOutput(logits=(hidden * mask).sum(1) / mask.sum(1))


def close(value, **options):
    return pytest.approx(value, **({"rel": 1e-6, "abs": 1e-9} | options))


def softmax(*z):
    total = sum(exp(value) for value in z)
    return [exp(value) / total for value in z]


def divergence(p, q):
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def test_vat_moves_the_embedding_along_the_gradient():
    # One token at [3, 4]: the logits are its embedding, and only their difference matters, so that the worst direction
    # is [1, -1] / sqrt 2 or its opposite. Size 0.1 of the norm 5: each logit moves by 0.5 / sqrt 2 = 0.353553.
    model = Stack([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    run = HandBench("vat", model, pool_rows=1)
    move = 0.5 / 2**0.5
    clean = softmax(3.0, 4.0)
    either = [divergence(clean, softmax(3 + sign * move, 4 - sign * move)) for sign in (1, -1)]
    for step in (0, 1):
        found = run.step([2], [2], rows=[0], step=step)["loss/unlabeled"]
        assert min(abs(found - one) for one in either) < 1e-6
    assert abs(either[0] - either[1]) > 1e-3


def test_the_perturbation_is_of_one_length_and_leaves_padding_alone():
    model = Stack([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    inputs = {"input_ids": torch.tensor([[2, 1], [2, 0]]), "attention_mask": torch.tensor([[1, 1], [1, 0]])}
    options = {"size": 0.2, "divergence": lambda a, b: -(a.softmax(-1) * b.log_softmax(-1)).sum(-1).mean()}
    change = adversarial_perturbation(model, inputs, torch.tensor([5, 6]), **options)
    # Root mean square norms: sqrt((25 + 4) / 2) and 5.
    assert change.square().sum((1, 2)).sqrt().tolist() == close([0.2 * (29 / 2) ** 0.5, 1.0])
    assert torch.equal(change[1, 1], torch.zeros(2, dtype=change.dtype))
    assert not change.requires_grad
    alone = adversarial_perturbation(model, {k: v[1:, :1] for k, v in inputs.items()}, torch.tensor([6]), **options)
    torch.testing.assert_close(alone[0, 0], change[1, 0])


def test_vat_teaches_the_student_and_not_the_target():
    model = Stack([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0], [2.0, 1.0]])
    run = HandBench("vat", model, pool_rows=1)
    parts = run.loss([3], [2], rows=[0])
    parts["loss/unlabeled"].backward()
    assert (model.words.weight.grad[2] != 0).all()
    assert torch.equal(model.words.weight.grad[3], torch.zeros(2, dtype=torch.float64))


def test_vat_needs_an_adversarial_view():
    with pytest.raises(ConfigurationError, match="strong_view must end in 'adversarial:SIZE' for VAT, got 'typos'"):
        HandBench("vat", Stack([[1.0, 0.0]]), strong_view="typos")


def test_tmix_by_hand():
    vectors = [[2.0, 0.0], [0.0, 1.0], [1.0, 0.5], [0.2, 0.8], [0.0, 0.0], [1.5, 0.0]]
    run = HandBench("mixtext", Stack(vectors), pool_rows=2)
    for step in (0, 1):
        parts = run.step([2, 3], [4, 5], step=step)
        share, partners = draw_mixup(6, 16.0, derive_seed(42, "mixtext", 0), step)
        guesses = []
        for weak, strong in ((2, 4), (3, 5)):
            mean = [(a + b) / 2 for a, b in zip(softmax(*vectors[weak]), softmax(*vectors[strong]), strict=True)]
            guesses.append([value**2 / (mean[0] ** 2 + mean[1] ** 2) for value in mean])
        targets = [[1, 0], [0, 1], *guesses, *guesses]
        losses = []
        for row in range(6):
            other = int(partners[row])
            p = softmax(*(share * a + (1 - share) * b for a, b in zip(vectors[row], vectors[other], strict=True)))
            y = [share * a + (1 - share) * b for a, b in zip(targets[row], targets[other], strict=True)]
            losses.append(sum(a * log(a / b) for a, b in zip(y, p, strict=True) if a > 0))
        assert parts["loss/labeled"] == close(sum(losses[:2]) / 2)
        assert parts["loss/unlabeled"] == close(sum(losses[2:]) / 4)


def test_the_entropy_hinge_counts_above_its_margin():
    run = HandBench("mixtext", Stack([[0.0, 0.0]] * 4), pool_rows=2, entropy_weight=2.0, entropy_margin=0.5)
    parts = run.step([2, 3], [2, 3])
    assert parts["entropy_hinge"] == close(log(2) - 0.5)


def test_padding_is_not_mixed_in():
    model = Stack([[2.0, 0.0], [0.0, 4.0]])
    ids, mask = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[1, 1], [1, 0]])
    with mixed_hidden_states(model, 2, mask, torch.tensor([1, 0]), 0.75):
        logits = model(input_ids=ids, attention_mask=mask).logits
    # Row 0: token 1 mixed with [0, 4], token 2 kept: ([1.5, 1] + [2, 0]) / 2. Row 1: .75 [0, 4] + .25 [2, 0].
    assert logits.tolist() == [close([1.75, 0.5]), close([0.5, 3.0])]
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits[0], torch.tensor([2.0, 0.0]).double())


def test_layers_of_tmix_scale_with_the_depth():
    assert mixup_layers(Stack([[0.0, 0.0]], depth=12)) == [7, 9, 12]
    assert mixup_layers(Stack([[0.0, 0.0]], depth=6)) == [4, 5, 6]


def test_heads_learn_what_the_others_agree_on():
    table = [[0.8, 0.2], [0.4, 0.6], [0.96, 0.04], [0.3, 0.7], [0.5, 0.5], [0.9, 0.1]]
    model = trainable_table(table, torch.float32)
    run = HandBench("multi_head", model, confidence_threshold=0.75, margin_percentile=0.0)
    heads = run.objective.extra_modules(model)["heads"]
    for head, probs in zip(heads, ([0.7, 0.3], [0.9, 0.1]), strict=True):  # the same for every row
        head.weight.data.zero_()
        head.bias.data = torch.tensor(probs).log()
    ExtraModules({"heads": heads}).attach(model)
    parts = run.step([2, 3], [4, 5])
    # Labeled: head 1 as in the table; heads 2 and 3 predict .7 and .9 of class 0 for both rows.
    labeled = [-(log(0.8) + log(0.6)) / 2, -(log(0.7) + log(0.3)) / 2, -(log(0.9) + log(0.1)) / 2]
    assert parts["loss/labeled"] == close(sum(labeled) / 3)
    # Mean prediction: row 2 (.96 + .7 + .9) / 3, row 3 (.3 + .7 + .9) / 3 of class 0: .7433; class 0 is the largest,
    # and its threshold .75. Head 1: the others agree on class 0 with .8: it counts; head 1 agrees for row 2 (weight
    # .1) and not for row 3 (weight .9). Heads 2 and 3 see for row 2 .93 and .83 (weight .1 each); for row 3 the others
    # disagree.
    first = (0.1 * -log(0.5) + 0.9 * -log(0.9)) / 2
    second, third = 0.1 * -log(0.7) / 2, 0.1 * -log(0.9) / 2
    assert parts["loss/unlabeled"] == close((first + second + third) / 3, rel=1e-5)
    assert parts["head_agreement"] == close((1 + 0.5 + 0.5) / 3)
    # Second step, momentum .9, row 3 twice: mean .6333; average .9 * .7433 + .1 * .6333 = .7323 stays the largest.
    parts = run.step([3, 3], [4, 5], step=1)
    assert run.objective.class_probs.value.tolist() == close([0.9 * 2.23 / 3 + 0.1 * 1.9 / 3] * 1 + [1 - 0.7323333333])
    assert parts["loss/unlabeled"] == close((0.9 * -log(0.5) + 0.9 * -log(0.9)) / 2 / 3, rel=1e-5)


def test_low_margins_are_left_out():
    # Class 0 has margins 1, 2, 3: its median is 2. Class 1 has none, and lets every row pass.
    values, classes = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 0, 0])
    assert class_quantiles(values, classes, 2, 0.5).tolist() == [2.0, -torch.inf]
    table = [[0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.6, 0.4]]
    run = HandBench("multi_head", trainable_table(table, torch.float32), margin_momentum=0.5, margin_percentile=1.0)
    margins = run.objective.margins
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    assert margins.select(torch.tensor([0, 1]), logits, 2).tolist() == [1, 1]  # nothing is known yet
    margins.commit()
    # Stored 2 and 1, of class 0: the largest is 2. Row 0 has (2 + 2) / 2 and passes, row 1 (1 + 4) / 2 = 2.5, too.
    assert margins.select(torch.tensor([0, 1]), torch.tensor([[2.0, 0.0], [4.0, 0.0]]), 2).tolist() == [1, 1]
    margins.commit()
    # Stored 2 and 2.5: row 0 at (2 + 2) / 2 is below 2.5.
    assert margins.select(torch.tensor([0]), torch.tensor([[2.0, 0.0]]), 2).tolist() == [0]


def test_the_teacher_holds_adapter_tensors_only(tiny_backbone):
    model = load_classifier(tiny_backbone, ["a", "b"], seed=0)
    model = add_adapter(model, build_lora_config(model, r=2, alpha=4), seed=1).eval()
    teacher = EmaTeacher(0.9)
    batch = {"input_ids": torch.arange(5, 13).view(2, 4), "attention_mask": torch.ones(2, 4, dtype=torch.long)}
    with torch.no_grad(), teacher.applied_to(model) as averaged:
        assert torch.equal(averaged(**batch).logits, model(**batch).logits)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(teacher.state_dict()["average"]) == trained
    assert any("lora_" in name for name in trained)
    before = model(**batch).logits.detach().clone()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1
    with torch.no_grad(), teacher.applied_to(model) as averaged:
        assert torch.equal(averaged(**batch).logits, before)  # the student moved, the teacher did not
    assert not torch.equal(model(**batch).logits, before)


def test_the_teacher_s_decay_grows():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    teacher = EmaTeacher(0.7)
    with teacher.applied_to(model):
        model.weight.data.fill_(1.0)
    found = []
    for step in (1, 2, 3, 4):
        teacher.update(model, step)
        found.append(teacher.average["weight"].item())
    # Decays 1/2, 2/3, .7 (of 3/4), .7: the distance to 1 is their product.
    assert found == close([1 - 1 / 2, 1 - 1 / 3, 1 - 0.7 / 3, 1 - 0.49 / 3], rel=1e-5)


def test_adversarial_noise_is_a_view_of_any_method():
    model = Stack([[1.0, 0.0], [0.0, 1.0], [5.0, 1.0], [1.0, 1.5]])
    plain = HandBench("fixmatch", model, pool_rows=1, strong_view="dropout").step([2], [3], rows=[0])
    moved = HandBench("fixmatch", model, pool_rows=1, strong_view="adversarial:0.5").step([2], [3], rows=[0])
    assert plain["loss/unlabeled"] == close(-log(softmax(1.0, 1.5)[0]))
    assert abs(moved["loss/unlabeled"] - plain["loss/unlabeled"]) > 0.1
