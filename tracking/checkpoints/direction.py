"""Direction of a series: whether it runs forwards, and whether its first and last steps are where they belong.

Distances between weights are the same both ways, and nothing lies beyond an end.  Three things can tell all the same:

- **the ends' distances**: of the last two checkpoints, the last is farther from those before them;
- **initial weights**: gains of 1 and biases of 0 that no other checkpoint has are those that training starts from;
- **losses** on one fixed batch, which training lowers, or which go as the run's own log says.

What none of them tells is named as not checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracking.checkpoints.loading import load_checkpoint, make_model, working_config
from tracking.checkpoints.sketches import WeightNote
from tracking.checkpoints.weight_faults import Finding, Trajectory

if TYPE_CHECKING:
    from circuits.model import Model

__all__ = ["Direction", "LossMeter", "check_direction", "initial_steps"]

CLEAR = 0.5
"""Share of all differences of loss that must go one way."""
FAR = 1.1
"""How much farther of two checkpoints the one must be for an order."""
STEEP = 0.25
"""Share of the losses' span by which an end may not break the way of the others."""
ADVICE = "look where they came from, fetch them again, or leave them out with steps="
TEXT = (
    "The river rises in the mountains and flows through three countries before it reaches the sea. In spring the snow "
    "melts, and the water is cold and clear. People have lived along its banks for thousands of years. They built "
    "boats and bridges, traded salt and cloth, and told their children stories about the spirits of the river. Today "
    "most of them work in the cities, but every summer they come back to swim, to fish and to see their families. "
    "When she was a child, my grandmother walked to school along the river every morning. She said that the river "
    "never looked the same twice, and that she never walked the same way home."
)


@dataclass(frozen=True)
class Direction:
    """What was found, and which claims of the series could be checked and which not, one sentence each."""

    findings: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __add__(self, other: "Direction") -> "Direction":
        return Direction(self.findings + other.findings, self.checked + other.checked, self.unchecked + other.unchecked)


class LossMeter:
    """The mean loss, in nats, of one checkpoint after another on one fixed batch.

    Args:
        tokens: the batch (batch, position); without it English text for models with a tokenizer, repeated random tokens
            for others.
        config: the model's configuration, where none lies with the checkpoints.
    """

    def __init__(self, tokens: Any = None, *, config: "str | Path | None" = None) -> None:
        self.tokens: Any = tokens
        self.config = config
        self._model: Model | None = None
        self._of: Mapping[str, Any] = {}

    def __call__(self, place: Path) -> float:
        """Raises:
        ValueError, OSError: the checkpoint cannot be read, or is of no model that can be run.
        """
        import torch

        loaded = load_checkpoint(place, config=self.config)
        if self._model is not None and working_config(loaded.config) == self._of:
            self._model.swap_weights(loaded.weights)
        else:
            self._model, self._of = make_model(loaded), working_config(loaded.config)
        if self.tokens is None:
            self.tokens = _batch(self._model)
        tokens = torch.as_tensor(self.tokens)
        logits = self._model.logits(tokens)[:, :-1].flatten(0, 1)
        return float(torch.nn.functional.cross_entropy(logits.double(), tokens[:, 1:].flatten()))


def _batch(model: "Model") -> Any:
    import torch

    from circuits.heads import repeated_tokens

    try:
        tokens = model.tokenizer(TEXT)["input_ids"][: model.n_ctx]
    except ValueError:
        return next(iter(repeated_tokens(model, n_prompts=16, seed=0)))[1]
    return torch.tensor([tokens])


def initial_steps(notes: Mapping[int, WeightNote]) -> tuple[int, ...]:
    """Steps at which some tensor is constant that is not at all steps, as gains and biases are before training."""
    constant = {step: {name for name, note in held.tensors.items() if note.constant} for step, held in notes.items()}
    always = set.intersection(*constant.values()) if constant else set()
    return tuple(step for step, names in constant.items() if names - always)


