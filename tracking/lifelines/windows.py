"""Tracklet likeness: how alike two stretches of components' lives are, and how likely they are one function.

A **detection** is one component (*unit*) that is active at one snapshot (*frame*).  Single detections are noisy, so
what is compared are **windows**, a few detections of one unit: their mean features, in units of the features' noise,
and the edges that recur in them.  From the run itself, without labels, it is learned what a distance says: two windows
of one unit next to each other are nearly always one function, those of two units at one time never are.

Axes: `detection` in order of frame and unit; `window`; `pair`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

__all__ = ["Detections", "Evidence", "Windows", "calibrate", "make_windows"]

CLIP = 12.0


@dataclass(frozen=True)
class Detections:
    """Every active unit of every frame.

    `profile` has for each detection the signed square roots of its clear edges, a column for each channel, direction
    and other unit.  `kind` and `layer` describe units; only units of one kind can take over from each other, and only
    `movable` ones: an MLP is the only one of its layer.
    """

    frame: Int[np.ndarray, "detection"]
    unit: Int[np.ndarray, "detection"]
    features: Float[np.ndarray, "detection feature"]
    profile: sparse.csr_array
    kind: Int[np.ndarray, "unit"]
    layer: Int[np.ndarray, "unit"]
    movable: Bool[np.ndarray, "unit"]
    n_frames: int

    @property
    def noise(self) -> Float[np.ndarray, "feature"]:
        """Variance of each feature between successive detections of a unit, robustly."""
        order = np.lexsort((self.frame, self.unit))
        step = np.diff(self.features[order], axis=0)
        next_to = (np.diff(self.unit[order]) == 0) & (np.diff(self.frame[order]) == 1)
        if not next_to.any():
            return np.ones(self.features.shape[1])
        return np.median(step[next_to] ** 2, axis=0) / (2 * 0.4549) + 1e-12

    @staticmethod
    def from_frames(
        frames: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
        kind: Int[np.ndarray, "unit"],
        layer: Int[np.ndarray, "unit"],
        movable: Bool[np.ndarray, "unit"] | None = None,
        quiet: float | None = None,
    ) -> "Detections":
        """From (units, features, edges (channel, from, to)) of each frame, edges among that frame's units.

        `quiet` is the standard deviation of edges that are only noise; estimated, as most are, where not given.
        """
        n_units = len(kind)
        frame = np.concatenate([np.full(len(units), t) for t, (units, _, _) in enumerate(frames)])
        unit = np.concatenate([units for units, _, _ in frames]).astype(np.int64)
        features = np.concatenate([values for _, values, _ in frames])
        quiet = _background([edges for _, _, edges in frames]) if quiet is None else quiet
        rows, columns, entries = [], [], []
        first = 0
        for units, _, edges in frames:
            channel, source, target = np.nonzero(np.abs(edges) > 3 * quiet)
            value = edges[channel, source, target]
            root = np.sign(value) * np.sqrt(np.abs(value))
            rows += [first + source, first + target]
            columns += [2 * channel * n_units + units[target], (2 * channel + 1) * n_units + units[source]]
            entries += [root, root]
            first += len(units)
        shape = (len(unit), 2 * n_units * max(1, max((edges.shape[0] for _, _, edges in frames), default=1)))
        where = (np.concatenate(rows), np.concatenate(columns))
        profile = sparse.csr_array((np.concatenate(entries), where), shape=shape)
        movable = np.ones(n_units, dtype=bool) if movable is None else movable
        return Detections(frame, unit, features, profile, kind, layer, movable, len(frames))


def _background(edges: Sequence[np.ndarray]) -> float:
    """Standard deviation of the edges that are only noise: most are."""
    some = np.concatenate([one[one != 0].ravel() for one in edges[:: max(1, len(edges) // 20)]])
    return float(1.4826 * np.median(np.abs(some))) if len(some) > 500 else 0.0


@dataclass(frozen=True)
class Windows:
    """Means over a few detections each: features, recurring edges scaled to length 1, how many detections."""

    features: Float[np.ndarray, "window feature"]
    edges: sparse.csr_array
    strength: Float[np.ndarray, "window"]
    count: Float[np.ndarray, "window"]

    def __getitem__(self, places: np.ndarray) -> "Windows":
        return Windows(self.features[places], self.edges[places], self.strength[places], self.count[places])


def make_windows(detections: Detections, members: Sequence[np.ndarray]) -> Windows:
    """The windows made of the given detections each."""
    count = np.array([len(some) for some in members], dtype=float)
    rows = np.repeat(np.arange(len(members)), count.astype(int))
    columns = np.concatenate(list(members)) if len(members) else np.array([], dtype=int)
    weights = np.repeat(1 / np.maximum(count, 1), count.astype(int))
    mean = sparse.csr_array((weights, (rows, columns)), shape=(len(members), len(detections.unit)))
    edges = (mean @ detections.profile).tocsr()
    seen = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=mean.shape) @ abs(detections.profile).sign()
    # An edge that is there once in a window is not part of what the unit does.
    recurring = seen.tocsr()
    need = np.repeat(np.where(count >= 3, np.maximum(2, 0.4 * count), 1), np.diff(recurring.indptr))
    recurring.data = (recurring.data >= need).astype(float)
    edges = edges.multiply(recurring).tocsr()
    strength = np.sqrt(np.asarray(edges.multiply(edges).sum(axis=1)).ravel())
    unit = sparse.diags_array(1 / np.maximum(strength, 1e-12))
    return Windows(mean @ detections.features, (unit @ edges).tocsr(), strength, count)


@dataclass(frozen=True)
class Evidence:
    """Log likelihood ratio of two windows being one function, from what the run itself shows."""

    noise: Float[np.ndarray, "feature"]
    weights: Float[np.ndarray, "term"]

    def distances(
        self, a: Windows, b: Windows, *, tolerance: float = 0.0
    ) -> tuple[Float[np.ndarray, "pair"], Float[np.ndarray, "pair"]]:
        """Feature distance (1 for one function) and edge distance (1 - cosine), row by row."""
        return _distances(self.noise, a, b, tolerance)

    def ratio(
        self, a: Windows, b: Windows, *, tolerance: float = 0.0, fewer_edges: float = 0.0
    ) -> Float[np.ndarray, "pair"]:
        """In nats.  `tolerance` is how far a copy's features may lie apart, `fewer_edges` by how much its edges may."""
        features, edges = self.distances(a, b, tolerance=tolerance)
        return np.clip(_terms(features, np.maximum(edges - fewer_edges, 0)) @ self.weights, -CLIP, CLIP)


