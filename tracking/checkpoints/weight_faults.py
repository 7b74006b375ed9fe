"""Weight faults: what is wrong with a series of checkpoints, told from norms, distances and angles of their weights.

Question: which checkpoints do not belong where they stand?  A trajectory has its distances in order: for checkpoint x
between a and b, the **detour** d(a, x) + d(x, b) - d(a, b) is small, and largest (as d(a, x) + d(x, b) = 2 d) where x
has nothing to do with its place.  Checkpoints of one run have a cosine well above zero, those of two runs have none.

The audit (`tracking.checkpoints.audit`) takes these numbers from sketches of every tensor, recording from one small
sketch of what it reads anyway (`tracking.checkpoints.sketches`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float

from tracking.checkpoints.sketches import WeightSketch

__all__ = ["Finding", "Trajectory", "trajectory_of", "untold", "weight_faults"]

STRANGE, JOINED, ALIKE = 0.1, 0.2, 0.5
"""Cosines: up to the first, two checkpoints have nothing in common; above the second, they are of one run; from the
third on, they are as near as neighbours are."""
WIDE = 3
"""Times that a gap may be longer than those beside it before a lack of likeness says nothing."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    `severity`: `error` makes results wrong, `warning` may be what really happened in training, `note` is for the
    record.  `confidence` is between 0 and 1.
    """

    kind: str
    severity: Literal["error", "warning", "note"]
    steps: tuple[int, ...]
    what: str
    advice: str
    confidence: float = 1.0

    def __str__(self) -> str:
        sure = "" if self.confidence >= 0.995 else f" ({self.confidence:.0%} sure)"
        return f"{self.severity}: {self.what}{sure}; {self.advice}"


@dataclass(frozen=True)
class Trajectory:
    """Checkpoints in order, their weights' norms, and their distances and cosines to each other."""

    steps: tuple[int, ...]
    norms: Float[np.ndarray, "step"]
    distances: Float[np.ndarray, "step step"]
    cosines: Float[np.ndarray, "step step"]

    def only(self, places: Sequence[int]) -> "Trajectory":
        """The same with some of its checkpoints, by their places."""
        at, square = list(places), np.ix_(list(places), list(places))
        return Trajectory(
            tuple(self.steps[i] for i in at), self.norms[at], self.distances[square], self.cosines[square]
        )


def trajectory_of(sketches: Mapping[int, WeightSketch]) -> Trajectory:
    """The trajectory of sketches by step."""
    steps = tuple(sorted(sketches))
    if not steps:
        return Trajectory((), np.empty(0), np.empty((0, 0)), np.empty((0, 0)))
    held = np.array([sketches[step].sketch for step in steps])
    length = np.sqrt((held**2).sum(axis=1))
    inner, scale = held @ held.T, np.outer(length, length)
    apart = np.sqrt(np.maximum(length[:, None] ** 2 + length[None, :] ** 2 - 2 * inner, 0.0))
    alike = np.divide(inner, scale, out=np.ones_like(inner), where=scale > 0)
    return Trajectory(steps, np.array([sketches[step].norm for step in steps], dtype=float), apart, alike)


def weight_faults(path: Trajectory) -> list[Finding]:
    """Every checkpoint that does not belong where it stands; those named by one rule are left out by the next."""
    empty = [place for place, norm in enumerate(path.norms) if norm == 0]
    found = [_empty(path.steps[place]) for place in empty]
    path = path.only([place for place in range(len(path.steps)) if place not in empty])
    found += _norms(path)
    for rule in (_two_runs, _strangers, _exchanged, _misplaced):
        if len(path.steps) > 2:
            new = rule(path)
            found += new
            named = {step for finding in new for step in finding.steps}
            path = path.only([place for place, step in enumerate(path.steps) if step not in named])
    return found + (_jumps(path) if len(path.steps) > 2 else [])


def untold(path: Trajectory) -> list[str]:
    """Neighbours that have nothing in common, where nothing tells whether they ever should: one sentence each."""
    told = {finding.steps for finding in weight_faults(path)}
    return [
        f"whether steps {a} and {b} are of one run: their weights have nothing in common, and no checkpoint lies near"
        for (a, b), cosine in zip(pairwise(path.steps), np.diag(path.cosines, 1), strict=True)
        if cosine <= STRANGE and (a, b) not in told and (len(path.steps) == 2 or not _near(path.steps, a))
    ]


def _empty(step: int) -> Finding:
    return Finding("empty", "error", (step,), f"all weights at step {step} are zero", "fetch that checkpoint again")


def _norms(path: Trajectory) -> list[Finding]:
    """Norms unlike those of both neighbours, when these agree with each other."""
    found = []
    for place in range(1, len(path.steps) - 1):
        before, here, after = path.norms[place - 1 : place + 2]
        if max(before, after) < 2 * min(before, after) and not min(before, after) / 3 < here < 3 * max(before, after):
            step = path.steps[place]
            what = f"the weights' norm at step {step} is {here:.3g}, between {before:.3g} and {after:.3g}"
            found.append(Finding("norm", "error", (step,), what, "fetch that checkpoint again", 0.95))
    return found


def _two_runs(path: Trajectory) -> list[Finding]:
    """Checkpoints of two runs in one folder: each alike to others of its own, none to one of the other, and mixed."""
    groups = _groups(path.cosines > JOINED)
    if len(groups) != 2 or min(map(len, groups)) < 2 or path.cosines[np.ix_(*groups)].max() > STRANGE:
        return []
    if max(groups[0]) < min(groups[1]):  # one after the other: the trajectory jumps
        return []
    first, second = ([path.steps[place] for place in group] for group in groups)
    what = f"steps {_list(first)} are of one run, and steps {_list(second)} of another: they have nothing in common"
    return [Finding("two runs", "error", path.steps, what, "put each run into a folder of its own", 0.95)]


