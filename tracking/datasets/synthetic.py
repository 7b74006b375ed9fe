"""Synthetic histories: known to the last event, so that linking and dating can be judged and shown.

Two generators, seeded, each giving a `History` whose truth is known:

- `history_from_drawing`: what each component does at each step is drawn as text, one line a component and role, one
  character a snapshot.  `.` is nothing, `1` to `9` are tenths of full strength, `#` is full strength, `?` was not
  measured.
- `rising_history`: curves that rise at known steps, for judging dates and their intervals.

Scores carry prompt folds and standard errors as recorded ones do: fold f of a score is its level plus noise of standard
deviation `noise * sqrt(n_folds)`, so that the mean over folds has standard deviation `noise`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit
from circuits.graph import EdgeScores, Estimate, ModelGraph, Node, NodeScores
from tracking.history.history import History
from tracking.history.records import Record

__all__ = ["PlantedRise", "history_from_drawing", "rising_history"]

TASK = "repeated-tokens"
LEVELS = {".": 0.0, "#": 1.0, "?": np.nan, **{str(tenth): tenth / 10 for tenth in range(1, 10)}}


@dataclass(frozen=True)
class PlantedRise:
    """One rise of one component's score: `baseline + height / (1 + exp(-(x - ln(midpoint)) / width))`, x = ln(step).

    `midpoint` is in steps, `width` in units of ln(step); `math.inf` as midpoint is a component that never forms.
    """

    component: str
    role: str
    midpoint: float
    width: float = 0.1
    baseline: float = 0.05
    height: float = 0.8

    def at(self, steps: Float[np.ndarray, "step"]) -> Float[np.ndarray, "step"]:
        if not np.isfinite(self.midpoint):
            return np.full(len(steps), self.baseline)
        away = (np.log(np.maximum(steps, 1e-9)) - np.log(self.midpoint)) / self.width
        return self.baseline + self.height / (1 + np.exp(-np.clip(away, -500, 500)))


def history_from_drawing(
    drawing: str,
    *,
    noise: float = 0.02,
    full: float = 0.8,
    wiring: Mapping[str, Sequence[str]] | None = None,
    n_folds: int = 8,
    steps: Sequence[int] | None = None,
    seed: int = 0,
    name: str = "drawn",
) -> History:
    """The history that a drawing shows.

    A line reads `component role levels`; spaces inside the levels are ignored, and so are lines that start with `|`.

    Args:
        drawing: the text.
        noise: standard error of each score.
        full: the score that `#` stands for.
        wiring: for each role the roles that it reads (`{"induction": ["previous-token"]}`); adds edges, among them
            from `input` and to `logits` for every drawn component, and a circuit of those above a tenth.
        n_folds: prompt folds; 0 for scores without folds and without standard errors, as somebody else's table has.
        steps: training steps of the snapshots; 100 apart where not given.

    Raises:
        ValueError: a line cannot be read, or lines differ in length.

    >>> history = history_from_drawing("a1.h0 induction ..##")
    >>> history.steps
    (0, 100, 200, 300)
    """
    rows = [_read_line(line) for line in drawing.splitlines() if line.strip() and not line.strip().startswith("|")]
    lengths = {len(levels) for _, _, levels in rows}
    if len(lengths) != 1:
        raise ValueError(f"expected lines of one length in the drawing, got lengths {sorted(lengths)}")
    places = tuple(steps) if steps is not None else tuple(100 * index for index in range(lengths.pop()))
    rng = np.random.default_rng(seed)
    levels = {(node, role): full * values for node, role, values in rows}
    return _history(levels, places, wiring, noise, n_folds, rng, name)


def rising_history(
    rises: Sequence[PlantedRise],
    steps: Sequence[int],
    *,
    noise: float = 0.03,
    n_folds: int = 8,
    seed: int = 0,
    name: str = "rising",
) -> History:
    """A history of components that rise at known steps; several rises of one component add up."""
    rng = np.random.default_rng(seed)
    x = np.asarray(steps, dtype=float)
    levels: dict[tuple[Node, str], np.ndarray] = {}
    for rise in rises:
        key = (Node.parse(rise.component), rise.role)
        levels[key] = levels.get(key, np.zeros(len(x))) + rise.at(x)
    return _history(levels, tuple(steps), None, noise, n_folds, rng, name)


def _read_line(line: str) -> tuple[Node, str, np.ndarray]:
    component, _, rest = line.strip().partition(" ")
    role, _, drawn = rest.strip().partition(" ")
    drawn = drawn.replace(" ", "")
    if not drawn or (unknown := set(drawn) - set(LEVELS)):
        raise ValueError(
            f"expected a component, a role and levels made of {''.join(LEVELS)}, got {line.strip()!r}"
            + (f", which has {''.join(sorted(unknown))}" if drawn else "")
        )
    return Node.parse(component), role, np.array([LEVELS[character] for character in drawn])


def _history(
    levels: Mapping[tuple[Node, str], np.ndarray],
    steps: tuple[int, ...],
    wiring: Mapping[str, Sequence[str]] | None,
    noise: float,
    n_folds: int,
    rng: np.random.Generator,
    name: str,
) -> History:
    nodes = {node for node, _ in levels}
    layers = 1 + max(node.layer for node in nodes)
    heads = max(2, 1 + max(node.index for node in nodes))
    graph = ModelGraph(max(layers, 2), heads, mlp=any(node.kind == "mlp" for node in nodes))
    roles = list(dict.fromkeys(role for _, role in levels))
    records = {}
    for index, step in enumerate(steps):
        truth = np.zeros((len(roles), len(graph.components)))
        for (node, role), values in levels.items():
            truth[roles.index(role), graph.components.index(node)] = values[index]
        estimate = _measured(truth, noise, n_folds, rng)
        scores = {role: _scores(graph, role, _row(estimate, place)) for place, role in enumerate(roles)}
        circuit = _circuit(graph, roles, truth, wiring, noise, n_folds, rng) if wiring is not None else None
        status = "unknown" if circuit is None else circuit.status
        records[step, TASK] = Record(step, TASK, 2048.0 * step, scores, circuit, status=status)
    return History(name, graph, records)


def _measured(truth: np.ndarray, noise: float, n_folds: int, rng: np.random.Generator) -> Estimate:
    if n_folds == 0:
        return Estimate.exact(truth + noise * rng.normal(size=truth.shape))
    folds = truth + noise * np.sqrt(n_folds) * rng.normal(size=(n_folds, *truth.shape))
    spread = folds.std(axis=0, ddof=1) / np.sqrt(n_folds)
    return Estimate(folds.mean(axis=0), spread, folds, 8 * n_folds)


def _row(estimate: Estimate, place: int) -> Estimate:
    return Estimate(estimate.value[place], estimate.std_error[place], estimate.folds[:, place], estimate.n_prompts)


def _scores(graph: ModelGraph, role: str, estimate: Estimate) -> NodeScores:
    measured = np.flatnonzero(~np.isnan(estimate.value))
    nodes = tuple(graph.components[index] for index in measured)
    kept = Estimate(estimate.value[measured], estimate.std_error[measured], estimate.folds[:, measured], 64)
    return NodeScores(nodes, kept, role, TASK)


def _circuit(
    graph: ModelGraph,
    roles: Sequence[str],
    truth: np.ndarray,
    wiring: Mapping[str, Sequence[str]],
    noise: float,
    n_folds: int,
    rng: np.random.Generator,
) -> Circuit:
    strength = np.nan_to_num(truth)
    total = dict(zip(graph.components, strength.max(axis=0), strict=True))
    by_role = {role: dict(zip(graph.components, strength[place], strict=True)) for place, role in enumerate(roles)}
    weight = np.zeros(graph.edge_mask.shape)
    for writer, reader in np.argwhere(graph.edge_mask):
        edge = graph.edge(int(writer), int(reader))
        if edge.source.kind == "input" and edge.slot in ("v", None) and edge.target.kind != "logits":
            weight[writer, reader] = 0.5 * total[edge.target]
        elif edge.target.kind == "logits" and edge.source.kind != "input":
            weight[writer, reader] = 0.6 * total[edge.source]
        elif edge.source.kind == "head" and edge.slot == "k":
            pairs = [(reads, role) for role, sources in wiring.items() for reads in sources]
            weight[writer, reader] = sum(
                by_role.get(reads, {}).get(edge.source, 0.0) * by_role.get(role, {}).get(edge.target, 0.0)
                for reads, role in pairs
            )
    estimate = _measured(weight, noise, n_folds, rng)
    mask = graph.edge_mask
    hidden = Estimate(estimate.value * mask, estimate.std_error * mask, estimate.folds * mask, estimate.n_prompts)
    kept = (weight > 0.1) & mask
    return Circuit(EdgeScores(graph, hidden, "eap", TASK), kept, status="performed" if kept.any() else "not_performed")
