"""Logistic fits: the midpoint and the width of a rise as a logistic curve in ln(step).

When is each resample of a curve halfway, if it rises as a logistic curve does?
"""

from functools import lru_cache

import numpy as np

__all__ = ["fit_logistic"]


def fit_logistic(
    x: np.ndarray, y: np.ndarray, error: float, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """(midpoint, width) in ln(step) of the best logistic of each curve; NaN where a constant does as well.

    The best of a grid over midpoints and widths, baseline and height by least squares.  Between checkpoints whose
    fits are as good as each other one is drawn.
    """
    n = len(x)
    if n < 4:
        return np.full(len(y), np.nan), np.full(len(y), np.nan)
    middles, widths, basis, power = _logistic_grid(tuple(x.tolist()))
    m, w = (grid.ravel() for grid in np.meshgrid(middles, widths, indexing="ij"))
    centred = y - y.mean(axis=1, keepdims=True)
    total = (centred**2).sum(axis=1)
    product = centred @ basis.T
    gain = np.where((product > 0) & (power > 1e-6), product**2 / np.maximum(power, 1e-6), 0.0)
    best = gain.max(axis=1)
    left_over = np.maximum(total - best, 0.0)
    scale = np.maximum(left_over / max(n - 4, 1), error**2)
    shift = np.zeros(len(y))
    if rng is None:
        place = gain.argmax(axis=1)
    else:
        near = (gain >= (best - 1.5 * scale)[:, None]).reshape(len(y), len(middles), len(widths))
        chosen = np.where(near.any(axis=2), rng.random(near.shape[:2]), -1.0).argmax(axis=1)
        those = near[np.arange(len(y)), chosen]
        place = chosen * len(widths) + np.where(those, rng.random(those.shape), -1.0).argmax(axis=1)
        shift = (rng.random(len(y)) - 0.5) * np.gradient(middles)[chosen]
    middle, width = _polished(x, y, m[place] + shift, w[place], 0.1 * scale)
    gained = n * np.log(np.maximum(total, 1e-300) / np.maximum(left_over, n * error**2 * 0.05 + 1e-300)) - 3 * np.log(n)
    shown = (gained > 6) & (best > 0)
    return np.where(shown, middle, np.nan), np.where(shown, width, np.nan)


@lru_cache(maxsize=8)
def _logistic_grid(steps: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Midpoints, widths, and of each pair of them the centred curve and its power: alike for all curves of a run."""
    x, n = np.array(steps), len(steps)
    fine = 8 if n <= 40 else 4
    middles = np.interp(np.linspace(0, n - 1, fine * (n - 1) + 1), np.arange(n), x)
    widths = np.geomspace(max(0.02 * np.min(np.diff(x)), 1e-3), 0.4 * (x[-1] - x[0]), 12)
    m, w = (grid.ravel() for grid in np.meshgrid(middles, widths, indexing="ij"))
    basis = _sigmoid(x, m[:, None], w[:, None])
    basis -= basis.mean(axis=1, keepdims=True)
    return middles, widths, basis, (basis**2).sum(axis=1)


def _sigmoid(x: np.ndarray, middle: np.ndarray, width: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip((x - middle) / width, -50, 50)))


def _polished(
    x: np.ndarray, y: np.ndarray, middle: np.ndarray, width: np.ndarray, worth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt from the grid's point, in midpoint and ln(width), baseline and height by least squares.

    Where that gains less than `worth` the checkpoints do not tell, and the drawn point stays.
    """
    at = np.stack([middle, np.log(width)])
    least, residual, slopes = _misfit(x, y, at)
    drawn = least
    damping = np.full(len(y), 1e-2)
    for _ in range(12):
        hessian = np.einsum("prn,qrn->rpq", slopes, slopes)
        hessian[:, [0, 1], [0, 1]] *= 1 + damping[:, None]
        hessian[:, [0, 1], [0, 1]] += 1e-9
        step = np.linalg.solve(hessian, np.einsum("prn,rn->rp", slopes, residual)[..., None])[..., 0].T
        step = np.clip(step, -0.5, 0.5)
        new = _misfit(x, y, at + step)
        better = new[0] < least
        at = np.where(better, at + step, at)
        least = np.where(better, new[0], least)
        residual = np.where(better[:, None], new[1], residual)
        slopes = np.where(better[:, None], new[2], slopes)
        damping = np.where(better, damping / 5, damping * 5)
    inside = (at[0] >= x[0]) & (at[0] <= x[-1]) & (drawn - least > worth)
    return np.where(inside, at[0], middle), np.where(inside, np.exp(at[1]), width)


def _misfit(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared residual, residual, and the fit's derivative by midpoint and ln(width), (parameter, resample, step)."""
    width = np.exp(at[1])[:, None]
    away = np.clip((x - at[0][:, None]) / width, -50, 50)
    shape = 1 / (1 + np.exp(-away))
    centred = shape - shape.mean(axis=1, keepdims=True)
    power = np.maximum((centred**2).sum(axis=1), 1e-12)
    level = y - y.mean(axis=1, keepdims=True)
    height = ((level * centred).sum(axis=1) / power)[:, None]
    residual = level - height * centred
    steep = shape * (1 - shape)
    slopes = np.stack([-height * steep / width, -height * steep * away])
    slopes -= slopes.mean(axis=2, keepdims=True)
    slopes -= ((slopes * centred).sum(axis=2) / power)[..., None] * centred
    return (residual**2).sum(axis=1), residual, slopes
