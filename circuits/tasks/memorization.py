"""Memorization task: whether the model continues these very strings word for word.

Each string is cut in two; every token of the second part is one prompt, with all the true tokens before it. The metric
is the log probability of the true token. The corrupted prompt has the first part's tokens shuffled, which a model that
has not learned the string by heart can do about as well with; so has the control in its clean prompts.

References:
    Quantifying Memorization Across Neural Language Models (Carlini et al., 2022), https://arxiv.org/abs/2202.07646
"""

from collections.abc import Sequence
from functools import partial

import torch

from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import encode

__all__ = ["memorization_task"]


def memorization_task(
    model: Model,
    *,
    strings: "Sequence[str | Sequence[int]] | None" = None,
    prompt_share: float = 0.5,
    n_prompts: int | None = None,
    seed: int = 0,
    fresh: bool = False,
) -> Task:
    """Log probability, nats, of each token of the strings' second parts.

    Args:
        strings: text for the model's tokenizer, or tokens.
        prompt_share: how much of each string is given.
        n_prompts: take so many of the tokens, drawn with `seed`; all by default.

    Raises:
        ValueError: no strings, or one of fewer than four tokens or more than the context.
    """
    if not strings:
        raise ValueError("task 'memorization' needs strings=[...], the ones to be continued")
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, correct = [], [], []
    for string in strings:
        tokens = encode(model.tokenizer, string) if isinstance(string, str) else list(string)
        if not 4 <= len(tokens) <= model.n_ctx:
            raise ValueError(f"expected strings of 4 to {model.n_ctx} tokens, got one of {len(tokens)}")
        given = min(max(2, round(prompt_share * len(tokens))), len(tokens) - 1)
        order = torch.randperm(given, generator=generator).tolist()
        order = order if order != sorted(order) else order[::-1]
        again = torch.randperm(given, generator=generator).tolist() if fresh else range(given)
        for end in range(given, len(tokens)):
            clean.append([tokens[i] for i in again] + tokens[given:end])
            corrupted.append([tokens[i] for i in order] + tokens[given:end])
            correct.append(tokens[end])
    chosen = torch.randperm(len(clean), generator=generator)[:n_prompts].sort().values
    control = partial(
        memorization_task, model, strings=strings, prompt_share=prompt_share, n_prompts=n_prompts, seed=seed, fresh=True
    )
    name = "memorization" + ("_control" if fresh else "")
    whole = Task.from_tokens(
        clean, corrupted, correct, metric="cross_entropy", name=name, control=None if fresh else control
    )
    return whole.rows(chosen)
