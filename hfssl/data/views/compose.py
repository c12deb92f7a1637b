"""Reads a view from text such as `"typos:0.05+token_cutoff"`, and makes batches of the changed rows.

A view is a list of steps, joined by `+`. `name:amount` overrides a step's default amount. Steps run in this order:
where the text comes from (`column=NAME`, `infill=FOLDER`), functions of the text, functions of the tokens, noise on
the embeddings. `"dropout"` is the view without any step: only the model's own dropout makes it differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hfssl.config.methods import resolve
from hfssl.data.tokenization import Row, encode_texts, pad_tokens
from hfssl.data.views.base import View
from hfssl.data.views.text import TEXT_VIEWS
from hfssl.data.views.tokens import TOKEN_VIEWS
from hfssl.errors import ConfigurationError, DataError, near_matches
from hfssl.runtime.seeding import derive_seed, numpy_generator

__all__ = [
    "EMBEDDING_VIEWS",
    "FUNCTIONS",
    "ComposedView",
    "ViewStep",
    "infill_column",
    "infill_models",
    "parse_view",
    "view_columns",
    "view_problems",
]

EMBEDDING_VIEWS = {"gaussian_noise": 0.1, "feature_cutoff": 0.1, "adversarial": 1.0}
"""Name -> default amount: standard deviation over the RMS of a token's embedding, share of the dimensions, and length
over the RMS norm of the embeddings. `hfssl.training.perturbations` applies them inside the model."""

FUNCTIONS: dict[str, Callable[[str], str]] = {}
"""Functions `str -> str` of a user, by name: `FUNCTIONS["no_numbers"] = lambda text: re.sub(r"\\d+", "#", text)`.

