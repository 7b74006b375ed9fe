"""Cross-fitting: a circuit chosen on one half of the prompts is judged on the other.

How well does a circuit do on prompts that had no part in choosing it?  On the prompts that chose its edges and its
size a circuit looks better than it is, the more so the fewer there are.  So each half of the prompts chooses a circuit
of its own, edges and size, and the other half judges it; together all prompts judge, each a circuit that it had no part
in:

- a half chooses the fewest edges, in order of its own scores, whose faithfulness on its prompts is at least the target
  with confidence `CONFIDENCE` (one-sided, Student's t over prompts);
- the circuit that is reported has the geometric mean of the two sizes, rounded up (each half stops where one more edge
  has just reached the target), its edges in order of the scores of all prompts;
- faithfulness is the ratio of means over all prompts, each with the other half's circuit.  Its variance is that over
  prompts, plus d² / 4, where d is by how much the two circuits differ on all prompts (which one came out is chance
  too), plus (o / 3)², where o is what the reported circuit has more on the prompts that chose it: if what is
  lost by choosing falls as 1 / prompts, a third of it is what a half's circuit is worse by.

The halves are groups of prompt folds (`circuits.graph`), balanced where prompts take two or four kinds in turn, so that
the scores of each half come from the fold means of the scores of all.

References:
    Double/Debiased Machine Learning (Chernozhukov et al., 2018), https://arxiv.org/abs/1608.00060
"""

from dataclasses import dataclass, replace
from math import ceil, sqrt

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import t

from circuits.circuit import Circuit, Status, crossfit_interval, jaccard, select_top
from circuits.evaluation import Judge, ratio_of_means
from circuits.graph import DEFAULT_FOLDS, EdgeScores, Estimate, half_of_fold

__all__ = [
    "CONFIDENCE",
    "Choice",
    "crossfitted",
    "fewest",
    "half_scores",
    "halves_jaccard",
    "halves_of_prompts",
    "reaches",
]
__all__ += ["status_of"]

CONFIDENCE = 0.95


def halves_of_prompts(n_prompts: int, n_folds: int = DEFAULT_FOLDS) -> tuple[np.ndarray, np.ndarray]:
    """The prompts of each half, ascending (prompt i is in fold i mod n_folds)."""
    half = half_of_fold(n_folds)[np.arange(n_prompts) % n_folds]
    return np.flatnonzero(half == 0), np.flatnonzero(half == 1)


def half_scores(scores: EdgeScores, half: int) -> EdgeScores:
    """The mean scores over one half of the prompts; those of all where they came without folds."""
    folds, n = scores.folds, scores.estimate.n_prompts
    if len(folds) < 2:
        return scores
    counts = np.array([len(range(fold, n, len(folds))) for fold in range(len(folds))])
    weights = np.where(half_of_fold(len(folds)) == half, counts, 0)
    value = np.tensordot(weights / weights.sum(), folds, axes=1)
    own = half_of_fold(len(folds)) == half
    error = np.full(value.shape, np.nan)
    return replace(scores, estimate=Estimate(value, error, folds[own], int(weights.sum())))


@dataclass(frozen=True)
class Choice:
    """A circuit's edges, how many were asked for, and the metric above the corrupted one of each prompt that chose."""

    kept: Bool[np.ndarray, "writer reader"]
    size: int
    above: Float[np.ndarray, "prompt"]


def crossfitted(judge: Judge, scores: EdgeScores, target: float, max_evaluations: int) -> Circuit:
    """The circuit chosen from all prompts, with its faithfulness as the halves judge each other's."""
    rows = halves_of_prompts(len(judge.task))
    parts = [judge.part(each) for each in rows]
    chosen: list[Choice] = []
    for half, part in enumerate(parts):
        near = chosen[0].size if chosen else None
        chosen.append(fewest(part, half_scores(scores, half), target, max_evaluations, near))
    above = np.empty((2, len(judge.task)))
    for own, other in ((0, 1), (1, 0)):
        above[own, rows[own]] = chosen[own].above
        above[own, rows[other]] = parts[other].values(chosen[own].kept) - parts[other].corrupted
    gap = judge.clean - judge.corrupted
    crossed = np.empty(len(gap))
    crossed[rows[0]], crossed[rows[1]] = above[1, rows[0]], above[0, rows[1]]
    faithfulness = ratio_of_means(crossed, gap)
    apart = (above[0] - above[1]).mean() / gap.mean()
    whole = select_top(scores, ceil(sqrt(chosen[0].size * chosen[1].size) - 1e-9))
    in_sample = judge.faithfulness(whole.kept)
    learned = (in_sample.value - faithfulness.value) / 3
    error = np.sqrt(faithfulness.std_error**2 + apart**2 / 4 + learned**2)
    faithfulness = replace(faithfulness, std_error=np.asarray(error))
    return Circuit(scores, whole.kept, faithfulness, status_of(faithfulness, target), target, in_sample)


def status_of(faithfulness: Estimate, target: float) -> Status:
    """What cross-fitted faithfulness says of a circuit of a task that the model does (`circuits.circuit.STATUSES`)."""
    if not np.isfinite(faithfulness.value):
        return "unstable"
    low, high = crossfit_interval(faithfulness)
    if low > 1:
        return "overshoots"
    return "unstable" if high < target or high - low > 1 else "performed"


def fewest(judge: Judge, scores: EdgeScores, target: float, max_evaluations: int, near: int | None = None) -> Choice:
    """Bisect the number of edges, on a log scale, between one too few and one that reaches the target.

    A guess `near` is widened by a quarter until it brackets the answer.
    """
    gap = judge.clean - judge.corrupted
    # With every edge kept the run is the clean one, so no pass is needed to know it.
    best = Choice(scores.graph.edge_mask.copy(), scores.graph.n_edges, gap)
    low, high, guess = 0, scores.graph.n_edges, near
    for _ in range(max_evaluations):
        if high - low <= 1:
            break
        middle = guess if guess is not None else round(sqrt(max(low, 1) * high))
        middle = min(max(middle, low + 1), high - 1)
        kept = select_top(scores, middle).kept
        above = judge.values(kept) - judge.corrupted
        reached = reaches(above, gap, target)
        if reached:
            high, best = middle, Choice(kept, middle, above)
        else:
            low = middle
        if guess is not None:
            guess = _next_guess(middle, reached, low, high, scores.graph.n_edges)
    return best


def _next_guess(middle: int, reached: bool, low: int, high: int, n_edges: int) -> int | None:
    """The next wider guess, or None once both ends are known."""
    if low > 0 and high < n_edges:
        return None
    return int(middle / 1.25) if reached else ceil(middle * 1.25)


def reaches(above: Float[np.ndarray, "prompt"], gap: Float[np.ndarray, "prompt"], target: float) -> bool:
    """Whether faithfulness is at least the target with `CONFIDENCE`, as far as these prompts tell."""
    found = ratio_of_means(above, gap)
    margin = t.ppf(CONFIDENCE, len(gap) - 1) * found.std_error if len(gap) > 1 else 0.0
    return bool(found.value - margin >= target)


def halves_jaccard(scores: EdgeScores, n_edges: int) -> float:
    """The circuit's own noise floor: Jaccard of the circuits of that size that the two halves choose."""
    first, second = (select_top(half_scores(scores, half), n_edges) for half in (0, 1))
    return jaccard(first, second)
