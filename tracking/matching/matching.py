"""Matching: which component of one snapshot is which of another, and how sure that is.

The two snapshots may be two steps of one run, or come from two runs, of other seeds or shapes.  A pair gains by alike
signatures and by edges that lead to partners; within a run it also gains by having the same name, and across runs it
loses by distance in depth.  Each component may stay alone, at a price (a *dustbin* on either side).  Where both models
share key and value heads among their heads (grouped-query attention), heads that share one move together: their
partners share one too.

A pair has a **similarity** in (0, 1], 1 for equal signatures, a **null** (the similarity that the best partner reaches
among components whose features are shuffled among those of their layer; a pair below it is none), and a **confidence**:
how often it is chosen again on resampled prompts, and no more than how far it stands out from the next best.

How far one function may lie apart depends on the run and on the time between the two steps.  Where histories are given,
that is learned from them: by how much components of one name change between steps as far apart (of one run), or from
one step to the next (of two runs).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Bool, Float, Int
from scipy.special import expit, logsumexp

from circuits.display import table_html
from circuits.graph import Node
from tracking.history.forks import parted_at
from tracking.history.history import History, Snapshot
from tracking.matching.assignment import Groups, assign, best_in_groups, match_graphs
from tracking.matching.movement import comparable, known_moves, signatures_at, usual_move
from tracking.matching.signatures import Signatures

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Matching", "Pair", "match"]

TOLERANCE_WITHIN, TOLERANCE_ACROSS = 0.05, 0.12  # of a feature's range: how far one function may lie apart
MOVED = 0.003  # prior probability that a function moves to another component between two steps of a run
ENDED = 0.012  # prior probability that it ends there
PRICE = 4.0  # nats for a component left alone, in the total cost
TELLING = 8.0  # nats that a likeness can say at most
FAR = -1e6
MAX_DEPTH = 1 / 3
EDGE_WEIGHT = 2.0
N_NULLS = 20


@dataclass(frozen=True)
class Pair:
    """One component before and the one after that does the same; `null` is the similarity that chance reaches."""

    before: Node
    after: Node
    similarity: float
    confidence: float
    null: float = 0.0


@dataclass(frozen=True)
class Matching:
    """Who is who; `disappeared` have no partner after, `appeared` none before.

    `cost` is the sum over pairs of half the squared signature distance in standard deviations, in nats, plus the price
    of every component left alone.
    """

    pairs: tuple[Pair, ...]
    appeared: tuple[Node, ...]
    disappeared: tuple[Node, ...]
    cost: float

    def partner(self, node: Node) -> Node | None:
        return next((pair.after for pair in self.pairs if pair.before == node), None)

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: before, after, similarity, confidence, null; the surest first."""
        import pandas as pd

        columns = ["before", "after", "similarity", "confidence", "null"]
        rows = [(p.before.name, p.after.name, p.similarity, p.confidence, p.null) for p in self.pairs]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.sort_values(["confidence", "similarity"], ascending=False, kind="stable", ignore_index=True)


def match(
    before: Snapshot | History,
    after: Snapshot | History,
    *,
    step: tuple[int, int] | None = None,
    same_run: bool | None = None,
    anchors: Mapping[Node | str, Node | str] | None = None,
    n_resamples: int | None = None,
    seed: int = 0,
) -> Matching:
    """Match the components of two snapshots.

    Args:
        before: a snapshot, or a history whose snapshot is the first of `step` (its last one where not given).
        after: likewise.
        step: the two steps, where histories are given.
        same_run: whether a component's name says anything; where not given, it does for two steps of one history, and
            says all for two histories that are one run up to a step (`tracking.history.forks`).
        anchors: pairs that are known.
        n_resamples: resamples of the prompts behind the confidence; as many as take little time where not given.
        seed: of resamples and nulls.

    Raises:
        ValueError: the two have no measure of one task in common, a history is empty, an anchor is not a component, or
            anchors tear a group apart.
    """
    forked = False
    if same_run is None and isinstance(before, History) and isinstance(after, History):
        same_run = before.name == after.name
        forked = not same_run and parted_at(before, after) is not None
    first, second = signatures_at(before, step and step[0]), signatures_at(after, step and step[1])
    a, b = _shared(first, second, (_called(before, "one before"), _called(after, "one after")))
    if forked:
        anchors = {node: node for node in a.nodes if node in b.nodes} | dict(anchors or {})
    known = known_moves(before, after, step, same_run=bool(same_run))
    moves = [(_only(one, a.names), _only(other, a.names)) for one, other in known]
    problem = _Problem.of(a, b, bool(same_run) or forked, _anchored(a, b, anchors), moves)
    return _solve(problem, n_resamples, np.random.default_rng(seed))


