"""Series of components: what each does, whom it reads and writes, and how much hurts without it, at every step.

Three things can be known of a component at a step: its **features** (role scores), its **profile** (edges to and from
the others) and its **effect** on the task, in the task's own units, never as a share of a total.  A history has some of
them; what decides whether a component is there at all is its **basis**:

    effect     its effect was measured at every step             it is there while the effect is large
    role       only scores of named roles were measured          ... while one of them is above its bar
    detection  it is listed at some steps and not at others      ... while it is mostly listed

Axes: `step`, `component`, `feature`; a row of `profile` is a step and a component, `step * n_components + component`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Bool, Float, Int

from circuits.graph import Node, NodeScores
from tracking.history.history import History
from tracking.lifelines.roles import RoleScores
from tracking.matching.signatures import channel_matrices

__all__ = ["EFFECT_MEASURES", "Basis", "Series", "profile_of_edges", "series_of"]

Basis = Literal["effect", "role", "detection"]
EFFECT_MEASURES = ("patching", "ablation", "attribution")
COVERAGE = 0.9  # share of components and steps that must have a measure for it to be one of all components
NATIVE = 1.5  # the largest value of scores that are shares of attention


@dataclass(frozen=True)
class Series:
    """Everything that linking reads.

    `features` are NaN and `seen` is false where a component was not measured.  `effect` is in units in which the bar of
    its basis lies (see `tracking.lifelines.presence`).  `starts` are the steps at which a task is first done: what is
    there by then has no beginning in this series.  `grows` says that features grow with the effect, as those do that
    are not scores of roles.  Only `movable` components hand on what they do: an MLP is the only one of its layer.
    """

    steps: tuple[int, ...]
    nodes: tuple[Node, ...]
    basis: Basis
    effect: Float[np.ndarray, "step component"]
    features: Float[np.ndarray, "step component feature"]
    profile: sparse.csr_array
    seen: Bool[np.ndarray, "step component"]
    movable: Bool[np.ndarray, "component"]
    starts: tuple[int, ...] = (0,)
    grows: bool = False
    measure: str = ""
    unit: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.effect.shape  # type: ignore[return-value]

    @property
    def first(self) -> int:
        return min(self.starts, default=len(self.steps))

    @cached_property
    def layer(self) -> Int[np.ndarray, "component"]:
        return np.array([node.layer for node in self.nodes], dtype=np.int64)

    @cached_property
    def marks(self) -> sparse.csr_array:
        """1 for every edge of the profile."""
        marks = self.profile.copy()
        marks.data = (marks.data != 0).astype(float)
        return marks

    @cached_property
    def known(self) -> Float[np.ndarray, "row feature"]:
        """Features row by row; what was not measured is what the component last had, or 0."""
        filled = self.features.copy()
        for step in range(1, len(filled)):
            filled[step] = np.where(np.isnan(filled[step]), filled[step - 1], filled[step])
        return np.nan_to_num(filled).reshape(-1, self.features.shape[2])


def series_of(history: History, roles: Sequence[RoleScores], *, task: str | None = None) -> Series:
    """The series of a history: by effects where all components have them, else by roles, else by what is listed.

    Args:
        history: the run.
        roles: the measures that say what a component does, with their bars.
        task: the task whose effects and circuits are taken; all where not given.

    Raises:
        ValueError: nothing in the history says what any component does.
    """
    effects = _effects(history, task)
    if effects:
        return _by_effect(history, roles, effects)
    if roles:
        return _by_role(history, roles)
    return _by_detection(history, task)


def _effects(history: History, task: str | None) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    """Task to its steps and the largest effect of each component at each, where (nearly) all have one."""
    found: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
    place = {node.name: index for index, node in enumerate(history.graph.components)}
    for name in history.tasks:
        measures = [one for one in EFFECT_MEASURES if (name, one) in history.measures and task in (None, name)]
        for measure in measures[:1]:
            data = history.score(measure, task=name)
            columns = [index for index, one in enumerate(data.component.values.tolist()) if one in place]
            value = np.full((data.sizes["step"], len(place)), np.nan)
            names = data.component.values[columns].tolist()
            value[:, [place[one] for one in names]] = np.abs(data.value.values[:, columns])
            listed = np.isfinite(value).any(axis=0)
            if listed.any() and np.isfinite(value[:, listed]).mean() >= COVERAGE:
                found[name] = tuple(int(step) for step in data.step.values), value
    return found


def _by_effect(
    history: History, roles: Sequence[RoleScores], effects: dict[str, tuple[tuple[int, ...], np.ndarray]]
) -> Series:
    """Effects of several tasks are brought to one scale, each in units of its own large ones."""
    steps = tuple(sorted({step for known, _ in effects.values() for step in known}))
    nodes = history.graph.components
    total, starts, units, profiles = np.zeros((len(steps), len(nodes))), [], [], []
    seen = np.zeros(total.shape, dtype=bool)
    for task, (known, patched) in effects.items():
        rows = [steps.index(step) for step in known]
        value = np.full(total.shape, np.nan)
        value[rows] = np.fmax(patched, _outflow(history, task, known))
        status = [history.records[step, task].status for step in known]
        done = [row for row, one in zip(rows, status, strict=True) if one in ("performed", "unknown")]
        starts.append(min(done, default=len(steps)))
        after = value[starts[-1] :]
        units.append(max(float(np.nanquantile(after, 0.75)) if np.isfinite(after).any() else 1.0, 1e-12))
        seen |= np.isfinite(value)
        total = np.maximum(total, np.nan_to_num(value) / units[-1])
        profiles.append(_profile(history, task, steps))
    profile = sparse.hstack(profiles).tocsr() if profiles else _no_profile(total.shape)
    movable = np.array([node.kind == "head" for node in nodes])
    features = _role_features(roles, steps, nodes)
    unit = units[0] if len(units) == 1 else 1.0
    return Series(
        steps, nodes, "effect", total, features, profile, seen, movable, tuple(starts), measure="effect", unit=unit
    )


def _by_role(history: History, roles: Sequence[RoleScores]) -> Series:
    """The effect is how many times above its bar the most telling role stands."""
    steps = tuple(sorted({step for role in roles for step in role.steps}))
    nodes = tuple(node for node in history.graph.components if any(node in role.nodes for role in roles))
    effect, seen = np.zeros((len(steps), len(nodes))), np.zeros((len(steps), len(nodes)), dtype=bool)
    for role in roles:
        value = _spread(role, steps, nodes) / role.threshold if role.threshold > 0 else _spread(role, steps, nodes)
        effect, seen = np.fmax(effect, np.nan_to_num(value)), seen | np.isfinite(value)
    tasks = [task for task in history.tasks if any(r.circuit for (_, of), r in history.records.items() if of == task)]
    profiles = [_profile(history, task, steps, nodes) for task in tasks]
    profile = sparse.hstack(profiles).tocsr() if profiles else _no_profile(effect.shape)
    movable = np.array([node.kind == "head" for node in nodes])
    features = _role_features(roles, steps, nodes)
    return Series(steps, nodes, "role", effect, features, profile, seen, movable, measure="score / bar")


def _by_detection(history: History, task: str | None) -> Series:
    """What is listed is there: components with scores, where others have none at that step; or else the circuit's."""
    having = sorted({name for (_, name), record in history.records.items() if record.circuit is not None})
    scored = [name for name, _ in history.measures]
    tasks = [name for name in dict.fromkeys([*having, *scored]) if task in (None, name)]
    if not tasks:
        asked = "" if task is None else f" of task {task!r}"
        known = ", ".join(having) or "none"
        raise ValueError(f"history {history.name!r} has no circuits and no scores{asked}; it has circuits for {known}")
    steps = tuple(sorted(step for step, name in history.records if name == tasks[0]))
    nodes = history.graph.components
    features, listed = _listed_features(history, tasks, steps)
    circuit = _circuit_members(history, tasks[0], steps)
    partly = listed.any() and listed[:, listed.any(axis=0)].mean() < COVERAGE + 0.08
    seen = listed if partly or not circuit.any() else circuit
    profile = _profile(history, tasks[0], steps, imported=True)
    if not features.shape[2]:
        features = _flow_features(history, tasks[0], steps)
    size = np.sqrt(np.nansum(features**2, axis=2))
    movable = np.array([node.kind == "head" for node in nodes])
    grows = features.shape[2] >= 3
    return Series(
        steps,
        nodes,
        "detection",
        np.where(seen, size, 0.0),
        features,
        profile,
        seen,
        movable,
        grows=grows,
        measure="size",
    )


