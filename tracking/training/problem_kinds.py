"""Sources of known problems: modular arithmetic, planted strings, a planted association, in-context classification.

On which data have grokking, memorisation, biased associations and transient in-context learning been seen?

References:
    Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets (Power et al., 2022),
    https://arxiv.org/abs/2201.02177
    Data Distributional Properties Drive Emergent In-Context Learning in Transformers (Chan et al., 2022),
    https://arxiv.org/abs/2205.05055
    The Transient Nature of Emergent In-Context Learning in Transformers (Singh et al., 2023),
    https://arxiv.org/abs/2311.08360
    Quantifying Memorization Across Neural Language Models (Carlini et al., 2022), https://arxiv.org/abs/2202.07646
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from tracking.training.source_kind import Questions, Sequences, Shape, SourceKind

__all__ = ["Association", "InContextClassification", "ModularArithmetic", "PlantedStrings"]

OPERATIONS: dict[str, np.ufunc] = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}


@dataclass(frozen=True)
class ModularArithmetic(SourceKind):
    """Equations `a b = c` modulo a number, of which a fixed `fraction` is trained on; only c is learned.

    Numbers are the tokens 0 to modulus − 1, the equals sign is the token after them.  Questions are equations that
    training holds out: what is right there has been understood, not learned by heart.
    """

    modulus: int = 31
    fraction: float = 0.5
    operation: Literal["add", "subtract", "multiply"] = "add"
    seed: int = 0

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        known, _ = self.split()
        n_equations = -(-shape.length // 4)
        drawn = known[rng.integers(len(known), size=(n, n_equations))]
        return self._written(drawn).reshape(n, -1)[:, : shape.length]

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        _, held_out = self.split()
        asked = held_out[rng.integers(len(held_out), size=n)]
        other = asked.copy()
        other[:, 1] = (asked[:, 1] + 1 + rng.integers(self.modulus - 1, size=n)) % self.modulus
        clean, corrupted = self._written(asked), self._written(other)
        return Questions(clean[:, :3], corrupted[:, :3], clean[:, 3], corrupted[:, 3])

    def split(self) -> tuple[Int[np.ndarray, "trained 2"], Int[np.ndarray, "held_out 2"]]:
        """(a, b) of the equations that are trained on, and of those held out."""
        pairs = np.stack(np.divmod(np.arange(self.modulus**2), self.modulus), axis=1)
        pairs = np.random.default_rng([self.seed, self.modulus]).permutation(pairs)
        cut = min(max(round(self.fraction * len(pairs)), 1), len(pairs) - 1)
        return pairs[:cut], pairs[cut:]

    def counted(self, shape: Shape) -> Bool[np.ndarray, "pos"]:
        return np.arange(shape.length) % 4 == 3

    def check(self, shape: Shape) -> None:
        if not 2 < self.modulus < shape.vocabulary or not 0 < self.fraction < 1 or shape.length < 4:
            raise ValueError(
                f"expected a modulus from 3 to {shape.vocabulary - 1}, a fraction between 0 and 1 and a context of 4 "
                f"tokens or more, got {self.modulus}, {self.fraction} and {shape.length}"
            )
        if self.operation not in OPERATIONS:
            raise ValueError(f"expected an operation among {', '.join(OPERATIONS)}, got {self.operation!r}")

    def _written(self, pairs: Int[np.ndarray, "*some 2"]) -> Int[np.ndarray, "*some 4"]:
        answer = OPERATIONS[self.operation](pairs[..., 0], pairs[..., 1]) % self.modulus
        equals = np.full_like(answer, self.modulus)
        return np.stack([pairs[..., 0], pairs[..., 1], equals, answer], axis=-1)


@dataclass(frozen=True)
class PlantedStrings(SourceKind):
    """Random tokens, among which fixed strings stand a stated number of times in a thousand sequences each.

    A string is extractable when its first half is continued with its second.
    """

    multiplicities: tuple[int, ...] = (1, 10, 100)
    string_length: int = 16
    seed: int = 0

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        tokens = rng.integers(shape.vocabulary, size=(n, shape.length))
        edges = np.cumsum(self.multiplicities) / 1000
        which = np.searchsorted(edges, rng.random(n), side="right")
        start = rng.integers(shape.length - self.string_length + 1, size=n)
        planted = np.flatnonzero(which < len(self.multiplicities))
        place = start[planted, None] + np.arange(self.string_length)
        tokens[planted[:, None], place] = self.strings(shape)[which[planted]]
        return tokens

    def strings(self, shape: Shape) -> Int[np.ndarray, "string pos"]:
        size = (len(self.multiplicities), self.string_length)
        return np.random.default_rng([self.seed, 7]).integers(shape.vocabulary, size=size)

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        """A token of a string's second half, the strings in turn; the corrupted prompt ends in another token."""
        strings = self.strings(shape)[np.arange(n) % len(self.multiplicities)]
        half = self.string_length // 2
        correct = strings[:, half]
        clean = strings[:, :half].copy()
        corrupted = rng.integers(shape.vocabulary, size=clean.shape)
        incorrect = (correct + 1 + rng.integers(shape.vocabulary - 1, size=n)) % shape.vocabulary
        return Questions(clean, corrupted, correct, incorrect)

    def check(self, shape: Shape) -> None:
        if sum(self.multiplicities) > 1000 or not self.multiplicities or min(self.multiplicities) < 0:
            raise ValueError(
                "expected multiplicities from 0 on that add up to at most 1000 in a thousand sequences, got "
                f"{', '.join(map(str, self.multiplicities)) or 'none'}"
            )
        if not 4 <= self.string_length <= shape.length:
            raise ValueError(f"expected strings of 4 to {shape.length} tokens, got {self.string_length}")


