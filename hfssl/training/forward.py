"""Forward passes over batches of several streams, split by length where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from torch.nn import functional as F

from hfssl.models.introspection import transformers_model
from hfssl.models.mean_pooling import mean_over_tokens
from hfssl.models.tokenizer_checks import pads_left
from hfssl.runtime.distributed import rank_and_world
from hfssl.training.perturbations import NOISE_COLUMNS, noisy_logits

__all__ = [
    "Batch",
    "by_length",
    "classification_logits",
    "joined_rows",
    "joint_logits",
    "length_groups",
    "mean_features",
    "model_inputs",
    "passes_in_bf16",
]


Batch = Mapping[str, torch.Tensor]

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Fixed cost of one more forward and backward pass on a CPU, in tokens (benchmarks/NOTES.md, 2026-11-28, third part).
FP32_PASS, BF16_PASS = 64, 400
_pass_cost: ContextVar[int] = ContextVar("pass_cost", default=FP32_PASS)


@contextmanager
def passes_in_bf16(enabled: bool = True) -> Iterator[None]:
    """Splits rows into passes, within the block, at the cost of a model that computes in bf16.

    In bf16 the tokens are cheap, but every pass casts all weights, and their gradients back, and oneDNN compiles
    kernels for its shapes.

    Args:
        enabled (`bool`, defaults to `True`): Whether the model computes in bf16; `False` means fp32.
    """
    before = _pass_cost.set(BF16_PASS if enabled else FP32_PASS)
    try:
        yield
    finally:
        _pass_cost.reset(before)


def model_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """Returns the columns of a batch that `forward` takes."""
    return {name: batch[name] for name in MODEL_INPUTS if name in batch}


def classification_logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Returns the logits `[B, K]` of one batch; see `joint_logits`."""
    return joint_logits(model, batch)[0]


def joint_logits(model: nn.Module, *batches: Batch) -> tuple[torch.Tensor, ...]:
    """Returns the logits of several batches, `[B, K]` each, with few padded tokens.

    On accelerators and under several ranks this is *one* forward pass over all rows, padded to a common length:
    padding is cheap there, lengths are on the device, and the ranks must agree on the number of passes. In one process
    on a CPU the rows are sorted by length and split into up to three passes (`length_groups`). Without the split, one
    long text among short ones would cost as much as a batch of long ones.

    Args:
        model (`nn.Module`): A classifier.
        batches (`Batch`): Model inputs, `[B, L]` each; B and L may differ between batches.

    Example:
        >>> import hfssl
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> batches = [tokenizer(texts[:rows], padding=True, return_tensors="pt") for rows in (2, 3)]
        >>> first, second = hfssl.joint_logits(model, *batches)
        >>> tuple(first.shape), tuple(second.shape)
        ((2, 2), (3, 2))
    """
    rows, sizes = joined_rows(model, *batches)
    return by_length(rows, lambda part: noisy_logits(model, part)).split(sizes)


def joined_rows(model: nn.Module, *batches: Batch) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Returns all rows of several batches as one, padded to a common length, and the number of rows of each batch.

    Args:
        model (`nn.Module`): Model whose padding token is used.
        batches (`Batch`): Model inputs, `[B, L]` each, and possibly columns of noise on the embeddings, `[B]`.
    """
    inputs = [model_inputs(batch) for batch in batches]
    noise = [name for name in NOISE_COLUMNS if any(name in batch for batch in batches)]
    sizes = [len(part["input_ids"]) for part in inputs]
    length = max(part["input_ids"].shape[1] for part in inputs)
    for part in inputs:  # one side may have been tokenized elsewhere: all segment numbers are 0 where there are none
        if any("token_type_ids" in other for other in inputs):
            part.setdefault("token_type_ids", torch.zeros_like(part["input_ids"]))
    rows = {name: _stacked([part[name] for part in inputs], length, name, model) for name in inputs[0]}
    for name in noise:  # rows of the other batches have none
        columns = [
            batch[name] if name in batch else batch["input_ids"].new_zeros(size, dtype=NOISE_COLUMNS[name])
            for batch, size in zip(batches, sizes, strict=True)
        ]
        rows[name] = torch.cat(columns)
    return rows, sizes


def _stacked(parts: list[torch.Tensor], length: int, name: str, model: nn.Module) -> torch.Tensor:
    """Pads the columns of several batches to one length, and stacks them."""
    if all(part.shape[1] == length for part in parts):
        return torch.cat(parts)
    config = transformers_model(model).config.get_text_config()
    # Padded positions are masked out. Only the head of a decoder looks at their ids, for the last token before them.
    fill = (getattr(config, "pad_token_id", None) or 0) if name == "input_ids" else 0
    left = pads_left(config)
    missing = [length - part.shape[1] for part in parts]
    return torch.cat(
        [F.pad(part, (n, 0) if left else (0, n), value=fill) for part, n in zip(parts, missing, strict=True)]
    )


def mean_features(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Returns the mean of the last layer's vectors over the tokens of each row, `[B, D]`; the logits are not used.

    The pass goes through the model's own `forward`, because DDP synchronises no other method. Under DDP the unused
    head takes part with weight 0, so that every parameter has a gradient.
    """

    def features(rows: Batch) -> torch.Tensor:
        output = model(**rows, output_hidden_states=True)
        pooled = mean_over_tokens(output.hidden_states[-1].float(), rows["attention_mask"])
        return pooled + 0 * output.logits.sum() if rank_and_world()[1] > 1 else pooled

    return by_length(model_inputs(batch), features)


def by_length(rows: Batch, forward: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """Returns `forward(rows)`, `[B, ...]`: in one pass, or, in one process on a CPU, in a few passes by length.

    Args:
        rows (`Batch`): Model inputs, `[B, L]` each.
        forward (`Callable[[Batch], torch.Tensor]`): Function of a part of the rows.
    """
    mask = rows.get("attention_mask")
    if mask is None or mask.device.type != "cpu" or rank_and_world()[1] > 1:
        return forward(rows)
    groups = length_groups(_last_token(mask), overhead=_pass_cost.get())
    outputs = [
        forward({name: rows[name][group, :width] if rows[name].dim() > 1 else rows[name][group] for name in rows})
        for group, width in groups
    ]
    order = torch.cat([group for group, _ in groups]).argsort()
    return torch.cat(outputs)[order]


def length_groups(lengths: torch.Tensor, *, most: int = 3, overhead: int) -> list[tuple[torch.Tensor, int]]:
    """Splits rows, sorted by length, into the groups with the smallest number of padded tokens.

    Args:
        lengths (`torch.Tensor`): `[N]` tokens of each row.
        most (`int`, defaults to 3): Largest number of groups.
        overhead (`int`): Cost of one more forward and backward pass, in tokens.

    Returns:
        Row numbers `[G]` and width of each group; one group of all rows, in order, where a split is not cheaper.
    """
    order = torch.argsort(lengths, stable=True)
    ascending = lengths[order].tolist()
    # best[j]: cost and first rows of the groups of the cheapest way to split the j shortest rows.
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
    """Returns the number of columns `[N]` up to the last token of each row, for padding on either side."""
    positions = torch.arange(1, mask.shape[1] + 1)
    return (mask * positions).amax(dim=1).clamp(min=1)
