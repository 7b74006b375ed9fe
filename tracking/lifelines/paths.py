"""Smoothed paths: what a run's curve is beneath the jitter of its checkpoints, and how else it could be.

Question: how far may the curve of this very run lie from the values that were measured of it?

A measured value is y_t = θ_t + e_t + p_t.  The path θ belongs to the run, slow wander included; e_t is jitter faster
than the checkpoints, of variance w (the *nugget*); p_t is the error of the prompts.  Second differences tell jitter
from path: with V₁ and V₂ their variances at a spacing of one and of two checkpoints, and q the variance of the path's
own steps (its *roughness*), E V₁ = 6 w + 2 q and E V₂ = 6 w + 4 q, so

    w = (2 V₁ - V₂) / 6,    q = (V₂ - V₁) / 2,

the ratio w / V₁ pooled over all curves of one measure, what the prompts explain subtracted.  θ is then a random walk
around a running median m̂, with steps of variance max(Δm̂², q, w/20), and the Gaussian smoother gives its mean and draws
of it.  Without jitter the path is the curve itself.

Axes: `curve` the components of one measure, `draw` the draws, `step` the checkpoints, `fold` the prompt folds.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["Noise", "draw_paths", "noise_of_curves", "paths_of"]

FEWEST = 16  # checkpoints from which on jitter can be told from the path
LEAST_ROUGHNESS = 0.05  # of the nugget
QUARTILE = 0.3186  # the lower quartile of the magnitude of a standard normal number


@dataclass(frozen=True)
class Noise:
    """Variances of each curve: of the jitter from checkpoint to checkpoint, and of the path's own steps."""

    nugget: Float[np.ndarray, "curve"]
    roughness: Float[np.ndarray, "curve"]


def noise_of_curves(values: Float[np.ndarray, "curve step"], folds: Float[np.ndarray, "fold curve step"]) -> Noise:
    """Jitter and roughness of the curves of one measure; no jitter where there are too few checkpoints to tell."""
    n_curves, n_steps = values.shape
    if n_steps < FEWEST or not n_curves:
        return Noise(np.zeros(n_curves), np.zeros(n_curves))
    near, far = _bends(values)
    share = float(np.clip((2 * near.sum() - far.sum()) / max(6 * near.sum(), 1e-30), 0, 1 / 6))
    nugget = share * near
    roughness = np.maximum((near - 6 * nugget) / 2, 1e-12)
    if len(folds) > 1:
        # A mean over n folds varies 1 / n as much as a fold does.
        apart = (folds - folds.mean(axis=0)) / np.sqrt(len(folds) - 1)
        near, far = (bends.reshape(len(folds), n_curves).mean(axis=0) for bends in _bends(apart))
        nugget = np.maximum(nugget - np.clip(2 * near - far, 0, None) / 6, 0)
    return Noise(nugget, roughness)


