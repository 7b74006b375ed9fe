"""Lineage: the tracks of a run as a graph whose nodes are components over time and whose edges are events.

    a1.h0 [0, 1300] ──hand-off──▶ a1.h1 [1400, 2700] ──split──▶ a1.h3 [2000, 2700]

A node is a component between two events that befall it; an edge leads from what was before an event to what was after
it.  What a function came from are its ancestors (`networkx.ancestors`), and any format of networkx holds it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx

from circuits.graph import Node
from tracking.lifelines.events import Event, Lifelines

__all__ = ["lineage"]

Key = tuple[str, int]  # component, first step

if TYPE_CHECKING:
    LineageGraph = nx.DiGraph[Key]
else:  # the class takes no type of nodes when it runs
    LineageGraph = nx.DiGraph


@dataclass
class _Open:
    """The nodes that are open at a step, by component."""

    graph: LineageGraph
    last: int
    key: dict[Node, Key]

    def begin(self, node: Node, step: int, role: str) -> Key:
        key = (node.name, step)
        self.graph.add_node(key, component=node.name, first=step, last=self.last, role=role)
        self.key[node] = key
        return key

    def end(self, node: Node, step: int, first: int, role: str) -> Key:
        """Its node, ended at `step`; one that was there from the start of the run begins at `first`."""
        key = self.key.pop(node, None) or self.begin(node, first, role)
        self.key.pop(node, None)
        self.graph.nodes[key]["last"] = step
        return key


def lineage(lifelines: Lifelines) -> LineageGraph:
    """The lineage graph of one run.

    Nodes are (component, first step) with the attributes `component`, `first`, `last` and `role`; edges have `event`,
    `step_before`, `step_after` and `confidence`.
    """
    steps = sorted({step for line in lifelines.lifelines for step in line.steps})
    graph: LineageGraph = nx.DiGraph()
    if not steps:
        return graph
    nodes = _Open(graph, steps[-1], {})
    for event in sorted(lifelines.events, key=lambda event: (event.step_after, event.step_before)):
        if event.event != "lead change":
            _add(nodes, event, steps[0])
    for line in lifelines.components:
        if not any(graph.nodes[key]["component"] == line.lifeline for key in graph):
            nodes.begin(line.components[0], steps[0], line.role)
    return graph


def _add(nodes: _Open, event: Event, first: int) -> None:
    before = [nodes.end(node, event.step_before, first, event.role_before) for node in event.components_before]
    after = [nodes.begin(node, event.step_after, event.role_after) for node in event.components_after]
    about = {"event": event.event, "confidence": event.confidence}
    about |= {"step_before": event.step_before, "step_after": event.step_after}
    nodes.graph.add_edges_from((old, new, about) for old in before for new in after)
