"""Losses of the consistency methods over two steps, against numbers worked out by hand; who gets a gradient."""

from __future__ import annotations

import math
from math import exp, log

import pytest
import torch

from hfssl.errors import DataError
from hfssl.functional.consistency import flexmatch_thresholds
from hfssl.functional.regularization import draw_mixup
from hfssl.runtime.seeding import derive_seed
from tests.helpers.by_hand import HandBench, tokens_batch, trainable_table

# Token -> prediction. 0 and 1 are the labeled rows, of classes 0 and 1.
TABLE = [
    [0.80, 0.20],  # 0 labeled
    [0.40, 0.60],  # 1 labeled
    [0.96, 0.04],  # 2 weak
    [0.30, 0.70],  # 3 weak
    [0.50, 0.50],  # 4 strong
    [0.90, 0.10],  # 5 strong
    [0.60, 0.40],  # 6 weak, second step
    [0.45, 0.55],  # 7 weak, second step
    [0.76, 0.24],  # 8
    [0.74, 0.26],  # 9
]
LABELED = -(log(0.8) + log(0.6)) / 2
BOTH = (-log(0.5) - log(0.1)) / 2  # the strong views 4 and 5 learn classes 0 and 1


@pytest.fixture
def bench():
    """Makes a method on the table above."""

    def make(method, **settings):
        return HandBench(method, trainable_table(TABLE), **({"ramp_up": 0.0, "lambda_u": 1.0} | settings))

    return make


def close(value, **options):
    return pytest.approx(value, **({"rel": 1e-6, "abs": 1e-9} | options))


def test_fixmatch_divides_by_the_whole_batch(bench):
    run = bench("fixmatch")
    parts = run.step([2, 3], [4, 5])
    assert parts["loss/labeled"] == close(LABELED)
    assert parts["loss/unlabeled"] == close(-log(0.5) / 2)  # 0.96 counts, 0.70 does not
    assert parts["pool_utilisation"] == close(0.5)
    assert run.step([6, 3], [4, 5], step=1)["loss/unlabeled"] == 0  # nothing is confident: 0, and no NaN


def test_the_threshold_itself_counts(bench):
    assert bench("fixmatch", confidence_threshold=0.7).step([3, 3], [4, 4])["pool_utilisation"] == 1


def test_pseudo_label_learns_from_its_own_view(bench):
    run = bench("pseudo_label", ramp_up=0.4)
    assert "loss/unlabeled" not in run.step([2, 3], [4, 5], step=0)  # the ramp begins at 0
    parts = run.step([2, 3], [4, 5], step=2)  # 2 of 10 steps: half of the ramp
    assert parts["loss/unlabeled"] == close(0.5 * -log(0.96) / 2)


def test_flexmatch_counts_stored_labels(bench):
    run = bench("flexmatch", pool_rows=2)
    # No row has a label: beta = 0, all thresholds are 0. Then row 0 is stored as class 0, and row 1 stays without.
    assert run.step([2, 3], [4, 5])["loss/unlabeled"] == close(BOTH)
    # sigma = [1, 0], one row unused: beta = [1, 0], thresholds [0.95, 0]. Row 0, now at 0.90, does not count.
    parts = run.step([5, 3], [4, 5], step=1)
    assert parts["loss/unlabeled"] == close(-log(0.1) / 2)
    assert run.objective.threshold.bank.values.tolist() == [[0], [-1]]


def test_flexmatch_maps_convexly():
    # sigma = [2, 1], one row unused: beta = [1, 1/2], beta / (2 - beta) = [1, 1/3]; all unused: thresholds of 0.
    found = flexmatch_thresholds(torch.tensor([2.0, 1.0]), torch.tensor(1.0), 0.95)
    assert found.tolist() == close([0.95, 0.95 / 3])
    assert flexmatch_thresholds(torch.zeros(2), torch.tensor(4.0), 0.95).tolist() == [0, 0]
    # More rows unused than rows of any class: beta = [2, 1] / 5.
    found = flexmatch_thresholds(torch.tensor([2.0, 1.0]), torch.tensor(5.0), 0.95)
    assert found.tolist() == close([0.95 * 0.4 / 1.6, 0.95 * 0.2 / 1.8])


