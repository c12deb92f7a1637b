"""Span and token masking: the numbers of the papers, whole words, and masks that depend on (seed, draw, row) alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from hfssl.data.views.masking import (
    IGNORE_INDEX,
    SpanMaskingView,
    TokenMaskingView,
    draw_spans,
    span_length_probabilities,
    tokenize_for_masking,
)
from hfssl.errors import ConfigurationError, DataError, ModelError

CRITICAL_9_DEGREES = 27.88  # chi-square, 9 degrees of freedom, 0.1 %
WORDS = ["the", "film", "was", "good", "zebra", "quux", "story", "hello", "city", "wonderfully"]


def texts(count: int, words: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, words)) for _ in range(count)]


def tokenized(tokenizer, strings: list[str], draw: int = 0, max_length: int = 512) -> list[dict]:
    dataset = tokenize_for_masking(Dataset.from_dict({"text": strings}), tokenizer, max_length)
    return [row | {"row": i, "draw": draw} for i, row in enumerate(dataset)]


def trained_tokenizer(model, pre_tokenizer, trainer_class, **kwargs) -> PreTrainedTokenizerFast:
    """A tokenizer of some 60 tokens trained on `WORDS`, without [CLS] and [SEP]."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    special = ["<pad>", "<unk>", "<mask>"]
    trainer = trainer_class(vocab_size=60, special_tokens=special, show_progress=False, **kwargs)
    tokenizer.train_from_iterator(texts(50, 8), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>"
    )


