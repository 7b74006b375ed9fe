"""Crossings: where between two checkpoints a path crosses its bar.

Question: what do the checkpoints leave open of a crossing, and what do their neighbours say about it?

A monotone cubic through four checkpoints gives the place t₀ of the crossing in its gap, 0 to 1.  The neighbouring
increments tell how sure that is.  Where they are as large as this one, checkpoints lie on the slope and resolve it;
where they are nothing, the rise is abrupt and any time in the gap is as likely as any other.  With r from 0 (abrupt)
to 1 (resolved), the crossing is drawn from a Beta distribution of standard deviation

    s = s₁ + (1/√12 - s₁) (1 - r)^1.5,        and mean t₀ + (1/2 - t₀) (s - s₁) / (1/√12 - s₁),

uniform at r = 0.  Even a slope that is resolved leaves s₁ of the gap open: real curves wiggle between checkpoints.  The
wider the gap, the less its neighbours tell: several abrupt rises look like one slope to checkpoints that are a factor
of e apart.  So r is multiplied by a factor that falls from 1 at a gap of .35 in ln(step) to 0 at 1.05.
"""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["crossing"]

UNIFORM = 12**-0.5
RESOLVED = 0.06  # s₁, of the gap
NEAR, FAR = 0.35, 1.05  # gaps, in ln(step)
NONE, FULL = 0.08, 0.6  # neighbouring increments as a share of this one: what noise makes, and what a slope has


def crossing(
    paths: Float[np.ndarray, "draw step"],
    after: Int[np.ndarray, "draw"],
    bar: Float[np.ndarray, "draw"],
    x: Float[np.ndarray, "step"],
    rng: np.random.Generator | None = None,
) -> Float[np.ndarray, "draw"]:
    """ln(step) at which each path crosses its bar between checkpoints `after - 1` and `after`.

    Args:
        paths: the curves; a crossing may go up or down.
        after: index of the first checkpoint on the other side, at least 1.
        bar: of each path.
        x: ln(step) of the checkpoints.
        rng: draws what is open; without it the mean is taken.
    """
    rows = np.arange(len(paths))
    left, right = paths[rows, after - 1], paths[rows, after]
    rise = np.where(np.abs(right - left) < 1e-12, 1e-12, right - left)
    share = np.clip((bar - left) / rise, 0, 1)
    gap = x[after] - x[after - 1]
    before, beyond = _neighbours(paths, after, x, gap, rise)
    place = _cubic(before, beyond, share)
    share_beside = (np.clip(before, 0, 1) + np.clip(beyond, 0, 1)) / 2
    resolved = np.clip((share_beside - NONE) / (FULL - NONE), 0, 1) * np.clip((FAR - gap) / (FAR - NEAR), 0, 1)
    open_part = (1 - resolved) ** 1.5
    spread = RESOLVED + (UNIFORM - RESOLVED) * open_part
    mean = np.clip(place + (0.5 - place) * open_part, 1e-3, 1 - 1e-3)
    if rng is None:
        return x[after - 1] + mean * gap
    weight = np.maximum(mean * (1 - mean) / spread**2 - 1, 0.2)
    # Near an edge of the gap the spread has less room.
    weight = np.where((open_part < 1) & (weight < 2), 2.0, weight)
    return x[after - 1] + rng.beta(weight * mean, weight * (1 - mean)) * gap


def _neighbours(
    paths: np.ndarray, after: np.ndarray, x: np.ndarray, gap: np.ndarray, rise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the gaps on either side, as a share of this one's; 0 beyond the first and the last checkpoint."""
    rows, last = np.arange(len(paths)), paths.shape[1] - 1
    earlier, later = np.maximum(after - 2, 0), np.minimum(after + 1, last)
    back = (paths[rows, after - 1] - paths[rows, earlier]) * gap / np.maximum(x[after - 1] - x[earlier], 1e-12)
    ahead = (paths[rows, later] - paths[rows, after]) * gap / np.maximum(x[later] - x[after], 1e-12)
    return np.where(after >= 2, back, 0.0) / rise, np.where(after < last, ahead, 0.0) / rise


def _cubic(before: np.ndarray, beyond: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Where a monotone cubic (harmonic means of the slopes at both ends) has come a share of the gap's rise."""
    start, end = (np.where(slope > 0, 2 * slope / (1 + np.maximum(slope, 0)), 0.0) for slope in (before, beyond))
    low, high = np.zeros_like(share), np.ones_like(share)
    for _ in range(20):
        t = (low + high) / 2
        reached = start * (t**3 - 2 * t**2 + t) + end * (t**3 - t**2) + 3 * t**2 - 2 * t**3
        low, high = np.where(reached >= share, low, t), np.where(reached >= share, t, high)
    return (low + high) / 2