def test_freematch_moves_its_thresholds(bench):
    run = bench("freematch", ema_momentum=0.5, fairness_weight=0.0)
    # Means of the batch: confidence 0.83, prediction [.63, .37]. Averages from 1/2: tau = .665, p = [.565, .435].
    # Thresholds .665 and .665 * .435 / .565 = .512: both rows count.
    assert run.step([2, 3], [4, 5])["loss/unlabeled"] == close(BOTH)
    # Batch: .575, [.525, .475]; tau = .62, p = [.545, .455]. Thresholds .62 and .5176: 0.60 fails, 0.55 passes.
    parts = run.step([6, 7], [4, 5], step=1)
    assert parts["loss/unlabeled"] == close(-log(0.1) / 2)
    averages = run.objective.threshold.averages
    assert averages["confidence"].value.tolist() == close([0.62])
    assert averages["probs"].value.tolist() == close([0.545, 0.455])
    assert averages["histogram"].value.tolist() == close([0.5, 0.5])


def test_freematch_adds_fairness(bench):
    run = bench("freematch", ema_momentum=0.5, fairness_weight=0.1)
    # a = norm([.565, .435] / [.5, .5]); strong mean [.7, .3]; both strong rows predict class 0 (a tie is class 0), so
    # that b = [1, 0] and log b of class 0 is 0.
    assert run.step([2, 3], [4, 5])["fairness"] == close(0.0)
    # Strong rows 5 and 3: mean [.6, .4], histogram [.5, .5]: b = [.6, .4]. Averages as in the test above.
    parts = run.step([6, 7], [5, 3], step=1)
    assert parts["fairness"] == close(0.0)  # only row 7 counts, whose strong view predicts class 1: b = [0, 1]
    run = bench("freematch", ema_momentum=0.5, fairness_weight=0.1)
    parts = run.step([2, 3], [5, 3])
    fairness = -(0.565 * log(0.6) + 0.435 * log(0.4))
    assert parts["fairness"] == close(fairness)
    assert parts["loss/unlabeled"] == close((-log(0.9) - log(0.7)) / 2 + 0.1 * fairness)


def test_softmatch_weighs_by_a_gaussian(bench):
    run = bench("softmatch", ema_momentum=0.5, uniform_alignment=False)
    # Confidence .96 and .70: mean .83, unbiased variance .0338; mu = .665, variance (1 + .0338) / 2: both above mu.
    assert run.step([2, 3], [4, 5])["loss/unlabeled"] == close(BOTH)
    # .60 and .55: mean .575, variance .00125; mu = .62, variance (.5169 + .00125) / 2 = .259075, divided by n^2 = 4.
    parts = run.step([6, 7], [4, 5], step=1)
    width = 2 * 0.259075 / 4
    first, second = exp(-(0.02**2) / width), exp(-(0.07**2) / width)
    assert parts["loss/unlabeled"] == close((first * -log(0.5) + second * -log(0.1)) / 2)


def test_softmatch_aligns_the_weight_and_not_the_label(bench):
    run = bench("softmatch", ema_momentum=0.5)
    # First mean prediction [.63, .37]; row 2 becomes norm([.96/.63, .04/.37]), row 3 norm([.3/.63, .7/.37]).
    first = 0.96 / 0.63 / (0.96 / 0.63 + 0.04 / 0.37)
    second = 0.7 / 0.37 / (0.3 / 0.63 + 0.7 / 0.37)
    mean = (first + second) / 2
    mu, variance = (0.5 + mean) / 2, (1 + (first - second) ** 2 / 2) / 2
    assert min(first, second) > mu
    assert run.step([2, 3], [4, 5])["loss/unlabeled"] == close(BOTH)
    # Second mean [.525, .475], average [.5775, .4225]; row 6: norm([.6/.5775, .4/.4225]), row 7 likewise.
    p = [0.5775, 0.4225]
    first = 0.6 / p[0] / (0.6 / p[0] + 0.4 / p[1])
    second = 0.55 / p[1] / (0.45 / p[0] + 0.55 / p[1])
    mean = (first + second) / 2
    mu, variance = (mu + mean) / 2, (variance + (first - second) ** 2 / 2) / 2
    weights = [exp(-((c - mu) ** 2) / (2 * variance / 4)) for c in (first, second)]
    parts = run.step([6, 7], [4, 5], step=1)
    assert parts["loss/unlabeled"] == close((weights[0] * -log(0.5) + weights[1] * -log(0.1)) / 2)


