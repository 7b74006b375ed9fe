"""Induction task: whether the model continues a pattern that it has seen once in the prompt (… A B … A → B).

Prompts are random tokens repeated with a period that varies from prompt to prompt: at a single period a head that
always looks the same distance back passes for an induction head.  The answer is the token that followed the last
token's earlier occurrence.  In the corrupted prompt the first block is shuffled so that another token of it followed,
which is then the wrong answer: the tokens are the same, what follows what is not.

References:
    In-context Learning and Induction Heads (Olsson et al., 2022), https://arxiv.org/abs/2209.11895
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.tasks.task import Task

__all__ = ["ModelSize", "induction_task", "repeated_tokens"]


@runtime_checkable
class ModelSize(Protocol):
    """All that a task on random tokens must know of a model."""

    @property
    def d_vocab(self) -> int: ...

    @property
    def n_ctx(self) -> int: ...


def induction_task(
    model: ModelSize, *, n_prompts: int = 64, seed: int = 0, periods: Sequence[int] | None = None
) -> Task:
    """Repeated random tokens, the answer being the token after the last token's earlier occurrence.

    Args:
        periods: lengths of the repeated block; by default several, as the context allows. Prompts take them in turn.

    The control has fresh random tokens in place of the first block, so nothing can be continued.
    """
    periods = tuple(periods) if periods is not None else default_periods(model)
    longest = max(periods, default=0)
    if min(periods, default=0) < 3 or 2 * longest > model.n_ctx:
        most = model.n_ctx // 2
        raise ValueError(f"expected periods from 3 to {most}, half the model's context, got {list(periods)}")
    if model.d_vocab < longest:
        raise ValueError(
            f"expected a vocabulary of at least {longest} for periods up to {longest}, got {model.d_vocab}"
        )
    return _prompts(model.d_vocab, periods, n_prompts, seed, fresh=False)


def default_periods(model: ModelSize) -> tuple[int, ...]:
    """Four periods between a sixth and just under a half of the context (at most 32), so that lengths differ too."""
    longest = max(3, min(model.n_ctx // 2, 32, model.d_vocab))
    return tuple(sorted({max(3, round(longest * share)) for share in (0.35, 0.55, 0.75, 1.0)}))


def _prompts(d_vocab: int, periods: tuple[int, ...], n_prompts: int, seed: int, *, fresh: bool) -> Task:
    if n_prompts < 1:
        raise ValueError(f"expected at least one prompt, got n_prompts={n_prompts}")
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, correct, incorrect = [], [], [], []
    for prompt in range(n_prompts):
        period = periods[prompt % len(periods)]
        block = torch.randperm(d_vocab, generator=generator)[:period].tolist()
        # The answer's place in the block: the prompt ends just before it comes again.
        answer = 1 + int(torch.randint(period - 1, (1,), generator=generator))
        asked, right = block[answer - 1], block[answer]
        while True:
            shuffled = [block[place] for place in torch.randperm(period, generator=generator).tolist()]
            place = shuffled.index(asked)
            if place + 1 < period and shuffled[place + 1] != right:
                break
        wrong = shuffled[place + 1]
        tail = block[:answer]
        if fresh:
            block, shuffled = (torch.randint(d_vocab, (period,), generator=generator).tolist() for _ in range(2))
        clean.append(block + tail)
        corrupted.append(shuffled + tail)
        correct.append(right)
        incorrect.append(wrong)
    task = Task.from_tokens(clean, corrupted, correct, incorrect, name="induction_control" if fresh else "induction")
    again = partial(_prompts, d_vocab, periods, n_prompts, seed, fresh=True)
    return replace(task, make_control=None if fresh else again)


def repeated_tokens(
    model: ModelSize, *, n_prompts: int, seed: int, periods: Sequence[int] | None = None
) -> list[tuple[int, Int[Tensor, "prompt pos"]]]:
    """(period, sequences of that period) for each period: one block of random tokens, twice over."""
    chosen = tuple(periods) if periods is not None else default_periods(model)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for place, period in enumerate(chosen):
        count = len(range(place, n_prompts, len(chosen)))
        if count:
            block = torch.stack([torch.randperm(model.d_vocab, generator=generator)[:period] for _ in range(count)])
            found.append((period, torch.cat([block, block], dim=1)))
    return found
