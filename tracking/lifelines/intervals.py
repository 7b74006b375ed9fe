"""Intervals above a bar: during which steps a component does something, when its score is noisy and snapshots miss it.

A **stint** is a stretch of snapshots in which one component's score of one role stands above a threshold.  It is closed
over gaps of up to `max_gap` snapshots and over any longer dip that noise could make, it ends only when the score stayed
away for more than `max_gap` snapshots, and one or two snapshots above the threshold count only where noise does
not explain them.  Times here are indices of snapshots.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr

__all__ = ["Stint", "noise_of", "present", "spans_decades", "stints_of"]

CLEAR = 2.0  # standard deviations below the threshold at which a score is off for certain


@dataclass(frozen=True)
class Stint:
    """One component above threshold from snapshot `start` to snapshot `end`, both included.

    `born` and `died` say whether its beginning and end were seen: a stint that is there at the first snapshot was not
    seen to begin, and one that lasts to within `max_gap` snapshots of the last was not seen to end.  `sure_start` and
    `sure_end` are the probabilities that the score crosses the threshold there at all.
    """

    component: int
    start: int
    end: int
    born: bool
    died: bool
    sure_start: float
    sure_end: float


def noise_of(
    value: Float[np.ndarray, "step component"], std_error: Float[np.ndarray, "step component"]
) -> Float[np.ndarray, "step component"]:
    """Standard deviation of each score: its standard error, or what the series itself shows if that is more.

    The series' own noise is the lower quartile of the magnitudes of its second differences, scaled as for normal noise:
    neither a trend nor the steep part of a rise moves it.  It is not taken from fewer than twelve snapshots where
    standard errors are known, nor from fewer than eight at all.  Zero where neither is known.
    """
    own = np.zeros(value.shape[1])
    if len(value) >= (12 if np.isfinite(std_error).any() else 8):
        bends = np.abs(value[2:] - 2 * value[1:-1] + value[:-2])
        seen = ~np.isnan(bends)
        low = np.nanquantile(np.where(seen.any(axis=0), bends, 0.0), 0.25, axis=0)
        own = np.where(seen.sum(axis=0) >= 6, low / (0.3186 * np.sqrt(6)), 0.0)
    return np.maximum(np.nan_to_num(std_error), own)


def spans_decades(value: Float[np.ndarray, "step component"]) -> bool:
    """Whether scores are positive and so far apart that they are compared by their logarithm, log(1 + score)."""
    return bool(np.nanmin(value) >= 0 and np.nanmax(value) > 10 * max(1.0, float(np.nanmedian(value))))


def stints_of(
    value: Float[np.ndarray, "step component"],
    noise: Float[np.ndarray, "step component"],
    threshold: float,
    *,
    max_gap: int = 2,
) -> list[Stint]:
    """Every stint of every component, in the order of components and then of time."""
    found = []
    above = value >= threshold
    for component in np.flatnonzero(above.any(axis=0)):
        found += _stints(int(component), value[:, component], noise[:, component], threshold, max_gap)
    return found


def present(
    value: Float[np.ndarray, "step component"], threshold: float, *, max_gap: int = 2
) -> Bool[np.ndarray, "step component"]:
    """Where each score is above the threshold, or between two such snapshots at most `max_gap` others apart."""
    inside = value >= threshold
    for component in np.flatnonzero(inside.any(axis=0)):
        on = np.flatnonzero(inside[:, component])
        for left, right in pairwise(on):
            if right - left - 1 <= max_gap:
                inside[left:right, component] = True
    return inside


def _stints(component: int, value: np.ndarray, noise: np.ndarray, threshold: float, max_gap: int) -> list[Stint]:
    above = value >= threshold
    # Off for certain: below by more than noise; a snapshot that was not measured says nothing.
    off = value < threshold - CLEAR * noise
    runs: list[list[int]] = []
    for index in np.flatnonzero(above):
        if runs and (index - runs[-1][1] - 1 <= max_gap or off[runs[-1][1] + 1 : index].sum() <= max_gap):
            runs[-1][1] = int(index)
        else:
            runs.append([int(index), int(index)])
    stints = []
    for start, end in runs:
        if above[start : end + 1].sum() < 3 and _is_blip(value, noise, start, end):
            continue
        born = bool(off[:start].any())
        died = bool(off[end + 1 :].sum() > max_gap)
        before = _crossing(
            value, noise, threshold, slice(max(0, start - 3), start), slice(start, min(start + 3, end + 1))
        )
        after = _crossing(value, noise, threshold, slice(end + 1, end + 4), slice(max(start, end - 2), end + 1))
        stints.append(Stint(component, start, end, born, died, before, after))
    return stints


def _is_blip(value: np.ndarray, noise: np.ndarray, start: int, end: int) -> bool:
    """Whether noise around the level on both sides reaches as high as the stint does."""
    around = np.r_[value[max(0, start - 3) : start], value[end + 1 : end + 4]]
    if np.isnan(around).all():
        return True
    return bool(
        np.nanmax(value[start : end + 1]) - np.nanmedian(around) < 2 * CLEAR * np.nanmax(noise[start : end + 1])
    )


def _crossing(value: np.ndarray, noise: np.ndarray, threshold: float, below: slice, above: slice) -> float:
    """Probability that the mean over `below` is under the threshold and the mean over `above` is over it."""
    return (1 - _over(value[below], noise[below], threshold)) * _over(value[above], noise[above], threshold)


def _over(value: np.ndarray, noise: np.ndarray, threshold: float) -> float:
    known = ~np.isnan(value)
    if not known.any():
        return 0.5
    error = np.sqrt((noise[known] ** 2).sum()) / known.sum()
    return float(ndtr((value[known].mean() - threshold) / max(error, 1e-12)))
