"""Forward passes of the objectives: rows cut into groups by length give the logits of one padded batch."""

from __future__ import annotations

import pytest
import torch

from hfssl.models.loading import load_classifier
from hfssl.training.forward import joint_logits, length_groups


def test_one_long_row_gets_a_pass_of_its_own():
    lengths = torch.tensor([10, 128, 10, 10])
    groups = length_groups(lengths, overhead=64)
    assert [(group.tolist(), width) for group, width in groups] == [([0, 2, 3], 10), ([1], 128)]


def test_rows_stay_together_where_cutting_does_not_pay():
    # Together: 64 + 4 * 30 = 184 tokens; cut into 3 x 10 and 1 x 30: 2 * 64 + 30 + 30 = 188.
    lengths = torch.tensor([30, 10, 10, 10])
    assert [(group.tolist(), width) for group, width in length_groups(lengths, overhead=64)] == [([0, 1, 2, 3], 30)]
    assert len(length_groups(lengths, overhead=59)) == 2


@pytest.mark.parametrize("most", [1, 2, 3])
def test_groups_hold_every_row_once_and_are_the_cheapest(most):
    lengths = torch.randint(3, 129, (9,), generator=torch.Generator().manual_seed(4))
    groups = length_groups(lengths, most=most, overhead=20)
    assert sorted(torch.cat([group for group, _ in groups]).tolist()) == list(range(9))
    assert all(width == int(lengths[group].max()) for group, width in groups)
    ascending = lengths.sort().values.tolist()

    def cheapest(end: int, passes: int) -> float:
        """By trying every cut."""
        if end == 0:
            return 0
        if passes == 0:
            return float("inf")
        return min(cheapest(i, passes - 1) + 20 + (end - i) * ascending[end - 1] for i in range(end))

    assert sum(20 + len(group) * width for group, width in groups) == cheapest(9, most)


def test_grouped_logits_are_those_of_single_rows(tiny_backbone):
    model = load_classifier(tiny_backbone, ["a", "b", "c"], seed=1)
    generator = torch.Generator().manual_seed(2)
    batches, singles, passes = [], [], []
    for lengths in ([3, 30, 4, 5, 3, 4, 3, 5], [3, 4, 28, 5]):
        ids = torch.randint(5, 12, (len(lengths), max(lengths)), generator=generator)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        batches.append({"input_ids": ids, "attention_mask": mask})
        with torch.no_grad():
            singles.append(torch.cat([model(row[None, :n]).logits for row, n in zip(ids, lengths, strict=True)]))
    model.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        logits = joint_logits(model, *batches)
    assert [part.shape for part in logits] == [(8, 3), (4, 3)]
    assert len(passes) == 2
    for part, expected in zip(logits, singles, strict=True):
        torch.testing.assert_close(part, expected, atol=1e-5, rtol=1e-5)


def test_rows_without_segment_numbers_meet_rows_that_have_them(tiny_backbone):
    """A labeled part that was tokenized elsewhere, with a pool of ours: 0 is what a model without them takes."""
    model = load_classifier(tiny_backbone, ["a", "b", "c"], seed=1)
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
    plain = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    told = plain | {"token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        expected, _ = joint_logits(model, plain, plain)
        for one, other in ((plain, told), (told, plain)):
            assert all(torch.equal(logits, expected) for logits in joint_logits(model, one, other))
    assert "token_type_ids" not in plain
