"""Holding of a bar: from which checkpoint on a curve has what is asked of it, and until when.

Question: where does a curve cross its bar and stay above, and where does it fall below and stay away?

One machine answers it for every curve: scores of heads, effects, metrics; the measured values, their smoothed path and
every draw of it.  Dates, carriers, sentences, figures and comparisons read the same states, so they cannot contradict
each other.

With x = ln(step), a curve θ(x), its **bar** b, its **floor** f (0 for scores, chance for a task), the **hold level**
h = f + .8 (b - f) and the **dwell** D = .35 (a factor of 1.4 in steps):

- *formed* at    τ = inf { x : θ(x) ≥ b  and  θ(u) ≥ h for all u in [x, x + D] };
- *lost* at      λ = inf { x > τ : θ(x) < h  and  θ(u) < b for all u in [x, x + D] };
- and so on, rise by rise.

At checkpoints the dwell covers those within D, and at least the next one; where training ends within it, what was seen
of it decides.  The last checkpoint alone proves nothing: a curve that reaches its bar there is *pending*.  What came
before the first checkpoint was not seen: a curve at its bar there was *there from the start*::

    b ┄┄┄┄┄┄┄┄┄┄┄┄●──●┄┄┄┄┄┄●┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄●
    h ┄┄┄┄┄┄┄┄┄┄┄╱┄┄┄┄╲┄┄┄┄╱┄╲┄┄┄┄┄┄┄┄┄┄┄┄┄┄╱
        ●──●──●─╱      ●──●   ╲●──●──●──●──●─╱
    has  .  .  .  #  #  #  #  #  .  .  .  .  .  .
                  formed         lost           pending

A role is there where some component has its bar by itself (`carriers`): components that are above it at one checkpoint
each, one after the other, carry nothing.  The machine is monotone: a curve that lies nowhere below another has its bar
wherever the other does.

Axes: `step` the checkpoints, always last; `*rest` whatever curves there are.  A value that is not a number was not
measured: the states of a curve are those of its measured checkpoints, carried over the others.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["DWELL", "HOLD", "Course", "Stretch", "carriers", "course", "hold_level", "holds", "log_steps", "stretches"]

DWELL = 0.35  # in ln(step)
HOLD = 0.8  # of the way from the floor to the bar

Course = Literal[
    "there from the start",
    "there from the start and lost",
    "formed",
    "formed and lost",
    "pending",
    "never",
]


@dataclass(frozen=True)
class Stretch:
    """Checkpoints at which a curve has its bar, `start` to `stop` exclusive, as indices.

    `born` and `lost` tell whether its beginning and its end were seen.
    """

    start: int
    stop: int
    born: bool
    lost: bool


def log_steps(steps: Float[np.ndarray, "step"]) -> Float[np.ndarray, "step"]:
    """x = ln(step); step 0 stands at half the first later step.

    >>> log_steps(np.array([0.0, 2.0, 4.0])).round(2).tolist()
    [0.0, 0.69, 1.39]
    """
    steps = np.asarray(steps, dtype=float)
    later = steps[steps > 0]
    return np.log(np.where(steps > 0, steps, later.min() / 2 if len(later) else 1.0))


def hold_level(bar: float | np.ndarray, floor: float | np.ndarray = 0.0) -> np.ndarray:
    """h = f + .8 (b - f), the level above which a curve that has its bar keeps it."""
    return np.asarray(floor + HOLD * (np.asarray(bar, dtype=float) - floor))


def holds(
    values: Float[np.ndarray, "*rest step"],
    x: Float[np.ndarray, "step"],
    bar: float | np.ndarray,
    *,
    floor: float | np.ndarray = 0.0,
    dwell: float = DWELL,
) -> Bool[np.ndarray, "*rest step"]:
    """At which checkpoints each curve has its bar.

    Args:
        values: the curves.
        x: ln(step) of the checkpoints, from `log_steps`.
        bar: of all curves, or one for each of `*rest`.
        floor: the level of a curve without what is asked.
        dwell: how long a crossing must hold, in ln(step).

    >>> curve = np.array([0.0, 0.1, 0.4, 0.3, 0.5, 0.1, 0.0])
    >>> holds(curve, np.arange(7.0), 0.35).astype(int).tolist()
    [0, 0, 1, 1, 1, 0, 0]
    """
    rest = values.shape[:-1]
    curves = values.reshape(-1, values.shape[-1])
    bars, floors = (np.broadcast_to(np.asarray(level, dtype=float), rest).reshape(-1) for level in (bar, floor))
    known = np.isfinite(curves)
    has = np.zeros(curves.shape, dtype=bool)
    if known.all():
        return _holds(curves, x, bars, hold_level(bars, floors), dwell).reshape(values.shape)
    patterns, which = np.unique(known, axis=0, return_inverse=True)
    for place, pattern in enumerate(patterns):
        rows = np.flatnonzero(which.reshape(-1) == place)
        if pattern.any():
            measured = _holds(
                curves[np.ix_(rows, np.flatnonzero(pattern))], x[pattern], bars[rows],
                hold_level(bars[rows], floors[rows]), dwell,
            )  # fmt: skip
            last_measured = np.maximum(np.cumsum(pattern) - 1, 0)
            has[rows] = measured[:, last_measured]
            has[np.ix_(rows, np.flatnonzero(np.cumsum(pattern) == 0))] = False
    return has.reshape(values.shape)


def _holds(
    curves: Float[np.ndarray, "curve step"],
    x: Float[np.ndarray, "step"],
    bar: Float[np.ndarray, "curve"],
    hold: Float[np.ndarray, "curve"],
    dwell: float,
) -> Bool[np.ndarray, "curve step"]:
    last = _last_of_dwell(x, dwell)
    begins = (curves >= bar[:, None]) & _throughout(curves >= hold[:, None], last)
    ends = (curves < hold[:, None]) & _throughout(curves < bar[:, None], last)
    begins[:, -1] = ends[:, -1] = False
    now = curves[:, 0] >= bar
    has = np.empty(curves.shape, dtype=bool)
    has[:, 0] = now
    for index in range(1, curves.shape[1]):
        now = np.where(now, ~ends[:, index], begins[:, index])
        has[:, index] = now
    return has


def _last_of_dwell(x: Float[np.ndarray, "step"], dwell: float) -> Int[np.ndarray, "step"]:
    """Index of the last checkpoint that the dwell after each one covers: at least the next."""
    index = np.arange(len(x))
    within = np.searchsorted(x, x + dwell + 1e-9, side="right") - 1
    return np.minimum(np.maximum(within, index + 1), len(x) - 1)


def _throughout(true: Bool[np.ndarray, "curve step"], last: Int[np.ndarray, "step"]) -> Bool[np.ndarray, "curve step"]:
    """Whether something is true at every checkpoint from each one to its `last`."""
    failures = np.zeros((len(true), true.shape[1] + 1), dtype=np.int32)
    np.cumsum(~true, axis=1, out=failures[:, 1:])
    return failures[:, last + 1] == failures[:, :-1]


def stretches(has: Bool[np.ndarray, "step"]) -> tuple[Stretch, ...]:
    """The stretches of one curve, in time order.

    >>> stretches(np.array([False, True, True, False, True]))
    (Stretch(start=1, stop=3, born=True, lost=True), Stretch(start=4, stop=5, born=True, lost=False))
    """
    edges = np.flatnonzero(np.diff(np.r_[False, has, False].astype(np.int8)))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return tuple(Stretch(start, stop, start > 0, stop < len(has)) for start, stop in pairs)


def course(values: Float[np.ndarray, "step"], has: Bool[np.ndarray, "step"], bar: float) -> Course:
    """What one curve does over the whole run, from its values and states."""
    if not has.any():
        known = values[np.isfinite(values)]
        return "pending" if len(known) and known[-1] >= bar else "never"
    if has[0]:
        return "there from the start" if has.all() else "there from the start and lost"
    return "formed" if has[-1] else "formed and lost"


def carriers(
    values: Float[np.ndarray, "component step"],
    x: Float[np.ndarray, "step"],
    bar: float,
    *,
    floor: float = 0.0,
    dwell: float = DWELL,
) -> Bool[np.ndarray, "component step"]:
    """Which components carry a role at each checkpoint: those that have its bar, each by itself."""
    return holds(values, x, bar, floor=floor, dwell=dwell)
