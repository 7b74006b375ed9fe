"""A kind of data source: what every way of making training sequences can do.

What does a sequence of this kind look like, which of its tokens are learned, and how is it asked whether they were?
A kind is a frozen set of options with two functions of a random generator: `draw` makes sequences, and `ask` makes
paired prompts, of which the clean one tells the answer and the corrupted one tells another.  What is fixed about a kind
(a transition table, the strings that are planted, which sums are held out) depends on its options alone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["Questions", "Sequences", "Shape", "SourceKind"]

Sequences = Int[np.ndarray, "sequence pos"]


@dataclass(frozen=True)
class Shape:
    """What all sources of a run share: the number of tokens there are, and how many a sequence has."""

    vocabulary: int
    length: int


@dataclass(frozen=True)
class Questions:
    """Paired prompts; the answer is read after the last token of each."""

    clean: Sequences
    corrupted: Sequences
    correct: Int[np.ndarray, "sequence"]
    incorrect: Int[np.ndarray, "sequence"]


class SourceKind(ABC):
    """One way of making sequences."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        """`n` sequences."""

    @abstractmethod
    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions | None:
        """`n` questions, or None where there is nothing to know."""

    def check(self, shape: Shape) -> None:
        """Raises:
        ValueError: sequences of this shape cannot hold it.
        """
        if shape.length < 2 or shape.vocabulary < 2:
            raise ValueError(f"expected at least 2 tokens and a context of 2, got {shape.vocabulary}, {shape.length}")

    def counted(self, shape: Shape) -> Bool[np.ndarray, "pos"]:
        """Which tokens are learned: their prediction counts in the loss."""
        return np.ones(shape.length, dtype=bool)
