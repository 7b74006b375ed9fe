"""Interchange: how circuits over time and lifelines look to programs that know nothing of this one.

Each format is a function from a timeline to the files it is written as (path in the export's folder, content).  Time in
graph files and traces is the training step; what holds at one checkpoint holds until the next.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np

from circuits.circuit import Circuit, CircuitGraph
from circuits.files import name_for_file
from tracking.history.history import History
from tracking.lifelines.lineage import lineage_of_tables
from tracking.results.names import XML, holdable, say_replaced
from tracking.results.results import RunTimeline, Timeline, versions

__all__ = ["dynamic_circuit", "gexf_files", "graphml_files", "lineage_files", "trace_files"]


def gexf_files(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    """`gexf/<run>.<task>.gexf`: nodes and edges of the circuit with the spells in which they are in it."""
    for run in timeline.runs:
        for task in _tasks_with_circuits(run.history):
            file = io.BytesIO()
            nx.write_gexf(dynamic_circuit(run, task), file, version="1.2draft")
            # The writer dates its files to the day; equal timelines are equal files.
            text = re.sub(r' lastmodifieddate="[^"]*"', "", file.getvalue().decode(), count=1)
            yield f"gexf/{name_for_file(run.name)}.{name_for_file(task)}.gexf", _xml(text)


def _graphml(graph: "nx.Graph[Any]") -> bytes:
    file = io.BytesIO()
    nx.write_graphml_xml(graph, file)
    return _xml(file.getvalue().decode())


def _xml(text: str) -> bytes:
    """What a writer of XML gives, with the names that it holds as XML can hold them."""
    say_replaced(text, XML, "XML")
    # A parser would take the carriage return for the end of a line.
    return (holdable(text, XML).replace("\r", "&#13;") + "\n").encode()


def dynamic_circuit(run: RunTimeline, task: str) -> CircuitGraph:
    """One task's circuit over all steps, in the form of networkx's dynamic GEXF.

    A spell is (first step in, first step out); an attribute that changes is a list of (value, from, to).  A node has a
    spell where it is in the circuit or carries a role, and its `role` and `strength` then.
    """
    history = run.history
    ends = _ends(history)
    graph = nx.MultiDiGraph(mode="dynamic", defaultedgetype="directed", name=f"{run.name}: {task}")
    inside: dict[str, set[int]] = {node.name: set() for node in history.graph.nodes}
    edges: dict[str, list[tuple[int, float, float]]] = {}
    for step, circuit in _circuits(history, task):
        for node in circuit.nodes:
            inside[node.name].add(step)
        for edge in circuit.edges:
            index = circuit.graph.index(edge)
            score, error = float(circuit.scores.values[index]), float(circuit.scores.std_error[index])
            edges.setdefault(edge.name, []).append((step, score, error))
    roles = _roles(run)
    for node in history.graph.nodes:
        doing = roles.get(node.name, {})
        present = sorted(inside[node.name] | set(doing))
        if not present:
            continue
        about: dict[str, Any] = {"kind": node.kind, "layer": node.layer, "spells": _spells(present, history, ends)}
        if doing:
            about["role"] = [(role, step, ends[step]) for step, (role, _) in sorted(doing.items())]
            about["strength"] = [(strength, step, ends[step]) for step, (_, strength) in sorted(doing.items())]
        graph.add_node(node.name, label=node.name, **about)
    for name, rows in edges.items():
        source, _, reader = name.partition("->")
        target, _, slot = reader.rstrip(">").partition("<")
        about = {"slot": slot or "in", "spells": _spells([step for step, *_ in rows], history, ends)}
        about["score"] = [(score, step, ends[step]) for step, score, _ in rows]
        about["std_error"] = [(error, step, ends[step]) for step, _, error in rows if np.isfinite(error)]
        graph.add_edge(source, target, key=name, id=name, **{key: value for key, value in about.items() if value})
    return graph


def _ends(history: History) -> dict[int, int]:
    """Until when each checkpoint speaks: the next one, and one step more for the last."""
    steps = history.steps
    return dict(zip(steps, (*steps[1:], steps[-1] + 1), strict=True))


def _spells(present: list[int], history: History, ends: dict[int, int]) -> list[tuple[int, int]]:
    """Unbroken stretches of the steps at which something is there."""
    spells: list[tuple[int, int]] = []
    for step in present:
        if spells and spells[-1][1] == step:
            spells[-1] = (spells[-1][0], ends[step])
        else:
            spells.append((step, ends[step]))
    return spells


def _roles(run: RunTimeline) -> dict[str, dict[int, tuple[str, float]]]:
    """Component to step to its first role there and its strength."""
    found: dict[str, dict[int, tuple[str, float]]] = {}
    table = run.table("lifelines")
    table = table[table["role"].notna() & (table["lifeline"] != table["component"])]
    columns = (table["component"], table["step"], table["role"], table["strength"])
    for component, step, role, strength in zip(*columns, strict=True):
        found.setdefault(str(component), {}).setdefault(int(step), (str(role), float(strength)))
    return found


def graphml_files(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    """`graphml/<run>/<task>/<step>.graphml`: the circuit of one step."""
    for run in timeline.runs:
        for task in _tasks_with_circuits(run.history):
            for step, circuit in _circuits(run.history, task):
                graph = circuit.to_networkx()
                graph.graph |= {**versions(), "run": run.name, "step": step, "status": circuit.status}
                yield f"graphml/{name_for_file(run.name)}/{name_for_file(task)}/{step:09d}.graphml", _graphml(graph)


def lineage_files(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    """`lineage/<run>.graphml` and `.json` (node-link): components over time as nodes, events as edges."""
    for run in timeline.runs:
        found = lineage_of_tables(run.table("events"), run.table("lifelines"), run.history.steps)
        graph = nx.relabel_nodes(found, {key: f"{key[0]} from {key[1]}" for key in found})
        graph.graph |= {**versions(), "run": run.name}
        place = f"lineage/{name_for_file(run.name)}"
        yield f"{place}.graphml", _graphml(graph)
        content = json.dumps(nx.node_link_data(graph, edges="edges"), indent=1, allow_nan=False)
        yield f"{place}.json", (content + "\n").encode()


def trace_files(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    """`trace.json`: lifelines as tracks, events as instants, metrics as counters; one microsecond is one step."""
    events: list[dict[str, Any]] = []
    for process, run in enumerate(timeline.runs, start=1):
        events.append({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": run.name}})
        events += _trace_tracks(run, process)
        metrics = run.table("metrics")
        known = metrics[metrics["value"].notna()]
        for step, name, value in zip(known["step"], known["name"], known["value"], strict=True):
            events.append({"ph": "C", "name": name, "ts": step, "pid": process, "tid": 0, "args": {"value": value}})
    content = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": versions()}
    yield "trace.json", (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _trace_tracks(run: RunTimeline, process: int) -> Iterator[dict[str, Any]]:
    """One thread a component of each role lifeline; a slice from each checkpoint to the next."""
    ends = _ends(run.history)
    table, happened = run.table("lifelines"), run.table("events")
    threads: dict[tuple[str, str], int] = {}
    for row in table.to_dict("records"):
        thread = threads.setdefault((row["lifeline"], row["component"]), len(threads) + 1)
        step, label = int(row["step"]), row["role"] or "no role"
        args = {key: row[key] for key in ("strength", "confidence") if np.isfinite(row[key])}
        place = {"pid": process, "tid": thread, "ts": step, "dur": ends[step] - step}
        yield {"ph": "X", "name": label, "cat": "lifeline", **place, "args": args}
    for (lifeline, component), thread in threads.items():
        name = component if lifeline == component else f"{lifeline}: {component}"
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": name}}
    for row in happened.to_dict("records"):
        named = (row["components_after"] or row["components_before"] or "").split(",")[0]
        thread = threads.get((row["lifeline"], named), 0)
        args = {key: value for key, value in row.items() if value == value and value is not None and key != "run"}
        yield {
            "ph": "i",
            "s": "t",
            "name": row["event"],
            "pid": process,
            "tid": thread,
            "ts": row["step_after"],
            "args": args,
        }


def _tasks_with_circuits(history: History) -> list[str]:
    return sorted({task for (_, task), record in history.records.items() if record.circuit is not None})


def _circuits(history: History, task: str) -> Iterator[tuple[int, Circuit]]:
    for (step, at), record in sorted(history.records.items(), key=lambda item: item[0]):
        if at == task and record.circuit is not None:
            yield step, record.circuit
