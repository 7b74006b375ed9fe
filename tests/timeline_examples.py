"""Timelines to look at: a run shaped like the demo, and published head scores of two language models.

The demo-shaped run, drawn (`.` nothing, `-` weak, `#` strong; 45 steps from 0 to 1000):

    previous-token   a0.h1   .......----#################################
    duplicate-token  a0.h2   ....----####------..........................
    induction        a1.h0   ...........---#########-----................
    induction        a1.h2   ....................----####################   hand-off from a1.h0
    first-token      a1.h3   .............-----##########################   still there at the end
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from circuits.circuit import Circuit, select_top
from circuits.graph import Edge, EdgeScores, Estimate, ModelGraph, NodeScores
from tests.conftest import shared_path
from tracking.formation.table import Formation
from tracking.history.columns import COLUMNS, frame_of
from tracking.history.history import History
from tracking.history.records import Record
from tracking.lifelines.events import Event
from tracking.results.results import RunTimeline, Timeline
from tracking.results.timeline import build_timeline

MEASURES = ("previous-token", "induction", "duplicate-token", "first-token", "self")
STEPS = (0, 1, 2, 4, 8, 16, 25, 40, 55, 70, 85, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200, 210, 220, 230)
STEPS += (240, 250, 265, 280, 300, 320, 345, 375, 400, 440, 480, 520, 560, 600, 660, 720, 800, 860, 930, 1000)


def rise(step: float, midpoint: float, width: float = 0.12) -> float:
    return float(1 / (1 + np.exp(-(np.log1p(step) - np.log1p(midpoint)) / width)))


def strength(measure: str, component: str, step: int, late: float = 1.0) -> float:
    """The noiseless score of a head; `late` multiplies every midpoint."""
    at = {
        ("previous-token", "a0.h1"): 0.82 * rise(step, 150 * late),
        ("previous-token", "a0.h3"): 0.31 * rise(step, 260 * late),
        ("duplicate-token", "a0.h2"): 0.44 * rise(step, 60 * late) * (1 - 0.8 * rise(step, 190 * late)),
        ("induction", "a1.h0"): 0.86 * rise(step, 185 * late, 0.08) * (1 - 0.85 * rise(step, 420 * late)),
        ("induction", "a1.h2"): 0.9 * rise(step, 390 * late),
        ("first-token", "a1.h3"): 0.7 * rise(step, 210 * late, 0.3),
        ("self", "a0.h0"): 0.25 * rise(step, 30 * late) * (1 - 0.7 * rise(step, 120 * late)),
    }
    return at.get((measure, component), 0.0) + 0.03


@cache
def demo_history(name: str = "demo", late: float = 1.0, learning_rate: float = 3e-3) -> History:
    graph = ModelGraph(n_layers=2, n_heads=4, mlp=False)
    rng = np.random.default_rng(7)
    records: dict[tuple[int, str], Record] = {}
    for step in STEPS:
        tokens = 64.0 * 32 * step
        found = {}
        for measure in MEASURES:
            mean = np.array([strength(measure, head.name, step, late) for head in graph.heads])
            prompts = np.clip(rng.normal(mean, 0.12, (64, len(mean))), 0, 1)
            found[measure] = NodeScores(graph.heads, Estimate.from_prompts(prompts), measure, "repeated-tokens")
        learned = rise(step, 200 * late, 0.1)

        def number(mean: float, spread: float = 0.1) -> Estimate:
            return Estimate.from_prompts(rng.normal(mean, spread, 64))

        first, second = 4.16 - 0.12 * rise(step, 40), 4.16 - 0.12 * rise(step, 40) - 3.3 * learned
        metrics = {
            "loss_first_half": number(first),
            "loss_second_half": number(second, 0.3),
            "in_context_learning_score": number(second - first, 0.3),
        }
        records[step, "repeated-tokens"] = Record(step, "repeated-tokens", tokens, found, metrics=metrics)
        log = {
            "loss": number((first + second) / 2),
            "learning_rate": Estimate.exact(learning_rate * min(1.0, step / 100)),
        }
        records[step, "training"] = Record(step, "training", tokens, metrics=log)
        records[step, "induction"] = induction_record(graph, step, tokens, learned, late)
    parameters = {"learning_rate": learning_rate, "batch_size": 64, "d_model": 64, "seed": 0}
    settings = {"n_prompts": 64, "seed": 0, "method": "eap"}
    return History(name, graph, records, parameters, settings)


def induction_record(graph: ModelGraph, step: int, tokens: float, learned: float, late: float) -> Record:
    rng = np.random.default_rng([step, 3])
    mean = np.zeros(graph.edge_mask.shape)
    previous, other = strength("previous-token", "a0.h1", step, late), strength("previous-token", "a0.h3", step, late)
    for head in ("a1.h0", "a1.h2"):
        does = strength("induction", head, step, late)
        edges = {f"a0.h1->{head}<k>": previous * does, f"a0.h3->{head}<k>": other * does, f"{head}->logits": does}
        edges |= {f"input->{head}<q>": 0.4 * does, f"input->{head}<v>": 0.7 * does}
        for edge, value in edges.items():
            mean[graph.index(Edge.parse(edge))] = 3 * value * learned
    for edge, value in {"input->a0.h1<k>": previous, "input->a0.h1<v>": 0.8 * previous, "input->logits": 0.1}.items():
        mean[graph.index(Edge.parse(edge))] = 2 * value * learned
    prompts = rng.normal(mean, 0.15 + 0.4 * np.abs(mean), (64, *mean.shape)) * graph.edge_mask
    scores = EdgeScores(graph, Estimate.from_prompts(prompts), "eap", "induction")
    performed = learned > 0.1
    chosen = select_top(scores, round(6 + 8 * learned)) if performed else None
    kept = chosen.kept if chosen else np.zeros_like(graph.edge_mask)
    faithful = Estimate.from_prompts(rng.normal(0.87, 0.2, 64)) if performed else None
    status = "performed" if performed else "not_performed"
    circuit = Circuit(scores, kept, faithful, status, 0.85)
    metrics = {"metric_clean": Estimate.from_prompts(rng.normal(4 * learned, 0.5, 64))}
    metrics |= {"faithfulness": faithful} if faithful else {}
    return Record(step, "induction", tokens, circuit=circuit, metrics=metrics, status=status)


def published_history(model: str) -> History:
    """Head-role selectivities of one public model; a role is a measure, the probe text a task."""
    frame = pd.read_csv(shared_path(f"data/head_roles/{model}.csv.gz"))
    scores = pd.DataFrame(
        {
            "run": frame["model"].str.replace("_", "-"),
            "step": frame["step"],
            "tokens": frame["tokens_B"] * 1e9,
            "component": "a" + frame["layer"].astype(str) + ".h" + frame["head"].astype(str),
            "task": frame["batch"],
            "measure": frame["role"],
            "value": frame["selectivity"],
        }
    )
    graph = ModelGraph(16, int(frame["head"].max()) + 1)
    return History.from_frame(scores, graph=graph)


@cache
def demo_timeline() -> Timeline:
    return build_timeline(demo_history())


@cache
def two_runs() -> Timeline:
    return build_timeline([demo_history(), demo_history("demo-slow", 1.7, 1e-3)])


@cache
def published_timeline(model: str) -> Timeline:
    thresholds: dict[str, float] = dict.fromkeys(
        ("induction", "previous-token", "duplicate-token", "first-token"), 30.0
    )
    return build_timeline(published_history(model), task="synthetic", thresholds=thresholds)


LARGE_TASKS = ("induction", "ioi", "greater_than", "gender_pronoun", "ngram_2")


@cache
def large_timeline() -> Timeline:
    """150 checkpoints of 12 layers of 12 heads with five tasks, each circuit of 1,204 edges; lifelines of a third."""
    graph = ModelGraph(12, 12)
    rng = np.random.default_rng(0)
    steps = tuple(range(0, 150_000, 1000))
    records: dict[tuple[int, str], Record] = {}
    edges = np.argwhere(graph.edge_mask)

    def heads(measure: str, task: str) -> NodeScores:
        return NodeScores(graph.heads, Estimate.exact(rng.random(144), 0.05 * rng.random(144)), measure, task)

    for task in LARGE_TASKS:
        for place, step in enumerate(steps):
            if place % 15 == 0:
                values = rng.normal(size=graph.edge_mask.shape) * graph.edge_mask
                scores = EdgeScores(graph, Estimate.exact(values, np.abs(rng.normal(size=values.shape))), "eap", task)
            kept = np.zeros_like(graph.edge_mask)
            kept[tuple(edges[rng.choice(len(edges), 1204, replace=False)].T)] = True
            faithful = Estimate.exact(np.array(0.9 + 0.02 * rng.normal()), 0.01)
            metrics = {
                "metric_clean": Estimate.exact(np.array(step / 5e4 + rng.normal()), 0.1),
                "faithfulness": faithful,
            }
            metrics["metric_corrupted"] = Estimate.exact(np.array(-rng.random()), 0.1)
            measures = {"attribution": heads("attribution", task)}
            if task == "induction":
                measures |= {name: heads(name, "repeated-tokens") for name in MEASURES}
            circuit = Circuit(scores, kept, faithful, "performed", 0.85)
            records[step, task] = Record(step, task, 1e6 * step, measures, circuit, metrics, status="performed")
    carried = [(place, role, head) for place, role in enumerate(MEASURES) for head in graph.heads[place::15]]
    lives = [
        ("large", role, role, step, head.name, 0.5 + 0.3 * rng.random(), 1.0)
        for place, role, head in carried
        for step in steps[50 + place :]
    ]
    births = [
        Event("large", role, "birth", steps[49 + place], steps[50 + place], "", role, (), (head,), 0.9)
        for place, role, head in carried
    ]
    between = {"interval_before": 50e3, "interval_after": 51e3, "n_rises": 1, "status": "formed"}
    between |= dict(zip(("onset", "midpoint", "plateau", "low", "high"), 50e3 + 300 * np.arange(5), strict=True))
    dates = [
        Formation(run="large", lifeline=role, role=role, component="", clock=clock, definition=definition, **between)
        for role in MEASURES
        for clock in ("form", "function", "behaviour")
        for definition in ("half-rise", "logistic", "change-point")
    ]
    dates += [
        replace(row, lifeline=head.name, component=head.name)
        for row in dates
        for _, role, head in carried
        if role == row.role
    ]
    tables = {"events": frame_of(births, "events"), "formation": frame_of(dates, "formation")}
    tables["lifelines"] = pd.DataFrame(lives, columns=list(COLUMNS["lifelines"]))
    sentences = tuple(f"{role} formed between the checkpoints at 50000 and 51000." for role in MEASURES)
    return Timeline((RunTimeline(History("large", graph, records), **tables, sentences=sentences),))
