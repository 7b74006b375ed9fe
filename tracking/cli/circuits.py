"""Verb about one checkpoint: circuit finds what carries a task there, and says what that rests on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracking.cli.terminal import (
    Json,
    for_people,
    print_json,
    print_line,
    print_plain,
    print_table,
    print_wrapped,
    terminal_width,
)

if TYPE_CHECKING:
    import pandas as pd

    from circuits.circuit import Circuit
    from circuits.model import Model
    from circuits.stability import Alternative
    from circuits.tasks.task import Task
    from tracking.checkpoints.runs import Checkpoint, Run

__all__ = ["circuit"]

MOST_EDGES = 20


def circuit(
    source: Annotated[str, typer.Argument(help="A run's folder, a folder of checkpoints, or a hub id.")],
    task: Annotated[str, typer.Option(help="The task.")] = "induction",
    step: Annotated[int | None, typer.Option(help="The checkpoint's step; the last one if not given.")] = None,
    method: Annotated[str, typer.Option(help="How edges are scored; as in `record`.")] = "auto",
    n_prompts: Annotated[int, typer.Option("--n-prompts", min=2, help="Prompts.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    target: Annotated[float, typer.Option(help="Faithfulness that the circuit must reach.")] = 0.85,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    tests: Annotated[bool, typer.Option("--tests", help="Also test it, on as many fresh prompts.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the circuit, as `load_circuit` reads it.")] = None,
    as_json: Json = False,
) -> None:
    """Find the circuit of one checkpoint: its edges and how sure each is, how it was judged, and what does as well.

    Into a pipe or a file it writes the edges as one tab-separated table.

    Example: `formation circuit demo/run --step 400`
    """
    from circuits.circuit import save_circuit
    from circuits.discovery import find_circuit
    from circuits.loading import load_model
    from circuits.scoring import forward_seconds, scoring_cost
    from circuits.stability import alternative_circuit
    from tracking.checkpoints.runs import Run
    from tracking.interventions.applying import measured_under, standing_at
    from tracking.recording.measuring import Settings

    run = Run.open(source)
    at = run.checkpoints[-1] if step is None else run[step]
    model = load_model(at.source, revision=at.revision, device=device)
    with measured_under(model, standing_at(at)):
        prompts = _prompts(run, model, Settings((task,), n_prompts, seed, method, target))
        cost = scoring_cost(model.graph, method=method, forward=forward_seconds(model, prompts))
        print_line(f"{cost}; choosing, judging and looking for another circuit at most 27 more", err=True)
        found = find_circuit(model, prompts, method=method, target=target)
        other = alternative_circuit(model, prompts, found, target=target) if found.n_edges else None
        tables = {}
        if tests and found.n_edges:
            fresh = _prompts(run, model, Settings((task,), n_prompts, seed + 1, method, target))
            tables = _tests(model, fresh, found)
    if out is not None:
        save_circuit(found, out)
    if as_json:
        return print_json(_about(at, found, other, tables))
    if not for_people():
        return print_plain(_edges(found))
    _show(at, found, other, tables)


def _prompts(run: "Run", model: "Model", settings: Any) -> "Task":
    from dataclasses import replace

    from tracking.recording.measuring import make_tasks
    from tracking.training.source_tasks import data_options

    settings = replace(settings, data=data_options(settings.tasks, run.hyperparameters))
    return make_tasks(settings, model)[settings.tasks[0]]


def _tests(model: "Model", fresh: "Task", circuit: "Circuit") -> "dict[str, pd.DataFrame]":
    """Whether what each head of the circuit writes matters, and the four claims about the circuit, each family of tests
    corrected for its number."""
    from circuits.hypotheses import circuit_tests
    from circuits.rotations import rotation_test

    heads = [node.name for node in circuit.nodes if node.kind == "head"]
    found = {"heads": rotation_test(model, fresh, heads=heads).to_frame()} if heads else {}
    if circuit.n_edges < model.graph.n_edges:
        found["claims"] = circuit_tests(model, fresh, circuit).to_frame()
    return found


def _edges(circuit: "Circuit") -> "pd.DataFrame":
    """The kept edges and how sure they are, the largest first."""
    from circuits.circuit import inclusion_of

    frame = circuit.to_frame().drop(columns=["task", "measure"])
    places = [circuit.graph.index(edge) for edge in circuit.edges]
    frame = frame.assign(inclusion=[float(inclusion_of(circuit)[place]) for place in places])
    return frame.sort_values("score", key=abs, ascending=False, kind="stable", ignore_index=True)


def _said_of(other: "Alternative", circuit: "Circuit") -> str:
    if other.shared == circuit.n_edges:
        return "no other circuit was found: what reaches the target has all of its edges"
    faithful = other.faithfulness
    return (
        f"another circuit does as well: {other.n_edges:,} edges, of which it shares {other.shared:,}, faithfulness "
        f"{float(faithful.value):.2f} ± {float(faithful.std_error):.2f} on prompts that did not choose it"
    )


def _about(
    at: "Checkpoint", circuit: "Circuit", other: "Alternative | None", tables: "dict[str, pd.DataFrame]"
) -> dict[str, Any]:
    from tracking.matching.similarity import circuit_likeness

    floor = circuit_likeness(circuit, circuit).floor
    judged = {"faithfulness": circuit.faithfulness, "in_sample": circuit.in_sample}
    found: dict[str, Any] = {"step": at.step, "task": circuit.task, "status": circuit.status}
    found |= {"n_edges": circuit.n_edges, "of": circuit.graph.n_edges, "target": circuit.target}
    for name, estimate in judged.items():
        found[name] = None if estimate is None else [float(estimate.value), float(estimate.std_error)]
    found |= {"interval": circuit.interval, "prompts_needed": circuit.prompts_needed, "caveat": circuit.caveat}
    found |= {"noise_floor": None if floor is None else floor.edge_jaccard, "method": circuit.scores.measure}
    if other is not None:
        names = [circuit.graph.edge(int(w), int(r)).name for w, r in zip(*other.kept.nonzero(), strict=True)]
        judged_there = [float(other.faithfulness.value), float(other.faithfulness.std_error)]
        found["alternative"] = {"edges": names, "shared": other.shared, "faithfulness": judged_there}
    rows = {"edges": _edges(circuit), **tables}
    return {**found, **{name: json.loads(frame.to_json(orient="records")) for name, frame in rows.items()}}


def _show(at: "Checkpoint", circuit: "Circuit", other: "Alternative | None", tables: "dict[str, pd.DataFrame]") -> None:
    from tracking.results.circuit_lines import circuit_line

    print_wrapped(circuit_line(at.step, circuit), terminal_width(), "", "  ")
    if other is not None:
        print_wrapped(_said_of(other, circuit), terminal_width(), "", "  ")
        edges = _edges(circuit)
        shown = f", the largest {MOST_EDGES}" if len(edges) > MOST_EDGES else ""
        print_table(f"edges{shown}", edges.head(MOST_EDGES))
    titles = {"heads": "what a head writes against the same turned at random", "claims": "the circuit's claims"}
    for name, frame in tables.items():
        print_table(f"{titles[name]}, on fresh prompts", frame)
