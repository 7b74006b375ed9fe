"""Assignment: which of two sets of things belong together, when each may also stay alone.

Two solvers over arrays, both exact or deterministic:

- `assign`: the one-to-one pairs of least total cost, each pair against the price of leaving both alone (a *dustbin* on
  either side);
- `match_graphs`: the same when pairs should also agree in how they are connected.  It minimises

      sum_ij C_ij P_ij - weight * sum_c sum_ijkl A^c_ik B^c_jl P_ij P_kl

  over sub-permutations P by Frank-Wolfe steps: linearise, assign, exact line search (fused FAQ with dustbins).

Things may come in **groups** that move together: then all members of a group find their partners in one group of the
other side, in any order.  That is an assignment of two levels, the best one inside each pair of groups, and with what
these are worth one of groups.

References:
    Fast approximate quadratic programming for graph matching (Vogelstein et al., 2015),
    https://doi.org/10.1371/journal.pone.0121002
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

__all__ = ["Groups", "assign", "best_in_groups", "match_graphs"]

STEPS = 20
Groups = tuple[Int[np.ndarray, "before"], Int[np.ndarray, "after"]]


def assign(gain: Float[np.ndarray, "before after"], groups: Groups | None = None) -> Int[np.ndarray, "before"]:
    """For each row its column, or -1: the pairs of largest total gain, none with a gain of 0 or less.

    `groups` labels the group of each row and of each column; where given, rows of one group go to columns of one group.
    """
    if groups is not None:
        return _assign_groups(gain, *groups)
    partner = np.full(gain.shape[0], -1)
    if gain.size == 0:
        return partner
    useful = np.maximum(gain, 0.0)
    rows, columns = np.flatnonzero(useful.any(axis=1)), np.flatnonzero(useful.any(axis=0))
    if len(rows) and len(columns):
        chosen = linear_sum_assignment(useful[np.ix_(rows, columns)], maximize=True)
        for row, column in zip(rows[chosen[0]], columns[chosen[1]], strict=True):
            if useful[row, column] > 0:
                partner[row] = column
    return partner


def _assign_groups(gain: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Exact: pairs of groups start at a bound of their worth, and are solved only once the bounds choose them."""
    partner = np.full(gain.shape[0], -1)
    if gain.size == 0:
        return partner
    rows, columns = _members(before), _members(after)
    worth = _group_bounds(gain, before, after)
    inner: dict[tuple[int, int], np.ndarray] = {}
    while True:
        chosen = [(g, int(h)) for g, h in enumerate(assign(worth)) if h >= 0]
        unsolved = [pair for pair in chosen if pair not in inner]
        for g, h in unsolved:
            block = gain[np.ix_(rows[g], columns[h])]
            own = inner[g, h] = assign(block)
            worth[g, h] = block[own >= 0, own[own >= 0]].sum()
        if not unsolved:
            break
    for g, h in chosen:
        own = inner[g, h]
        partner[rows[g][own >= 0]] = columns[h][own[own >= 0]]
    return partner


def _members(label: np.ndarray) -> list[np.ndarray]:
    """The places of each group, in the order of labels."""
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def _group_bounds(gain: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(group, group): no less than the best assignment inside is worth, as if partners could be shared."""
    best = [best_in_groups(gain, after), best_in_groups(gain.T, before)]
    sums = [
        np.stack([side[places].sum(axis=0) for places in _members(label)])
        for side, label in zip(best, (before, after), strict=True)
    ]
    return np.minimum(sums[0], sums[1].T)


def best_in_groups(
    gain: Float[np.ndarray, "before after"], after: Int[np.ndarray, "after"]
) -> Float[np.ndarray, "before group"]:
    """For each row and each group of columns the largest gain there, 0 where none is above it."""
    order = np.argsort(after, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(after[order])) + 1]
    return np.maximum.reduceat(np.maximum(gain, 0.0)[:, order], starts, axis=1)


def match_graphs(
    gain: Float[np.ndarray, "before after"],
    before: Sequence[sparse.csr_array],
    after: Sequence[sparse.csr_array],
    *,
    weight: float = 1.0,
    starts: Sequence[Int[np.ndarray, "before"]] = (),
    groups: Groups | None = None,
) -> tuple[Int[np.ndarray, "before"], Float[np.ndarray, "before after"]]:
    """Partners (-1 for none), and each pair's gain given all the other pairs.

    Args:
        gain: what pairing i with j is worth against leaving both alone; far below 0 where it is not allowed.
        before: adjacency matrices of the one graph, one a channel.
        after: those of the other.
        weight: of agreeing edges.
        starts: further first guesses; the best end wins, ties going to the first.
        groups: as in `assign`.
    """
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for start in (assign(gain, groups), *starts):
        partner, marginal = _descend(gain, before, after, weight, start, groups)
        worth = _worth(gain, before, after, weight, partner)
        if best is None or worth > best[0] + 1e-12:
            best = worth, partner, marginal
    assert best is not None
    return best[1], best[2]


def _descend(
    gain: np.ndarray,
    before: Sequence[sparse.csr_array],
    after: Sequence[sparse.csr_array],
    weight: float,
    start: np.ndarray,
    groups: Groups | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Partners after Frank-Wolfe steps from one start, and the gains given them."""
    plan = _plan(start, gain.shape)
    marginal = gain
    for _ in range(STEPS if before else 0):
        marginal = gain + weight * _agreement(before, after, plan)
        move = (_plan(assign(marginal, groups), gain.shape) - plan).tocsr()
        move.eliminate_zeros()
        if move.nnz == 0:
            break
        # worth(plan + t move) = constant + slope t + bend t^2
        slope = float(move.multiply(marginal).sum())
        bend = 0.5 * weight * float(move.multiply(_agreement(before, after, move)).sum())
        size = 1.0 if bend >= 0 else float(np.clip(-slope / (2 * bend), 0.0, 1.0))
        if size * slope + size**2 * bend <= 1e-9:
            break
        plan = (plan + size * move).tocsr()
    # Rounding keeps a pair only if it is worth having, given the others.
    partner = assign(marginal, groups)
    return partner, gain + weight * _agreement(before, after, _plan(partner, gain.shape))


def _plan(partner: np.ndarray, shape: tuple[int, ...]) -> sparse.csr_array:
    rows = np.flatnonzero(partner >= 0)
    return sparse.csr_array((np.ones(len(rows)), (rows, partner[rows])), shape=shape)


def _agreement(
    before: Sequence[sparse.csr_array], after: Sequence[sparse.csr_array], plan: sparse.csr_array
) -> np.ndarray:
    """Derivative of the edges' agreement by the plan: sum_c A P B' + A' P B."""
    total = np.zeros(plan.shape)
    for one, other in zip(before, after, strict=True):
        total += (one @ plan @ other.T).toarray() + (one.T @ plan @ other).toarray()
    return total


def _worth(gain, before, after, weight, partner) -> float:
    rows = np.flatnonzero(partner >= 0)
    plan = _plan(partner, gain.shape)
    edges = 0.5 * weight * float(plan.multiply(_agreement(before, after, plan)).sum())
    return float(gain[rows, partner[rows]].sum()) + edges