A view names them as it names the others; a function in a module needs no entry: `"function=my_module:no_numbers"`."""

LEVELS = ("source", "text", "tokens", "embedding")


@dataclass(frozen=True)
class ViewStep:
    """Holds one step of a view.

    Args:
        name (`str`): Name of the step: a key of `TEXT_VIEWS`, `TOKEN_VIEWS`, `EMBEDDING_VIEWS` or `FUNCTIONS`, or
            `"column"`, `"infill"` or `"function"`.
        level (`str`): `"source"`, `"text"`, `"tokens"` or `"embedding"`.
        amount (`float`, defaults to 0.0): Share, rate or standard deviation.
        value (`str`, defaults to `""`): Column of `"column"`, model of `"infill"`, import path of `"function"`.
    """

    name: str
    level: str
    amount: float = 0.0
    value: str = ""


def parse_view(text: str) -> list[ViewStep]:
    """Reads a view.

    Args:
        text (`str`): Steps with `+` between them.

    Raises:
        ConfigurationError: A step is unknown, an amount is not a number in its range, or the order is wrong.

    Example:
        >>> [step.name for step in parse_view("word_drop:0.2+token_cutoff")]
        ['word_drop', 'token_cutoff']
        >>> parse_view("dropout")
        []
    """
    steps = [_step(part.strip(), text) for part in text.split("+") if part.strip() != "dropout"]
    levels = [LEVELS.index(step.level) for step in steps]
    if levels != sorted(levels):
        raise ConfigurationError(
            f"view '{text}': expected columns first, then functions of the text, of the tokens, and noise on "
            f"embeddings; got {', '.join(step.name for step in steps)}. Change the order."
        )
    if levels.count(0) > 1:
        raise ConfigurationError(f"view '{text}': expected one column as the source of the text, got several.")
    return steps


def _step(part: str, view: str) -> ViewStep:
    name, given, value = part.partition("=")
    if given:
        if name not in ("column", "function", "infill") or not value:
            raise ConfigurationError(
                f"view '{view}': expected column=NAME, infill=MODEL or function=MODULE:NAME, got '{part}'."
            )
        return ViewStep(name, "text" if name == "function" else "source", value=value)
    name, given, amount = part.partition(":")
    known: dict[str, tuple[str, float]] = {
        **{key: ("text", default) for key, (_, default) in TEXT_VIEWS.items()},
        **{key: ("text", 0.0) for key in FUNCTIONS},
        **{key: ("tokens", default) for key, (_, default) in TOKEN_VIEWS.items()},
        **{key: ("embedding", default) for key, default in EMBEDDING_VIEWS.items()},
    }
    if name not in known:
        hint = near_matches(name, [*known, "dropout"])
        raise ConfigurationError(
            f"view '{view}': expected steps among dropout, {', '.join(known)}, column=NAME, infill=MODEL, "
            "function=MODULE:NAME; got "
            f"'{part}'.{hint}"
        )
    level, default = known[name]
    return ViewStep(name, level, _amount(name, amount, view) if given else default)


def _amount(name: str, text: str, view: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    bounded = name not in ("window_shuffle", "gaussian_noise", "adversarial")
    if not (0 <= amount < 1 if bounded else 0 <= amount < float("inf")):
        wanted = "a share from 0 to below 1" if bounded else "a number from 0"
        raise ConfigurationError(f"view '{view}': expected {wanted} after '{name}:', got '{text}'.")
    return amount


def view_problems(option: str, text: str) -> list[str]:
    """Returns what is wrong with a view as a list of sentences, for the checks of a configuration.

    Args:
        option (`str`): Name of the option.
        text (`str`): The view.
    """
    try:
        parse_view(text)
    except ConfigurationError as error:
        return [f"{option}: {problem}" for problem in error.problems]
    return []


def view_columns(*views: str) -> list[str]:
    """Returns the columns that views read in addition to the text, in order.

    Example:
        >>> view_columns("column=text_weak", "column=text_strong+token_cutoff", "dropout")
        ['text_weak', 'text_strong']
    """
    return list(dict.fromkeys(step.value for view in views for step in parse_view(view) if step.name == "column"))


def infill_column(model: str) -> str:
    """Returns the name of the column that holds the texts which a masked language model has filled."""
    return f"infill={model}"


def infill_models(*views: str) -> list[str]:
    """Returns the masked language models that views name, in order.

    Example:
        >>> infill_models("infill=bert-base-uncased+typos", "dropout")
        ['bert-base-uncased']
    """
    return list(dict.fromkeys(step.value for view in views for step in parse_view(view) if step.name == "infill"))


class ComposedView(View):
    """Makes batches of changed rows; see the module.

    What a row becomes depends on `(seed, stream, draw, row)` only: not on its batch, rank or worker.

    Args:
        view (`str`): Steps with `+` between them.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): The tokenizer; `texts` needs none.
        seed (`int`): Random seed of the run.
        stream (`str`): Name of the random stream, such as `"strong"`.
        max_length (`int`, defaults to 128): Largest number of tokens of a row.

    Example:
        >>> view = ComposedView("word_drop:0.5", tokenizer, seed=0, stream="strong")
        >>> batch = view([{"text": "a good film", "input_ids": [], "row": 3, "draw": 0}])
        >>> sorted(batch)
        ['attention_mask', 'input_ids', 'row', 'token_type_ids']
    """

    def __init__(
        self, view: str, tokenizer: PreTrainedTokenizerBase | None, *, seed: int, stream: str, max_length: int = 128
    ):
        self.steps = parse_view(view)
        self.name, self.seed, self.stream = view, seed, stream
        self.tokenizer: Any = tokenizer
        self.max_length = max_length
        self.text_steps = [step for step in self.steps if step.level in ("source", "text")]
        self.token_steps = [step for step in self.steps if step.level == "tokens"]
        self.noise_steps = [step for step in self.steps if step.level == "embedding" and step.name != "adversarial"]
        self.functions = {step: _user_function(step) for step in self.text_steps}
        self._special = np.array([] if tokenizer is None else sorted(tokenizer.all_special_ids))

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Returns padded tensors `[B, L]`, `row` `[B]`, and where there is noise on embeddings its columns `[B]`."""
        generators = self._generators(rows) if self.text_steps or self.token_steps else []
        encoded = self._encode(rows, generators) if self.text_steps else rows
        batch = pad_tokens(encoded, self.tokenizer)
        if self.token_steps:
            self._hide(batch, generators)
        batch["row"] = torch.tensor([row["row"] for row in rows])
        if self.noise_steps:
            seeds = [derive_seed(self.seed, self.stream, "noise", row["draw"], row["row"]) for row in rows]
            batch["noise_seed"] = torch.tensor(seeds)
        for step in self.noise_steps:
            batch[step.name] = torch.full((len(rows),), step.amount)
        return batch

    def texts(self, rows: Sequence[Row]) -> list[str]:
        """Returns the changed texts `[B]` of rows with `text`, `row` and `draw`; the first part of a pair of texts.

        Raises:
            DataError: A function fails, or what it returns is not a text or is empty.
        """
        return [pair[0] for pair in self._changed(rows, self._generators(rows))]

    def _generators(self, rows: Sequence[Row]) -> list[np.random.Generator]:
        return [numpy_generator(self.seed, self.stream, row["draw"], row["row"]) for row in rows]

    def _changed(self, rows: Sequence[Row], generators: Sequence[np.random.Generator]) -> list[tuple[str, ...]]:
        """Returns the changed text of each row, and the second text where rows are pairs."""
        changed = []
        for row, generator in zip(rows, generators, strict=True):
            texts = [row["text"], *([row["text_pair"]] if row.get("text_pair") is not None else [])]
            for step in self.text_steps:
                if step.level == "source":
                    texts[0] = row[step.value if step.name == "column" else infill_column(step.value)]
                else:
                    texts = [self._apply(step, text, generator, row["row"]) for text in texts]
            changed.append(tuple(texts))
        return changed

    def _apply(self, step: ViewStep, text: str, generator: np.random.Generator, row: int) -> str:
        own = self.functions[step]
        if own is None:
            changed = TEXT_VIEWS[step.name][0](text, generator, step.amount)
        else:
            name = step.value or step.name
            try:
                changed = own(text)
            except Exception as error:
                raise DataError(
                    f"Expected a text from the view '{name}' for row {row} of the pool, got "
                    f"{type(error).__name__}: {error}. Correct the function, or leave it out of the view."
                ) from error
            if not isinstance(changed, str):
                raise DataError(
                    f"Expected a text from the view '{name}' for row {row} of the pool, got a "
                    f"{type(changed).__name__}: return one str for each str."
                )
        if text.strip() and not changed.strip():
            raise DataError(
                f"Expected a text from the view '{step.value or step.name}' for row {row} of the pool, got an empty "
                "one: return the text unchanged where nothing would be left."
            )
        return changed

    def _encode(self, rows: list[Row], generators: Sequence[np.random.Generator]) -> list[Row]:
        changed = self._changed(rows, generators)
        texts: dict[str, Any] = {"text": [pair[0] for pair in changed]}
        if all(len(pair) == 2 for pair in changed):
            texts["text_pair"] = [pair[1] for pair in changed]
        encoded = encode_texts(texts, self.tokenizer, self.max_length)
        return [{name: encoded[name][i] for name in encoded} for i in range(len(rows))]

    def _hide(self, batch: Mapping[str, torch.Tensor], generators: Sequence[np.random.Generator]) -> None:
        """Sets the attention mask of the chosen tokens to 0, in place."""
        ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
        free = (mask > 0) & ~np.isin(ids, self._special)
        for i, generator in enumerate(generators):
            for step in self.token_steps:
                positions = np.flatnonzero(free[i])
                if len(positions) > 1:
                    hidden = TOKEN_VIEWS[step.name][0](positions, generator, step.amount)
                    mask[i, hidden] = 0
                    free[i, hidden] = False


def _user_function(step: ViewStep) -> Callable[[str], str] | None:
    """Returns the user's function of a step; `None` for the steps of this package."""
    if step.name == "function":
        return resolve(step.value)
    return FUNCTIONS.get(step.name)
