"""Data sources: a mixture of named kinds of sequences, each sequence labelled with where it comes from.

What is in the batch of this step, from which source is each sequence, and how much does each count?  Sources are mixed
by weights that may change over the steps: the share of source s at step t is

    p_s(t) = w_s(t) / Σ_r w_r(t)

A batch depends on nothing but the sources' options, the seed and its index.  The place of a sequence in the batch draws
the same number, and each source the same sequence for that place, whatever the weights are: a small change of a weight
replaces few sequences and leaves the others as they were.

A source may also be **reweighted** by a factor f: its sequences' losses then count

    c_s = ℓ_s f_s / Σ_r p_r f_r

where ℓ_s is its own `loss_weight`.  In the mean over batches that is the gradient of a mixture with shares in
proportion to p_s f_s, but it draws nothing anew, so a training responds to it smoothly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tracking.training.source_kind import Shape, SourceKind
from tracking.training.source_kinds import kind_of

__all__ = ["Batch", "Source", "loss_weights", "mixed_batch", "read_sources", "shares"]

OWN = ("kind", "weight", "loss_weight")


@dataclass(frozen=True)
class Source:
    """One source of a mixture.

    Args:
        weight: (step, weight) pairs, straight lines between them and constant outside; one pair where it is constant.
        loss_weight: how much the loss on its sequences counts.
        options: of its kind, as they were given.
    """

    name: str
    kind: str
    weight: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    loss_weight: float = 1.0
    options: tuple[tuple[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        steps, weights = zip(*self.weight, strict=True)
        if list(steps) != sorted(set(steps)) or min(weights) < 0 or not np.isfinite([*steps, *weights]).all():
            raise ValueError(
                f"expected a weight from 0 on, or pairs of step and weight with the steps rising, for source "
                f"{self.name!r}, got {[list(pair) for pair in self.weight]}"
            )
        if not self.loss_weight >= 0:
            raise ValueError(f"expected a loss_weight from 0 on for source {self.name!r}, got {self.loss_weight}")
        self.made  # noqa: B018

    @property
    def made(self) -> SourceKind:
        """What draws its sequences."""
        try:
            return kind_of(self.kind, dict(self.options))
        except ValueError as error:
            raise ValueError(f"source {self.name!r}: {error}") from error

    def weight_at(self, step: int) -> float:
        steps, weights = zip(*self.weight, strict=True)
        return float(np.interp(step, steps, weights))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a configuration; a weight that changes is text, `0:1, 300:0.5`, and so are lists."""
        pairs = ", ".join(f"{step:g}:{value:g}" for step, value in self.weight)
        weight = self.weight[0][1] if len(self.weight) == 1 else pairs
        own = {"kind": self.kind, "weight": weight, "loss_weight": self.loss_weight}
        return own | {
            key: ", ".join(map(str, value)) if isinstance(value, tuple) else value for key, value in self.options
        }


@dataclass(frozen=True)
class Batch:
    """Sequences, the number of the source of each, and which of their tokens are learned."""

    tokens: Int[np.ndarray, "batch pos"]
    source: Int[np.ndarray, "batch"]
    counted: Bool[np.ndarray, "batch pos"]


def read_sources(given: Mapping[str, Any], shape: Shape) -> tuple[Source, ...]:
    """The sources of a configuration, by name: `{NAME: {kind, weight, loss_weight, options of the kind}}`.

    Their order is that of their names, however they were written down: a batch depends on it.

    Raises:
        ValueError: an entry is of the wrong kind, or its sequences do not fit the vocabulary and the context.
    """
    sources = []
    for name, entries in sorted(given.items()):
        if not isinstance(entries, Mapping) or not isinstance(entries.get("kind"), str):
            raise ValueError(f"expected [sources.{name}] to name its kind, as in kind = 'repeats', got {entries!r}")
        weight = entries.get("weight", 1.0)
        try:
            numbers, loss_weight = _pairs(weight), float(entries.get("loss_weight", 1.0))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"expected the weight of source {name!r} to be a number, pairs of step and weight, or text such as "
                f"'0:1, 300:0.5', got {weight!r}"
            ) from error
        options = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entries.items() if key not in OWN
        }
        source = Source(name, entries["kind"], numbers, loss_weight, tuple(sorted(options.items())))
        try:
            source.made.check(shape)
        except (TypeError, ValueError) as error:
            raise ValueError(f"source {name!r}: {error}") from error
        sources.append(source)
    return tuple(sources)


def _pairs(weight: Any) -> tuple[tuple[float, float], ...]:
    if isinstance(weight, str) and ":" in weight:
        weight = [part.split(":") for part in weight.split(",")]
    pairs = weight if isinstance(weight, list | tuple) else [(0.0, weight)]
    return tuple((float(step), float(value)) for step, value in pairs)


def shares(sources: tuple[Source, ...], step: int) -> Float[np.ndarray, "source"]:
    """p_s: the share of each source at a step.

    Raises:
        ValueError: all weights are zero there.

    >>> some = read_sources({"a": {"kind": "random", "weight": 3}, "b": {"kind": "repeats"}}, Shape(64, 32))
    >>> shares(some, 0).tolist()
    [0.75, 0.25]
    """
    weights = np.array([source.weight_at(step) for source in sources])
    if not weights.sum() > 0:
        raise ValueError(f"expected a source with a weight above 0 at step {step}, got none")
    return weights / weights.sum()


def mixed_batch(sources: tuple[Source, ...], size: int, *, shape: Shape, seed: int, index: int) -> Batch:
    """The batch at one position of the data."""
    edges = np.cumsum(shares(sources, index))[:-1]
    label = np.searchsorted(edges, np.random.default_rng([seed, index]).random(size), side="right")
    tokens, counted = np.zeros((size, shape.length), dtype=np.int64), np.zeros((size, shape.length), dtype=bool)
    for number, source in enumerate(sources):
        rows = label == number
        if rows.any():
            kind = source.made
            tokens[rows] = kind.draw(np.random.default_rng([seed, index, number]), size, shape)[rows]
            counted[rows] = kind.counted(shape)
    return Batch(tokens, label, counted)


def loss_weights(
    sources: tuple[Source, ...], step: int, factors: Mapping[str, float] | None = None
) -> Float[np.ndarray, "source"]:
    """c_s: how much the loss on a sequence of each source counts, when sources are reweighted by `factors`.

    Raises:
        ValueError: a factor is for no source, or leaves nothing to learn from.
    """
    factors = factors or {}
    if unknown := sorted(set(factors) - {source.name for source in sources}):
        known = ", ".join(source.name for source in sources) or "none: the run was trained without sources"
        raise ValueError(f"no source {unknown[0]!r} in this training; there are {known}")
    factor = np.array([factors.get(source.name, 1.0) for source in sources])
    total = float(shares(sources, step) @ factor)
    if not total > 0:
        raise ValueError(f"the reweighted sources leave nothing to learn from at step {step}")
    return np.array([source.loss_weight for source in sources]) * factor / total
