"""Edge-scoring methods: the register of all ways to score every edge, with what each costs.

By which method are the edges scored, and how many forward passes does that take?  One entry of `METHODS` is one method;
every entry runs, and `find_circuit`, `record` and the command line take their names from here.  To add a method, add an
entry.

References:
    Attribution Patching Outperforms Automated Circuit Discovery (Syed et al., 2023), https://arxiv.org/abs/2310.10348
    Have Faith in Faithfulness (Hanna et al., 2024), https://arxiv.org/abs/2403.17806
    BlackboxNLP-2025 MIB Shared Task: Exploring Ensemble Strategies for Circuit Localization Methods (Mondorf et al.,
    2025), https://arxiv.org/abs/2510.06811
    BlackboxNLP-2025 MIB Shared Task: Improving Circuit Faithfulness via Better Edge Selection (Nikankin et al., 2025),
    https://arxiv.org/abs/2510.25786
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Bool, Float

from circuits.attribution import attribute, edge_attribution_patching
from circuits.graph import EdgeScores, Estimate, ModelGraph, NodeScores
from circuits.model import Model
from circuits.patching import edge_patching
from circuits.rules import GIM, RelP
from circuits.tasks.task import Task
from circuits.writes import BothRuns

__all__ = [
    "BUDGET",
    "METHODS",
    "Method",
    "Scored",
    "ensemble",
    "forward_seconds",
    "method_within",
    "score_edges",
    "scoring_cost",
]

BUDGET = 250
"""Forward passes up to which exact scores of all edges are affordable."""
ENOUGH = 0.5
"""The share of the prompts on which exact scores are still better than integrated gradients on all of them."""
FORWARDS_AN_EDGE = 0.4
BACK = 2
"""A pass forward and back, in forward passes."""
MOST_STEPS = 40


@dataclass(frozen=True)
class Scored:
    """Scores of all edges, and what was measured on the way where the method makes it: the writers' first-order
    effects, both runs of every prompt, and the effects of heads' rotated corruptions."""

    edges: EdgeScores
    nodes: NodeScores | None = None
    runs: tuple[BothRuns, ...] | None = None
    rotation: NodeScores | None = None


@dataclass(frozen=True)
class Method:
    """One way to score edges.

    `score` takes the model, the task and the number of integration steps, which methods without steps leave alone;
    `forwards` says how many forward passes over the prompts that takes.
    """

    score: Callable[[Model, Task, int], Scored]
    forwards: Callable[[ModelGraph, int], float]
    about: str


def score_edges(model: Model, task: Task, *, method: str = "auto", steps: int = 5) -> Scored:
    """The edges' scores by a method of `METHODS`.

    Raises:
        ValueError: there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"expected a method among {', '.join(METHODS)}, got {method!r}")
    return METHODS[method].score(model, task, steps)


def scoring_cost(graph: ModelGraph, *, method: str = "auto", steps: int = 5, forward: float | None = None) -> str:
    """What a method is going to cost, as a sentence; `forward` is how many seconds one forward pass takes.

    >>> scoring_cost(ModelGraph(n_layers=2, n_heads=4, mlp=False))
    'auto: exact scores of 81 edges, about 34 forward passes over the prompts'
    """
    chosen, share = METHODS[method], _affordable(graph)
    what, on = chosen.about, ""
    if method == "auto":
        what = METHODS["exact" if share >= ENOUGH else "eap-ig-converged"].about
        on = f" on {share:.0%} of the prompts" if ENOUGH <= share < 1 else ""
    count = chosen.forwards(graph, steps)
    passes = f"about {count:.0f} forward passes over the prompts"
    takes = "" if forward is None else f", about {count * forward:.2g} s"
    return f"{method}: {what} of {graph.n_edges:,} edges{on}, {passes}{takes}"


def method_within(graph: ModelGraph, forwards: int | float) -> str:
    """The first of exact scores, EAP-IG until converged and EAP-IG that takes at most so many forward passes; else EAP.

    >>> method_within(ModelGraph(n_layers=2, n_heads=4, mlp=False), 40), method_within(ModelGraph(12, 12), 40)
    ('exact', 'eap-ig-converged')
    """
    names = ("exact", "eap-ig-converged", "eap-ig")
    return next((name for name in names if METHODS[name].forwards(graph, 5) <= forwards), "eap")


def forward_seconds(model: Model, task: Task, *, n_prompts: int = 8) -> float:
    """How long one forward pass over the task's prompts takes here, as the first few tell."""
    few = task.clean[:n_prompts]
    start = perf_counter()
    with torch.no_grad():
        model.run(model.stream(model.embed(few)))
    return (perf_counter() - start) * len(task) / len(few)


def _affordable(graph: ModelGraph) -> float:
    """The share of the prompts on which exact scores of all edges are affordable."""
    return min(1.0, BUDGET / _exact_cost(graph))


def _exact_cost(graph: ModelGraph, steps: int = 0) -> float:
    return 2 + FORWARDS_AN_EDGE * graph.n_edges


def _gradient_cost(graph: ModelGraph, steps: int) -> float:
    return 1.0 + (1 + BACK) * steps + (1 + BACK) * (steps > 1)


def _first_order(model: Model, task: Task, steps: int) -> Scored:
    found = attribute(model, task, steps=steps)
    return Scored(found.edges, found.nodes, found.runs, found.rotation)


def _converged(model: Model, task: Task, steps: int) -> Scored:
    found = attribute(model, task, steps=max(steps, 2), most_steps=MOST_STEPS)
    return Scored(found.edges, found.nodes, found.runs, found.rotation)


def _exact(model: Model, task: Task, steps: int) -> Scored:
    return Scored(edge_patching(model, task))


