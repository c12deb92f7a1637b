"""The two-stream sampler: every order is a pure function of seed and position, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from hfssl.data.sampler import LABELED, UNLABELED, ClassRowStream, RowStream, TwoStreamBatchSampler


def epochs(sampler: TwoStreamBatchSampler, count: int) -> list[list]:
    batches = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        batches += list(sampler)
    return batches


def make(labeled=6, unlabeled=20, seed=0, labeled_per_batch=2, ratio=2, batches_per_step=1, lengths=None):
    return TwoStreamBatchSampler(
        RowStream(labeled, seed, LABELED) if labeled else None,
        RowStream(unlabeled, seed, UNLABELED, lengths) if unlabeled else None,
        labeled_per_batch=labeled_per_batch,
        unlabeled_per_batch=labeled_per_batch * ratio,
        batches_per_step=batches_per_step,
    )


def test_each_draw_is_a_permutation_of_all_rows():
    batches = islice(RowStream(7, seed=3, name="x").batches(0, size=5), 7)
    keys = [key for batch in batches for key in batch]
    for draw in range(5):
        assert sorted(key.row for key in keys if key.draw == draw) == list(range(7))


def test_bucketed_windows_hold_the_same_rows_as_plain_ones_and_pad_less():
    lengths = [(7 * i) % 41 + 1 for i in range(400)]
    plain, bucketed = RowStream(400, 0, "u"), RowStream(400, 0, "u", lengths)
    window = RowStream.BATCHES_PER_WINDOW
    first = [list(islice(stream.batches(0, 8), window)) for stream in (plain, bucketed)]
    assert Counter(key for batch in first[0] for key in batch) == Counter(key for batch in first[1] for key in batch)

    def padded(batches):
        return sum(max(lengths[key.row] for key in batch) * len(batch) for batch in batches)

    assert padded(first[1]) < 0.65 * padded(first[0])


def test_batches_can_start_anywhere_in_a_bucketed_stream():
    lengths = [(13 * i) % 29 + 1 for i in range(30)]
    stream = RowStream(30, 5, "u", lengths)
    all_batches = list(islice(stream.batches(0, 4), 120))
    assert list(islice(RowStream(30, 5, "u", lengths).batches(73, 4), 47)) == all_batches[73:]


def test_an_epoch_is_one_pass_over_the_pool_and_labeled_rows_are_drawn_again():
    batches = epochs(make(labeled=6, unlabeled=20, labeled_per_batch=2, ratio=2), 1)
    assert len(batches) == 5
    assert sorted(key.row for batch in batches for key in batch if key.stream == UNLABELED) == list(range(20))
    assert Counter(key.row for batch in batches for key in batch if key.stream == LABELED).most_common()[-1][1] >= 1


@pytest.mark.parametrize("lengths", [None, [(5 * i) % 17 + 1 for i in range(64)]])
def test_rows_of_a_step_do_not_depend_on_how_it_is_cut_into_batches(lengths):
    whole = epochs(make(labeled=6, unlabeled=64, labeled_per_batch=4, batches_per_step=1, lengths=lengths), 3)
    parts = epochs(make(labeled=6, unlabeled=64, labeled_per_batch=1, batches_per_step=4, lengths=lengths), 3)
    joined = [sum(parts[i : i + 4], []) for i in range(0, len(parts), 4)]
    assert [sorted(batch) for batch in joined] == [sorted(batch) for batch in whole]


def test_a_pool_smaller_than_the_batch_is_repeated_not_refused():
    batches = epochs(make(labeled=3, unlabeled=2, labeled_per_batch=4, ratio=2), 1)
    assert len(batches) == 1
    assert Counter(key.row for key in batches[0] if key.stream == UNLABELED) == {0: 4, 1: 4}


def test_the_labeled_stream_is_the_same_with_and_without_a_pool():
    alone = epochs(make(unlabeled=0), 10)
    with_pool = epochs(make(unlabeled=40), 3)
    labeled = [[key for key in batch if key.stream == LABELED] for batch in with_pool]
    count = min(len(alone), len(labeled))
    assert count >= 20
    assert alone[:count] == labeled[:count]


def test_seeds_give_unrelated_orders():
    first, second = (epochs(make(seed=seed), 2) for seed in (0, 1))
    assert first != second
    # With seed + epoch, epoch 1 of seed 0 would be epoch 0 of seed 1.
    assert first[5:] != second[:5]


def test_no_rows_at_all_is_refused():
    with pytest.raises(ValueError, match="needs labeled or unlabeled rows"):
        make(labeled=0, unlabeled=0)


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
