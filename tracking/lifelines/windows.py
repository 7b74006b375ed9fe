"""Windows: a few steps of one component's life, averaged so that two of them can be compared.

A single measurement is noisy.  A window holds up to five: the trimmed mean of their features, the edges that recur in
them, scaled to length 1, and the median of their effects.

Axes: `window`; `place` of a row of the series in a window, -1 where it has fewer; `feature`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int

from tracking.lifelines.series import Series

__all__ = ["SIZE", "Windows", "make_windows", "rows_of"]

SIZE = 5


@dataclass(frozen=True)
class Windows:
    """`count` is how many measurements each has, `time` their mean step number, `strength` the length of the edges."""

    component: Int[np.ndarray, "window"]
    features: Float[np.ndarray, "window feature"]
    edges: sparse.csr_array
    strength: Float[np.ndarray, "window"]
    count: Float[np.ndarray, "window"]
    time: Float[np.ndarray, "window"]
    effect: Float[np.ndarray, "window"]

    def __getitem__(self, places: np.ndarray) -> "Windows":
        return Windows(
            self.component[places],
            self.features[places],
            self.edges[places],
            self.strength[places],
            self.count[places],
            self.time[places],
            self.effect[places],
        )


def rows_of(
    n_components: int, component: Sequence[int] | np.ndarray, frames: Sequence[np.ndarray], size: int = SIZE + 2
) -> Int[np.ndarray, "window place"]:
    """Rows of the series, from the steps of one component each."""
    rows = np.full((len(frames), max(size, 1)), -1)
    for place, (unit, some) in enumerate(zip(component, frames, strict=True)):
        rows[place, : len(some)] = some * n_components + unit
    return rows


def make_windows(series: Series, rows: Int[np.ndarray, "window place"]) -> Windows:
    """The windows made of these rows of the series each; every window needs at least one."""
    n_components = len(series.nodes)
    there = rows >= 0
    count = there.sum(axis=1)
    values = series.known[np.maximum(rows, 0)]
    features = _trimmed_mean(values, there, count)
    entries = np.flatnonzero(there.ravel())
    of, row = entries // rows.shape[1], rows.ravel()[entries]
    shape = (len(rows), series.profile.shape[0])
    mean = sparse.csr_array((1 / count[of], (of, row)), shape=shape)
    edges = (mean @ series.profile).tocsr()
    seen = (sparse.csr_array((np.ones(len(of)), (of, row)), shape=shape) @ series.marks).tocsr()
    # An edge that is there once in a window is no part of what the component does.
    needed = np.repeat(np.where(count >= 3, np.maximum(2, 0.4 * count), 1), np.diff(seen.indptr))
    seen.data = (seen.data >= needed).astype(float)
    edges = edges.multiply(seen).tocsr()
    strength = np.sqrt(np.asarray(edges.multiply(edges).sum(axis=1)).ravel())
    edges = (sparse.diags_array(1 / np.maximum(strength, 1e-12)) @ edges).tocsr()
    effect = np.where(there, series.effect.ravel()[np.maximum(rows, 0)], np.nan)
    time = np.where(there, rows // n_components, 0).sum(axis=1) / count
    return Windows(
        rows.max(axis=1) % n_components, features, edges, strength, count.astype(float), time, _median(effect)
    )


def _trimmed_mean(values: np.ndarray, there: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Without the largest and the smallest value where there are four or more."""
    mask = there[:, :, None]
    total = np.where(mask, values, 0.0).sum(axis=1)
    most, least = (np.where(mask, values, fill) for fill in (-np.inf, np.inf))
    trimmed = total - most.max(axis=1) - least.min(axis=1)
    many = count[:, None] >= 4
    return np.where(many, trimmed, total) / np.where(many, count[:, None] - 2, np.maximum(count[:, None], 1))


def _median(values: Float[np.ndarray, "window place"]) -> Float[np.ndarray, "window"]:
    return np.nanmedian(values, axis=1) if len(values) else np.empty(0)