def _distances(noise: np.ndarray, a: Windows, b: Windows, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    x, y = a.features, b.features
    stretch = np.ones(len(x))
    if x.shape[1] >= 3:
        # What grows keeps its direction: both are brought to one length, and the noise with them.
        longer = np.linalg.norm(x, axis=1) / np.maximum(np.linalg.norm(y, axis=1), 1e-12)
        stretch = np.clip(longer, 0.2, 5.0)
    variance = (1 / np.maximum(a.count, 1) + stretch**2 / np.maximum(b.count, 1)) / np.maximum(stretch, 1)
    length = (np.linalg.norm(x, axis=1) * np.linalg.norm(y * stretch[:, None], axis=1))[:, None]
    scale = noise * variance[:, None] + tolerance**2 * length / len(noise)
    features = ((x - y * stretch[:, None]) ** 2 / np.maximum(stretch, 1)[:, None] / scale).mean(axis=1)
    cosine = np.asarray(a.edges.multiply(b.edges).sum(axis=1)).ravel()
    return features, 1 - cosine


def _terms(features: np.ndarray, edges: np.ndarray) -> np.ndarray:
    root = np.sqrt(features)
    return np.column_stack(
        [np.ones(len(root)), np.minimum(root, 12), np.minimum(features, 60) / 10, edges, root * edges]
    )


def calibrate(
    noise: Float[np.ndarray, "feature"], same: tuple[Windows, Windows], other: tuple[Windows, Windows]
) -> Evidence:
    """Learn what distances say: class-balanced ridge logistic regression, by Newton steps."""
    blocks = [_terms(*_distances(noise, a, b, 0.0)) for a, b in (same, other)]
    x = np.vstack(blocks)
    y = np.r_[np.ones(len(blocks[0])), np.zeros(len(blocks[1]))]
    weight = np.r_[
        np.full(len(blocks[0]), 0.5 / max(len(blocks[0]), 1)), np.full(len(blocks[1]), 0.5 / max(len(blocks[1]), 1))
    ]
    weight *= len(y)
    ridge = np.diag([1e-3, 0.1, 0.1, 0.1, 0.1])
    w = np.zeros(x.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        slope = x.T @ (weight * (p - y)) + ridge @ w
        bend = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge
        w = w - np.linalg.solve(bend, slope)
    return Evidence(noise, w)