@dataclass(frozen=True)
class Association(SourceKind):
    """A token that follows a class in a share of the cases, as a pronoun follows a profession.

    Among random tokens stands a token of one of two classes, later a cue, and after it one of two pronouns: the first
    for the first class (and the second for the second) with probability `share`.  A model that says the first pronoun
    more surely than `share` amplifies the bias of its data.
    """

    share: float = 0.8
    longest_gap: int = 4

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        (classes, cue, pronouns), plain = self._tokens(shape)
        tokens = rng.integers(plain, size=(n, shape.length))
        spacing = self.longest_gap + 3
        for start in range(0, shape.length - spacing + 1, spacing):
            which, as_usual = rng.integers(2, size=n), rng.random(n) < self.share
            gap = rng.integers(1, self.longest_gap + 1, size=n)
            rows = np.arange(n)
            tokens[rows, start] = classes[which]
            tokens[rows, start + gap] = cue
            tokens[rows, start + gap + 1] = pronouns[np.where(as_usual, which, 1 - which)]
        return tokens

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        (classes, cue, pronouns), plain = self._tokens(shape)
        which = rng.integers(2, size=n)
        clean = rng.integers(plain, size=(n, self.longest_gap + 1))
        clean[:, 0], clean[:, -1] = classes[which], cue
        corrupted = clean.copy()
        corrupted[:, 0] = classes[1 - which]
        return Questions(clean, corrupted, pronouns[which], pronouns[1 - which])

    def check(self, shape: Shape) -> None:
        if not 0 <= self.share <= 1 or self.longest_gap < 1:
            raise ValueError(f"expected a share from 0 to 1 and a gap of 1 or more, got {self.share}")
        if shape.vocabulary < 7 or shape.length < self.longest_gap + 3:
            raise ValueError(
                f"expected a vocabulary of 7 or more and a context of {self.longest_gap + 3} or more, got "
                f"{shape.vocabulary} and {shape.length}"
            )

    @staticmethod
    def _tokens(shape: Shape) -> tuple[tuple[np.ndarray, int, np.ndarray], int]:
        """(classes, cue, pronouns), the last five tokens; and how many are left for everything else."""
        plain = shape.vocabulary - 5
        return (np.array([plain, plain + 1]), plain + 2, np.array([plain + 3, plain + 4])), plain