def bert_tokenizer(**kwargs) -> BertTokenizerFast:
    """WordPiece with most of `WORDS` whole; "zebra", "quux" and "wonderfully" fall into single letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    whole = [word for word in WORDS if word not in ("zebra", "quux", "wonderfully")]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *whole, *letters, *("##" + letter for letter in letters)]
    return BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, **kwargs)


@pytest.fixture(scope="module")
def wordpiece_tokenizer():
    return bert_tokenizer()


@pytest.fixture(scope="module")
def byte_level_tokenizer():
    return trained_tokenizer(models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=True), trainers.BpeTrainer)


@pytest.fixture(scope="module")
def unigram_tokenizer():
    return trained_tokenizer(models.Unigram(), pre_tokenizers.Metaspace(), trainers.UnigramTrainer, unk_token="<unk>")


@pytest.fixture(params=["wordpiece", "byte_level", "unigram"])
def any_tokenizer(request, wordpiece_tokenizer, byte_level_tokenizer, unigram_tokenizer):
    return {"wordpiece": wordpiece_tokenizer, "byte_level": byte_level_tokenizer, "unigram": unigram_tokenizer}[
        request.param
    ]


# --- span lengths ---------------------------------------------------------------------------------------------------


def test_span_length_probabilities_by_hand():
    probabilities = span_length_probabilities()
    # Z = 1 - 0.8^10 = 0.8926258; p(1) = 0.2 / Z; p(10) = 0.2 * 0.8^9 / Z; the mean is (5 - 0.8^10 * 15) / Z.
    assert probabilities[0] == pytest.approx(0.2240581, abs=1e-7)
    assert probabilities[1] == pytest.approx(0.1792464, abs=1e-7)
    assert probabilities[9] == pytest.approx(0.0300726, abs=1e-7)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities @ np.arange(1, 11) == pytest.approx(3.797, abs=1e-3)  # "mean(l) = 3.8" in the paper


def test_drawn_span_lengths_follow_the_law():
    """The first three spans of a long row: never cut by the budget (3 x 10 < 31), so their law is exact."""
    counts = np.zeros(10)
    sizes, free = np.ones(200, dtype=int), np.arange(200, 0, -1)
    generator = np.random.default_rng(0)
    for _ in range(3000):
        for _, length in draw_spans(sizes, free, 31.0, span_length_probabilities(), generator)[:3]:
            counts[length - 1] += 1
    total = counts.sum()
    assert total == 9000
    assert chi_square(counts, total * span_length_probabilities()) < CRITICAL_9_DEGREES
    # The same test tells the other reading of "clipped" apart, where longer spans are shortened to ten words.
    shortened = 0.2 * 0.8 ** np.arange(10)
    shortened[9] = 0.8**9
    assert chi_square(counts, total * shortened) > 10 * CRITICAL_9_DEGREES


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def test_span_starts_are_uniform():
    """Spans of one word in a row of twenty words: every word is equally likely."""
    sizes, free = np.ones(20, dtype=int), np.arange(20, 0, -1)
    generator = np.random.default_rng(1)
    counts = np.zeros(20)
    for _ in range(4000):
        ((start, length),) = draw_spans(sizes, free, 1.0, np.ones(1), generator)
        assert length == 1
        counts[start] += 1
    assert chi_square(counts, np.full(20, 200.0)) < 43.82  # 19 degrees of freedom, 0.1 %


def test_spans_do_not_overlap_and_do_not_cross_gaps():
    sizes, free = np.ones(60, dtype=int), np.concatenate([np.arange(25, 0, -1), np.arange(35, 0, -1)])
    generator = np.random.default_rng(2)
    for _ in range(300):
        taken = np.zeros(60, dtype=int)
        for start, length in draw_spans(sizes, free, 40.0, span_length_probabilities(), generator):
            taken[start : start + length] += 1
            assert (start < 25) == (start + length <= 25)
        assert taken.max() == 1
        assert taken.sum() == 40


def test_expected_number_of_tokens_is_the_budget_also_with_words_of_several_tokens():
    generator = np.random.default_rng(3)
    sizes, free = np.tile([1, 3, 2, 1, 5], 8), np.arange(40, 0, -1)
    totals = []
    for _ in range(4000):
        spans = draw_spans(sizes, free, 14.4, span_length_probabilities(), generator)
        totals.append(sum(sizes[start : start + length].sum() for start, length in spans))
    assert np.mean(totals) == pytest.approx(14.4, abs=4 * np.std(totals) / np.sqrt(len(totals)))


# --- what the views return ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view_class", [SpanMaskingView, TokenMaskingView])
def test_budget_and_replacements(wordpiece_tokenizer, view_class):
    """15 % of the tokens that are not special; 80 % mask, 10 % random, 10 % kept; random tokens are never special."""
    view = view_class(wordpiece_tokenizer, seed=0)
    rows = tokenized(wordpiece_tokenizer, texts(2500, 25))
    batch = view(rows)
    original = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    special = torch.isin(original, torch.tensor(wordpiece_tokenizer.all_special_ids))
    predicted = batch["labels"] != IGNORE_INDEX

    assert not (predicted & special).any()
    assert torch.equal(batch["labels"][predicted], original[predicted])
    assert torch.equal(batch["input_ids"][~predicted], original[~predicted])
    assert predicted.sum() / (~special).sum() == pytest.approx(0.15, abs=0.002)
    assert torch.equal(batch["positions"], predicted.flatten().nonzero().squeeze(1))

    now, was = batch["input_ids"][predicted], batch["labels"][predicted]
    masked = (now == wordpiece_tokenizer.mask_token_id).float().mean().item()
    changed = (now != was).float().mean().item() - masked
    kept = 1 - masked - changed
    # About 18,000 tokens, decided in some 6,000 spans: the standard error of the shares is at most 0.01.
    assert masked == pytest.approx(0.8, abs=0.03)
    assert changed == pytest.approx(0.1, abs=0.03)
    assert kept == pytest.approx(0.1, abs=0.03)
    random_tokens = now[(now != was) & (now != wordpiece_tokenizer.mask_token_id)]
    assert not torch.isin(random_tokens, torch.tensor(wordpiece_tokenizer.all_special_ids)).any()
    assert len(random_tokens.unique()) > 55  # nearly all of the 59 tokens that are not special


def spans_of(view, rows) -> list[np.ndarray]:
    """Kinds of replacement (0 mask, 1 other) of each stretch of predicted tokens that lies between others."""
    batch = view(rows)
    stretches = []
    for ids, labels in zip(batch["input_ids"].numpy(), batch["labels"].numpy(), strict=True):
        where = (labels != IGNORE_INDEX).nonzero()[0]
        for stretch in np.split(where, (np.diff(where) > 1).nonzero()[0] + 1):
            stretches.append((ids[stretch] != view.tokenizer.mask_token_id).astype(int))
    return stretches


def test_replacement_is_decided_per_span_or_per_token(wordpiece_tokenizer):
    """Short rows hold a single span: with `"span"` it is masked as a whole or not at all."""
    rows = tokenized(wordpiece_tokenizer, [" ".join(["film"] * 20)] * 300)
    probabilities = {"mask_probability": 0.2, "span_success_probability": 1e-9}  # nearly uniform lengths, up to 10
    per_span = spans_of(SpanMaskingView(wordpiece_tokenizer, seed=0, max_span_words=4, **probabilities), rows)
    per_token = spans_of(
        SpanMaskingView(wordpiece_tokenizer, seed=0, max_span_words=4, replacement="token", **probabilities), rows
    )
    mixed = [
        np.mean([0 < stretch.mean() < 1 for stretch in part if len(stretch) > 1]) for part in (per_span, per_token)
    ]
    assert mixed[0] < 0.12  # two spans side by side look like one here
    assert mixed[1] > 0.25


def test_whole_words_are_never_split(any_tokenizer):
    rows = tokenized(any_tokenizer, texts(200, 25))
    batch = SpanMaskingView(any_tokenizer, seed=0)(rows)
    pieces = 0
    for row, labels in zip(rows, batch["labels"].tolist(), strict=True):
        words = np.array(row["word_ids"])
        predicted = np.array(labels[: len(words)]) != IGNORE_INDEX
        for word in range(words.max() + 1):
            inside = predicted[words == word]
            assert inside.all() or not inside.any()
            pieces += inside.all() and len(inside) > 1
    assert pieces > 100  # words of several tokens were among them


def test_word_ids_are_the_words_of_the_text(any_tokenizer):
    (row,) = tokenized(any_tokenizer, ["the wonderfully quux film"])
    words = np.array(row["word_ids"])
    tokens = np.array(any_tokenizer.convert_ids_to_tokens(row["input_ids"]))
    joined = ["".join(tokens[words == word]) for word in range(4)]
    assert [re.sub("##|Ġ|▁", "", word) for word in joined] == ["the", "wonderfully", "quux", "film"]
    assert words.max() == 3
    assert row["length"] == len(row["input_ids"])


@pytest.mark.parametrize("view_class", [SpanMaskingView, TokenMaskingView])
def test_masks_depend_on_seed_draw_and_row_alone(any_tokenizer, view_class):
    """Not on the batch: with two of the tokenizers, rows of full length follow one another without a special token."""
    for strings in (texts(12, 15) + texts(12, 30, seed=1), ["quux"] * 4, ["zebra film quux", "film"] * 4):
        rows = tokenized(any_tokenizer, strings)
        together = view_class(any_tokenizer, seed=5)(rows)
        shuffled = view_class(any_tokenizer, seed=5)(rows[::-1])
        for i, row in enumerate(rows):
            alone = view_class(any_tokenizer, seed=5)([row])
            length = row["length"]
            for name in ("input_ids", "labels"):
                assert torch.equal(alone[name][0], together[name][i, :length])
                assert torch.equal(alone[name][0], shuffled[name][len(rows) - 1 - i, :length])


def test_draws_rows_seeds_and_streams_differ(wordpiece_tokenizer):
    (row,) = tokenized(wordpiece_tokenizer, texts(1, 80))
    default = {"seed": 0, "stream": "masking"}
    base = SpanMaskingView(wordpiece_tokenizer, **default)([row])["labels"]
    changes = [
        (default, {"draw": 1}),
        (default, {"row": 1}),
        ({"seed": 1}, {}),
        ({"seed": 0, "stream": "held-out"}, {}),
    ]
    for settings, change in changes:
        assert not torch.equal(SpanMaskingView(wordpiece_tokenizer, **settings)([row | change])["labels"], base)


def test_no_global_random_state_is_used(wordpiece_tokenizer):
    rows = tokenized(wordpiece_tokenizer, texts(4, 20))
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    SpanMaskingView(wordpiece_tokenizer, seed=0)(rows)
    assert (np.random.get_state()[1] == numpy_before).all()
    assert torch.equal(torch.get_rng_state(), torch_before)


# --- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view_class", [SpanMaskingView, TokenMaskingView])
def test_every_row_with_a_word_has_something_to_predict(wordpiece_tokenizer, view_class):
    rows = tokenized(wordpiece_tokenizer, ["film", "", "good film", "the story was good hello"] * 50)
    per_row = (view_class(wordpiece_tokenizer, seed=0)(rows)["labels"] != IGNORE_INDEX).sum(1).view(-1, 4)
    assert (per_row[:, 1] == 0).all()  # [CLS] [SEP] only
    assert (per_row[:, [0, 2, 3]] >= 1).all()


@pytest.mark.parametrize("view_class", [SpanMaskingView, TokenMaskingView])
def test_a_batch_of_special_tokens_only(wordpiece_tokenizer, view_class):
    batch = view_class(wordpiece_tokenizer, seed=0)(tokenized(wordpiece_tokenizer, ["", ""]))
    assert (batch["labels"] == IGNORE_INDEX).all()
    assert batch["positions"].shape == (0,)


def test_one_word_of_several_tokens_is_masked_whole(wordpiece_tokenizer):
    batch = SpanMaskingView(wordpiece_tokenizer, seed=0)(tokenized(wordpiece_tokenizer, ["zebra"]))
    assert (batch["labels"][0] != IGNORE_INDEX).tolist() == [False, *[True] * 5, False]


def test_spans_longer_than_the_row_are_shortened(wordpiece_tokenizer):
    view = SpanMaskingView(
        wordpiece_tokenizer, seed=0, mask_probability=0.9, span_success_probability=0.01, max_span_words=500
    )
    labels = view(tokenized(wordpiece_tokenizer, texts(20, 6)))["labels"]
    assert ((labels != IGNORE_INDEX).sum(1) >= 1).all()


def test_unknown_and_literal_special_tokens_are_never_masked(wordpiece_tokenizer):
    """`[MASK]` or `[SEP]` typed in a text becomes the special token, with a word number of its own."""
    rows = tokenized(wordpiece_tokenizer, ["film ☃ [MASK] good [SEP] story"] * 200)
    labels = SpanMaskingView(wordpiece_tokenizer, seed=0, mask_probability=0.9)([*rows])["labels"]
    predicted = labels[labels != IGNORE_INDEX].unique().tolist()
    assert sorted(wordpiece_tokenizer.convert_ids_to_tokens(predicted)) == ["film", "good", "story"]


def test_words_longer_than_sixteen_tokens_are_single_tokens(wordpiece_tokenizer):
    """A URL, or a sentence in a script without spaces, must not be blanked out as one word."""
    long_word, word = tokenized(wordpiece_tokenizer, ["x" * 40, "x" * 16])
    assert long_word["word_ids"] == [-1, *range(40), -1]
    assert word["word_ids"] == [-1, *[0] * 16, -1]


def test_left_padding_and_pairs():
    tokenizer = bert_tokenizer(padding_side="left")
    dataset = Dataset.from_dict(
        {"text": ["film good", "the zebra story was the city"], "text_pair": ["hello", "the city was good"]}
    )
    dataset = tokenize_for_masking(dataset, tokenizer, 32)
    assert set(dataset.column_names) == {"input_ids", "token_type_ids", "word_ids", "length"}
    rows = [row | {"row": i, "draw": 0} for i, row in enumerate(dataset)]
    batch = SpanMaskingView(tokenizer, seed=0, mask_probability=0.5)(rows)
    for i, row in enumerate(rows):
        padding = batch["labels"].shape[1] - row["length"]
        assert (batch["labels"][i, :padding] == IGNORE_INDEX).all()
        assert batch["attention_mask"][i].tolist() == [0] * padding + [1] * row["length"]
        labels = batch["labels"][i, padding:]
        predicted = labels != IGNORE_INDEX
        assert predicted.any()
        assert torch.equal(labels[predicted], torch.tensor(row["input_ids"])[predicted])
        assert all(word >= 0 for word, yes in zip(row["word_ids"], predicted.tolist(), strict=True) if yes)


def test_what_the_views_refuse(wordpiece_tokenizer, byte_level_tokenizer):
    row = {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "row": 0, "draw": 0}
    with pytest.raises(DataError, match="word_ids"):
        SpanMaskingView(wordpiece_tokenizer, seed=0)([row])
    with pytest.raises(ConfigurationError, match="mask_probability"):
        SpanMaskingView(wordpiece_tokenizer, seed=0, mask_probability=1.5)
    with pytest.raises(ConfigurationError, match="replacement"):
        SpanMaskingView(wordpiece_tokenizer, seed=0, replacement="word")
    with pytest.raises(ConfigurationError, match="max_span_words"):
        SpanMaskingView(wordpiece_tokenizer, seed=0, max_span_words=0)
    without_mask = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer.backend_tokenizer, pad_token="<pad>")
    with pytest.raises(ModelError, match="mask token"):
        TokenMaskingView(without_mask, seed=0)
