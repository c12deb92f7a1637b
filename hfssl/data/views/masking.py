"""Masks whole-word spans (SpanBERT) or single tokens (BERT), as pure functions of (seed, draw, row)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hfssl.data.tokenization import Row, encode_texts, map_in_memory, pad_tokens, row_columns
from hfssl.errors import ConfigurationError, DataError, ModelError
from hfssl.runtime.seeding import numpy_generator

__all__ = [
    "IGNORE_INDEX",
    "SpanMaskingView",
    "TokenMaskingView",
    "draw_spans",
    "span_length_probabilities",
    "tokenize_for_masking",
]

IGNORE_INDEX = -100  # what torch's cross-entropy and transformers' heads skip
MAX_WORD_TOKENS = 16  # a longer "word" is a URL, an unspaced script or a tokenizer that does not split at all
BECOMES_MASK, BECOMES_RANDOM = 0.8, 0.9  # [0, .8): mask token; [.8, .9): random token; [.9, 1): unchanged


def span_length_probabilities(success_probability: float = 0.2, max_words: int = 10) -> np.ndarray:
    """Returns probabilities `[max_words]` of span lengths 1 .. `max_words` words (Joshi et al. 2020, section 3.1).

    `p(l) = p (1 - p)^(l - 1) / Z`. As in SpanBERT's code, "clipped" means a geometric law cut off at `max_words` and
    *renormalised* (mean 3.8 for the defaults, as in the paper), and not longer spans shortened to `max_words` (mean
    4.46).
    """
    weights = success_probability * (1 - success_probability) ** np.arange(max_words)
    return weights / weights.sum()


def draw_spans(
    word_sizes: np.ndarray,
    free_words: np.ndarray,
    budget: float,
    length_probabilities: np.ndarray,
    generator: np.random.Generator,
) -> list[tuple[int, int]]:
    """Samples spans of whole words, without overlap, until they hold `budget` tokens.

    A length is sampled first, then a start, uniformly among the words from which a span of that length fits. Only
    where no such word exists the span is shortened. So crowding changes where spans are, not how long they are.

    The last span ends where the budget is used up. The word at the limit is masked with a probability that makes the
    expected number of tokens exactly `budget`. The first word is always masked, so that each row with a maskable word
    changes; rows of fewer than about 7 tokens then exceed `budget`.

    Args:
        word_sizes (`np.ndarray`): `[W]` number of tokens of each maskable word.
        free_words (`np.ndarray`): `[W]` number of consecutive words without a gap from each word on, itself included.
        budget (`float`): Expected number of tokens to mask.
        length_probabilities (`np.ndarray`): Probabilities of span lengths, from `span_length_probabilities`.
        generator (`np.random.Generator`): Source of all randomness.

    Returns:
        `(first word, number of words)` of each span, in the order of sampling.
    """
    cumulative = length_probabilities.cumsum()[:-1]  # without the last, which may be below 1 by rounding
    free_words = free_words.copy()
    spans: list[tuple[int, int]] = []
    while budget > 0:
        length = int(cumulative.searchsorted(generator.random(), side="right")) + 1
        starts = (free_words >= length).nonzero()[0]
        if not len(starts):
            length = int(free_words.max(initial=0))
            if not length:
                break
            starts = (free_words >= length).nonzero()[0]
        start = int(starts[int(generator.random() * len(starts))])
        tokens = word_sizes[start : start + length].cumsum()
        whole = int(tokens.searchsorted(budget, side="right"))  # words that fit into the rest of the budget
        if whole < length:
            left = budget - (tokens[whole - 1] if whole else 0)
            straddles = generator.random() * word_sizes[start + whole] < left
            if length := max(whole + int(straddles), 0 if spans else 1):
                spans.append((start, length))
            break
        budget -= tokens[-1]
        spans.append((start, length))
        free_words[start : start + length] = 0
        np.minimum(free_words[:start], np.arange(start, 0, -1), out=free_words[:start])
    return spans


class _MaskingView:
    """Implements what the two views share: special tokens, generators, replacements and padding."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, seed: int, stream: str, mask_probability: float, replacement: str
    ):
        if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
            raise ModelError(
                f"Masked-language training needs a tokenizer with a mask token and a padding token; "
                f"{type(tokenizer).__name__} has mask_token={tokenizer.mask_token!r} and "
                f"pad_token={tokenizer.pad_token!r}. Choose an encoder such as BERT, or skip the pretext stage."
            )
        problems = []
        if not 0 < mask_probability < 1:
            problems.append(f"mask_probability must be between 0 and 1, got {mask_probability}.")
        if replacement not in ("span", "token"):
            problems.append(f"replacement must be 'span' or 'token', got '{replacement}'.")
        if problems:
            raise ConfigurationError(problems)
        self.tokenizer, self.seed, self.stream = tokenizer, seed, stream
        self.mask_probability, self.replacement = mask_probability, replacement
        vocabulary = np.unique(list(tokenizer.get_vocab().values()))  # ids may have gaps
        added = tokenizer.added_tokens_decoder.items()
        special = {*tokenizer.all_special_ids, *(token_id for token_id, token in added if token.special)}
        self._is_special = np.ones(vocabulary[-1] + 1, dtype=bool)
        self._is_special[vocabulary] = np.isin(vocabulary, list(special))
        self._replacements = np.flatnonzero(~self._is_special)

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Masks and pads rows; each row has `input_ids`, `attention_mask`, `row`, `draw`, and for spans `word_ids`.

        Returns:
            `input_ids` (corrupted), `attention_mask`, `labels` (`-100` where nothing is predicted), all `[B, L]`; and
            `positions` `[M]`, the indices of the predicted tokens in the flattened batch. With them the model skips
            most of its vocabulary projection; finding them on the accelerator would sync the device.
        """
        batch = pad_tokens(rows, self.tokenizer)
        ids = batch["input_ids"].numpy().reshape(-1)  # a view of the tensor: writes change the batch
        width = batch["input_ids"].shape[1]
        generators = [numpy_generator(self.seed, self.stream, row["draw"], row["row"]) for row in rows]
        positions, decisions = self._choose(rows, ids, width, generators)
        labels = np.full(len(ids), IGNORE_INDEX)
        labels[positions] = ids[positions]
        ids[positions[decisions < BECOMES_MASK]] = self.tokenizer.mask_token_id
        at_random = positions[(decisions >= BECOMES_MASK) & (decisions < BECOMES_RANDOM)]
        counts = np.bincount(at_random // width, minlength=len(rows)).tolist()
        noise = [generator.random(n) for generator, n in zip(generators, counts, strict=True) if n]
        if noise:
            ids[at_random] = self._replacements[(np.concatenate(noise) * len(self._replacements)).astype(np.int64)]
        positions.sort()
        batch["labels"] = torch.from_numpy(labels).view(-1, width)
        batch["positions"] = torch.from_numpy(positions)
        return batch

    def _choose(
        self, rows: list[Row], ids: np.ndarray, width: int, generators: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns predicted positions `[M]` in the flattened batch, and a number in [0, 1) per replacement."""
        raise NotImplementedError(f"{type(self).__name__} does not define _choose().")  # abstract


