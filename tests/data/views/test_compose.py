"""Views of texts: what a step changes and keeps, how steps are named, and what wrong views tell."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hfssl.cli.main import main
from hfssl.data.views.compose import FUNCTIONS, ComposedView, parse_view, view_columns
from hfssl.data.views.text import NEIGHBOURS, TEXT_VIEWS, casing, ocr, typos, window_shuffle, word_drop, word_swap
from hfssl.data.views.tokens import span_cutoff, token_cutoff
from hfssl.errors import ConfigurationError, DataError

TEXT = "the film is a great story with an awful plot and good fun"


def generator(seed=0):
    return np.random.default_rng(seed)


def rows(*texts, draw=0, tokenizer=None):
    found = [{"text": text, "row": i, "draw": draw} for i, text in enumerate(texts)]
    return found if tokenizer is None else [row | dict(tokenizer(row["text"])) for row in found]


@pytest.mark.parametrize("name", TEXT_VIEWS)
def test_a_step_depends_on_its_generator_alone_and_never_empties_a_text(name):
    function, amount = TEXT_VIEWS[name]
    assert function(TEXT, generator(3), amount) == function(TEXT, generator(3), amount)
    for text in ("a", "ab cd", TEXT, "ünïcödé 漢字", "x" * 50):
        for seed in range(20):
            assert function(text, generator(seed), 0.9 if amount < 1 else 5).strip()
    assert any(function(TEXT * 3, generator(seed), amount) != TEXT * 3 for seed in range(20))


def test_word_drop_keeps_the_order_and_its_rate():
    kept = [word_drop(TEXT, generator(seed), 0.3).split() for seed in range(400)]
    assert all(words == [word for word in TEXT.split() if word in words] for words in kept)  # all words differ
    assert np.mean([len(words) for words in kept]) == pytest.approx(0.7 * 13, abs=0.3)


def test_swaps_and_shuffles_keep_every_word():
    for seed in range(30):
        assert sorted(word_swap(TEXT, generator(seed), 0.3).split()) == sorted(TEXT.split())
        moved = window_shuffle(TEXT, generator(seed), 2).split()
        places = [TEXT.split().index(word) for word in moved]
        assert max(abs(place - i) for i, place in enumerate(places)) <= 2
    assert word_swap("one", generator(), 0.5) == "one"


def test_typos_are_near_on_the_keyboard():
    assert set(NEIGHBOURS["a"]) == set("qwszx")  # in its own row and those above and below
    assert typos(TEXT, generator(), 0.0) == TEXT
    changed = sum(typos(TEXT, generator(seed), 0.05) != TEXT for seed in range(100))
    assert 80 < changed <= 100
    assert typos("漢字", generator(), 0.9) == "漢字"


def test_ocr_confuses_only_what_scanners_confuse():
    found = {ocr("O", generator(seed), 0.999) for seed in range(20)}
    assert found == {"0"}
    assert ocr("xyz", generator(), 0.999) == "xyz"


def test_casing_keeps_letters_and_spaces():
    for seed in range(20):
        assert casing("One  two\tTHREE", generator(seed), 0.5).lower() == "one  two\tthree"


@pytest.mark.parametrize("function", [token_cutoff, span_cutoff])
def test_cutoffs_hide_their_share_on_average_and_leave_a_token(function):
    free = np.arange(1, 11)
    hidden = [function(free, generator(seed), 0.25) for seed in range(300)]
    assert np.mean([len(positions) for positions in hidden]) == pytest.approx(2.5, abs=0.1)
    assert all(len(set(positions)) == len(positions) and set(positions) <= set(free) for positions in hidden)
    assert len(function(np.arange(2), generator(), 0.99)) == 1
    if function is span_cutoff:
        assert all((np.diff(positions) == 1).all() for positions in hidden)


def test_a_view_is_a_function_of_seed_row_and_draw(tiny_tokenizer):
    texts = (TEXT, "a dull story of an actor", "good fun for all of us")
    view = ComposedView("word_drop:0.4+token_cutoff:0.3", tiny_tokenizer, seed=1, stream="strong")
    together = view(rows(*texts))
    for i, text in enumerate(texts):  # in any batch the same
        alone = view([{"text": text, "row": i, "draw": 0}])
        width = alone["input_ids"].shape[1]
        assert torch.equal(alone["input_ids"][0], together["input_ids"][i, :width])
        assert torch.equal(alone["attention_mask"][0], together["attention_mask"][i, :width])
    assert view.texts(rows(*texts)) != view.texts(rows(*texts, draw=1))
    other = ComposedView("word_drop:0.4", tiny_tokenizer, seed=2, stream="strong")
    assert view.texts(rows(*texts)) != other.texts(rows(*texts))
    assert together["row"].tolist() == [0, 1, 2]


def test_hidden_tokens_are_masked_and_special_ones_are_not(tiny_tokenizer):
    view = ComposedView("token_cutoff:0.5", tiny_tokenizer, seed=1, stream="strong")
    plain = rows(TEXT, TEXT, tokenizer=tiny_tokenizer)
    batch = view(plain)
    assert batch["input_ids"][0].tolist() == plain[0]["input_ids"]  # nothing is replaced
    special = torch.isin(batch["input_ids"], torch.tensor(tiny_tokenizer.all_special_ids))
    assert (batch["attention_mask"][special] == 1).all()
    assert 2 <= (batch["attention_mask"][0] == 0).sum() <= 9


def test_dropout_leaves_the_row_as_it_is(tiny_tokenizer):
    assert parse_view("dropout") == []
    plain = rows(TEXT, tokenizer=tiny_tokenizer)
    assert ComposedView("dropout", tiny_tokenizer, seed=0, stream="weak")(plain)["input_ids"].tolist() == [
        plain[0]["input_ids"]
    ]


def test_columns_of_the_user_take_the_place_of_the_text(tiny_tokenizer):
    view = ComposedView("column=text_strong+casing:0.5", tiny_tokenizer, seed=0, stream="strong")
    row = {"text": "good", "text_strong": "awful plot", "row": 0, "draw": 0}
    assert view.texts([row])[0].lower() == "awful plot"
    assert view_columns("column=aug_0", "column=aug_1+typos", "word_drop") == ["aug_0", "aug_1"]


def test_both_texts_of_a_pair_are_changed(tiny_tokenizer):
    row = {"text": "good film", "text_pair": "bad plot", "row": 0, "draw": 0}
    FUNCTIONS["shout"] = str.upper
    try:
        batch = ComposedView("shout", tiny_tokenizer, seed=0, stream="strong")([row])
    finally:
        del FUNCTIONS["shout"]
    assert batch["input_ids"].tolist() == [tiny_tokenizer("GOOD FILM", "BAD PLOT")["input_ids"]]


def test_a_function_of_a_module_is_a_step(tiny_tokenizer, tmp_path, monkeypatch):
    (tmp_path / "my_steps.py").write_text("def no_numbers(text):\n    return text.replace('7', '#')\n")
    monkeypatch.syspath_prepend(tmp_path)
    view = ComposedView("function=my_steps:no_numbers", tiny_tokenizer, seed=0, stream="strong")
    assert view.texts(rows("7 films")) == ["# films"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda text: "", "Expected a text from the view 'mine' for row 1 of the pool, got an empty one"),
        (lambda text: None, "for row 1 of the pool, got a NoneType: return one str for each str"),
        (lambda text: 1 / 0, "for row 1 of the pool, got ZeroDivisionError: division by zero. Correct the function"),
    ],
)
def test_a_bad_function_names_its_row(tiny_tokenizer, monkeypatch, function, message):
    monkeypatch.setitem(FUNCTIONS, "mine", lambda text: text if text == "fine" else function(text))
    view = ComposedView("mine", tiny_tokenizer, seed=0, stream="strong")
    with pytest.raises(DataError, match=re.escape(message)):
        view(rows("fine", "film"))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("word_dorp", "got 'word_dorp'. Did you mean 'word_drop'?"),
        ("typos:2", "expected a share from 0 to below 1 after 'typos:', got '2'"),
        ("typos:x", "got 'x'"),
        ("gaussian_noise:-1", "expected a number from 0 after 'gaussian_noise:', got '-1'"),
        ("token_cutoff+typos", "expected columns first, then functions of the text"),
        ("column=a+column=b", "expected one column as the source of the text, got several"),
        ("column=", "expected column=NAME, infill=MODEL or function=MODULE:NAME, got 'column='"),
    ],
)
def test_a_wrong_view_is_one_sentence(view, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        parse_view(view)


def test_the_command_shows_rows_and_their_views(tmp_path, capsys, tiny_backbone):
    table = tmp_path / "reviews.csv"
    table.write_text("text,label\n" + "".join(f"{TEXT} {i},x\n" for i in range(12)), encoding="utf-8")
    words = ["views", "--input", str(table), "--views", "casing:0.9, token_cutoff:0.4", "--backbone"]
    assert main([*words, str(tiny_backbone)]) == 0
    shown = capsys.readouterr().out.split("\n\n")
    assert len(shown) == 10
    assert [line.split()[0] for line in shown[0].splitlines()] == ["text", "casing:0.9", "token_cutoff:0.4"]
    assert "[hidden]" in shown[0]
    assert main(["views", "--input", str(table), "--views", "token_cutoff"]) == 2
    assert "Expected a backbone for a view of tokens" in capsys.readouterr().err
    assert main(["views", "--input", str(table), "--views", "casing", "--text-column", "txt"]) == 2
    assert "Expected the column 'txt'" in capsys.readouterr().err