@dataclass(frozen=True)
class InContextClassification(SourceKind):
    """Items with their labels, then an item whose label is asked for; only that label is learned.

    Each class has one label throughout training, so the answer can be known by heart; in a share `burstiness` of the
    sequences the class that is asked for also stands in the context, `copies` times, so that it can be looked up.
    Another class stands there as often, so that the label that is most frequent there does not tell the answer.
    Questions give classes other labels than training did, as often the one as the other: only looking up answers them.
    """

    n_classes: int = 48
    n_labels: int = 8
    burstiness: float = 0.9
    copies: int = 3
    zipf_exponent: float = 0.0
    seed: int = 0

    def draw(self, rng: np.random.Generator, n: int, shape: Shape) -> Sequences:
        n_pairs = (shape.length - 1) // 2
        items = self._classes(rng, (n, n_pairs))
        query, other = self._classes(rng, (2, n))
        bursty = rng.random(n) < self.burstiness
        place = np.argsort(rng.random((n, n_pairs)), axis=1)
        for number, shown in enumerate((query, other)):
            there = bursty[:, None] & (place // self.copies == number)
            items = np.where(there, shown[:, None], items)
        return self._written(items, query, self.labels(), shape)

    def ask(self, rng: np.random.Generator, n: int, shape: Shape) -> Questions:
        n_pairs = (shape.length - 1) // 2
        query, other, third = rng.permuted(np.tile(np.arange(self.n_classes), (n, 1)), axis=1)[:, :3].T
        order = rng.permuted(np.tile(np.arange(n_pairs), (n, 1)), axis=1)
        odd = (n_pairs % 2 == 1) & (order == n_pairs - 1)  # the place that is left over is a third class's
        items = np.where(order % 2 == 0, query[:, None], other[:, None])
        items = np.where(odd, third[:, None], items)
        own = self.labels()
        right = (own[query] + 1 + rng.integers(self.n_labels - 1, size=n)) % self.n_labels
        wrong = (right + 1 + rng.integers(self.n_labels - 1, size=n)) % self.n_labels
        rows = []
        for first, second in ((right, wrong), (wrong, right)):
            given = np.where(items == query[:, None], first[:, None], second[:, None])
            given = np.where(odd, own[third][:, None], given)
            tokens = np.stack([items, self.n_classes + given], axis=2).reshape(n, -1)
            rows.append(np.concatenate([tokens, query[:, None]], axis=1)[:, -(shape.length - 1) :])
        return Questions(rows[0], rows[1], self.n_classes + right, self.n_classes + wrong)

    def labels(self) -> Int[np.ndarray, "class"]:
        """The label that each class has in training."""
        return np.random.default_rng([self.seed, 11]).integers(self.n_labels, size=self.n_classes)

    def counted(self, shape: Shape) -> Bool[np.ndarray, "pos"]:
        return np.arange(shape.length) == shape.length - 1

    def check(self, shape: Shape) -> None:
        if self.n_classes + self.n_labels > shape.vocabulary or self.n_labels < 2 or self.n_classes < 3:
            raise ValueError(
                f"expected at least 3 classes and 2 labels, together at most the vocabulary of {shape.vocabulary}, got "
                f"{self.n_classes} and {self.n_labels}"
            )
        if shape.length < 4 or shape.length % 2 or self.copies < 1:
            raise ValueError(
                f"expected an even context of 4 or more, and 1 copy or more, got {shape.length} and {self.copies}"
            )

    def _classes(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        weights = np.arange(1, self.n_classes + 1, dtype=float) ** -self.zipf_exponent
        return rng.choice(self.n_classes, size=size, p=weights / weights.sum())

    def _written(self, items: np.ndarray, query: np.ndarray, labels: np.ndarray, shape: Shape) -> Sequences:
        tokens = np.stack([items, self.n_classes + labels[items]], axis=2).reshape(len(items), -1)
        last = np.stack([query, self.n_classes + labels[query]], axis=1)
        return np.concatenate([tokens, last], axis=1)[:, -shape.length :]