def _called(source: Snapshot | History, place: str) -> str:
    return f"history {source.name!r}" if isinstance(source, History) else f"the {place} at step {source.step}"


def _measured(names: Sequence[str]) -> str:
    """The measures of each task in words."""
    tasks: dict[str, list[str]] = {}
    for name in names:
        task, _, measure = name.rpartition("/")
        tasks.setdefault(task, []).append(measure)
    return " and ".join(f"task {task} ({', '.join(measures)})" for task, measures in tasks.items())


def _shared(a: Signatures, b: Signatures, called: tuple[str, str]) -> tuple[Signatures, Signatures]:
    """Both with the features that both have.

    Raises:
        ValueError: there are none.
    """
    names = [name for name in a.names if name in b.names]
    if not names:
        raise ValueError(
            f"expected two snapshots with a measure of one task in common, got {called[0]} with {_measured(a.names)}, "
            f"and {called[1]} with {_measured(b.names)}; record the same task in both"
        )

    return _only(a, names), _only(b, names)


def _only(one: Signatures, names: Sequence[str]) -> Signatures:
    """With these features alone; one that it does not have is not known."""
    size = len(one.names)
    take = [one.names.index(name) if name in one.names else size for name in names]
    unknown = [np.concatenate([part, np.full_like(part[..., :1], np.nan)], -1) for part in (one.value, one.std_error)]
    folds = np.concatenate([one.folds, np.full_like(one.folds[..., :1], np.nan)], -1)[..., take]
    return replace(one, names=tuple(names), value=unknown[0][:, take], std_error=unknown[1][:, take], folds=folds)


def _anchored(a: Signatures, b: Signatures, anchors: Mapping[Node | str, Node | str] | None) -> dict[int, int]:
    found = {}
    for one, other in (anchors or {}).items():
        pair = tuple(Node.parse(name) if isinstance(name, str) else name for name in (one, other))
        for node, known in zip(pair, (a.nodes, b.nodes), strict=True):
            if node not in known:
                raise ValueError(f"anchor {node} is not among the components of its snapshot")
        found[a.nodes.index(pair[0])] = b.nodes.index(pair[1])
    for end in ("input", "logits"):
        if Node(end) in a.nodes and Node(end) in b.nodes:
            found[a.nodes.index(Node(end))] = b.nodes.index(Node(end))
    if groups := _groups(a, b):
        pairs = {(int(groups[0][one]), int(groups[1][other])) for one, other in found.items()}
        if any(len({pair[side] for pair in pairs}) < len(pairs) for side in (0, 1)):
            raise ValueError(
                "the anchors tear apart heads that share a key and value head; "
                "anchor the heads of one group to heads of one group"
            )
    return found


def _groups(a: Signatures, b: Signatures) -> Groups | None:
    """The groups of both, or none where either has none: a head of its own is no partner for a whole group."""
    together = all(len(np.unique(one.group)) < len(one.group) for one in (a, b))
    return (a.group, b.group) if together else None


