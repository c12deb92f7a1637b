"""Changes a model's word embeddings within a forward pass: noise, hidden dimensions, or a given perturbation.

The columns `noise_seed` (int64), `gaussian_noise` and `feature_cutoff` (float), `[B]` each, of a batch say what
happens to each row (`hfssl.data.views.compose`). Numbers come from a hash of (seed of the row, place of the token in
its row, dimension), so that they depend neither on the batch nor on padding, and are computed on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hfssl.errors import ModelError
from hfssl.models.introspection import evaluating, transformers_model

__all__ = [
    "NOISE_COLUMNS",
    "adversarial_perturbation",
    "changed_embeddings",
    "noisy_logits",
    "noisy_logits_and_states",
    "perturbed_logits",
]

NOISE_COLUMNS = {"noise_seed": torch.int64, "gaussian_noise": torch.float32, "feature_cutoff": torch.float32}


@contextmanager
def changed_embeddings(model: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replaces the output `[B, L, D]` of the model's word embeddings by `change(output)` within the block.

    Args:
        model (`nn.Module`): Transformers model, plain or wrapped.
        change (`Callable[[Tensor], Tensor]`): Function of the embeddings, which keeps their shape.
    """
    layer = transformers_model(model).get_input_embeddings()
    if not isinstance(layer, nn.Module):
        raise ModelError(
            f"Expected a layer of word embeddings in {type(transformers_model(model)).__name__}, found none: use a "
            "view without noise on embeddings."
        )
    handle = layer.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def noisy_logits(model: nn.Module, rows: Mapping[str, Tensor]) -> Tensor:
    """Returns the logits of rows, with the noise that their columns name; see the module.

    Args:
        model (`nn.Module`): A classifier.
        rows (`Mapping[str, Tensor]`): Model inputs `[B, L]`, and possibly columns of `NOISE_COLUMNS`, `[B]`.
    """
    return _noisy_output(model, rows).logits


def noisy_logits_and_states(model: nn.Module, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the logits, and the last hidden states `[B, L, D]`; see `noisy_logits`."""
    output = _noisy_output(model, rows, output_hidden_states=True)
    return output.logits, output.hidden_states[-1]


def _noisy_output(model: nn.Module, rows: Mapping[str, Tensor], **options: Any) -> Any:
    noise = {name: rows[name] for name in NOISE_COLUMNS if name in rows}
    inputs = {name: value for name, value in rows.items() if name not in noise}
    if not noise:
        return model(**inputs, **options)
    with changed_embeddings(model, lambda output: _noisy(output, inputs["attention_mask"], noise)):
        return model(**inputs, **options)


def _noisy(embeddings: Tensor, mask: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    """Returns embeddings `[B, L, D]` with the noise of each row."""
    seeds = noise["noise_seed"][:, None, None]
    if "feature_cutoff" in noise:
        # The same dimensions of all tokens of a row (Shen et al. 2020, section 3.2); place -1 is no token.
        keep = _uniform(seeds, torch.full_like(seeds, -1), embeddings.shape[-1])
        embeddings = embeddings * (keep >= noise["feature_cutoff"][:, None, None]).to(embeddings.dtype)
    if "gaussian_noise" in noise:
        places = mask.cumsum(-1)[:, :, None]
        size = embeddings.detach().square().mean(-1, keepdim=True).sqrt()
        scale = noise["gaussian_noise"][:, None, None].to(embeddings.dtype) * size
        embeddings = embeddings + scale * _normal(seeds, places, embeddings.shape[-1]).to(embeddings.dtype)
    return embeddings


def _normal(seeds: Tensor, places: Tensor, size: int) -> Tensor:
    """Returns standard normal numbers `[B, L, size]` (Box & Muller 1958)."""
    radius = torch.sqrt(-2 * torch.log1p(-_uniform(seeds, 2 * places, size)))
    return radius * torch.cos(2 * math.pi * _uniform(seeds, 2 * places + 1, size))


def _uniform(seeds: Tensor, places: Tensor, size: int) -> Tensor:
    """Returns numbers in [0, 1), `[B, L, size]` float32, by the finaliser of splitmix64 (Steele et al. 2014)."""
    dimensions = torch.arange(size, device=seeds.device)
    x = seeds + places * -7046029254386353131 + dimensions * -4658895280553007687
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    x = x ^ _shift(x, 31)
    return _shift(x, 40).to(torch.float32) / 2**24


def _shift(x: Tensor, bits: int) -> Tensor:
    """Returns x >> bits without the sign that torch fills in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def perturbed_logits(model: nn.Module, inputs: Mapping[str, Tensor], perturbation: Tensor) -> Tensor:
    """Returns the logits of rows whose word embeddings are moved by `perturbation`, `[B, L, D]`, in one pass."""
    with changed_embeddings(model, lambda output: output + perturbation.to(output.dtype)):
        return model(**inputs).logits


def adversarial_perturbation(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    seeds: Tensor,
    *,
    size: float,
    divergence: Callable[[Tensor, Tensor], Tensor],
    first_size: float = 0.01,
) -> Tensor:
    """Returns the change of the word embeddings that changes the predictions most, `[B, L, D]` (Miyato et al. 2018).

    One power iteration (algorithm 1): a random direction d, the gradient g of divergence(z, z(d * first_size)) with
    respect to the change, and size * g / ||g||. The norm is that of a whole row, and sizes are in units of the RMS
    norm of the row's embeddings. Both predictions are without dropout: its noise would hide the effect of the change.

    Args:
        model (`nn.Module`): A classifier; it may be wrapped for several devices.
        inputs (`Mapping[str, Tensor]`): Model inputs, `[B, L]` each.
        seeds (`Tensor`): `[B]` int64, a random seed for each row.
        size (`float`): Length of the change (epsilon).
        divergence (`Callable[[Tensor, Tensor], Tensor]`): (logits without change, logits with it) -> scalar.
        first_size (`float`, defaults to 0.01): Length of the random step (xi).
    """
    plain = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    seen: list[Tensor] = []

    def record(output: Tensor) -> Tensor:
        seen.append(output.detach())
        return output

    mask = inputs["attention_mask"]
    with evaluating(plain):
        with torch.no_grad(), changed_embeddings(plain, record):
            clean = plain(**inputs).logits
        present = mask[:, :, None].to(seen[0].dtype)
        scale = ((seen[0] * present).square().sum((1, 2)) / present.sum((1, 2)).clamp(min=1)).sqrt()[:, None, None]
        start = _normal(seeds[:, None, None], mask.cumsum(-1)[:, :, None], seen[0].shape[-1]).to(seen[0].dtype)
        change = (first_size * scale * _unit(start * present)).requires_grad_()
        with torch.enable_grad():
            effect = divergence(clean, perturbed_logits(plain, inputs, change))
            gradient = torch.autograd.grad(effect, change)[0]
    return size * scale * _unit(gradient * present)


def _unit(change: Tensor) -> Tensor:
    """Returns each row `[L, D]` at length 1; a row of zeros stays."""
    return change / change.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1e-30)
