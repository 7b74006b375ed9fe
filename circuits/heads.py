"""Head scores: what each head looks at, whatever the task, and what the model gains from what it has seen.

Probes are sequences of random tokens, one block of distinct tokens twice over, at several periods (a single period
lets a head that always looks the same distance back pass for an induction head).

Axes: `prompt`, `query`, `key` positions; `node` the heads of `graph.heads`.

References:
    In-context Learning and Induction Heads (Olsson et al., 2022), https://arxiv.org/abs/2209.11895
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.geometry import Streams, stream_geometry
from circuits.graph import Estimate, NodeScores
from circuits.model import WATCHES_PATTERN, Model
from circuits.tasks.induction import repeated_tokens

__all__ = ["KINDS", "LOSSES", "head_scores", "scores_and_losses", "sequence_losses"]

PROBE = "repeated-tokens"
Pattern = Float[Tensor, "layer head prompt query key"]
ByHead = Float[Tensor, "layer head prompt"]


def _back(pattern: Pattern, distance: int, first_query: int) -> ByHead:
    """Mean attention to the key `distance` before the query, over queries from `first_query` on."""
    diagonal = pattern.diagonal(offset=-distance, dim1=-2, dim2=-1)
    return diagonal[..., first_query - distance :].mean(-1)


def _local(pattern: Pattern, period: int) -> ByHead:
    """Attention to the three tokens before the query."""
    return sum((_back(pattern, distance, 3) for distance in (1, 2, 3)), torch.zeros(()).to(pattern))


KINDS: dict[str, Callable[[Pattern, int], ByHead]] = {
    "previous-token": lambda pattern, period: _back(pattern, 1, 1),
    "duplicate-token": lambda pattern, period: _back(pattern, period, period),
    "induction": lambda pattern, period: _back(pattern, period - 1, period),
    "first-token": lambda pattern, period: pattern[..., 1:, 0].mean(-1),
    "self": lambda pattern, period: _back(pattern, 0, 0),
    "local": _local,
}
"""Mean attention that a head pays, between 0 and 1: to the token before; to the earlier occurrence of the same token,
and to the token after that one (queries of the second block); to the first token; to the query itself; to the three
tokens before."""

RARE = ("local",)
"""Kinds that are made only where they are asked for; every other kind is also what a recording measures."""
LOSSES = ("loss_first_half", "loss_second_half", "in_context_learning_score")


def head_scores(
    model: Model,
    *,
    kinds: Sequence[str] | None = None,
    n_prompts: int = 64,
    seed: int = 0,
    periods: Sequence[int] | None = None,
    batch_size: int = 64,
) -> dict[str, NodeScores]:
    """Attention-pattern scores of every head, by kind: see `KINDS`, all but the rare ones where none are named.

    Raises:
        ValueError: a kind is unknown.

    >>> sorted(KINDS)
    ['duplicate-token', 'first-token', 'induction', 'local', 'previous-token', 'self']
    """
    kinds = _checked(kinds)
    found: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for period, tokens in repeated_tokens(model, n_prompts=n_prompts, seed=seed, periods=periods):
        for rows in tokens.split(batch_size):
            _add_scores(found, model.attention(rows), period)
    return _scores(model, found)


def sequence_losses(
    model: Model,
    *,
    n_prompts: int = 64,
    seed: int = 0,
    periods: Sequence[int] | None = None,
    batch_size: int = 64,
) -> dict[str, Estimate]:
    """Losses in nats on a block of p random tokens, twice over, tokens counted from 0:

    - `loss_first_half`: mean over the predicted tokens 1 ... p − 1;
    - `loss_second_half`: mean over the predicted tokens p + 1 ... 2p − 1, the ones that the first block tells (that
      the block begins again cannot be told);
    - `in_context_learning_score`: loss of the last token less loss of the token a tenth of the way in, as Olsson et
      al. (2022) take the 500th less the 50th token of 512; negative where the context helps.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in LOSSES}
    for period, tokens in repeated_tokens(model, n_prompts=n_prompts, seed=seed, periods=periods):
        for rows in tokens.split(batch_size):
            _add_losses(found, model.logits(rows), rows, period)
    return {name: Estimate.from_prompts(np.concatenate(values)) for name, values in found.items()}


def scores_and_losses(
    model: Model,
    *,
    kinds: Sequence[str] | None = None,
    n_prompts: int = 64,
    seed: int = 0,
    periods: Sequence[int] | None = None,
    batch_size: int = 64,
) -> tuple[dict[str, NodeScores], dict[str, Estimate]]:
    """`head_scores` and `sequence_losses` of the same prompts, from one forward pass.

    With the losses come the numbers of `circuits.geometry`.

    Raises:
        ValueError: a kind is unknown.
    """
    kinds = _checked(kinds)
    scores: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    losses: dict[str, list[np.ndarray]] = {name: [] for name in LOSSES}
    streams: list[Streams] = []
    for period, tokens in repeated_tokens(model, n_prompts=n_prompts, seed=seed, periods=periods):
        for rows in tokens.split(batch_size):
            patterns: list[Tensor] = []
            read: list[Tensor] = []

            def keep(
                place: str, layer: int, x: Tensor, patterns: list[Tensor] = patterns, read: list[Tensor] = read
            ) -> Tensor:
                if place == "pattern":
                    patterns.append(x)
                elif place == "resid_pre" and layer == model.graph.n_layers - 1:
                    read.append(x)
                return x

            with torch.no_grad():
                embedded = model.embed(rows)
                final = model.run(model.stream(embedded), tap=keep, watches=WATCHES_PATTERN)
                logits = model.read_out(final)
            model.check_finite(logits)
            _add_losses(losses, logits, rows, period)
            _add_scores(scores, torch.stack(patterns).transpose(1, 2), period)
            streams.append(Streams(rows.to(final.device), embedded, read[0], final))
    found = {name: Estimate.from_prompts(np.concatenate(rows)) for name, rows in losses.items()}
    return _scores(model, scores), found | stream_geometry(streams)


def _checked(kinds: Sequence[str] | None) -> Sequence[str]:
    if kinds is None:
        return [kind for kind in KINDS if kind not in RARE]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"expected kinds among {', '.join(KINDS)}, got {unknown[0]!r}")
    return kinds


def _add_scores(found: dict[str, list[Tensor]], pattern: Pattern, period: int) -> None:
    for kind in found:
        found[kind].append(KINDS[kind](pattern, period).flatten(0, 1).T.double().cpu())


def _scores(model: Model, found: dict[str, list[Tensor]]) -> dict[str, NodeScores]:
    estimates = {kind: Estimate.from_prompts(torch.cat(rows).numpy()) for kind, rows in found.items()}
    return {kind: NodeScores(model.graph.heads, estimate, kind, PROBE) for kind, estimate in estimates.items()}


def _add_losses(found: dict[str, list[np.ndarray]], logits: Tensor, rows: Tensor, period: int) -> None:
    logits = logits[:, :-1]
    told = logits.gather(2, rows[:, 1:, None].to(logits.device))[..., 0]
    loss = (logits.logsumexp(-1) - told).double().cpu().numpy()  # loss[:, i] is of token i + 1
    early = max(1, round(2 * period / 10))
    found["loss_first_half"].append(loss[:, : period - 1].mean(1))
    found["loss_second_half"].append(loss[:, period:].mean(1))
    found["in_context_learning_score"].append(loss[:, -1] - loss[:, early - 1])
