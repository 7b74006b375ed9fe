"""Duplicate-token task: whether the model copies the token before where every token comes twice (A A B B C → C).

The corrupted prompt ends in another token. In the control nothing comes twice before.

References:
    Interpretability in the Wild (Wang et al., 2022), for duplicate-token heads, https://arxiv.org/abs/2211.00593
"""

from functools import partial

import torch

from circuits.tasks.induction import ModelSize
from circuits.tasks.task import Task

__all__ = ["duplicate_token_task"]


def duplicate_token_task(
    model: ModelSize, *, n_prompts: int = 64, seed: int = 0, n_pairs: int | None = None, fresh: bool = False
) -> Task:
    """logit(the last token) − logit(the last token of the corrupted prompt).

    Args:
        n_pairs: doubled tokens before the last one; by default 3 to 7, different from prompt to prompt.

    Raises:
        ValueError: a context or vocabulary too small, or no prompts asked for.
    """
    most = min((model.n_ctx - 1) // 2, (model.d_vocab - 2) // 2, 7) if n_pairs is None else n_pairs
    if n_prompts < 1 or most < 1 or 2 * most + 1 > model.n_ctx or 2 * most + 2 > model.d_vocab:
        raise ValueError(
            f"expected at least one prompt of one doubled token that fits a context of {model.n_ctx} and a vocabulary "
            f"of {model.d_vocab}, got n_prompts={n_prompts} and n_pairs={most}"
        )
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, correct, incorrect = [], [], [], []
    for prompt in range(n_prompts):
        pairs = most if n_pairs is not None else max(1, most - prompt % 5)
        drawn = torch.randperm(model.d_vocab, generator=generator)[: 2 * pairs + 2].tolist()
        last, other, *rest = drawn
        before = rest[: 2 * pairs] if fresh else [token for token in rest[:pairs] for _ in range(2)]
        clean.append([*before, last])
        corrupted.append([*before, other])
        correct.append(last)
        incorrect.append(other)
    again = partial(duplicate_token_task, model, n_prompts=n_prompts, seed=seed, n_pairs=n_pairs, fresh=True)
    name = "duplicate_token" + ("_control" if fresh else "")
    return Task.from_tokens(clean, corrupted, correct, incorrect, name=name, control=None if fresh else again)