def check_direction(
    path: Trajectory, *, initial: Sequence[int] = (), losses: Mapping[int, float], logged: Mapping[int, float]
) -> Direction:
    """Whether a series runs forwards and its ends are in order.

    Args:
        initial: steps that still have initial weights (`initial_steps`).
        losses: measured on one batch, by step; empty where none were.
        logged: as the run's log says, by step.
    """
    if len(path.steps) < 2:
        return Direction(unchecked=("whether the steps are in order: fewer than two checkpoints could be read",))
    known = {step: losses[step] for step in path.steps if step in losses}
    found = _forwards(path.steps, initial, known, logged)
    if found.findings:
        return found
    return found + _end(path, known, logged, last=False) + _end(path, known, logged, last=True)


def _forwards(
    steps: Sequence[int], initial: Sequence[int], losses: Mapping[int, float], logged: Mapping[int, float]
) -> Direction:
    claim, first, last = "whether the series runs forwards", steps[0], steps[-1]
    falls = _falls(losses) * _way(losses, logged)
    if abs(falls) >= CLEAR:
        shown = f"the loss goes from {losses[min(losses)]:.3g} to {losses[max(losses)]:.3g}"
        if falls > 0:
            return Direction(checked=(f"{claim}: {shown}",))
        what = f"the series seems to run backwards: {shown} between steps {first} and {last}"
        return Direction((Finding("reversed", "error", tuple(steps), what, ADVICE, 0.9),))
    if tuple(initial) == (first,):
        return Direction(checked=(f"{claim}: step {first} alone has gains and biases that training starts from",))
    if initial and first not in initial:
        what = f"step {initial[-1]} has gains and biases that training starts from, and step {first} has not"
        return Direction((Finding("reversed", "error", tuple(initial), what, ADVICE, 0.95),))
    why = "distances between weights are the same both ways, and losses were not measured (--loss)"
    if losses:
        why = "distances between weights are the same both ways, and the losses go neither way"
    return Direction(unchecked=(f"{claim}: {why}",))


def _end(path: Trajectory, losses: Mapping[int, float], logged: Mapping[int, float], *, last: bool) -> Direction:
    """Whether the two checkpoints at an end stand in their order."""
    order = range(len(path.steps))[:: 1 if last else -1]
    inner, outer = order[-2], order[-1]
    pair = tuple(sorted((path.steps[inner], path.steps[outer])))
    claim = f"whether steps {pair[0]} and {pair[1]} are in their order"
    anchors = list(order[:-2])[-2:]
    ratios = [path.distances[a, inner] / max(path.distances[a, outer], 1e-30) for a in anchors]
    if len(anchors) == 2 and min(ratios) > FAR:
        what = f"step {path.steps[inner]} is farther from the others than step {path.steps[outer]}, which is the end"
        advice = f"steps {pair[0]} and {pair[1]} may have been exchanged; {ADVICE}"
        return Direction((Finding("exchanged", "error", pair, what, advice, 0.9),))
    if pair[0] in losses and pair[1] in losses and len(losses) > 2:
        drop = (losses[pair[0]] - losses[pair[1]]) * _way(losses, logged)
        span = max(losses.values()) - min(losses.values())
        if drop < -STEEP * span:
            what = f"the loss is {losses[pair[0]]:.3g} at step {pair[0]} and {losses[pair[1]]:.3g} at step {pair[1]}"
            what += ", against the way of the others"
            return Direction((Finding("exchanged", "error", pair, what, ADVICE, 0.9),))
        if drop > STEEP * span:
            return Direction(checked=(f"{claim}: so the losses say",))
    if len(anchors) == 2 and max(ratios) < 1 / FAR:
        return Direction(checked=(f"{claim}: so their distances from the others say",))
    return Direction(unchecked=(f"{claim}: they differ too little in what could be looked at",))


def _falls(losses: Mapping[int, float]) -> float:
    """From -1 (every later loss is higher) to 1 (every later one is lower); differences count by their size."""
    values = [losses[step] for step in sorted(losses) if np.isfinite(losses[step])]
    pairs = [before - after for before, after in combinations(values, 2)]
    whole = sum(map(abs, pairs))
    return sum(pairs) / whole if whole > 0.01 * len(pairs) else 0.0


def _way(losses: Mapping[int, float], logged: Mapping[int, float]) -> int:
    """-1 where the log says that the loss rose in this training, and 1 otherwise."""
    shared = {step: logged[step] for step in losses if step in logged}
    return -1 if _falls(shared) <= -CLEAR else 1
