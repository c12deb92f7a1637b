"""Fills spans of texts by a masked language model, once before training: a view that is too slow for each step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset

from hfssl.data.views.masking import SpanMaskingView, tokenize_for_masking
from hfssl.models.backbones import load_tokenizer
from hfssl.models.loading import load_masked_lm
from hfssl.runtime.distributed import is_main, wait_for_everyone
from hfssl.runtime.files import write_json
from hfssl.runtime.seeding import numpy_generator

__all__ = ["infilled_texts"]

CANDIDATES = 10  # each masked token is drawn among so many most probable ones
BATCH_ROWS = 32


def infilled_texts(
    texts: Sequence[str], masked_lm: str, folder: str | Path, *, rate: float, seed: int, max_length: int = 128
) -> list[str]:
    """Returns texts in which spans of whole words are replaced by what a masked language model predicts there.

    The spans hold `rate` of the tokens (SpanBERT's lengths); each token is drawn among the ten most probable ones by
    their probabilities, all tokens of a text at once. The result is kept in `folder`, and is read again by a run with
    the same texts, model, rate and seed. Collective: every rank must call this.

    Args:
        texts (`Sequence[str]`): Texts.
        masked_lm (`str`): Folder or Hub id of a masked language model with its own head.
        folder (`str` or `Path`): Folder of the kept results.
        rate (`float`): Share of the tokens that are replaced, in (0, 1).
        seed (`int`): Random seed.
        max_length (`int`, defaults to 128): Number of tokens at which texts are cut.

    Raises:
        ModelError: The model has no masked-language head of its own, or no mask token.
    """
    key = json.dumps([list(texts), str(masked_lm), rate, seed, max_length])
    file = Path(folder) / f"infill-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if is_main() and not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, _fill(texts, masked_lm, rate, seed, max_length))
    wait_for_everyone()
    return json.loads(file.read_text(encoding="utf-8"))


@torch.no_grad()
def _fill(texts: Sequence[str], masked_lm: str, rate: float, seed: int, max_length: int) -> list[str]:
    tokenizer = load_tokenizer(masked_lm, max_length=max_length)
    model = load_masked_lm(masked_lm, seed=seed, own_head=True)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # pyright: ignore[reportArgumentType]
    view = SpanMaskingView(tokenizer, seed=seed, stream="infill", mask_probability=rate)
    rows = tokenize_for_masking(Dataset.from_dict({"text": list(texts)}), tokenizer, max_length)
    special = torch.tensor(sorted(tokenizer.all_special_ids), device=model.device)
    filled: list[str] = []
    for start in range(0, len(texts), BATCH_ROWS):
        numbers = range(start, min(start + BATCH_ROWS, len(texts)))
        columns = rows[list(numbers)]
        batch = view([{k: v[i] for k, v in columns.items()} | {"row": n, "draw": 0} for i, n in enumerate(numbers)])
        masked = batch["labels"] >= 0
        ids = torch.where(masked, tokenizer.mask_token_id, batch["input_ids"])
        inputs = {"input_ids": ids.to(model.device), "attention_mask": batch["attention_mask"].to(model.device)}
        logits = model(**inputs).logits.index_fill(-1, special, -torch.inf)
        top = logits.topk(CANDIDATES, dim=-1)
        shares, tokens = top.values.softmax(-1).cumsum(-1).cpu(), top.indices.cpu()
        for i, number in enumerate(numbers):
            draws = torch.from_numpy(numpy_generator(seed, "infill tokens", number).random(ids.shape[1]))
            chosen = (shares[i] < draws[:, None]).sum(-1).clamp(max=CANDIDATES - 1)
            row = torch.where(masked[i], tokens[i].gather(-1, chosen[:, None])[:, 0], ids[i])
            text = tokenizer.decode(row[batch["attention_mask"][i] > 0], skip_special_tokens=True).strip()
            filled.append(text if masked[i].any() and text else texts[number])
    return filled