@dataclass(frozen=True)
class _Problem:
    """What is compared, on one scale: features in units of how far one function may lie apart."""

    a: Signatures
    b: Signatures
    x: Float[np.ndarray, "before feature"]
    y: Float[np.ndarray, "after feature"]
    scale: Float[np.ndarray, "feature"]
    decades: Bool[np.ndarray, "feature"]
    extra: Float[np.ndarray, "before after"]
    allowed: Bool[np.ndarray, "before after"]
    anchors: dict[int, int]
    edges: tuple[tuple[sparse.csr_array, ...], tuple[sparse.csr_array, ...]]
    groups: Groups | None
    same_run: bool

    @staticmethod
    def of(
        a: Signatures,
        b: Signatures,
        same_run: bool,
        anchors: dict[int, int],
        moves: Sequence[tuple[Signatures, Signatures]] = (),
    ) -> "_Problem":
        decades = np.array([_decades(a.value[:, f], b.value[:, f]) for f in range(len(a.names))], dtype=bool)
        values = [comparable(one, decades) for one in (a, b)]
        error = np.concatenate([np.nan_to_num(_errors(one, decades)) for one in (a, b)])
        both = np.concatenate(values)
        span = _spans(a.names, both)
        tolerance = TOLERANCE_WITHIN if same_run else TOLERANCE_ACROSS
        usual = 2 * (tolerance * span) ** 2 + 2 * np.median(error**2, axis=0)
        scale = np.sqrt(np.maximum(usual, usual_move(moves, decades))) + 1e-12
        centre = np.nanmedian(both, axis=0)
        x, y = ((one - centre) / scale for one in values)
        kinds = np.array([[n.kind == m.kind for m in b.nodes] for n in a.nodes])
        apart = np.abs(a.depth[:, None] - b.depth[None, :])
        extra = np.zeros_like(apart)
        if same_run:
            same = np.array([[n == m for m in b.nodes] for n in a.nodes])
            stays, goes = (1 - MOVED - ENDED) / ENDED, MOVED / ENDED / max(1, len(b.nodes) - 1)
            extra -= np.where(same, np.log(stays), np.log(goes))
        else:
            extra += 2.0 * apart / MAX_DEPTH - 1.0
        allowed = kinds & (apart <= MAX_DEPTH + 1e-9)
        channels = [name for name in a.channels if name in b.channels]
        edges = _balanced([a.channels[n] for n in channels]), _balanced([b.channels[n] for n in channels])
        return _Problem(a, b, x, y, scale, decades, extra, allowed, anchors, edges, _groups(a, b), same_run)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Half the squared distance, in nats; a feature that one of the two lacks says nothing."""
        known, other = ~np.isnan(x), ~np.isnan(y)
        x, y = np.nan_to_num(x), np.nan_to_num(y)
        squares = (x**2) @ other.T + known @ (y**2).T - 2 * x @ y.T
        return 0.5 * np.maximum(squares, 0.0)

    def gain(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What a pair is worth against leaving both alone: log likelihood ratio and prior, in nats.

        How likely a component is to lie at that distance from one that is not its partner is seen from all the others:
        what looks like everything says nothing, what looks like one thing alone says much.
        """
        distance = self.distance(x, y)
        close = np.where(self.allowed, np.exp(-distance), 0.0)
        others = [(close.sum(axis=axis, keepdims=True) - close) / max(close.shape[axis] - 1, 1) for axis in (0, 1)]
        chance = np.maximum(*others) + np.exp(-TELLING)
        gain = np.where(self.allowed, -distance - np.log(chance) - self.extra, FAR)
        for one, other in self.anchors.items():
            gain[one, :], gain[:, other] = FAR, FAR
            gain[one, other] = 1e3
        return gain


