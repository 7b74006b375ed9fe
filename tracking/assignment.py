"""Which of two sets of things belong together, when each may also stay alone?

Two solvers over arrays, both exact or deterministic:

- `assign`: the one-to-one pairs of least total cost, each pair against the price of leaving both alone (a *dustbin* on
  either side);
- `match_graphs`: the same when pairs should also agree in how they are connected.  It minimises

      sum_ij C_ij P_ij - weight * sum_c sum_ijkl A^c_ik B^c_jl P_ij P_kl

  over sub-permutations P by Frank-Wolfe steps: linearise, assign, exact line search (fused FAQ with dustbins).

References:
    Fast approximate quadratic programming for graph matching (Vogelstein et al., 2015),
    https://doi.org/10.1371/journal.pone.0121002
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import linear_sum_assignment

__all__ = ["assign", "match_graphs"]

STEPS = 20


def assign(gain: Float[np.ndarray, "before after"]) -> Int[np.ndarray, "before"]:
    """For each row its column, or -1: the pairs of largest total gain, none with a gain of 0 or less."""
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


def match_graphs(
    gain: Float[np.ndarray, "before after"],
    before: Sequence[sparse.csr_array],
    after: Sequence[sparse.csr_array],
    *,
    weight: float = 1.0,
    starts: Sequence[Int[np.ndarray, "before"]] = (),
) -> tuple[Int[np.ndarray, "before"], Float[np.ndarray, "before after"]]:
    """Partners (-1 for none), and each pair's gain given all the other pairs.

    Args:
        gain: what pairing i with j is worth against leaving both alone; far below 0 where it is not allowed.
        before: adjacency matrices of the one graph, one a channel.
        after: those of the other.
        weight: of agreeing edges.
        starts: further first guesses; the best end wins, ties going to the first.
    """
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for start in (assign(gain), *starts):
        partner, marginal = _descend(gain, before, after, weight, start)
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
) -> tuple[np.ndarray, np.ndarray]:
    """Partners after Frank-Wolfe steps from one start, and the gains given them."""
    plan = _plan(start, gain.shape)
    marginal = gain
    for _ in range(STEPS if before else 0):
        marginal = gain + weight * _agreement(before, after, plan)
        move = (_plan(assign(marginal), gain.shape) - plan).tocsr()
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
    partner = assign(marginal)
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
