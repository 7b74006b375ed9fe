"""Sources of plain statistics: random tokens, repeats, runs, Markov chains, and text of one's own.

Which simple regularities can a sequence have, one at a time?
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int

from tracking.training.sequences import Repeats, draw_sequences
from tracking.training.source_kind import Questions, Sequences, Shape, SourceKind

__all__ = ["Blocks", "Chain", "RandomTokens", "Runs", "Text"]


@dataclass(frozen=True)
class RandomTokens(SourceKind):
    """Independent tokens: nothing to know but how frequent each is."""

    zipf_exponent: float = 0.0
    burstiness: float = 0.0

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        repeats = Repeats(
            shape.vocabulary, shape.length, 0.0, zipf_exponent=self.zipf_exponent, burstiness=self.burstiness
        )
        return draw_sequences(repeats, rng, n)

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> None:
        return None


@dataclass(frozen=True)
class Blocks(SourceKind):
    """A block of random tokens over and over; each sequence has a period of its own, each repeated token is replaced
    by another with probability `corrupted_fraction`."""

    shortest_period: int = 4
    longest_period: int = 16
    corrupted_fraction: float = 0.0

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        return draw_sequences(self._repeats(shape), rng, n)

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        """What followed the last token when it stood there before; in the corrupted prompt that was another token."""
        period = rng.integers(self.shortest_period, min(self.longest_period, (shape.length - 1) // 2) + 1, size=n)
        length = shape.length - 1
        # The last token is at place p − 1 of its block, so that its successor is the block's first token.
        block = rng.permuted(np.tile(np.arange(shape.vocabulary), (n, 1)), axis=1)[:, : max(period.max() + 1, 2)]
        place = (np.arange(length)[None] - length) % period[:, None]
        clean = np.take_along_axis(block, place, axis=1)
        other = block[np.arange(n), np.minimum(period, block.shape[1] - 1)]
        return Questions(clean, np.where(place == 0, other[:, None], clean), block[:, 0], other)

    def check(self, shape: Shape) -> None:
        self._repeats(shape)
        if 2 * self.shortest_period >= shape.length or self.longest_period >= shape.vocabulary:
            raise ValueError(
                f"expected a shortest period below half of the context, {shape.length}, and a longest one below the "
                f"vocabulary, {shape.vocabulary}, got {self.shortest_period} and {self.longest_period}"
            )

    def _repeats(self, shape: Shape) -> Repeats:
        return Repeats(
            shape.vocabulary, shape.length, 1.0, self.shortest_period, self.longest_period, self.corrupted_fraction
        )


@dataclass(frozen=True)
class Runs(SourceKind):
    """Every token stands several times in a row."""

    shortest: int = 2
    longest: int = 6

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        lengths = rng.integers(self.shortest, self.longest + 1, size=(n, shape.length))
        which = (np.cumsum(lengths, axis=1)[:, :, None] <= np.arange(shape.length)).sum(axis=1)
        return np.take_along_axis(rng.integers(shape.vocabulary, size=(n, shape.length)), which, axis=1)

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        """A token that has stood once: it stands at least `shortest` times."""
        drawn = self.draw(rng, n, shape)[:, : shape.length - 1]
        old = drawn[:, -2]
        new = (old + 1 + rng.integers(shape.vocabulary - 1, size=n)) % shape.vocabulary
        other = (new + 1 + rng.integers(shape.vocabulary - 1, size=n)) % shape.vocabulary
        clean, corrupted = drawn.copy(), drawn.copy()
        clean[:, -1], corrupted[:, -1] = new, other
        return Questions(clean, corrupted, new, other)

    def check(self, shape: Shape) -> None:
        if not 2 <= self.shortest <= self.longest:
            raise ValueError(f"expected 2 <= shortest <= longest, got {self.shortest} and {self.longest}")


SUCCESSORS = np.array([8, 4, 2, 1]) / 15
"""How likely each of a token's successors is."""
MOST_STATES = 2**16


@dataclass(frozen=True)
class Chain(SourceKind):
    """A Markov chain of the given order: each state has four successors, of which one comes more than half the time."""

    order: int = 1
    seed: int = 0

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        table = _successors(self.order, self.seed, shape.vocabulary)
        tokens = rng.integers(shape.vocabulary, size=(n, shape.length))
        choice = rng.choice(len(SUCCESSORS), size=tokens.shape, p=SUCCESSORS)
        for place in range(self.order, shape.length):
            tokens[:, place] = table[self._state(tokens[:, :place], len(table), shape), choice[:, place]]
        return tokens

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        """The likeliest successor of the last state; the corrupted prompt ends in another token."""
        table = _successors(self.order, self.seed, shape.vocabulary)
        clean = self.draw(rng, n, shape)[:, :-1]
        corrupted = clean.copy()
        place = -self.order  # of the token that tells this order from the lower one
        corrupted[:, place] = (clean[:, place] + 1 + rng.integers(shape.vocabulary - 1, size=n)) % shape.vocabulary
        answers = [table[self._state(tokens, len(table), shape), 0] for tokens in (clean, corrupted)]
        return Questions(clean, corrupted, *answers)

    def check(self, shape: Shape) -> None:
        if self.order not in (1, 2) or shape.length <= self.order:
            raise ValueError(f"expected an order of 1 or 2, below the context, got {self.order}")

    def _state(self, tokens: Sequences, n_states: int, shape: Shape) -> Int[np.ndarray, "sequence"]:
        state = tokens[:, -1].astype(np.int64)
        return state if self.order == 1 else (state + shape.vocabulary * tokens[:, -2].astype(np.int64)) % n_states


@lru_cache(maxsize=16)
def _successors(order: int, seed: int, vocabulary: int) -> Int[np.ndarray, "state successor"]:
    n_states = min(vocabulary**order, max(MOST_STATES, vocabulary))
    table = np.random.default_rng([seed, order, vocabulary]).integers(vocabulary, size=(n_states, len(SUCCESSORS)))
    table.setflags(write=False)
    return table


@dataclass(frozen=True)
class Text(SourceKind):
    """Pieces of a text file, one token a character (in order of first appearance), or of a tokenizer's."""

    path: str = ""
    tokenizer: str = ""

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        tokens = _text_tokens(self.path, self.tokenizer)
        start = rng.integers(len(tokens) - shape.length + 1, size=n)
        return tokens[start[:, None] + np.arange(shape.length)]

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        """The next token of the text; the corrupted prompt is another piece of it, which goes on otherwise."""
        one, other = self.draw(rng, n, shape), self.draw(rng, n, shape)
        return Questions(one[:, :-1], other[:, :-1], one[:, -1], other[:, -1])

    def check(self, shape: Shape) -> None:
        tokens = _text_tokens(self.path, self.tokenizer)
        if len(tokens) <= shape.length or tokens.max() >= shape.vocabulary:
            raise ValueError(
                f"expected a text of more than {shape.length} tokens below {shape.vocabulary}, the vocabulary; "
                f"{self.path} has {len(tokens)}, up to {tokens.max()}"
            )


@lru_cache(maxsize=8)
def _text_tokens(path: str, tokenizer: str) -> Int[np.ndarray, "token"]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"expected path to name a text file in UTF-8, got {path!r} ({error})") from error
    if tokenizer:
        from transformers import AutoTokenizer

        return np.array(AutoTokenizer.from_pretrained(tokenizer)(text)["input_ids"])
    numbers = {character: number for number, character in enumerate(dict.fromkeys(text))}
    return np.array([numbers[character] for character in text], dtype=np.int64)
