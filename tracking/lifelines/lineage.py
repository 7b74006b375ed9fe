"""Lineage: the tracks of a run as a graph whose nodes are components over time and whose edges are events.

    a1.h0 [0, 1300] ──hand-off──▶ a1.h1 [1400, 2700] ──split──▶ a1.h3 [2000, 2700]

A node is a component between two events that befall it; an edge leads from what was before an event to what was after
it.  What a function came from are its ancestors (`networkx.ancestors`), and any format of networkx holds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from tracking.lifelines.events import Lifelines

if TYPE_CHECKING:
    import pandas as pd

    LineageGraph = nx.DiGraph["tuple[str, int]"]
else:  # the class takes no type of nodes when it runs
    LineageGraph = nx.DiGraph

__all__ = ["lineage", "lineage_of_tables"]

Key = tuple[str, int]  # component, first step
TOGETHER = ("lead change",)  # kinds in which nobody begins or stops


@dataclass
class _Open:
    """The nodes that are open at a step, by component."""

    graph: LineageGraph
    last: int
    key: dict[str, Key]

    def begin(self, component: str, step: int, role: str) -> Key:
        key = (component, step)
        self.graph.add_node(key, component=component, first=step, last=self.last, role=role)
        self.key[component] = key
        return key

    def end(self, component: str, step: int, first: int, role: str) -> Key:
        """Its node, ended at `step`; one that was there from the start of the run begins at `first`."""
        key = self.key.pop(component, None) or self.begin(component, first, role)
        self.key.pop(component, None)
        self.graph.nodes[key]["last"] = step
        return key


def lineage(lifelines: Lifelines) -> LineageGraph:
    """The lineage graph of one run.

    Nodes are (component, first step) with the attributes `component`, `first`, `last` and `role`; edges have `event`,
    `step_before`, `step_after` and `confidence`.
    """
    steps = sorted({step for line in lifelines.lifelines for step in line.steps})
    return lineage_of_tables(lifelines.events_frame(), lifelines.lifelines_frame(), steps)


def lineage_of_tables(events: "pd.DataFrame", lifelines: "pd.DataFrame", steps: Sequence[int]) -> LineageGraph:
    """The same from the tables `events` and `lifelines` of one run, and the steps of its history."""
    graph: LineageGraph = nx.DiGraph()
    if not len(steps):
        return graph
    nodes = _Open(graph, int(steps[-1]), {})
    for event in events.sort_values(["step_after", "step_before"], kind="stable").to_dict("records"):
        if event["event"] not in TOGETHER:
            _add(nodes, event, int(steps[0]))
    known = {component for component, _ in graph}
    own = lifelines[lifelines["lifeline"] == lifelines["component"]]
    for component, rows in own.groupby("component", sort=False):
        if component not in known:
            named = rows["role"][rows["role"].astype(bool) & rows["role"].notna()]
            nodes.begin(str(component), int(steps[0]), str(named.mode().iat[0]) if len(named) else "")
    return graph


def _add(nodes: _Open, event: dict[Any, Any], first: int) -> None:
    before, after = (
        [name for name in str(event[side] or "").split(",") if name]
        for side in ("components_before", "components_after")
    )
    steps = int(event["step_before"]), int(event["step_after"])
    old = [nodes.end(name, steps[0], first, str(event["role_before"] or "")) for name in before]
    new = [nodes.begin(name, steps[1], str(event["role_after"] or "")) for name in after]
    about = {"event": event["event"], "confidence": float(event["confidence"])}
    about |= {"step_before": steps[0], "step_after": steps[1]}
    nodes.graph.add_edges_from((one, other, about) for one in old for other in new)
