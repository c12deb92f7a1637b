"""Forward passes over batches of several streams, cut by length where that pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from torch.nn import functional as F

from hfssl.models.mean_pooling import mean_over_tokens
from hfssl.runtime.distributed import rank_and_world

__all__ = [
    "Batch",
    "by_length",
    "classification_logits",
    "joint_logits",
    "length_groups",
    "mean_features",
    "model_inputs",
    "passes_in_bf16",
]


Batch = Mapping[str, torch.Tensor]


# What one more forward and backward pass costs on a CPU in addition to its tokens, in tokens (benchmarks/NOTES.md,
# 2026-11-28, third part).
FP32_PASS, BF16_PASS = 64, 400
_pass_cost: ContextVar[int] = ContextVar("pass_cost", default=FP32_PASS)


@contextmanager
def passes_in_bf16(enabled: bool = True) -> Iterator[None]:
    """Within the block rows are cut into passes as pays for a model that computes in bf16 (or, if not, in fp32).

    In bf16 the tokens are cheap, but every pass casts all weights, and their gradients back, and oneDNN compiles
    kernels for its shapes.
    """
    before = _pass_cost.set(BF16_PASS if enabled else FP32_PASS)
    try:
        yield
    finally:
        _pass_cost.reset(before)


def model_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """Returns the columns of a batch that `forward` takes."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: batch[name] for name in names if name in batch}


def classification_logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Returns the logits `[B, K]` of one batch; see `joint_logits`."""
    return joint_logits(model, batch)[0]


def joint_logits(model: nn.Module, *batches: Batch) -> tuple[torch.Tensor, ...]:
    """Returns the logits of several batches, `[B, K]` each, from as few padded tokens as pays.

    On accelerators and under several ranks that is *one* forward pass over all rows, padded to a common length:
    padding is cheap there, lengths lie on the device, and the ranks must agree on the number of passes. In one process
    on a CPU the rows are sorted by length and cut into up to three passes (`length_groups`): one long text among short
    ones would otherwise cost as much as a batch of long ones.
    """
    inputs = [model_inputs(batch) for batch in batches]
    sizes = [len(part["input_ids"]) for part in inputs]
    length = max(part["input_ids"].shape[1] for part in inputs)
    for part in inputs:  # one side may have been tokenized elsewhere: all segment numbers are 0 where there are none
        if any("token_type_ids" in other for other in inputs):
            part.setdefault("token_type_ids", torch.zeros_like(part["input_ids"]))
    # The padded positions are masked out, so that the id used for padding does not matter: 0 exists everywhere.
    rows = {
        name: torch.cat([F.pad(part[name], (0, length - part[name].shape[1])) for part in inputs])
        for name in inputs[0]
    }
    return by_length(rows, lambda part: model(**part).logits).split(sizes)


def mean_features(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Returns the mean of the last layer's vectors over the tokens of each row, `[B, D]`; the logits are not used.

    Through the model's own `forward`, because DDP sees no other; there the unused head takes part with weight 0, so
    that every parameter has a gradient.
    """

    def features(rows: Batch) -> torch.Tensor:
        output = model(**rows, output_hidden_states=True)
        pooled = mean_over_tokens(output.hidden_states[-1].float(), rows["attention_mask"])
        return pooled + 0 * output.logits.sum() if rank_and_world()[1] > 1 else pooled

    return by_length(model_inputs(batch), features)


def by_length(rows: Batch, forward: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """Returns `forward(rows)`, `[B, ...]`: one pass, or, in one process on a CPU, a few over rows of similar length.

    Args:
        rows (`Batch`): Model inputs, `[B, L]` each.
        forward (`Callable`): Computes a part of the rows.
    """
    mask = rows.get("attention_mask")
    if mask is None or mask.device.type != "cpu" or rank_and_world()[1] > 1:
        return forward(rows)
    groups = length_groups(_last_token(mask), overhead=_pass_cost.get())
    outputs = [forward({name: rows[name][group, :width] for name in rows}) for group, width in groups]
    order = torch.cat([group for group, _ in groups]).argsort()
    return torch.cat(outputs)[order]


def length_groups(lengths: torch.Tensor, *, most: int = 3, overhead: int) -> list[tuple[torch.Tensor, int]]:
    """Cuts rows, sorted by length, into groups that cost the fewest padded tokens.

    Args:
        lengths (`torch.Tensor`): `[N]` tokens of each row.
        most (`int`, defaults to 3): Largest number of groups.
        overhead (`int`): Cost of one more forward and backward pass, in tokens.

    Returns:
        Row numbers `[G]` and width of each group: all rows in their order where cutting does not pay.
    """
    order = torch.argsort(lengths, stable=True)
    ascending = lengths[order].tolist()
    # best[j]: cost and first rows of the groups of the cheapest way to cut the j shortest rows.
    whole = [(0.0, [])] + [(overhead + j * ascending[j - 1], [0]) for j in range(1, len(ascending) + 1)]
    best = whole
    for _ in range(most - 1):
        best = [
            min(
                [
                    best[j],
                    *((best[i][0] + overhead + (j - i) * ascending[j - 1], [*best[i][1], i]) for i in range(1, j)),
                ]
            )
            for j in range(len(best))
        ]
    firsts = best[-1][1]
    if len(firsts) == 1:
        return [(torch.arange(len(lengths)), ascending[-1])]
    return [
        (order[first:end], ascending[end - 1])
        for first, end in zip(firsts, [*firsts[1:], len(ascending)], strict=True)
    ]


def _last_token(mask: torch.Tensor) -> torch.Tensor:
    """Returns the columns `[N]` up to each row's last token, wherever the padding is."""
    positions = torch.arange(1, mask.shape[1] + 1)
    return (mask * positions).amax(dim=1).clamp(min=1)
