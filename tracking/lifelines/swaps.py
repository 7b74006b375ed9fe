"""Swaps: two components that exchange what they do between the same two steps.

Neither stops being on, so nothing begins or ends; what gives a swap away is that each goes on like the other:

    component 3   ──A──│──B──     stay:   A like B on 3, and B like A on 7
    component 7   ──B──│──A──     cross:  A of 3 like A of 7, and B like B

Likeness as learned from neighbouring windows cannot be used alone, as it has to bear drift as well as abrupt change:
the two are compared by a multivariate t, in which one bad feature decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tracking.lifelines.likeness import Likeness
from tracking.lifelines.presence import Spell
from tracking.lifelines.priors import OVERLAP, nearness
from tracking.lifelines.series import Series
from tracking.lifelines.windows import SIZE, Windows, make_windows, rows_of

__all__ = ["Swap", "find_swaps"]

PRIOR = float(np.log(1e-5))  # of any two components at any one step
FREEDOM = 4.0
EDGES = 3.0  # nats for each e-fold of the usual distance of edges


@dataclass(frozen=True)
class Swap:
    """Spells `one` and `other` exchange what they do before their frames numbered `place` (one, other).

    `gain` is in nats against each going on as it was, and `stay` the likeness of either with itself.
    """

    one: int
    other: int
    place: tuple[int, int]
    gain: float
    stay: float


@dataclass(frozen=True)
class _Places:
    """Every place inside a spell: which spell, which of its frames, the step, the windows on either side."""

    spell: "np.ndarray"
    index: "np.ndarray"
    step: "np.ndarray"
    before: Windows
    after: Windows


def find_swaps(series: Series, spells: Sequence[Spell], likeness: Likeness) -> list[Swap]:
    """The plainest swaps, no two of them of one component within a window of each other."""
    places = _places(series, spells)
    if places is None:
        return []
    component = places.before.component
    stay = likeness.ratio(places.before, places.after)
    features, _ = likeness.distances(places.before, places.after)
    doubtful = (features > np.quantile(features, 0.8)) | (stay < 3)
    found: list[tuple[float, int, int]] = []
    for step in np.unique(places.step[doubtful]).tolist():
        here = np.flatnonzero(doubtful & (places.step == step))
        if len(here) > 1:
            found += _at_one_step(series, spells, likeness, places, here)
    swaps: list[Swap] = []
    taken: list[tuple[int, int]] = []
    for gain, a, b in sorted(found, key=lambda one: (-one[0], one[1:])):
        pair, step = (int(component[a]), int(component[b])), int(places.step[a])
        if any(abs(step - when) < SIZE and which in pair for when, which in taken):
            continue
        if series.basis == "role" and _one_role(series, places, a, b):
            continue
        taken += [(step, which) for which in pair]
        which = int(places.spell[a]), int(places.spell[b])
        at = _exact(series, [spells[k] for k in which], step)
        swaps.append(Swap(*which, at, gain, float(stay[a] + stay[b])))
    return swaps


def _places(series: Series, spells: Sequence[Spell]) -> _Places | None:
    where = [
        (number, index)
        for number, one in enumerate(spells)
        if series.movable[one.component]
        for index in range(2, len(one.frames) - 1)
    ]
    if not where:
        return None
    spell, index = (np.array(column) for column in zip(*where, strict=True))
    component = [spells[number].component for number, _ in where]
    n_components = len(series.nodes)
    before = [spells[number].frames[max(0, at - SIZE) : at] for number, at in where]
    after = [spells[number].frames[at : at + SIZE] for number, at in where]
    step = np.array([spells[number].frames[at] for number, at in where])
    windows = [make_windows(series, rows_of(n_components, component, some, SIZE)) for some in (before, after)]
    return _Places(spell, index, step, *windows)


def _at_one_step(
    series: Series, spells: Sequence[Spell], likeness: Likeness, places: _Places, here: np.ndarray
) -> list[tuple[float, int, int]]:
    """(gain, place of the one, place of the other) of every two that rather cross than stay."""
    rows, columns = (grid.ravel() for grid in np.meshgrid(here, here, indexing="ij"))
    distances = likeness.distances(places.before[rows], places.after[columns])
    size = (len(here), len(here))
    n_features = series.features.shape[2]
    said = (_heavy(distances[0] * n_features, n_features) - EDGES * np.log1p(distances[1] / likeness.usual)).reshape(
        size
    )
    alike = likeness.ratio(places.before[rows], places.after[columns]).reshape(size)
    stay = np.diag(said)
    component = places.before.component[here]
    near = nearness(series, *(grid.ravel() for grid in np.meshgrid(component, component, indexing="ij"))).reshape(size)
    gain = said + said.T - stay[:, None] - stay[None, :] + PRIOR + near
    step = int(places.step[here[0]])
    found = []
    for a, b in np.argwhere(np.triu(gain > 0, 1)).tolist():
        if min(alike[a, b], alike[b, a]) < 0:
            continue
        one, other = (spells[int(places.spell[here[k]])] for k in (a, b))
        if not _hands_over(series, one, other, step) and not _hands_over(series, other, one, step):
            found.append((float(gain[a, b]), int(here[a]), int(here[b])))
    return found


def _one_role(series: Series, places: _Places, a: int, b: int) -> bool:
    """Whether both do the same, and only how much of it each does is exchanged: then the lead passes."""
    features = np.concatenate([side.features[[a, b]] for side in (places.before, places.after)])
    return len(set(features.argmax(axis=1).tolist())) == 1


def _exact(series: Series, pair: Sequence[Spell], step: int) -> tuple[int, int]:
    """The places of the cut within two steps of `step` at which the sides of both are most of a kind."""
    values = series.known.reshape(*series.effect.shape, -1)
    best: tuple[float, int] | None = None
    for cut in range(step - 2, step + 3):
        spread = 0.0
        for one in pair:
            near = one.frames[np.abs(one.frames - step) <= SIZE]
            for side in (near[near < cut], near[near >= cut]):
                own = values[side, one.component]
                spread += float(((own - own.mean(axis=0)) ** 2).sum()) if len(side) else np.inf
        if best is None or spread < best[0]:
            best = spread, cut
    assert best is not None
    first, second = (int(np.searchsorted(one.frames, best[1])) for one in pair)
    return max(first, 1), max(second, 1)


def _heavy(length: Float[np.ndarray, "pair"], n_features: int) -> Float[np.ndarray, "pair"]:
    """Log of a multivariate t, up to a constant, at a squared standardised length."""
    return -(FREEDOM + n_features) / 2 * np.log1p(length / FREEDOM)


def _hands_over(series: Series, new: Spell, old: Spell, step: int) -> bool:
    """Whether the one has just begun and the other soon ends: then one hands over to the other."""
    young = new.first > series.first and step - new.first < OVERLAP
    return young and old.last < len(series.steps) - 1 and old.last - step < OVERLAP
