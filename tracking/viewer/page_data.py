"""Page data: what the page knows.

Everything the page shows, as one value that JSON can hold: small, because scores lie in one row a component, edges are
numbers into one list of names, and every measured number has four significant digits (the files of
`tracking.results.timeline` have all of them).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import msgspec
import numpy as np

from circuits.circuit import Circuit, inclusion_of
from circuits.graph import Node
from tracking.drawing.drawing import curves, first_formations, lanes, measured_as, role_colours, scale_of, unit_of
from tracking.formation.clocks import CLOCKS
from tracking.history.columns import COLUMNS
from tracking.history.history import SCHEMA_VERSION, History, tool_version
from tracking.lifelines.alignment import find_counterparts
from tracking.lifelines.events import EVENT_KINDS
from tracking.lifelines.lineage import lineage_of_tables
from tracking.matching.similarity import circuit_likeness
from tracking.results.headlines import headlines
from tracking.results.influence_file import InfluenceFile
from tracking.results.meanings import ROLE_MEANINGS
from tracking.results.results import RunTimeline, Timeline
from tracking.viewer.across import across_runs
from tracking.viewer.made_with import made_with

__all__ = ["page_data", "page_title"]

# More edges than this at one step cannot be told apart on a screen; the page says how many are left out.
MAX_EDGES = 300
# A matching takes about 0.05 s, and 0.13 ms for every two components that may be partners; all together take at most
# a few seconds, or else every run is matched with the first alone.
PER_MATCHING, PER_PAIR, ENOUGH = 0.05, 1.3e-4, 4.0
# In a model of more components than this, only those that ever carry a role are listed with their matches.
FEW_COMPONENTS = 64


def page_data(timeline: Timeline, *, title: str | None = None, why: Sequence[InfluenceFile] = ()) -> dict[str, Any]:
    """All that the viewer draws from; see `viewer/data.js` for the reading side."""
    found = {run.name: lanes(run) for run in timeline.runs}
    roles = [lane.role for some in found.values() for lane in some]
    roles += [measure for run in timeline.runs for _, measure in run.history.measures]
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "title": title or page_title(timeline),
        "colours": role_colours(roles),
        "columns": {name: [column for column in columns if column != "run"] for name, columns in COLUMNS.items()},
        "clocks": {name: clock.about for name, clock in CLOCKS.items()},
        "roles": {role: ROLE_MEANINGS[role] for role in dict.fromkeys(roles) if role in ROLE_MEANINGS},
        "events": {name: kind.verb for name, kind in EVENT_KINDS.items()},
        "differing": differing(run.history.hyperparameters for run in timeline.runs),
        "counterparts": _counterparts(timeline.runs),
        "influences": [msgspec.to_builtins(each) for each in why],
        "across": across_runs(timeline.runs),
        "runs": [_run(run) for run in timeline.runs],
    }


def page_title(timeline: Timeline) -> str:
    """The names of the runs, or where they do not fit into a title, how many runs and what differs between them."""
    joined = ", ".join(run.name for run in timeline.runs)
    if len(timeline.runs) == 1 or len(joined) <= 60:
        return joined
    names = [name.replace("_", " ") for name in differing(run.history.hyperparameters for run in timeline.runs)]
    by = f", differing in {', '.join(names[:-1])}{' and ' if names[:-1] else ''}{names[-1]}" if names else ""
    return f"{len(timeline.runs)} runs{by}"


def differing(all_hyperparameters: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the hyperparameters that are not the same in all runs."""
    rows = [dict(row) for row in all_hyperparameters]
    names = sorted({name for row in rows for name in row})
    return [name for name in names if len({str(row.get(name)) for row in rows}) > 1]


def _counterparts(runs: Sequence[RunTimeline]) -> dict[str, Any]:
    """Who is who in which two runs, at their last checkpoints, and the families that follow from it."""
    if len(runs) < 2:
        return {"families": [], "between": [], "remarks": [], "all": True}
    sizes = [len(run.history.graph.components) for run in runs]
    pairs = list(combinations(range(len(runs)), 2))
    every = sum(PER_MATCHING + PER_PAIR * sizes[one] * sizes[other] for one, other in pairs) <= ENOUGH
    pairs = pairs if every else [(0, other) for other in range(1, len(runs))]
    carriers = {run.name: main_roles(run) for run in runs}
    found = find_counterparts([run.history for run in runs], carriers, pairs=pairs)
    few = {run.name: size <= FEW_COMPONENTS for run, size in zip(runs, sizes, strict=True)}
    between = []
    for (one, other), matching in found.matches.items():
        shown = [
            [pair.before.name, pair.after.name, *_numbers([pair.similarity, pair.confidence, pair.null])]
            for pair in matching.pairs
            if pair.before in carriers[one] or pair.after in carriers[other] or (few[one] and few[other])
        ]
        between.append({"runs": [one, other], "pairs": shown})
    families = [
        {
            "label": f.label,
            "support": _rounded(f.support),
            "members": {run: node.name for run, node in f.members.items()},
        }
        for f in found.families
    ]
    return {"families": families, "between": between, "remarks": list(found.remarks), "all": every}