def _bends(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Robust variances of second differences at a spacing of one and of two: V₁ and V₂."""
    near = values[..., 2:] - 2 * values[..., 1:-1] + values[..., :-2]
    far = values[..., 4:] - 2 * values[..., 2:-2] + values[..., :-4]
    return _robust(near), _robust(far)


def _robust(bends: np.ndarray) -> np.ndarray:
    """The variance that the smaller bends speak for: neither a trend nor the steep part of a rise moves it."""
    return (np.quantile(np.abs(bends), 0.25, axis=-1) / QUARTILE) ** 2


def paths_of(values: Float[np.ndarray, "curve step"], noise: Noise) -> Float[np.ndarray, "curve step"]:
    """The most likely path of each curve; where a curve has no jitter, the curve."""
    return draw_paths(values, values[:, None], noise, None)[0][:, 0]


def draw_paths(
    values: Float[np.ndarray, "curve step"],
    resampled: Float[np.ndarray, "curve draw step"],
    noise: Noise,
    rng: np.random.Generator | None,
) -> tuple[Float[np.ndarray, "curve draw step"], Float[np.ndarray, "curve draw step"]]:
    """(paths of the resampled curves, the same with the jitter's uncertainty drawn).

    With P = DᵀQ⁻¹D + 1/w the precision of a path around m̂ (D first differences, Q their variances) and P = LLᵀ, a draw
    is m̂ + L⁻ᵀ(L⁻¹(y - m̂)/w + z), z standard normal: L has two diagonals, so a draw costs two passes.

    Args:
        values: the curves as measured, from which m̂ is taken.
        resampled: the curves on resampled prompts.
        noise: from `noise_of_curves`.
        rng: draws z; without it both are the same.
    """
    smooth, drawn = resampled, resampled
    jittery = np.flatnonzero(noise.nugget > 1e-10)
    if len(jittery) and values.shape[1] >= 5:
        centre = _running(values[jittery])
        nugget, roughness = noise.nugget[jittery], noise.roughness[jittery]
        diagonal, below = _factor(centre, nugget, roughness)
        pull = (resampled[jittery] - centre[:, None]) / nugget[:, None, None]
        forward = _forward(pull, diagonal, below)
        smooth = smooth.copy()
        smooth[jittery] = centre[:, None] + _backward(forward, diagonal, below)
        drawn = smooth
        if rng is not None:
            drawn = smooth.copy()
            drawn[jittery] += _backward(rng.standard_normal(forward.shape), diagonal, below)
    return smooth, drawn


def _running(values: np.ndarray) -> np.ndarray:
    """m̂: running median of three, then weights 1, 2, 1."""
    middle = values.copy()
    middle[:, 1:-1] = np.median(np.stack([values[:, :-2], values[:, 1:-1], values[:, 2:]]), axis=0)
    centre = middle.copy()
    centre[:, 1:-1] = (middle[:, :-2] + 2 * middle[:, 1:-1] + middle[:, 2:]) / 4
    return centre


def _factor(
    centre: Float[np.ndarray, "curve step"], nugget: Float[np.ndarray, "curve"], roughness: Float[np.ndarray, "curve"]
) -> tuple[Float[np.ndarray, "curve step"], Float[np.ndarray, "curve link"]]:
    """L of each curve: its diagonal, and what stands below it."""
    least = np.maximum(roughness, LEAST_ROUGHNESS * nugget)[:, None]
    tie = 1 / np.maximum(np.diff(centre, axis=1) ** 2, least)
    precision = np.repeat(1 / nugget[:, None], centre.shape[1], axis=1)
    precision[:, :-1] += tie
    precision[:, 1:] += tie
    diagonal, below = np.empty_like(precision), np.empty_like(tie)
    diagonal[:, 0] = np.sqrt(precision[:, 0])
    for index in range(tie.shape[1]):
        below[:, index] = -tie[:, index] / diagonal[:, index]
        diagonal[:, index + 1] = np.sqrt(precision[:, index + 1] - below[:, index] ** 2)
    return diagonal, below


def _forward(right: np.ndarray, diagonal: np.ndarray, below: np.ndarray) -> np.ndarray:
    """L⁻¹ right."""
    out = np.empty_like(right)
    out[..., 0] = right[..., 0] / diagonal[:, None, 0]
    for index in range(1, right.shape[-1]):
        carried = right[..., index] - below[:, None, index - 1] * out[..., index - 1]
        out[..., index] = carried / diagonal[:, None, index]
    return out


def _backward(right: np.ndarray, diagonal: np.ndarray, below: np.ndarray) -> np.ndarray:
    """L⁻ᵀ right."""
    out = np.empty_like(right)
    out[..., -1] = right[..., -1] / diagonal[:, None, -1]
    for index in range(right.shape[-1] - 2, -1, -1):
        carried = right[..., index] - below[:, None, index] * out[..., index + 1]
        out[..., index] = carried / diagonal[:, None, index]
    return out
