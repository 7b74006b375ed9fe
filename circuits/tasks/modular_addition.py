"""Modular-addition task: whether the model can add modulo p (a b = → a + b mod p).

Numbers are tokens 0 ... p − 1, the equals sign is token p. The corrupted prompt has another second number, whose sum is
the incorrect answer. The control asks for a random number in place of the sum.

References:
    Progress measures for grokking via mechanistic interpretability (Nanda et al., 2023),
    https://arxiv.org/abs/2301.05217
"""

from functools import partial

import torch

from circuits.tasks.induction import ModelSize
from circuits.tasks.task import Task

__all__ = ["modular_addition_task"]


def modular_addition_task(
    model: ModelSize, *, n_prompts: int = 64, seed: int = 0, modulus: int | None = None, fresh: bool = False
) -> Task:
    """logit(the sum) − logit(the corrupted prompt's sum).

    Args:
        modulus: p; by default the vocabulary less the equals sign.

    Raises:
        ValueError: a modulus that the vocabulary does not hold, or a context of fewer than three tokens.
    """
    p = model.d_vocab - 1 if modulus is None else modulus
    if not 2 < p < model.d_vocab or model.n_ctx < 3 or n_prompts < 1:
        raise ValueError(
            f"expected a modulus from 3 to {model.d_vocab - 1}, a context of three tokens and at least one prompt, "
            f"got {p}, {model.n_ctx} and {n_prompts}"
        )
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(p, (n_prompts,), generator=generator)
    second = torch.randint(p, (n_prompts,), generator=generator)
    other = (second + 1 + torch.randint(p - 1, (n_prompts,), generator=generator)) % p
    equals = torch.full_like(first, p)
    right, wrong = (first + second) % p, (first + other) % p
    if fresh:
        shift = 1 + torch.randint(p - 1, (n_prompts,), generator=generator)
        right, wrong = (right + shift) % p, (wrong + shift) % p
    return Task.from_tokens(
        torch.stack([first, second, equals], 1),
        torch.stack([first, other, equals], 1),
        right,
        wrong,
        name="modular_addition" + ("_control" if fresh else ""),
        control=None
        if fresh
        else partial(modular_addition_task, model, n_prompts=n_prompts, seed=seed, modulus=modulus, fresh=True),
    )