def main_roles(run: RunTimeline) -> dict[Node, str]:
    """What each component mainly does, of those that do anything."""
    table = run.table("lifelines")
    table = table[table["role"].notna() & table["component"].notna()]
    own = table[table["lifeline"] == table["component"]]
    rows = own if len(own) else table
    named = zip(rows["component"], rows["role"], strict=True)
    doing: dict[str, Counter[str]] = {}
    for component, role in named:
        doing.setdefault(component, Counter())[role] += 1
    return {Node.parse(component): roles.most_common(1)[0][0] for component, roles in doing.items()}


def _run(run: RunTimeline) -> dict[str, Any]:
    history = run.history
    tokens = [history.tokens[step] for step in history.steps]
    known = all(value is not None for value in tokens)
    steps = list(history.steps)
    graph = history.graph
    shape = {"layers": graph.n_layers, "heads": graph.n_heads, "mlp": graph.mlp, "parallel": graph.parallel}
    return {
        "name": run.name,
        "graph": shape,
        "hyperparameters": {key: _plain(value) for key, value in history.hyperparameters.items()},
        "settings": {k: _plain(v) for k, v in {**history.settings, **run.analysis}.items() if k != "faults"},
        "thresholds": {key: _plain(value) for key, value in run.analysis.get("thresholds", {}).items()},
        "confidence": run.analysis.get("confidence"),
        "sentences": list(run.sentences),
        "headlines": _headlines(run),
        "made": made_with(run),
        "steps": steps,
        "tokens": tokens if known else None,
        "scale": {"step": _scale(steps), "tokens": _scale([t for t in tokens if t is not None]) if known else None},
        "stages": [[stage.name, stage.begins or stage.first_step, stage.begins] for stage in history.stages],
        "parent": None if history.parent is None else f"{history.parent.parent} up to step {history.parent.step:,}",
        "failed": [[record.step, record.task, record.reason] for record in history.failures],
        "curves": _curves(history),
        "lanes": _lanes(run),
        "events": _columns(run, "events"),
        "lineage": _lineage(run),
        "formation": _columns(run, "formation"),
        "scores": _scores(history),
        "circuits": _circuits(history),
        "patterns": _patterns(history),
    }


def _headlines(run: RunTimeline) -> dict[str, Any]:
    found = headlines(run)
    return {
        "faults": list(found.faults),
        "story": found.story,
        "roles": [[line.role, line.when, line.who] for line in found.roles],
        "events": list(found.events),
        "misses": [{name: _plain(value) for name, value in asdict(miss).items()} for miss in found.misses],
        "more": [*found.moved, *(f"To try: {advice}" for advice in found.advice)],
    }


def _scale(times: list) -> dict[str, Any]:
    """The layout to start with, and the logarithmic one to switch to."""
    automatic, log = scale_of(times), scale_of(times, "log")
    return {"automatic": automatic.kind, "log": log.kind, "constant": _rounded(log.constant)}


def _curves(history: History) -> list[dict[str, Any]]:
    place = {step: index for index, step in enumerate(history.steps)}
    return [
        {
            "name": curve.name,
            "label": curve.label,
            "family": curve.family,
            "unit": unit_of(curve.family),
            "minor": curve.minor,
            "own": curve.own,
            "places": [place[step] for step in curve.steps],
            "values": _numbers(curve.values),
            "errors": _numbers(curve.errors),
        }
        for curve in curves(history)
    ]


def _lanes(run: RunTimeline) -> list[dict[str, Any]]:
    found = []
    for lane in lanes(run):
        task, measure = measured_as(run, lane) or (None, None)
        tracks = [
            {
                "component": track.component,
                "places": list(track.places),
                "strength": _numbers(track.strength),
                "confidence": _numbers(track.confidence),
            }
            for track in lane.tracks
        ]
        firsts = [_row(row) for row in first_formations(run, lane).to_dict("records")]
        about = {"lifeline": lane.lifeline, "role": lane.role, "task": task, "measure": measure}
        found.append({**about, "tracks": tracks, "formation": firsts})
    return found


def _lineage(run: RunTimeline) -> dict[str, list[list[Any]]]:
    """Components over time (component, first, last, role), and the events that lead from one to another by number."""
    graph = lineage_of_tables(run.table("events"), run.table("lifelines"), run.history.steps)
    linked = [key for key in graph if graph.degree(key)]
    number = {key: place for place, key in enumerate(linked)}
    about = ("component", "first", "last", "role")
    return {
        "nodes": [[graph.nodes[key][name] for name in about] for key in linked],
        "edges": [
            [number[one], number[other], edge["event"], edge["step_before"], edge["step_after"],
             _rounded(edge["confidence"])]
            for one, other, edge in graph.edges(data=True)
        ],
    }  # fmt: skip


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in row.items() if key != "run"}


def _columns(run: RunTimeline, table: str) -> dict[str, list[Any]]:
    frame = run.table(table).drop(columns="run")
    return {str(name): [_plain(value) for value in frame[name].tolist()] for name in frame.columns}


