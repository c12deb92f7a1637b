"""Random streams: seeds as they are for ever, and no two streams alike."""

from __future__ import annotations

import torch

from hfssl.runtime.seeding import derive_seed, numpy_generator, torch_generator


def test_a_seed_is_the_same_for_ever():
    # printf '7\x1fmixup\x1f3' | b2sum -l 64 gives 12ce79f4be9928a9; little-endian, halved.
    assert derive_seed(7, "mixup", 3) == 6094580718451353353


def test_names_and_numbers_are_not_added_up_or_joined():
    seeds = [derive_seed(0, 1), derive_seed(1, 0), derive_seed(0, 1, 0), derive_seed(0), derive_seed(0, "ab", "c")]
    seeds += [derive_seed(0, "a", "bc"), derive_seed(0, "abc"), derive_seed(1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_are_those_of_the_derived_seed_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    first, again = (torch.rand(3, generator=torch_generator(5, "rows")) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(3, generator=torch_generator(5, "weights")))
    assert numpy_generator(5, "rows").random() == numpy_generator(5, "rows").random()
    assert numpy_generator(5, "rows").random() != numpy_generator(6, "rows").random()
    assert torch.equal(torch.get_rng_state(), before)