def _spans(names: tuple[str, ...], values: Float[np.ndarray, "node feature"]) -> Float[np.ndarray, "feature"]:
    """The range of each feature; of a task's scores in [0, 1], and of its flows, the largest among them.

    They are on one scale, and one that nothing scores high on must not be stretched until its noise counts.
    """
    low, high = np.nan_to_num(np.nanmin(values, axis=0)), np.nan_to_num(np.nanmax(values, axis=0))
    span, groups = high - low, {}
    for place, name in enumerate(names):
        task, _, measure = name.rpartition("/")
        flow = measure == "out" or measure.startswith("in ")
        unit = high[place] <= 1.0 and low[place] >= -0.5
        groups.setdefault((task, "flow" if flow else "unit" if unit else measure), []).append(place)
    for places in groups.values():
        span[places] = span[places].max()
    return span


def _decades(*columns: np.ndarray) -> bool:
    values = np.concatenate(columns)
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() >= 0 and values.max() > 10 * max(1.0, float(np.median(values))))


def _errors(one: Signatures, decades: np.ndarray) -> np.ndarray:
    return np.where(decades, one.std_error / (1 + np.maximum(one.value, 0)), one.std_error)


def _balanced(channels: Sequence[sparse.csr_array]) -> tuple[sparse.csr_array, ...]:
    """Edges over the root of both ends' strengths, so that no component gains more than 1 by its edges."""
    if not channels:
        return ()
    power = sum(channel.multiply(channel) for channel in channels)
    strength = np.asarray(power.sum(axis=0)).ravel() + np.asarray(power.sum(axis=1)).ravel()  # type: ignore[union-attr]
    root = sparse.diags_array(1 / np.sqrt(np.sqrt(np.maximum(strength, 1e-12))))
    return tuple((root @ channel @ root).tocsr() for channel in channels)


def _solve(problem: _Problem, n_resamples: int | None, rng: np.random.Generator) -> Matching:
    gain = problem.gain(problem.x, problem.y)
    groups = problem.groups
    starts = [assign(_hop_gain(problem), groups)] if problem.edges[0] else []
    partner, marginal = match_graphs(gain, *problem.edges, weight=EDGE_WEIGHT, starts=starts, groups=groups)
    context = marginal - gain
    likeness = _likeness(problem.distance(problem.x, problem.y), problem.x, problem.y)
    null = _null(problem, rng)
    sure = _confidence(problem, marginal, context, partner, n_resamples, rng)
    pairs, gone = [], []
    for i, node in enumerate(problem.a.nodes):
        if node.kind in ("input", "logits"):
            continue
        j = int(partner[i])
        known = i in problem.anchors
        bar = float(max(null[0][i], null[1][j])) if j >= 0 else 1.0
        bar = 0.0 if problem.same_run and j >= 0 and node == problem.b.nodes[j] else bar
        if j < 0 or not (known or likeness[i, j] >= bar):
            gone.append(node)
            continue
        pairs.append(Pair(node, problem.b.nodes[j], float(likeness[i, j]), 1.0 if known else float(sure[i]), bar))
    taken = {pair.after for pair in pairs}
    come = tuple(node for node in problem.b.nodes if node not in taken and node.kind not in ("input", "logits"))
    spent = sum(-np.log(pair.similarity) for pair in pairs) + PRICE * (len(gone) + len(come)) / 2
    return Matching(tuple(pairs), come, tuple(gone), float(spent))