def _scores(history: History) -> list[dict[str, Any]]:
    """One row of values a component for every measure and task; no row of errors where there are none."""
    found = []
    for task, measure in history.measures:
        data = history.score(measure, task=task)
        places = {step: index for index, step in enumerate(history.steps)}
        value = np.full((data.sizes["component"], len(places)), np.nan)
        error = value.copy()
        at = [places[step] for step in data.step.values.tolist()]
        value[:, at], error[:, at] = data.value.values.T, data.std_error.values.T
        having = [r for (_, at_task), r in history.records.items() if at_task == task and measure in r.scores]
        prompts = max((record.scores[measure].estimate.n_prompts for record in having), default=0)
        found.append(
            {
                "task": task,
                "measure": measure,
                "prompts": prompts,
                "components": data.component.values.tolist(),
                "values": [_numbers(row) for row in value],
                "errors": [_numbers(row) for row in error] if np.isfinite(error).any() else None,
            }
        )
    return found


SHARES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
"""A share of attention in 63rds, as one letter."""


def _patterns(history: History) -> dict[str, Any] | None:
    """The words of a few prompts and, at each step, the lower triangle of every head's attention as letters."""
    if not history.patterns:
        return None
    letters = np.frombuffer(SHARES.encode(), dtype=np.uint8)
    at: list[list[list[str]] | None] = []
    words: tuple[tuple[str, ...], ...] = ()
    for step in history.steps:
        try:
            found = history.patterns[step]
        except (KeyError, ValueError):  # none, or damaged: the page does without
            at.append(None)
            continue
        words = words or found.words
        rows, columns = np.tril_indices(found.shares.shape[-1])
        told = letters[np.rint(found.shares[..., rows, columns] / 255 * 63).astype(np.uint8)]
        heads = np.moveaxis(told, 0, 2).reshape(-1, *told.shape[:1], told.shape[-1])
        at.append([[prompt.tobytes().decode() for prompt in head] for head in heads])
    return {"words": [list(row) for row in words], "heads": history.graph.n_heads, "at": at}


def _circuits(history: History) -> dict[str, Any]:
    """For each task that has circuits: names of edges, and at each step which are kept, their score and its error."""
    found: dict[str, Any] = {}
    named = [task for task in history.settings.get("tasks", []) if task in history.tasks]
    for task in dict.fromkeys((*named, *history.tasks)):
        circuits = [history.records[s, task].circuit if (s, task) in history.records else None for s in history.steps]
        if any(circuit is not None for circuit in circuits):
            found[task] = _circuits_of_task(circuits)
    return found


def _circuits_of_task(circuits: "list[Circuit | None]") -> dict[str, Any]:
    number: dict[tuple[int, int], int] = {}
    at: list[dict[str, Any] | None] = []
    for circuit in circuits:
        if circuit is None:
            at.append(None)
            continue
        rows = np.argwhere(circuit.kept)
        arrays = (circuit.scores.values, circuit.scores.std_error, inclusion_of(circuit))
        values, errors, sure = (array[circuit.kept] for array in arrays)
        order = np.argsort(-np.abs(values), kind="stable")[:MAX_EDGES]
        places = [(int(writer), int(reader)) for writer, reader in rows[order].tolist()]
        faithful, floor = circuit.faithfulness, circuit_likeness(circuit, circuit).floor
        at.append(
            {
                "status": circuit.status,
                "caveat": circuit.caveat,
                "size": circuit.n_edges,
                "faithfulness": _numbers([float(faithful.value), float(faithful.std_error)]) if faithful else None,
                "edges": [number.setdefault(place, len(number)) for place in places],
                "scores": _numbers(values[order]),
                "errors": _numbers(errors[order]),
                "inclusion": _numbers(sure[order]) if np.isfinite(sure).any() else None,
                "floor": _rounded(floor.edge_jaccard) if floor is not None else None,
            }
        )
    first = next(circuit for circuit in circuits if circuit is not None)
    return {
        "measure": first.scores.measure,
        "target": first.target,
        "prompts": first.scores.estimate.n_prompts,
        "names": [first.graph.edge(*place).name for place in number],
        "at": at,
    }


def _numbers(values: "Iterable[float | None] | np.ndarray") -> list[float | int | None]:
    """Four significant digits; whole numbers without a point; null where there is none."""
    given = np.array(values if isinstance(values, (np.ndarray, list, tuple)) else list(values), dtype=float)
    there = np.isfinite(given)
    exact = np.where(there, given, 0.0)
    with np.errstate(divide="ignore"):
        place = np.where(exact == 0, 0, 3 - np.floor(np.log10(np.abs(exact))))
    up, down = 10.0 ** np.clip(place, 0, 300), 10.0 ** np.clip(-place, 0, 300)
    short = np.rint(exact * up / down) / up * down
    return [
        (int(value) if value.is_integer() and abs(value) < 1e15 else value) if known else None
        for value, known in zip(short.tolist(), there.tolist(), strict=True)
    ]


def _rounded(value: float) -> float | int | None:
    return _numbers([value])[0]


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return None if not math.isfinite(number) else int(number) if number.is_integer() else float(f"{number:.6g}")
    return str(value)