class SpanMaskingView(_MaskingView):
    """Masks spans of whole words (SpanBERT, Joshi et al. 2020, section 3.1).

    Span lengths are geometric, cut off at `max_span_words` words and renormalised; spans start at the beginning of a
    word, do not overlap, and do not reach across special tokens; together they hold 15 % of the tokens that are not
    special. As in the paper, *the span as a whole* is replaced: 80 % of spans by mask tokens, 10 % by random tokens
    (never special ones), 10 % stay unchanged. With `replacement="token"` each token is replaced separately, as in
    BERT. Words with an unknown token are never masked, since there is nothing to predict.

    The masks of a row depend on `(seed, stream, draw, row)` only: not on its batch, the rank or worker that collates
    it, or a resume of the run.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer with a mask and a padding token.
        seed (`int`): Random seed of the run.
        stream (`str`, defaults to `"masking"`): Name of the random stream; views of different streams have independent
            masks.
        mask_probability (`float`, defaults to `0.15`): Share of the tokens that are predicted.
        span_success_probability (`float`, defaults to `0.2`): Parameter of the geometric law.
        max_span_words (`int`, defaults to `10`): Length of the longest span, in words.
        replacement (`str`, defaults to `"span"`): Unit that is replaced together: `"span"` or `"token"`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int,
        stream: str = "masking",
        mask_probability: float = 0.15,
        span_success_probability: float = 0.2,
        max_span_words: int = 10,
        replacement: str = "span",
    ):
        super().__init__(
            tokenizer, seed=seed, stream=stream, mask_probability=mask_probability, replacement=replacement
        )
        if not 0 < span_success_probability <= 1 or max_span_words < 1:
            raise ConfigurationError(
                f"Span lengths need 0 < span_success_probability <= 1 and max_span_words >= 1, got "
                f"{span_success_probability} and {max_span_words}."
            )
        self._length_probabilities = span_length_probabilities(span_success_probability, max_span_words)

    def _choose(
        self, rows: list[Row], ids: np.ndarray, width: int, generators: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        starts, sizes = self._maskable_words(rows, ids, width)
        free_words = _words_before_a_gap(starts, sizes, width)
        bounds = starts.searchsorted(np.arange(len(rows) + 1) * width).tolist()
        first: list[int] = []
        last: list[int] = []
        decisions: list[np.ndarray] = []
        for i, generator in enumerate(generators):
            row = slice(bounds[i], bounds[i + 1])
            budget = self.mask_probability * sizes[row].sum()
            spans = draw_spans(sizes[row], free_words[row], budget, self._length_probabilities, generator)
            first += [bounds[i] + word for word, _ in spans]
            last += [bounds[i] + word + length - 1 for word, length in spans]
            decisions.append(generator.random(len(spans)))
        begins = starts[first]
        tokens = starts[last] + sizes[last] - begins
        positions = (begins - tokens.cumsum() + tokens).repeat(tokens) + np.arange(tokens.sum())
        if self.replacement == "span":
            return positions, np.concatenate(decisions).repeat(tokens)
        counts = np.bincount(positions // width, minlength=len(rows)).tolist()
        return positions, np.concatenate([g.random(n) for g, n in zip(generators, counts, strict=True)])

    def _maskable_words(self, rows: list[Row], ids: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first position in the flattened batch and the size of each word without special tokens."""
        if "word_ids" not in rows[0]:
            raise DataError(
                f"Span masking needs a 'word_ids' column; the rows have {sorted(rows[0])}. "
                "Tokenize with hfssl.data.views.masking.tokenize_for_masking, or use masking='token'."
            )
        words = np.full((len(rows), width), -1)
        for i, row in enumerate(rows):
            n = len(row["word_ids"])
            words[i, slice(n) if self.tokenizer.padding_side == "right" else slice(width - n, width)] = row["word_ids"]
        words = words.reshape(-1)
        begins = np.ones(len(words), dtype=bool)
        np.not_equal(words[1:], words[:-1], out=begins[1:])
        begins[::width] = True
        starts = begins.nonzero()[0]
        sizes = np.diff(starts, append=len(words))
        maskable = np.add.reduceat((words < 0) | self._is_special[ids], starts, dtype=np.int64) == 0
        return starts[maskable], sizes[maskable]