def test_adamatch_aligns_to_the_labeled_rows(bench):
    run = bench("adamatch", ema_momentum=0.5, relative_threshold=0.76)
    # Labeled: mean prediction [.6, .4], mean confidence .7, threshold .532. Row 2 -> .955, row 3 -> .726 (class 1).
    assert run.step([2, 3], [4, 5])["loss/unlabeled"] == close(BOTH)
    # Average of the pool [.5775, .4225]. Row 6: norm([.36/.5775, .16/.4225]) = .622. Row 7: norm([.27/.5775,
    # .22/.4225]) = .527 of class 1, below the threshold; without alignment it would be .55, above it.
    parts = run.step([6, 7], [4, 5], step=1)
    assert parts["loss/unlabeled"] == close(-log(0.5) / 2)
    row6 = 0.36 / 0.5775 / (0.36 / 0.5775 + 0.16 / 0.4225)
    row7 = 0.22 / 0.4225 / (0.27 / 0.5775 + 0.22 / 0.4225)
    assert parts["pseudo_label_confidence"] == close((row6 + row7) / 2)


def test_adamatch_ramps_as_a_cosine(bench):
    run = bench("adamatch", ramp_up=0.5)
    assert run.objective.weight(0) == 0
    assert run.objective.weight(2) == close(0.5 - math.cos(2 * math.pi * 0.2) / 2)
    assert run.objective.weight(5) == 1


def test_dash_lowers_the_largest_loss(bench):
    run = bench("dash", label_warmup=0.0, dash_updates=2, total_steps=2)
    # rho = LABELED = .36698; -log .7 = .3567 passes. Then .36698 * 1.0001 / 1.27 = .28899: .76 passes, .74 does not.
    assert run.step([2, 3], [4, 5])["loss/unlabeled"] == close(BOTH)
    assert run.step([8, 9], [4, 5], step=1)["loss/unlabeled"] == close(-log(0.5) / 2)
    assert run.objective.threshold.averages["labeled_loss"].value.item() == close(LABELED)


def test_dash_has_a_smallest_threshold(bench):
    run = bench("dash", label_warmup=0.0, dash_gamma=1e6, dash_updates=2, total_steps=2)
    run.step([2, 3], [4, 5])
    # The limit is 0.05 = -log 0.951: 0.96 passes.
    assert run.step([2, 5], [4, 5], step=1)["loss/unlabeled"] == close(-log(0.5) / 2)


def test_pi_model(bench):
    run = bench("pi_model", ramp_up=0.4, lambda_u=10.0)
    # ([.46^2 + .46^2] / 2 + [.6^2 + .6^2] / 2) / 2 = (.2116 + .36) / 2, weight 10 * step / 4.
    assert run.step([2, 3], [4, 5], step=1)["loss/unlabeled"] == close(10 * 0.25 * 0.2858)
    assert run.step([2, 2], [4, 4], step=4)["loss/unlabeled"] == close(10 * 0.2116)


def test_temporal_ensembling_corrects_for_the_start(bench):
    run = bench("temporal_ensembling")
    assert run.step([2, 3], [2, 3])["loss/unlabeled"] == 0  # no row has a target
    # Z = .4 p, divided by 1 - .6: the first prediction. Row 0: [.96, .04] and [.5, .5], row 1: [.3, .7] and [.9, .1].
    assert run.step([2, 3], [4, 5], step=1)["loss/unlabeled"] == close((0.2116 + 0.36) / 2)
    # Z = .6 * .4 * first + .4 * second, divided by 1 - .36. Row 0: (.24 * .96 + .2) / .64 = .6725; row 1: (.24 * .3 +
    # .36) / .64 = .675. Now both rows predict [.5, .5].
    parts = run.step([4, 4], [4, 4], step=2)
    assert parts["loss/unlabeled"] == close((0.1725**2 + 0.175**2) / 2)


def test_a_row_that_a_step_holds_twice_counts_once(bench):
    run = bench("temporal_ensembling")
    run.step([2, 3], [2, 3], rows=[0, 0])
    assert run.objective.bank.visits.tolist() == [1, 0]
    assert run.objective.bank.values[0].tolist() == close([0.4 * 0.63, 0.4 * 0.37])