def _role_features(roles: Sequence[RoleScores], steps: tuple[int, ...], nodes: tuple[Node, ...]) -> np.ndarray:
    """arcsin of the root for shares of attention, log(1 + score) for others: noise then is about the same anywhere."""
    found = np.full((len(steps), len(nodes), len(roles)), np.nan)
    for place, role in enumerate(roles):
        value = _spread(role, steps, nodes)
        shares = not np.nanmax(role.value) > NATIVE
        found[..., place] = np.arcsin(np.sqrt(np.clip(value, 0, 1))) if shares else np.log1p(np.maximum(value, -0.99))
    return found


def _spread(role: RoleScores, steps: tuple[int, ...], nodes: tuple[Node, ...]) -> Float[np.ndarray, "step component"]:
    found = np.full((len(steps), len(nodes)), np.nan)
    at, where = {step: row for row, step in enumerate(steps)}, {node: column for column, node in enumerate(nodes)}
    columns = [index for index, node in enumerate(role.nodes) if node in where]
    rows = [index for index, step in enumerate(role.steps) if step in at]  # a checkpoint may have failed for one task
    to = [at[role.steps[index]] for index in rows], [where[role.nodes[index]] for index in columns]
    found[np.ix_(*to)] = role.value[np.ix_(rows, columns)]
    return found


