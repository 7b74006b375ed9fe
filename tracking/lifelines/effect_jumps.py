"""Jumps of effect: by how much each component's effect changes at a step, and whether that adds up.

When a function splits, its first carrier loses what the second gains; when two merge, the one that stays gains what
the other had; and while one hands over to another, both together do what each did alone:

    split      parent ────╮╌╌╌╌╌   before = parent + copy       hand-over   old ───╮
               copy       ╰─────   two ordinary births: no loss             new    ╰──    old + new = one life

A jump is taken in logarithms, less what all components have in common at that step, and against a heavy-tailed null, so
that none is proof on its own.

Axes: `step`, `component`.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import t as student

from tracking.lifelines.series import Series

__all__ = ["Jumps", "conserved", "effect_jumps", "shared_life"]

SIDE = 3  # steps on either side of a jump
ADDS = 0.15  # how far, in logarithms, effects that add up do not quite
LEAST_NOISE = 0.12  # of a log jump


@dataclass(frozen=True)
class Jumps:
    """The log change at each step, NaN where it is not known; its usual size in each component, and at each step."""

    size: Float[np.ndarray, "step component"]
    noise: Float[np.ndarray, "component"]
    spread: Float[np.ndarray, "step"]

    def at(self, step: int) -> Float[np.ndarray, "component"]:
        """How large a jump of each component is nothing special at a step: where all jump, none of them tells much."""
        return np.maximum(self.noise, self.spread[step])


def effect_jumps(series: Series, on: Bool[np.ndarray, "step component"]) -> Jumps:
    """Log jumps of the effects of what is on, less the step's common change."""
    effect = series.effect
    positive = effect[effect > 0]
    least = 1e-3 * float(np.quantile(positive, 0.75)) if len(positive) else 1.0
    level = np.where(series.seen & on, np.log(np.maximum(effect, least)), np.nan)
    size = np.full(effect.shape, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # medians of nothing are NaN, as they should be
        rolled = _rolling_median(level)
        size[1:] = rolled[SIDE:][: len(effect) - 1] - rolled[: len(effect) - 1]
        size -= np.nan_to_num(np.nanmedian(size, axis=1, keepdims=True))
        noise = 1.4826 * np.nanmedian(np.abs(size), axis=0)
        usual = float(1.4826 * np.nanmedian(np.abs(size)))
        spread = np.nan_to_num(1.4826 * np.nanmedian(np.abs(size), axis=1))
    usual = usual if np.isfinite(usual) else 0.3
    noise = np.where(np.isfinite(noise), np.maximum(noise, usual), usual)
    return Jumps(size, np.maximum(noise, LEAST_NOISE), spread)


def _rolling_median(level: np.ndarray) -> np.ndarray:
    """Entry k is the median of the steps k + 1 - SIDE to k."""
    fill = np.full((SIDE - 1, level.shape[1]), np.nan)
    padded = np.concatenate([fill, level, fill, np.full((1, level.shape[1]), np.nan)])
    return np.nanmedian(np.stack([padded[k : len(padded) - SIDE + 1 + k] for k in range(SIDE)]), axis=0)


def conserved(
    jump: Float[np.ndarray, "pair"],
    noise: Float[np.ndarray, "pair"] | float,
    expected: Float[np.ndarray, "pair"] | float,
    *,
    keeps: float,
    width: float = ADDS,
    most: float = 8.0,
) -> Float[np.ndarray, "pair"]:
    """Log likelihood ratio that a jump is the expected one, of which a share `keeps` is: the rest is like any other."""
    jump = np.nan_to_num(jump)
    null = student.pdf(jump / noise, 3) / noise
    kept = student.pdf((jump - expected) / width, 4) / width
    return np.clip(np.log((keeps * kept + (1 - keeps) * null) / null), -most, most)


def shared_life(
    series: Series, old: tuple[int, np.ndarray], new: tuple[int, np.ndarray], *, noise: float = 0.3
) -> float:
    """While both are there, do their effects add up to one life (above 0) or to two (below)?

    Args:
        series: the effects.
        old: the component that ends and its steps.
        new: the component that begins and its steps.
        noise: of the logarithm of the sum at one step.
    """
    (a, steps), (b, others) = old, new
    both = np.intersect1d(steps[steps >= others[0]], others[others <= steps[-1]])
    before, after = steps[steps < others[0]][-5:], others[others > steps[-1]][:5]
    if not len(both) or not len(before) or not len(after):
        return 0.0
    effect = series.effect
    one, other = float(np.median(effect[before, a])), float(np.median(effect[after, b]))
    mean = max(0.5 * (one + other), 1e-9)
    sum_then = np.log(max(float(np.median(effect[both, a] + effect[both, b])), 1e-9) / mean)
    width = noise / np.sqrt(min(len(both), 3))
    two = np.log(max(one + other, 1e-9) / mean)
    return float(np.clip(student.logpdf(sum_then / width, 4) - student.logpdf((sum_then - two) / width, 4), -7, 4))