def test_mean_teacher_lags_behind(bench):
    run = bench("mean_teacher")
    # At the start teacher and student are equal: weak views 2 and 3 by the teacher, strong views by the student.
    assert run.step([2, 3], [4, 5])["loss/unlabeled"] == close(0.2858)
    before = run.model.logits.weight.detach().clone()
    with torch.no_grad():
        run.model.logits.weight[2] = torch.log(torch.tensor([0.5, 0.5]))
    # The first update has decay 1 - 1/2 and came before the change; the second 1 - 1/3: teacher = 2/3 old + 1/3 new.
    run.objective.after_step(run.model, 2)
    logits = before[2] * 2 / 3 + torch.log(torch.tensor([0.5, 0.5])) / 3
    p = logits.softmax(-1)[0].item()
    parts = run.step([2, 2], [4, 4], step=2)
    assert parts["loss/unlabeled"] == close((p - 0.5) ** 2)
    assert 0.5 < p < 0.96


def test_uda_anneals_and_sharpens(bench):
    run = bench("uda", total_steps=4)
    # eta = (1/4) (1/2) + 1/2 = .625: the row at .8 is left out; the mean is over the one that stays.
    parts = run.step([2, 3], [4, 5], step=1)
    assert parts["loss/labeled"] == close(-log(0.6))
    q = 0.96**2.5 / (0.96**2.5 + 0.04**2.5)
    divergence = q * log(q / 0.5) + (1 - q) * log((1 - q) / 0.5)
    assert parts["loss/unlabeled"] == close(divergence / 2)
    # eta = 1 at the end of the run.
    assert run.step([2, 3], [4, 5], step=4)["loss/labeled"] == close(LABELED)


def test_uda_without_annealing_is_supervised_on_the_labels(bench):
    assert bench("uda", tsa="none").step([2, 3], [4, 5])["loss/labeled"] == close(LABELED)


def test_mixmatch_mixes_predictions_and_targets(bench):
    run = bench("mixmatch", lambda_u=2.0)
    for step in (0, 1):
        parts = run.step([2, 3], [4, 5], step=step)
        share, partners = draw_mixup(6, 0.75, derive_seed(42, "mixmatch", 0), step)  # 42: the stock seed
        assert 0.5 <= share <= 1
        guesses = []
        for weak, strong in ((2, 4), (3, 5)):
            mean = [(TABLE[weak][k] + TABLE[strong][k]) / 2 for k in (0, 1)]
            guesses.append([mean[k] ** 2 / (mean[0] ** 2 + mean[1] ** 2) for k in (0, 1)])
        targets = [[1, 0], [0, 1], *guesses, *guesses]
        losses = []
        for row, token in enumerate([0, 1, 2, 3, 4, 5]):
            other = int(partners[row])
            z = [share * log(TABLE[token][k]) + (1 - share) * log(TABLE[other][k]) for k in (0, 1)]
            total = exp(z[0]) + exp(z[1])
            p = [exp(z[0]) / total, exp(z[1]) / total]
            y = [share * targets[row][k] + (1 - share) * targets[other][k] for k in (0, 1)]
            crossed = -sum(y[k] * log(p[k]) for k in (0, 1))
            losses.append(crossed if row < 2 else sum((p[k] - y[k]) ** 2 for k in (0, 1)) / 2)
        assert parts["loss/labeled"] == close(sum(losses[:2]) / 2)
        assert parts["loss/unlabeled"] == close(2.0 * sum(losses[2:]) / 4)


# --- gradients -------------------------------------------------------------------------------------------------------

TAUGHT = {"pseudo_label": [2, 3], "mixmatch": [2, 3, 4, 5]}  # tokens of the pool that learn; the others: 4 and 5
ON_A_TABLE = ("fixmatch", "pseudo_label", "flexmatch", "freematch", "softmatch", "adamatch", "dash", "pi_model")
ON_A_TABLE += ("temporal_ensembling", "mean_teacher", "uda", "mixmatch")
SETTINGS = {
    "fixmatch": {"confidence_threshold": 0.6},
    "pseudo_label": {"confidence_threshold": 0.6},
    "freematch": {"fairness_weight": 0.5},
    "dash": {"label_warmup": 0.0, "total_steps": 100},
    "uda": {"confidence_threshold": 0.6, "tsa": "none"},
}