def _words_before_a_gap(starts: np.ndarray, sizes: np.ndarray, width: int) -> np.ndarray:
    """Returns for each word the number of consecutive words in its row without a gap, itself included, `[W]`."""
    if not len(starts):
        return starts
    last = np.ones(len(starts), dtype=bool)
    last[:-1] = (starts[:-1] + sizes[:-1] != starts[1:]) | (starts[1:] % width == 0)
    ends = last.nonzero()[0]
    index = np.arange(len(starts))
    return ends[ends.searchsorted(index)] - index + 1


class TokenMaskingView(_MaskingView):
    """Masks single tokens, each with probability 0.15 (BERT, Devlin et al. 2019, section 3.1).

    Of these, 80 % become the mask token, 10 % a random token (never a special one), 10 % stay as they are. Special and
    unknown tokens are never masked; a row with any other token has at least one masked token. The masks depend on
    `(seed, stream, draw, row)` only, as in `SpanMaskingView`, whose first four arguments this class shares.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int,
        stream: str = "masking",
        mask_probability: float = 0.15,
    ):
        super().__init__(tokenizer, seed=seed, stream=stream, mask_probability=mask_probability, replacement="token")

    def _choose(
        self, rows: list[Row], ids: np.ndarray, width: int, generators: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        maskable = (~self._is_special[ids]).nonzero()[0]
        counts = np.bincount(maskable // width, minlength=len(rows)).tolist()
        draws = [generator.random(n) for generator, n in zip(generators, counts, strict=True)]
        # The smallest number of a row always counts; this changes only rows in which no token was sampled.
        taken = [row < max(self.mask_probability, np.nextafter(row.min(initial=1), 1)) for row in draws]
        decisions = [g.random(np.count_nonzero(row)) for g, row in zip(generators, taken, strict=True)]
        return maskable[np.concatenate(taken)], np.concatenate(decisions)


def tokenize_for_masking(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Tokenizes `text` (and `text_pair`, where there is one) for the masking views; drops all other columns.

    The columns are those of `row_columns`, `word_ids` (the number of a token's word in the tokenizer's
    pre-tokenization; -1 for special tokens) and `length` (in tokens). A "word" of more than 16 tokens counts as that
    many words of one token, so that a whole sentence in a script without spaces is not masked at once.

    Raises:
        ModelError: if the tokenizer is not a fast one: only fast ones record the word of a token.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"Span masking needs a fast tokenizer (one with a tokenizer.json), got {type(tokenizer).__name__}; "
            "save the fast version next to the model, or use masking='token'."
        )
    told = row_columns(tokenizer, has_pairs="text_pair" in dataset.column_names)

    def encode(batch: Mapping[str, Any]) -> dict[str, list]:
        encoded = encode_texts(batch, tokenizer, max_length)
        columns: dict[str, list[Any]] = {name: encoded[name] for name in told}
        columns["word_ids"] = [_split_long_words(encoded.word_ids(i)) for i in range(len(batch["text"]))]
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        return columns

    return map_in_memory(dataset, encode, "tokenizing for masking", remove_columns=dataset.column_names)


def _split_long_words(word_ids: list[int | None]) -> list[int]:
    """Replaces None by -1, renumbers the words, and gives each token of an overlong word its own number."""
    words = np.array([-1 if word is None else word for word in word_ids], dtype=np.int64)
    if not len(words):
        return []
    begins = np.diff(words, prepend=-2) != 0
    run = begins.cumsum() - 1
    overlong = (np.bincount(run)[run] > MAX_WORD_TOKENS) & (words >= 0)
    numbered = ((begins | overlong) & (words >= 0)).cumsum() - 1
    return np.where(words < 0, -1, numbered).tolist()
