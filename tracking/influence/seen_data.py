"""Data that was seen: the sequences of every step of a run, and what is known of their sources.

What was this run trained on?  The embedded trainer draws its batches from its options, so a run of its own tells.  Of
anybody else's run the data must be given: a file of JSON lines, one a sequence,

    {"step": 0, "source": "web", "tokens": [17, 4, 211]}

where `step` is that of the update that learned from it.  A sample of each batch will do, and so will some of the steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from jaxtyping import Float

from circuits.decoding import read_json_lines
from tracking.checkpoints.runs import Run
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.sources import Batch, shares
from tracking.training.training import data_batch

__all__ = ["SeenData", "drawn_data", "given_data"]


@dataclass(frozen=True)
class SeenData:
    """What the steps of a run learned from.

    Attributes:
        sources: names.
        batch: the sequences of a step, or None where none are known.
        shares: p_s of each source at a step; zero where there is but one and it has no name.
        loss_weight: how much the loss on a sequence of each source counts.
        rate: the learning rate of a step.
    """

    sources: tuple[str, ...]
    batch: Callable[[int], Batch | None]
    shares: Callable[[int], Float[np.ndarray, "source"]]
    loss_weight: Float[np.ndarray, "source"]
    rate: Callable[[int], float]


def drawn_data(config: TrainingConfig) -> SeenData:
    """What the embedded trainer draws."""
    mixed = config.sources
    return SeenData(
        tuple(source.name for source in mixed) or ("data",),
        lambda step: data_batch(config, step),
        lambda step: shares(mixed, step) if mixed else np.zeros(1),
        np.array([source.loss_weight for source in mixed] or [1.0]),
        config.learning_rate_at,
    )


class _Line(msgspec.Struct):
    step: int
    tokens: list[int]
    source: str = "data"


def given_data(place: "str | Path", run: Run, *, vocabulary: int) -> SeenData:
    """What a file says a run was trained on.

    The learning rate is that of the run's log, and the same at all steps where the log does not tell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line cannot be read, a token is not of the vocabulary, or sequences of a step differ in length.
    """
    by_step: dict[int, list[_Line]] = {}
    for line in read_json_lines(place, _Line, what="a file of sequences, one JSON object a line"):
        by_step.setdefault(line.step, []).append(line)
    if not by_step:
        raise ValueError(
            f"expected sequences in {place}, one JSON object with step, source and tokens a line, got none"
        )
    names = tuple(sorted({line.source for lines in by_step.values() for line in lines}))
    batches = {step: _batch(lines, names, f"step {step} of {place}", vocabulary) for step, lines in by_step.items()}
    share = _shares_by_stretch(batches, run.steps, len(names))
    logged = sorted(
        (int(entry["step"]), float(entry["learning_rate"])) for entry in run.log if "learning_rate" in entry
    )
    steps, rates = zip(*logged, strict=True) if logged else ((0,), (1.0,))
    return SeenData(names, batches.get, share, np.ones(len(names)), lambda step: float(np.interp(step, steps, rates)))


def _batch(lines: Sequence[_Line], names: tuple[str, ...], where: str, vocabulary: int) -> Batch:
    lengths = {len(line.tokens) for line in lines}
    if len(lengths) > 1 or min(lengths) < 2:
        raise ValueError(f"expected sequences of one length, of 2 tokens or more, in {where}, got {sorted(lengths)}")
    tokens = np.array([line.tokens for line in lines], dtype=np.int64)
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        wrong = tokens.max() if tokens.max() >= vocabulary else tokens.min()
        raise ValueError(f"expected tokens from 0 to {vocabulary - 1}, the model's vocabulary, in {where}, got {wrong}")
    source = np.array([names.index(line.source) for line in lines])
    return Batch(tokens, source, np.ones(tokens.shape, dtype=bool))


def _shares_by_stretch(
    batches: "dict[int, Batch]", kept: Sequence[int], n: int
) -> Callable[[int], Float[np.ndarray, "source"]]:
    """The share of each source among what is known between the kept steps around a step."""
    edges = np.array(sorted(kept))
    counts = np.zeros((len(edges) + 1, n))
    for step, batch in batches.items():
        counts[np.searchsorted(edges, step, side="right")] += np.bincount(batch.source, minlength=n)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return lambda step: share[np.searchsorted(edges, step, side="right")]