@pytest.mark.parametrize("method", ON_A_TABLE)
def test_gradients_reach_the_student_and_no_target(bench, method):
    """By finite differences for what learns; exactly 0 for what is a target only."""
    run = bench(method, **SETTINGS.get(method, {}))
    if method == "temporal_ensembling":
        run.step([2, 3], [2, 3])  # the rows get targets
    strong = [4, 5] if method != "freematch" else [5, 3]
    learn = sorted({0, 1, *TAUGHT.get(method, strong)})
    weight = run.model.logits.weight

    def total():
        parts = run.loss([2, 3] if method != "freematch" else [2, 1], strong, step=1)
        return sum(value for name, value in parts.items() if name.startswith("loss/"))

    loss = total()
    gradient = torch.autograd.grad(loss, weight)[0]
    untouched = [t for t in range(len(TABLE)) if t not in learn and not (method == "freematch" and t in (1, 3))]
    assert torch.equal(gradient[untouched], torch.zeros_like(gradient[untouched]))
    taught = [t for t in learn if t not in (0, 1)]
    assert (gradient[taught].abs().sum(-1) > 0).all()
    if method in ("mixmatch", "adamatch"):
        return  # moving a row that learns moves a target as well; adamatch: moving a labeled row moves the threshold
    for token in learn:
        with torch.no_grad():
            weight[token, 0] += 1e-6
            above = total()
            weight[token, 0] -= 2e-6
            below = total()
            weight[token, 0] += 1e-6
        assert gradient[token, 0].item() == close(((above - below) / 2e-6).item(), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("method", ON_A_TABLE)
def test_weights_change_and_the_state_survives(bench, method):
    """A step of plain descent changes the rows that learn; a fresh objective with the saved state goes on the same."""
    settings = SETTINGS.get(method, {})
    run = bench(method, **settings)
    if method == "temporal_ensembling":
        run.step([2, 3], [2, 3])
    before = run.model.logits.weight.detach().clone()
    parts = run.loss([2, 3], [4, 5], step=1)
    sum(value for name, value in parts.items() if name.startswith("loss/")).backward()
    with torch.no_grad():
        run.model.logits.weight -= 0.1 * run.model.logits.weight.grad
    run.objective.after_step(run.model, 2)
    assert not torch.equal(run.model.logits.weight, before)
    fresh = bench(method, **settings)
    fresh.model = run.model
    fresh.objective.load_state_dict(run.objective.state_dict())
    first, second = run.step([6, 7], [4, 5], step=2), fresh.step([6, 7], [4, 5], step=2)
    assert first == second


def test_logit_adjustment_moves_the_losses_and_not_the_targets(bench):
    run = bench("fixmatch", logit_adjustment=1.0)
    run.objective.log_prior = torch.tensor([0.9, 0.1]).log()
    parts = run.step([2, 3], [4, 5])
    # softmax(z + log prior): .8 -> .72 / .74, .6 -> .06 / .42; the strong view .5 -> .9. The target stays at .96.
    assert parts["loss/labeled"] == close(-(log(0.72 / 0.74) + log(0.06 / 0.42)) / 2, rel=1e-5)
    assert parts["loss/unlabeled"] == close(-log(0.9) / 2, rel=1e-5)
    assert parts["pseudo_label_confidence"] == close(0.83)


def test_class_balance_lowers_the_threshold_of_a_rare_class(bench):
    run = bench("fixmatch", class_balance=1.0)
    # Mean prediction [.63, .37]: the threshold of class 1 is .95 * .37 / .63 = .558, and .70 counts.
    assert run.step([2, 3], [4, 5])["pool_utilisation"] == 1


def test_a_curriculum_takes_easy_rows_first(bench):
    run = bench("fixmatch", confidence_threshold=0.6, curriculum=1.0)
    # After 3 of 10 steps: 1 - .3 / 2 = .85; after 7: .65.
    assert run.step([2, 3], [4, 5], step=3)["pool_utilisation"] == close(0.5)
    assert run.step([2, 3], [4, 5], step=7)["pool_utilisation"] == 1


def test_labels_warm_up_before_the_pool(bench):
    run = bench("fixmatch", label_warmup=0.2, ramp_up=0.4)
    assert "loss/unlabeled" not in run.step([2, 3], [4, 5], step=1)
    assert run.objective.weight(4) == close(0.5)


def test_views_of_different_size_are_one_sentence(bench):
    run = bench("fixmatch")
    labeled = tokens_batch([0, 1]) | {"labels": torch.tensor([0, 1])}
    views = {"weak": tokens_batch([2, 3], [0, 1]), "strong": tokens_batch([4], [0])}
    with pytest.raises(DataError, match="as many rows from every view of a batch, got weak: 2, strong: 1"):
        run.objective.loss(run.model, labeled, views, 0)
