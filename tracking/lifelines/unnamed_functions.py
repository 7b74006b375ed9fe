"""Unnamed functions: which a history's circuit holds without a role's name, and who carries each.

Every component of the circuit at a step is a detection; its signature and its edges are what it is recognised by.  The
whole series is linked (`tracking.lifelines.linking`), and each chain of links is one function: *function A*, *function
B*, in the order in which they appear.
"""

from dataclasses import replace

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import SLOTS, Node
from tracking.history.history import History
from tracking.lifelines.events import Event, Lifeline, Lifelines
from tracking.lifelines.linking import Change, Links, Settings, link_detections
from tracking.lifelines.windows import Detections
from tracking.matching.signatures import signatures_of

__all__ = ["circuit_detections", "link_chains"]


def link_chains(
    history: History, *, task: str | None = None, max_gap: int = 2, overlap: int = 8, seed: int = 0
) -> Lifelines:
    """Follow every nameless function of a task's circuits.

    Raises:
        ValueError: no circuit of that task was recorded.
    """
    having = sorted({name for (_, name), record in history.records.items() if record.circuit is not None})
    if not having or task not in (None, *having):
        asked = "" if task is None else f" of task {task!r}"
        raise ValueError(
            f"history {history.name!r} has no circuits{asked}; it has them for {', '.join(having) or 'none'}"
        )
    name = task or having[0]
    steps = [step for step, known in sorted(history.records) if known == name and history.records[step, name].circuit]
    detections = circuit_detections(history, name, steps)
    links = link_detections(detections, replace(Settings(), max_gap=max_gap, overlap=overlap), seed=seed)
    return _lifelines(history, name, steps, detections, links)


def circuit_detections(history: History, task: str, steps: list[int]) -> Detections:
    """The components of each step's circuit, with their signatures and the edges between them."""
    units = [*history.graph.components]
    place = {node: index for index, node in enumerate(units)}
    snapshots = [history[step] for step in steps]
    signatures = [signatures_of(snapshot, graph=history.graph) for snapshot in snapshots]
    names = list(dict.fromkeys(name for one in signatures for name in one.names))
    frames = []
    for snapshot, signature in zip(snapshots, signatures, strict=True):
        circuit = snapshot.records[task].circuit
        assert circuit is not None
        active = [node for node in circuit.nodes if node in place]
        features = np.zeros((len(active), len(names)))
        rows = [signature.nodes.index(node) for node in active]
        for column, feature in enumerate(signature.names):
            features[:, names.index(feature)] = np.nan_to_num(signature.value[rows, column])
        frames.append((np.array([place[node] for node in active], dtype=np.int64), features, _edges(circuit, active)))
    kind = np.array([1 if node.kind == "head" else 2 for node in units])
    layer = np.array([node.layer for node in units])
    return Detections.from_frames(frames, kind, layer, movable=kind == 1, quiet=0.0)


def _edges(circuit: Circuit, active: list[Node]) -> np.ndarray:
    """(slot, from, to): the kept edges among the active components; an MLP's single input is in the last slot."""
    graph = circuit.graph
    place = {node: index for index, node in enumerate(active)}
    edges = np.zeros((len(SLOTS), len(active), len(active)))
    for writer, reader in np.argwhere(circuit.kept):
        edge = graph.edge(int(writer), int(reader))
        if edge.source in place and edge.target in place:
            slot = SLOTS.index(edge.slot or "v")
            edges[slot, place[edge.source], place[edge.target]] = circuit.scores.values[writer, reader]
    return edges


def _lifelines(history: History, task: str, steps: list[int], detections: Detections, links: Links) -> Lifelines:
    units = history.graph.components
    chains = {}
    for index, chain in enumerate(links.chain.tolist()):
        chains.setdefault(chain, []).append(index)
    lasting = [members for members in chains.values() if len({int(detections.frame[m]) for m in members}) >= 3]
    label, found = {}, []
    sure = {link.after: link.confidence for link in links.links}
    for number, members in enumerate(lasting):
        name = f"function {_letters(number)}"
        label |= dict.fromkeys(members, name)
        found.append(_lifeline(history, task, steps, detections, members, name, sure))
    at = {(int(f), int(u)): index for index, (f, u) in enumerate(zip(detections.frame, detections.unit, strict=True))}
    events = [_event(history.name, change, steps, units, detections, at, label) for change in links.changes]
    return Lifelines(tuple(found), tuple(event for event in events if event is not None))


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    head, tail = divmod(number, 26)
    return (_letters(head - 1) if head else "") + chr(65 + tail)


def _lifeline(
    history: History,
    task: str,
    steps: list[int],
    detections: Detections,
    members: list[int],
    name: str,
    sure: dict[int, float],
) -> Lifeline:
    units = history.graph.components
    nodes, shares, strength, confidence = [], [], [], []
    for frame, step in enumerate(steps):
        here = [m for m in members if detections.frame[m] == frame]
        weight = _weights(history.circuit(step, task))
        scores = [weight.get(units[detections.unit[m]], 0.0) for m in here]
        nodes.append(tuple(units[detections.unit[m]] for m in here))
        shares.append(tuple(scores))
        strength.append(max(scores, default=0.0))
        confidence.append(max((sure.get(m, 1.0) for m in here), default=0.0))
    return Lifeline(
        history.name, name, "role", name, tuple(steps), tuple(nodes), tuple(strength), tuple(confidence),
        shares=tuple(shares), task=task,
    )  # fmt: skip


def _weights(circuit: Circuit) -> dict[Node, float]:
    """For each component the share of the circuit's edge magnitude that leaves it."""
    kept = np.abs(np.where(circuit.kept, circuit.scores.values, 0.0))
    total = max(float(kept.sum()), 1e-12)
    return {node: float(kept[index].sum()) / total for index, node in enumerate(circuit.graph.writers)}


def _event(
    run: str,
    change: Change,
    steps: list[int],
    units: tuple[Node, ...],
    detections: Detections,
    at: dict[tuple[int, int], int],
    label: dict[int, str],
) -> Event | None:
    """The change in steps and components, under the label of the function that it happened to."""
    frame, unit = (
        (change.frame_before, change.before[0]) if change.kind == "death" else (change.frame, change.after[-1])
    )
    while (frame, unit) not in at and frame + 1 < detections.n_frames:
        frame += 1
    name = label.get(at.get((frame, unit), -1))
    if name is None:
        return None
    before, after = (tuple(units[one] for one in some) for some in (change.before, change.after))
    roles = ("" if change.kind == "birth" else name, "" if change.kind == "death" else name)
    between = steps[change.frame_before], steps[change.frame]
    return Event(run, name, change.kind, *between, *roles, before, after, change.confidence)