def _listed_features(
    history: History, tasks: Sequence[str], steps: tuple[int, ...]
) -> tuple[Float[np.ndarray, "step component feature"], Bool[np.ndarray, "step component"]]:
    names = [(task, measure) for task, measure in history.measures if task in tasks]
    place = {node: index for index, node in enumerate(history.graph.components)}
    found = np.full((len(steps), len(place), len(names)), np.nan)
    for row, step in enumerate(steps):
        for column, (task, measure) in enumerate(names):
            record = history.records.get((step, task))
            scores: NodeScores | None = record.scores.get(measure) if record is not None else None
            if scores is not None:
                take = [index for index, node in enumerate(scores.nodes) if node in place]
                found[row, [place[scores.nodes[index]] for index in take], column] = scores.values[take]
    return found, np.asarray(np.isfinite(found).any(axis=2))


def _circuit_members(history: History, task: str, steps: tuple[int, ...]) -> Bool[np.ndarray, "step component"]:
    place = {node: index for index, node in enumerate(history.graph.components)}
    found = np.zeros((len(steps), len(place)), dtype=bool)
    for row, step in enumerate(steps):
        record = history.records.get((step, task))
        circuit = record.circuit if record is not None else None
        if circuit is not None:
            found[row, [place[node] for node in circuit.nodes if node in place]] = True
    return found


def _outflow(history: History, task: str, steps: tuple[int, ...]) -> Float[np.ndarray, "step component"]:
    """The magnitude of all edges that leave each component."""
    found = np.full((len(steps), len(history.graph.components)), np.nan)
    writers = [history.graph.writer_index[node] for node in history.graph.components]
    for row, step in enumerate(steps):
        circuit = history.records[step, task].circuit
        if circuit is not None:
            found[row] = np.abs(np.where(circuit.graph.edge_mask, circuit.scores.values, 0.0)).sum(axis=1)[writers]
    return found


def _flow_features(history: History, task: str, steps: tuple[int, ...]) -> Float[np.ndarray, "step component feature"]:
    """Where nothing else is known: the magnitudes that enter and leave, their root."""
    out = _outflow(history, task, steps)
    into = np.zeros_like(out)
    place = {node: index for index, node in enumerate(history.graph.components)}
    for row, step in enumerate(steps):
        circuit = history.records[step, task].circuit
        if circuit is not None:
            received = np.abs(np.where(circuit.graph.edge_mask, circuit.scores.values, 0.0)).sum(axis=0)
            for reader, amount in zip(circuit.graph.readers, received, strict=True):
                if reader.node in place:
                    into[row, place[reader.node]] += amount
    return np.sqrt(np.nan_to_num(np.stack([out, into], axis=-1)))


def _profile(
    history: History,
    task: str,
    steps: tuple[int, ...],
    nodes: tuple[Node, ...] | None = None,
    *,
    imported: bool = False,
) -> sparse.csr_array:
    """Signed roots of the clear edges of every component, a column for each slot, direction and other end."""
    nodes = nodes or history.graph.components
    ends = (*nodes, Node("input"), Node("logits"))
    blocks = []
    for step in steps:
        record = history.records.get((step, task))
        circuit = record.circuit if record is not None else None
        blocks.append(tuple(channel_matrices(circuit, ends).values()) if circuit is not None else None)
    if imported:
        quiet = _background([matrix.data for block in blocks[:: max(1, len(blocks) // 20)] for matrix in block or ()])
        blocks = [block and tuple(_above(matrix, quiet) for matrix in block) for block in blocks]
    return profile_of_edges(blocks, len(ends), len(nodes))


def profile_of_edges(
    blocks: Sequence[tuple[sparse.csr_array, ...] | None], n_ends: int, n_nodes: int
) -> sparse.csr_array:
    """Rows of all steps from each step's matrices (end, end), one a slot; the first ends are the components."""
    n_slots = max((len(block) for block in blocks if block), default=0)
    rows = []
    for block in blocks:
        if not block:
            rows.append(sparse.csr_array((n_nodes, 2 * max(n_slots, 1) * n_ends)))
            continue
        sides = [side for matrix in block for side in (matrix, matrix.T)]
        rows.append(sparse.hstack([side.tocsr()[:n_nodes] for side in sides]).tocsr())
    return sparse.vstack(rows).tocsr()


def _background(roots: Sequence[np.ndarray]) -> float:
    """Standard deviation of the edges that are only noise, where a table lists all edges: most are."""
    values = np.concatenate([root**2 for root in roots] or [np.empty(0)])
    if len(values) <= 500:
        return 0.0
    spread = float(1.4826 * np.median(values))
    return spread if spread < 0.25 * float(np.quantile(values, 0.99)) else 0.0


def _above(matrix: sparse.csr_array, quiet: float) -> sparse.csr_array:
    kept = matrix.copy()
    kept.data = np.where(kept.data**2 > 3 * quiet, kept.data, 0.0)
    kept.eliminate_zeros()
    return kept


def _no_profile(shape: tuple[int, ...]) -> sparse.csr_array:
    return sparse.csr_array((shape[0] * shape[1], 1))
