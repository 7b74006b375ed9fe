"""Movement of components: how far one function may lie apart at two steps, as histories show it.

Signatures move while a run learns, fast at first and slowly later.  How far is learned from components of one name:
most of them go on with what they did, so the upper quartile of their changes is what a function may move.

Axes: `node`, `feature`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from tracking.history.history import History, Snapshot
from tracking.matching.signatures import Signatures, signatures_of

__all__ = ["comparable", "known_moves", "signatures_at", "usual_move"]

AROUND = 2  # pairs of steps on either side of the two
QUANTILE, NORMAL = 0.75, 1.323  # of squared changes, and what it is of normal ones of variance 1


def signatures_at(source: Snapshot | History, step: int | None) -> Signatures:
    """Those of a snapshot, or of a history at a step; at its last one where none is given."""
    if isinstance(source, Snapshot):
        return signatures_of(source)
    if not len(source):
        raise ValueError(f"history {source.name!r} has no snapshots")
    return signatures_of(source[source.steps[-1] if step is None else step], graph=source.graph)


def known_moves(
    before: Snapshot | History, after: Snapshot | History, step: tuple[int, int] | None, *, same_run: bool
) -> list[tuple[Signatures, Signatures]]:
    """Snapshots from which it is learned how far one function moves: of one run pairs as far apart as the two, of two
    runs neighbours of each."""
    found = []
    if same_run and isinstance(before, History) and isinstance(after, History) and step is not None:
        first, last = before.steps.index(step[0]), before.steps.index(step[1])
        for shift in range(-AROUND, AROUND + 1):
            if min(first, last) + shift >= 0 and max(first, last) + shift < len(before.steps):
                pair = before.steps[first + shift], before.steps[last + shift]
                found.append((signatures_at(before, pair[0]), signatures_at(before, pair[1])))
        return found
    for source, at in ((before, step and step[0]), (after, step and step[1])):
        if isinstance(source, History) and len(source) > 1:
            place = len(source.steps) - 1 if at is None else source.steps.index(at)
            for other in range(max(1, place - AROUND), min(place + AROUND, len(source.steps) - 1) + 1):
                found.append(
                    (signatures_at(source, source.steps[other - 1]), signatures_at(source, source.steps[other]))
                )
    return found


def comparable(one: Signatures, decades: np.ndarray) -> Float[np.ndarray, "node feature"]:
    """Values, and logarithms of those that span decades."""
    return np.where(decades, np.log1p(np.maximum(one.value, -0.99)), one.value)


def usual_move(
    moves: Sequence[tuple[Signatures, Signatures]], decades: Bool[np.ndarray, "feature"]
) -> Float[np.ndarray, "feature"]:
    """The variance of each feature between snapshots of these pairs; half of all components may have moved away."""
    changes = [
        comparable(one, decades) - comparable(other, decades) for one, other in moves if one.nodes == other.nodes
    ]
    if not changes:
        return np.zeros(len(decades))
    known = np.concatenate(changes)
    known = known[~np.isnan(known).all(axis=1)]
    return np.nan_to_num(np.nanquantile(known**2, QUANTILE, axis=0) / NORMAL)
