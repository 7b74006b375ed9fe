"""Likeness of windows: the log likelihood ratio that two of them show one function.

From the series itself, without labels, it is learned what a distance says.  Two windows of one component that follow
each other are nearly always one function; windows of two components at one time never are:

    component 3   ──before──│──after──      same:   before of 3, after of 3 (also some steps later)
    component 7   ──before──│──after──      other:  before of 3, after of 7

A logistic regression on the distances of features (F, in units of their noise) and of edges (E, one minus the cosine)
is drawn by a ridge towards fixed weights, so that a short series says little, and its signs are constrained.

Axes: `window`, `pair`, `term`, `feature`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit

from tracking.lifelines.presence import Spell
from tracking.lifelines.series import Series
from tracking.lifelines.windows import SIZE, Windows, make_windows, rows_of

__all__ = ["Likeness", "learn_likeness"]

CLIP = 12.0
TOLERANCE = 0.1  # of the spread among components: how far one function may lie apart beyond noise
UNTAUGHT = np.array([4.5, -1.2, 0.0, -3.0, 0.0, 0.3])
RIDGE = 3.0 * np.array([0.1, 1, 1, 1, 1, 2])
BOUNDS = ((None, None), (None, -0.1), (None, 0), (None, 0), (None, 0), (0, 1.5))
OWN_NOISE = 10  # steps of its own that weigh as much as the noise of the run, for the noise of a component
NORMAL = 2 * 0.4549  # the median of squared differences of normal noise, in units of its variance


@dataclass(frozen=True)
class Likeness:
    """What a distance says in this series.

    `noise` is the variance of each feature between steps, `scale` how many times that a component's own is, and
    `spread` the standard deviation of each feature over all that is on.  `usual` is the distance of edges that two
    windows of one function have.
    """

    noise: Float[np.ndarray, "feature"]
    scale: Float[np.ndarray, "component"]
    spread: Float[np.ndarray, "feature"]
    grows: bool
    weights: Float[np.ndarray, "term"]
    usual: float = 0.1

    def distances(
        self, a: Windows, b: Windows, *, tolerance: float = TOLERANCE
    ) -> tuple[Float[np.ndarray, "pair"], Float[np.ndarray, "pair"]]:
        """Feature distance (about 1 for one function) and edge distance (1 - cosine), row by row."""
        x, y = a.features, b.features
        stretch = np.ones(len(x))
        if self.grows:  # what grows keeps its direction: both are brought to one length, and the noise with them
            stretch = np.linalg.norm(x, axis=1) / np.maximum(np.linalg.norm(y, axis=1), 1e-12)
            stretch = np.clip(stretch, 0.2, 5.0)
        more = np.maximum(stretch, 1)
        variance = (self.scale[a.component] / a.count + self.scale[b.component] * stretch**2 / b.count) / more
        scale = self.noise * variance[:, None] + (tolerance * self.spread) ** 2
        squares = (x - y * stretch[:, None]) ** 2 / more[:, None] / scale
        features = squares.mean(axis=1) if squares.shape[1] else np.ones(len(x))
        cosine = np.asarray(a.edges.multiply(b.edges).sum(axis=1)).ravel()
        return features, np.where((a.strength > 0) & (b.strength > 0), 1 - cosine, 0.5)

    def ratio(
        self, a: Windows, b: Windows, *, tolerance: float = TOLERANCE, fewer_edges: float = 0.0
    ) -> Float[np.ndarray, "pair"]:
        """In nats.  `fewer_edges` is by how much the edges may differ for free, those of a copy for instance."""
        features, edges = self.distances(a, b, tolerance=tolerance)
        return np.clip(_terms(features, np.maximum(edges - fewer_edges, 0)) @ self.weights, -CLIP, CLIP)


def learn_likeness(series: Series, spells: Sequence[Spell], rng: np.random.Generator) -> Likeness:
    """Noise and spread of the features, and the weights of their distances, from the series itself."""
    noise, scale = _noise(series, spells)
    n_components = len(series.nodes)
    on = np.concatenate([one.frames * n_components + one.component for one in spells])
    spread = series.known[on].std(axis=0) + 1e-9
    plain = Likeness(noise, scale, spread, series.grows, UNTAUGHT)
    places = [
        (one.component, one.frames, index)
        for one in spells
        if series.movable[one.component]
        for index in range(1, len(one.frames))
    ]
    if not places:
        return plain
    same, other = _same(places, rng), _other(series, places, rng)
    if len(same) < 10 or len(other) < 10:
        return plain
    pairs = []
    for chosen in (same, other):
        sides = [[pair[side] for pair in chosen] for side in (0, 1)]
        rows = [rows_of(n_components, [one for one, _ in side], [frames for _, frames in side]) for side in sides]
        one, other = (make_windows(series, some) for some in rows)
        pairs.append(plain.distances(one, other))
    weights = _fit(pairs, most=2 * len(places))
    return Likeness(noise, scale, spread, series.grows, weights, max(float(np.median(pairs[0][1])), 0.03))


Side = tuple[int, np.ndarray]
Place = tuple[int, np.ndarray, int]


def _same(places: list[Place], rng: np.random.Generator, count: int = 1500) -> list[tuple[Side, Side]]:
    """Windows of one component before and after a place, half of them up to five steps later."""
    found = []
    for chosen in rng.integers(len(places), size=count).tolist():
        component, frames, index = places[chosen]
        later = index + (int(rng.integers(0, 6)) if rng.random() < 0.5 else 0)
        if later < len(frames):
            found.append(((component, frames[max(0, index - SIZE) : index]), (component, frames[later : later + SIZE])))
    return found


def _other(series: Series, places: list[Place], rng: np.random.Generator, count: int = 3000) -> list[tuple[Side, Side]]:
    """Windows of two components of one layer or of two next to each other, before and after one step."""
    at: dict[int, list[Place]] = {}
    for place in places:
        at.setdefault(int(place[1][place[2]]), []).append(place)
    steps, found = list(at), []
    for step in rng.integers(len(steps), size=count).tolist():
        here = at[steps[step]]
        if len(here) < 2:
            continue
        one, other = rng.choice(len(here), 2, replace=False).tolist()
        (a, frames, i), (b, others, j) = here[one], here[other]
        if a != b and abs(int(series.layer[a] - series.layer[b])) <= 1:
            found.append(((a, frames[max(0, i - SIZE) : i]), (b, others[j : j + SIZE])))
    return found


def _noise(series: Series, spells: Sequence[Spell]) -> tuple[np.ndarray, np.ndarray]:
    """Variance between steps of each feature, and each component's own over that, shrunk towards 1."""
    values, n_components = series.known, len(series.nodes)
    steps = [np.diff(values[one.frames * n_components + one.component], axis=0) for one in spells]
    steps = [(one.component, moved) for one, moved in zip(spells, steps, strict=True) if len(moved) > 1]
    if not steps or not values.shape[1]:
        return np.full(values.shape[1], 1e-12), np.ones(n_components)
    noise = np.median(np.concatenate([moved for _, moved in steps]) ** 2, axis=0) / NORMAL + 1e-12
    scale = np.ones(n_components)
    own: dict[int, list[np.ndarray]] = {}
    for component, moved in steps:
        own.setdefault(component, []).append(moved**2 / noise / NORMAL)
    for component, blocks in own.items():
        squares = np.concatenate(blocks)
        typical = float(np.clip(np.median(squares), 0.1, 10))
        scale[component] = typical ** (len(squares) / (len(squares) + OWN_NOISE))
    return noise, scale


def _terms(features: np.ndarray, edges: np.ndarray) -> Float[np.ndarray, "pair term"]:
    root = np.minimum(np.sqrt(features), 12)
    capped = np.minimum(features, 60) / 10
    return np.column_stack([np.ones(len(root)), root, capped, edges, root * edges, -np.log(features + 0.1)])


def _fit(pairs: list[tuple[np.ndarray, np.ndarray]], most: int) -> Float[np.ndarray, "term"]:
    """Both classes weigh the same, and together no more than `most` pairs."""
    x = np.vstack([_terms(*distances) for distances in pairs])
    n_same, n_other = (len(features) for features, _ in pairs)
    sign = np.r_[np.ones(n_same), -np.ones(n_other)]
    weight = np.r_[np.full(n_same, 0.5 / n_same), np.full(n_other, 0.5 / n_other)] * min(len(sign), most)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w)
        slope = x.T @ (-weight * sign * expit(-margin)) + RIDGE * (w - UNTAUGHT)
        return float((weight * np.logaddexp(0, -margin)).sum() + 0.5 * (RIDGE * (w - UNTAUGHT) ** 2).sum()), slope

    return minimize(loss, UNTAUGHT, jac=True, method="L-BFGS-B", bounds=BOUNDS).x