def _likeness(distance: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """exp(- half the mean squared distance a feature)."""
    shared = np.maximum((~np.isnan(x)).astype(float) @ (~np.isnan(y)).T.astype(float), 1.0)
    return np.exp(-distance / shared)


def _hop_gain(problem: _Problem) -> np.ndarray:
    """Gain with each component's features joined by those of its neighbours, for a first guess."""
    x, y = (
        np.hstack([np.nan_to_num(own)] + [np.asarray(m @ np.nan_to_num(own)) for c in channels for m in (c, c.T)])
        for own, channels in ((problem.x, problem.edges[0]), (problem.y, problem.edges[1]))
    )
    return problem.gain(x, y)


def _null(problem: _Problem, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For each component the similarity that its best partner reaches among shuffled ones, in 95 % of shuffles."""
    n_nulls = N_NULLS if problem.allowed.size < 1e5 else 5
    sides = []
    for x, y, allowed, nodes in (
        (problem.x, problem.y, problem.allowed, problem.b.nodes),
        (problem.y, problem.x, problem.allowed.T, problem.a.nodes),
    ):
        groups: dict[tuple[str, int], list[int]] = {}
        # Among a few components chance alone puts features back together.
        crowded = sum(node.kind == "head" for node in nodes) >= 12 * (1 + max(node.layer for node in nodes))
        for place, node in enumerate(nodes):
            groups.setdefault((node.kind, node.layer if crowded else 0), []).append(place)
        best = []
        for _ in range(n_nulls):
            mixed = y.copy()
            for places in groups.values():
                mixed[places] = rng.permuted(y[places], axis=0)
            likeness = _likeness(problem.distance(x, mixed), x, mixed)
            best.append(np.where(allowed, likeness, 0.0).max(axis=1, initial=0.0))
        sides.append(np.quantile(np.stack(best), 0.95, axis=0))
    return sides[0], sides[1]


def _confidence(
    problem: _Problem,
    marginal: np.ndarray,
    context: np.ndarray,
    partner: Int[np.ndarray, "before"],
    n_resamples: int | None,
    rng: np.random.Generator,
) -> Float[np.ndarray, "before"]:
    """Share of resamples that choose the pair again, at most its share among all that either could be paired with."""
    rows = np.flatnonzero(partner >= 0)
    sure = np.zeros(len(partner))
    if not len(rows):
        return sure
    worth = np.clip(marginal, -700, 50)
    alone = expit(worth[rows, partner[rows]])
    if problem.groups is not None:
        worth = worth + _company(worth, problem.groups)
    rivals = np.maximum(logsumexp(worth[rows], axis=1), logsumexp(worth[:, partner[rows]], axis=0))
    sure[rows] = np.minimum(np.exp(worth[rows, partner[rows]] - rivals), alone)
    n_resamples = n_resamples if n_resamples is not None else int(np.clip(4e6 / marginal.size, 4, 50))
    if n_resamples and (len(problem.a.folds) > 1 or len(problem.b.folds) > 1 or np.isfinite(problem.a.std_error).any()):
        again = np.zeros(len(partner))
        sides = ((problem.a, problem.x), (problem.b, problem.y))
        for x, y in zip(*(_resampled(problem, one, own, n_resamples, rng) for one, own in sides), strict=True):
            again += assign(problem.gain(x, y) + context, problem.groups) == partner
        sure[rows] = np.minimum(sure[rows], again[rows] / n_resamples)
    return sure


def _company(worth: np.ndarray, groups: Groups) -> np.ndarray:
    """What the others of its group gain at most where each of them goes along with it."""
    before, after = (np.unique(label, return_inverse=True)[1] for label in groups)
    best = best_in_groups(worth, groups[1])
    total = np.zeros((before.max() + 1, best.shape[1]))
    np.add.at(total, before, best)
    return (total[before] - best)[:, after]


def _resampled(
    problem: _Problem, one: Signatures, own: np.ndarray, n: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw component feature"]:
    """The features on resampled prompts, `n` times, in the problem's units."""
    if len(one.folds) < 2:
        noise = np.nan_to_num(_errors(one, problem.decades)) / problem.scale
        return own + noise * rng.normal(size=(n, *own.shape))
    n_folds = len(one.folds)
    weights = rng.multinomial(n_folds, np.full(n_folds, 1 / n_folds), size=n) / n_folds - 1 / n_folds
    shift = np.tensordot(weights, one.folds, axes=1)
    shift = np.where(problem.decades, shift / (1 + np.maximum(one.value, 0)), shift)
    return own + np.nan_to_num(shift) * np.sqrt(n_folds / (n_folds - 1)) / problem.scale
