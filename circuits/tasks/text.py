"""Prompts in words: how they become a task for a model's own tokenizer.

Words of a task must be single tokens with the space before them; those that are not are dropped and counted, since
another tokenizer would make another task of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from circuits.model import Model
from circuits.tasks.task import Task

__all__ = ["Pair", "encode", "single_tokens", "task_from_pairs"]

Pair = tuple[str, str, list[str], list[str]]
"""Clean and corrupted prompt, correct and incorrect answers (words, each with the space before it)."""


def encode(tokenizer: Any, text: str) -> list[int]:
    """The prompt's tokens, with whatever the tokenizer itself puts before them and nothing after."""
    tokens = list(tokenizer(text)["input_ids"])
    end = getattr(tokenizer, "eos_token_id", None)
    return tokens[:-1] if len(tokens) > 1 and tokens[-1] == end and tokens[0] != end else tokens


def single_tokens(tokenizer: Any, words: Sequence[str]) -> tuple[dict[str, int], int]:
    """(token of each word that is one token after a space, how many words are not)."""
    found, unknown = {}, getattr(tokenizer, "unk_token_id", None)
    for word in words:
        tokens = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if len(tokens) == 1 and tokens[0] != unknown:
            found[word] = int(tokens[0])
    return found, len(set(words)) - len(found)


def task_from_pairs(
    model: Model,
    draw: Callable[[torch.Generator], Pair],
    *,
    name: str,
    n_prompts: int,
    seed: int,
    metric: str = "logit_difference",
    dropped: int = 0,
    control: Callable[[], Task] | None = None,
) -> Task:
    """`n_prompts` pairs from `draw`; a pair whose prompts differ in tokens, or whose answers are no tokens, is drawn
    again.

    Raises:
        ValueError: no prompts asked for, or nearly no pair suits the tokenizer.
    """
    if n_prompts < 1:
        raise ValueError(f"expected at least one prompt, got n_prompts={n_prompts}")
    generator, tokenizer = torch.Generator().manual_seed(seed), model.tokenizer
    clean, corrupted, correct, incorrect = [], [], [], []
    for _ in range(50 * n_prompts):
        first, second, right, wrong = draw(generator)
        one, other = encode(tokenizer, first), encode(tokenizer, second)
        right_tokens, wrong_tokens = (list(single_tokens(tokenizer, words)[0].values()) for words in (right, wrong))
        if len(one) != len(other) or one == other or not right_tokens or (wrong and not wrong_tokens):
            continue
        clean.append(one)
        corrupted.append(other)
        correct.append(right_tokens)
        incorrect.append(wrong_tokens or [-1])
        if len(clean) == n_prompts:
            break
    if len(clean) < n_prompts:
        raise ValueError(
            f"task {name!r} found only {len(clean)} of {n_prompts} prompt pairs that are of equal length and have "
            "single-token answers in this model's tokenizer; use another task or a larger vocabulary"
        )
    task = Task.from_tokens(clean, corrupted, correct, incorrect, metric=metric, name=name, control=control)
    return replace(task, dropped=dropped)


def pick(generator: torch.Generator, words: Sequence[str], count: int = 1) -> list[str]:
    """`count` different words."""
    order = torch.randperm(len(words), generator=generator)[:count].tolist()
    return [words[int(i)] for i in order]


def usable(model: Model, words: Sequence[str], *, name: str, least: int) -> tuple[list[str], int]:
    """The words that are single tokens, and how many are not.

    Raises:
        ValueError: fewer than `least` are.
    """
    found, dropped = single_tokens(model.tokenizer, words)
    if len(found) < least:
        raise ValueError(
            f"task {name!r} needs {least} of its {len(words)} words as single tokens of this model's tokenizer, "
            f"which has {len(found)}"
        )
    return list(found), dropped
