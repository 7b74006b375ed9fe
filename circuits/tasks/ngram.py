"""N-gram task: how near the model is to the single-token or token-pair statistics of a text, learned first of all.

The reference is the text's own distribution of the next token, given nothing (order 1) or the last token (order 2),
smoothed by a share of the uniform one; the metric is minus its divergence from the model. The corrupted prompt ends in
another token, whose statistics are others. The control compares with the statistics of a shuffled vocabulary.

References:
    Neural Networks Learn Statistics of Increasing Complexity (Belrose et al., 2024), https://arxiv.org/abs/2402.04362
    Loss landscape geometry reveals stagewise development of transformers (Wang et al., 2024), for n-gram stages
"""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.metrics import find_metric
from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import encode

__all__ = ["ngram_task"]


def ngram_task(
    model: Model,
    *,
    text: str | Int[Tensor, "token"] | None = None,
    order: int = 2,
    n_prompts: int = 64,
    n_tokens: int = 16,
    seed: int = 0,
    smoothing: float = 0.01,
    fresh: bool = False,
) -> Task:
    """Minus KL(n-gram of `text` ‖ model), nats, at the last token of contexts drawn from the text.

    Args:
        text: a sample, as text for the model's tokenizer or as tokens.
        order: 1 (single tokens) or 2 (pairs).
        n_tokens: length of the contexts.

    Raises:
        ValueError: no text, an order that is neither 1 nor 2, or a text shorter than a context.
    """
    if text is None:
        raise ValueError("task 'ngram' needs text=..., a sample to take the statistics from")
    if order not in (1, 2):
        raise ValueError(f"expected order 1 or 2, got {order}")
    tokens = torch.tensor(encode(model.tokenizer, text)) if isinstance(text, str) else text.to(torch.int64)
    length = min(n_tokens, model.n_ctx)
    if len(tokens) < length + 2 or n_prompts < 1:
        raise ValueError(
            f"expected a text of at least {length + 2} tokens and one prompt, got {len(tokens)} and {n_prompts}"
        )
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - length, (n_prompts,), generator=generator)
    clean = tokens[starts[:, None] + torch.arange(length)]
    corrupted = clean.clone()
    other = tokens[torch.randint(len(tokens), (n_prompts,), generator=generator)]
    corrupted[:, -1] = torch.where(other == clean[:, -1], (other + 1) % model.d_vocab, other)
    table = _statistics(tokens, clean[:, -1] if order == 2 else None, n_prompts, model.d_vocab, smoothing)
    if fresh:
        table = table[:, torch.randperm(model.d_vocab, generator=generator)]
    following = tokens[starts + length]
    again = partial(
        ngram_task, model, text=tokens, order=order, n_prompts=n_prompts, n_tokens=n_tokens, seed=seed, fresh=True
    )
    name = f"ngram_{order}" + ("_control" if fresh else "")
    task = Task.from_tokens(
        clean, corrupted, following, metric="kl_divergence", name=name, control=None if fresh else again
    )
    return replace(task, metric=find_metric("kl_divergence"), reference=table)


def _statistics(
    tokens: Int[Tensor, "token"], last: Int[Tensor, "prompt"] | None, n_prompts: int, d_vocab: int, smoothing: float
) -> Float[Tensor, "prompt d_vocab"]:
    """Log probabilities of the next token."""
    if last is None:
        counts = torch.bincount(tokens, minlength=d_vocab).double().expand(n_prompts, -1)
    else:
        rows = [torch.bincount(tokens[1:][tokens[:-1] == one], minlength=d_vocab) for one in last]
        counts = torch.stack(rows).double()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return ((1 - smoothing) * share + smoothing / d_vocab).log()
