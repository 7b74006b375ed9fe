"""Noise of scores: how far each lies from its true value, by its standard error and by what the series shows.

A series of scores that spans decades is compared by its logarithm, since its fluctuations grow with it.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["noise_of", "spans_decades"]


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
