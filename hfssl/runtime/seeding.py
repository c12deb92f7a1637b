"""Derives independent random generators, one for each use, from the seed and a name."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

__all__ = ["derive_seed", "numpy_generator", "torch_generator"]


def derive_seed(seed: int, *names: int | str) -> int:
    """Maps `(seed, *names)` to a 63-bit integer.

    The result is a hash and not `seed + epoch`, so that neighbouring seeds and streams share no numbers: with sums,
    epoch 1 of seed 0 would equal epoch 0 of seed 1.
    """
    key = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1


def torch_generator(seed: int, *names: int | str) -> torch.Generator:
    """Returns a CPU `torch.Generator` for the stream `names` of a run with this seed."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: int | str) -> np.random.Generator:
    """Returns a `numpy.random.Generator` for the stream `names` of a run with this seed."""
    return np.random.default_rng(derive_seed(seed, *names))
