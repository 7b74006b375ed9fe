"""Training sequences: what the embedded trainer's model learns from.

Sequences of random tokens with repeats: a repeating sequence has a period of its own, drawn anew each time, so that no
fixed distance tells where the answer stands and only finding the earlier occurrence does.  Batch i depends on nothing
but the options, the seed and i.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

__all__ = ["Repeats", "batch", "draw_sequences"]


@dataclass(frozen=True)
class Repeats:
    """A distribution of token sequences.

    Args:
        vocabulary: number of tokens.
        length: tokens in a sequence.
        repeat_probability: share of the sequences that repeat.
        shortest_period, longest_period: the period of a repeating sequence is uniform between them, both included.
        corrupted_fraction: probability of each repeated token to be replaced by a fresh one.
        zipf_exponent: token of rank r has probability in proportion to r^-exponent; 0 is uniform.
        burstiness: probability that a fresh token is one of the few that its sequence favours.
    """

    vocabulary: int = 64
    length: int = 32
    repeat_probability: float = 0.9
    shortest_period: int = 4
    longest_period: int = 16
    corrupted_fraction: float = 0.0
    zipf_exponent: float = 0.0
    burstiness: float = 0.0

    def __post_init__(self) -> None:
        if self.vocabulary < 2 or self.length < 2:
            raise ValueError(f"expected at least 2 tokens and a length of 2, got {self.vocabulary} and {self.length}")
        if not 1 <= self.shortest_period <= self.longest_period:
            raise ValueError(
                f"expected 1 <= shortest_period <= longest_period, got {self.shortest_period} and {self.longest_period}"
            )
        for name in ("repeat_probability", "corrupted_fraction", "burstiness"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} between 0 and 1, got {getattr(self, name)}")
        if self.zipf_exponent < 0:
            raise ValueError(f"expected a zipf_exponent from 0 on, got {self.zipf_exponent}")


FAVOURED = 4
"""Tokens that a bursty sequence favours."""


def batch(repeats: Repeats, size: int, *, seed: int, index: int) -> Int[np.ndarray, "batch pos"]:
    """The batch at one position of the data.

    >>> x = batch(Repeats(length=6, repeat_probability=1.0, shortest_period=3, longest_period=3), 2, seed=0, index=5)
    >>> bool((x[:, :3] == x[:, 3:]).all())
    True
    """
    return draw_sequences(repeats, np.random.default_rng([seed, index]), size)


def draw_sequences(repeats: Repeats, rng: np.random.Generator, size: int) -> Int[np.ndarray, "batch pos"]:
    """`size` sequences of the distribution."""
    shape = (size, repeats.length)
    fresh = _fresh(repeats, rng, shape)
    period = rng.integers(repeats.shortest_period, repeats.longest_period + 1, size=size)
    repeating = rng.random(size) < repeats.repeat_probability
    period = np.where(repeating, period, repeats.length)[:, None]
    position = np.arange(repeats.length)[None, :]
    tokens = np.take_along_axis(fresh, position % period, axis=1)
    if repeats.corrupted_fraction:
        corrupted = (rng.random(shape) < repeats.corrupted_fraction) & (position >= period)
        tokens = np.where(corrupted, _fresh(repeats, rng, shape), tokens)
    return tokens


def _fresh(repeats: Repeats, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    if repeats.zipf_exponent:
        weights = np.arange(1, repeats.vocabulary + 1, dtype=float) ** -repeats.zipf_exponent
        tokens = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(shape), side="right")
        tokens = np.minimum(tokens, repeats.vocabulary - 1)
    else:
        tokens = rng.integers(repeats.vocabulary, size=shape)
    if repeats.burstiness:
        favoured = np.take_along_axis(tokens, rng.integers(FAVOURED, size=shape) % shape[1], axis=1)
        tokens = np.where(rng.random(shape) < repeats.burstiness, favoured, tokens)
    return tokens