def _groups(joined: np.ndarray) -> list[list[int]]:
    """Places that are joined, directly or through others, in order of the first of each."""
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(joined, directed=False)
    groups = [np.flatnonzero(label == one).tolist() for one in range(count)]
    return sorted(groups)


def _strangers(path: Trajectory) -> list[Finding]:
    """Checkpoints that have nothing in common with any other, between two that are of one run."""
    found = []
    for place in range(1, len(path.steps) - 1):
        others = [other for other in range(len(path.steps)) if other != place]
        if path.cosines[place, others].max() <= STRANGE and path.cosines[place - 1, place + 1] >= ALIKE:
            step = path.steps[place]
            what = f"the weights at step {step} have nothing in common with those of any other step"
            advice = "they are random, or of another run; fetch that checkpoint again"
            found.append(Finding("stranger", "error", (step,), what, advice, 0.95))
    return found


def _exchanged(path: Trajectory) -> list[Finding]:
    """Two checkpoints that hold each other's weights: put back, none is misplaced any more."""
    if not _misplaced(path):
        return []
    between, places = path.distances, range(len(path.steps))

    def put_back(pair: tuple[int, int]) -> list[int]:
        order = list(places)
        order[pair[0]], order[pair[1]] = pair[1], pair[0]
        return order

    def length(pair: tuple[int, int]) -> float:
        order = put_back(pair)
        return float(between[order[:-1], order[1:]].sum())

    best = min(combinations(places, 2), key=length)
    order = put_back(best)
    square = np.ix_(order, order)
    if _misplaced(Trajectory(path.steps, path.norms[order], between[square], path.cosines[square])):
        return []
    steps = (path.steps[best[0]], path.steps[best[1]])
    what = f"steps {steps[0]} and {steps[1]} hold each other's weights: put back, all lie on one way"
    return [Finding("exchanged", "error", steps, what, "fetch both again, or give each the other's name", 0.95)]


def _misplaced(path: Trajectory) -> list[Finding]:
    """Checkpoints that fit between two others far better than where they stand; the worst first, each taken out."""
    found, left, steps, between = [], list(range(len(path.steps))), path.steps, path.distances
    while len(left) > 3:
        worst, where, gain = None, (0, 0), 0.0
        for place, index in enumerate(left):
            others = left[:place] + left[place + 1 :]
            detours = [_detour(between, a, index, b) for a, b in pairwise(others)]
            best = int(np.argmin(detours))
            actual = _stands(between, left, place)
            if best not in (place - 1,) and detours[best] < 0.5 * actual and actual - detours[best] > gain:
                worst, where, gain = place, (others[best], others[best + 1]), actual - detours[best]
        if worst is None:
            break
        index = left.pop(worst)
        around = f"between steps {steps[where[0]]} and {steps[where[1]]}"
        what = f"the weights under step {steps[index]} lie {around} on the way of the others"
        advice = "that step is probably mislabelled; fetch it again, or leave it out with steps="
        found.append(Finding("misplaced", "error", (steps[index],), what, advice, 0.95))
    return found


def _detour(between: np.ndarray, a: int, x: int, b: int) -> float:
    return float(between[a, x] + between[x, b] - between[a, b])


def _stands(between: np.ndarray, left: Sequence[int], place: int) -> float:
    """The detour of a checkpoint where it stands, 0 where it is small beside the way itself.

    At an end, where there is no way through, it is how much nearer the nearest other is than the neighbour, twice.
    """
    if 0 < place < len(left) - 1:
        a, x, b = left[place - 1 : place + 2]
        detour = _detour(between, a, x, b)
        return detour if detour > 0.4 * (between[a, x] + between[x, b]) else 0.0
    x, neighbour = (left[0], left[1]) if place == 0 else (left[-1], left[-2])
    nearest = min(between[x, other] for other in left if other != x)
    return 2 * float(between[x, neighbour] - nearest) if nearest < 0.5 * between[x, neighbour] else 0.0


def _jumps(path: Trajectory) -> list[Finding]:
    """Neighbours that have no more in common than two models of different seeds, in a series that has otherwise."""
    alike = np.diag(path.cosines, 1)
    found = []
    for place, (a, b) in enumerate(pairwise(path.steps)):
        others = np.delete(alike, place)
        if alike[place] > STRANGE or float(np.median(others)) < ALIKE or not _near(path.steps, a):
            continue
        if place == 0:
            what = f"the series does not descend from its first step: {a} and {b} have nothing in common"
        else:
            what = f"the trajectory jumps: steps {a} and {b} have nothing in common, their neighbours do"
        advice = "they are probably of different runs; look where each came from"
        found.append(Finding("jump", "error", (a, b), f"{what} (cosine {alike[place]:.2f})", advice, 0.95))
    return found


def _near(steps: Sequence[int], before: int) -> bool:
    """Whether the gap after a step is not much longer than those beside it."""
    place, gaps = list(steps).index(before), np.diff(steps)
    beside = [gaps[other] for other in (place - 1, place + 1) if 0 <= other < len(gaps)]
    return bool(beside and gaps[place] <= WIDE * max(beside))


def _list(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) < 9 else f"{', '.join(map(str, steps[:6]))}, ... {steps[-1]}"