def _auto(model: Model, task: Task, steps: int) -> Scored:
    """Exact where that is affordable on `ENOUGH` of the prompts, the first ones, or where the metric has no gradient;
    else EAP-IG until it has converged."""
    share = _affordable(model.graph) if task.metric.differentiable else 1.0
    if share < ENOUGH:
        return _converged(model, task, steps)
    return _exact(model, task.rows(slice(0, round(share * len(task)))), steps)


def _contested(model: Model, task: Task, steps: int) -> Scored:
    """Converged EAP-IG, and exact scores in place of it for the edges nearest to the cut, as many as are affordable.

    The cut is where the screen's circuit of cumulated magnitude `CUT` ends.
    """
    screen = _converged(model, task, steps)
    only = contested(screen.edges, int(BUDGET / FORWARDS_AN_EDGE))
    exact = edge_patching(model, task, only=only)
    return replace(screen, edges=_replaced(screen.edges, exact, only))


CUT = 0.9
"""The share of the summed magnitude of all scores at which a screen expects its circuit to end."""


def contested(scores: EdgeScores, most: int) -> Bool[np.ndarray, "writer reader"]:
    """The edges nearest in rank to the cut on a log scale: within it and as far again beyond."""
    mask = scores.graph.edge_mask
    ranked = np.abs(scores.values[mask])
    order = np.argsort(-ranked, kind="stable")
    total = np.cumsum(ranked[order])
    cut = int(np.searchsorted(total, CUT * total[-1])) + 1 if total[-1] > 0 else 1
    distance = np.abs(np.log((np.arange(len(order)) + 1) / cut))
    near = np.argsort(distance, kind="stable")[:most]
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[near]] = True
    found = np.zeros_like(mask)
    found[mask] = chosen
    return found


def _replaced(screen: EdgeScores, exact: EdgeScores, only: Bool[np.ndarray, "writer reader"]) -> EdgeScores:
    first, second = screen.estimate, exact.estimate
    estimate = Estimate(
        np.where(only, second.value, first.value),
        np.where(only, second.std_error, first.std_error),
        np.where(only, second.folds, first.folds),
        first.n_prompts,
    )
    return replace(screen, estimate=estimate, measure="contested")


def ensemble(scores: "list[EdgeScores]", *, combine: Callable[..., np.ndarray] = np.mean) -> EdgeScores:
    """Parallel ensemble: each method's scores in units of its own largest magnitude, combined edge by edge (Mondorf et
    al., 2025, take the mean, least or largest)."""
    scales = [1 / max(float(np.abs(one.values).max()), 1e-30) for one in scores]

    def combined(arrays: list[Float[np.ndarray, "*shape"]]) -> Float[np.ndarray, "*shape"]:
        return combine(np.stack([scale * array for scale, array in zip(scales, arrays, strict=True)]), axis=0)

    estimate = Estimate(
        combined([one.values for one in scores]),
        combined([one.std_error for one in scores]),
        combined([one.folds for one in scores]),
        scores[0].estimate.n_prompts,
    )
    return EdgeScores(scores[0].graph, estimate, "ensemble", scores[0].task)


def _ensemble(model: Model, task: Task, steps: int) -> Scored:
    parts = [_first_order(model, task, 1), _first_order(model, task, max(steps, 2))]
    corners = edge_attribution_patching(model, task, points=(0.0, 1.0))
    return replace(parts[1], edges=ensemble([*[part.edges for part in parts], corners]))


def _consistent(model: Model, task: Task, steps: int) -> Scored:
    """EAP-IG, with edges whose sign differs over resampled prompts set to zero (Nikankin et al., 2025)."""
    found = _first_order(model, task, max(steps, 2))
    edges = found.edges
    steady = np.abs(edges.values) > 1.96 * np.nan_to_num(edges.std_error)
    estimate = replace(edges.estimate, value=edges.values * steady, folds=edges.folds * steady)
    return replace(found, edges=replace(edges, estimate=estimate, measure="eap-ig-consistent"))


METHODS: dict[str, Method] = {
    "auto": Method(
        _auto,
        lambda graph, steps: (
            min(_exact_cost(graph), BUDGET) if _affordable(graph) >= ENOUGH else _gradient_cost(graph, 2 * steps)
        ),
        "exact where affordable, else EAP-IG until converged",
    ),
    "eap": Method(lambda model, task, steps: _first_order(model, task, 1), lambda g, s: 2 + BACK, "first-order scores"),
    "eap-ig": Method(_first_order, _gradient_cost, "integrated-gradient scores"),
    "eap-ig-converged": Method(
        _converged,
        lambda graph, steps: _gradient_cost(graph, 2 * steps),
        "integrated-gradient scores, until converged,",
    ),
    "exact": Method(_exact, _exact_cost, "exact scores"),
    "contested": Method(
        _contested,
        lambda graph, steps: _gradient_cost(graph, 2 * steps) + min(BUDGET, _exact_cost(graph)),
        "integrated-gradient scores, exact near the cut,",
    ),
    "relp": Method(
        lambda model, task, steps: Scored(edge_attribution_patching(model, task, rules=RelP())),
        lambda g, s: 2 + BACK,
        "first-order scores by the rules of RelP",
    ),
    "gim": Method(
        lambda model, task, steps: Scored(edge_attribution_patching(model, task, rules=GIM())),
        lambda g, s: 2 + BACK,
        "first-order scores by the rules of GIM",
    ),
    "ensemble": Method(
        _ensemble, lambda graph, steps: _gradient_cost(graph, steps) + 8 + 4 * BACK, "the mean of three methods' scores"
    ),
    "consistent": Method(_consistent, _gradient_cost, "integrated-gradient scores of steady sign"),
}
