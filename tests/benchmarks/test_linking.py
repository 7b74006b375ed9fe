"""How well are simulated series linked and dated, how sure may one be of it, and how long does it take?

Levels and seeds are fixed, the settings are the defaults, and no seed here was looked at when those were chosen.  The
first part needs an independent simulator that is not part of the project (`reference/simulator`), and skips without it;
its numbers flatter a method whose picture of a run is much like the simulator's.

    pytest -o addopts= -s tests/benchmarks/test_linking.py

Times are of the processor, so that whatever else runs does not count.
"""

import dataclasses
import importlib
import subprocess
import sys
import time
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from circuits.graph import ModelGraph
from tests.conftest import shared_path
from tests.tracking.formation.test_formation import coverage
from tests.tracking.matching.test_matching import random_snapshot, shuffled
from tracking.cli.demo import run_demo
from tracking.datasets.simulated import LEVELS, SimulatedRun, count_events, found_events, simulate
from tracking.formation.formation import formation_table
from tracking.history.history import History
from tracking.lifelines.confidence import confidence_of, fit_weights, terms_of
from tracking.lifelines.lifelines import link_lifelines
from tracking.lifelines.linking import Linked, link_series
from tracking.lifelines.series import series_of
from tracking.matching.matching import match

SEEDS = range(3000, 3012)
LEAST = {"easy": 0.95, "default": 0.95, "ambiguous": 0.92, "noisy": 0.92, "hard": 0.9}
FLICKER = {0: 0.85, 8: 0.85, 40: 0.8}
KINDS = {0: "input", 3: "logits"}
TIMED = """
import time
from tracking.datasets.simulated import simulate
from tracking.lifelines.linking import link_series
link_series(simulate("default", 0).series)
run = simulate("default", 0, n_layers=12, n_heads={heads}, n_steps=200)
start = time.process_time()
link_series(run.series)
print(time.process_time() - start)
"""
Told = tuple[str, int, tuple[int, ...]]  # kind, frame, units


@cache
def simulator() -> Any:
    folder = str(shared_path("reference/simulator"))
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("circuit_sim"), importlib.import_module("scoring")
    finally:
        sys.path.remove(folder)


def unit_names(units: Any) -> list[str]:
    """The component that each unit of the simulator is, in our words."""
    names = zip(units.kind.tolist(), units.layer.tolist(), units.head.tolist(), strict=True)
    return [KINDS.get(kind) or (f"a{layer}.h{head}" if kind == 1 else f"m{layer}") for kind, layer, head in names]


def tables_of(run: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables that somebody has who ran such a series: scores of what is active, and the edges among it."""
    scores, edges, names = [], [], unit_names(run.units)
    for frame in run.frames:
        here = [names[unit] for unit in frame.units]
        for name, values in zip(here, frame.X.tolist(), strict=True):
            if name not in KINDS.values():
                scores += [(frame.t, name, f"feature {place}", value) for place, value in enumerate(values)]
        for slot, source, target in np.argwhere(frame.E):
            port = "qkv"[slot] if here[target].startswith("a") else ""
            edges.append((frame.t, here[source], here[target], port, frame.E[slot, source, target]))
    columns = ["step", "component", "measure", "value"], ["step", "source", "target", "slot", "score"]
    return pd.DataFrame(scores, columns=columns[0]), pd.DataFrame(edges, columns=columns[1])


@cache
def linked(level: str, seed: int) -> tuple[Any, Linked]:
    sim, _ = simulator()
    run = sim.simulate_run(sim.PRESETS[level], seed)
    scores, edges = tables_of(run)
    return run, link_series(series_of(History.from_frame(scores, edges=edges), []))


def told(run: Any, found: Linked) -> list[Told]:
    unit = {name: place for place, name in enumerate(unit_names(run.units))}
    events = []
    for one in found.events:
        death = one.kind == "death"
        units = [
            unit[found.series.nodes[found.component(spell)].name] for spell in (one.before if death else one.after)
        ]
        events.append((one.kind.replace("-", ""), one.frame_before if death else one.frame, tuple(sorted(units))))
    return events


def f1(counts: np.ndarray) -> float:
    hits, false, missed = counts
    return float(2 * hits / (2 * hits + false + missed))


@pytest.mark.parametrize("level", LEAST)
def test_events_of_imported_tables(level: str) -> None:
    _, scoring = simulator()
    events: dict[str, np.ndarray] = {}
    for seed in SEEDS:
        run, found = linked(level, seed)
        for kind, count in scoring.score_events(told(run, found), scoring.truth_events(run)).items():
            events[kind] = events.get(kind, np.zeros(3)) + count
    by_kind = " ".join(f"{kind} {f1(count):.2f}" for kind, count in events.items())
    score = f1(np.sum(list(events.values()), axis=0))
    print(f"\n{level:10s} event F1 {score:.3f} ({by_kind})")
    assert score >= LEAST[level]


@cache
def judged() -> list[tuple[str, float, bool, np.ndarray]]:
    """(family, confidence, right, terms) of every event of the reference's and of our own series."""
    _, scoring = simulator()
    rows = []
    for level in LEAST:
        for seed in SEEDS:
            run, found = linked(level, seed)
            truth = scoring.truth_events(run)
            right = [sum(c[0] for c in scoring.score_events([one], truth).values()) > 0 for one in told(run, found)]
            rows += _rows("reference", found, right)
    for flickering in FLICKER:
        for run in flickering_runs(flickering):
            found = link_series(run.series)
            right = [sum(c[0] for c in count_events([one], run.events).values()) > 0 for one in found_events(found)]
            rows += _rows("flicker", found, right)
    return rows


def _rows(family: str, found: Linked, right: list[bool]) -> list[tuple[str, float, bool, np.ndarray]]:
    terms = terms_of(found, found.events)
    return list(zip([family] * len(right), confidence_of(found).tolist(), right, terms, strict=True))


def test_confidence_is_the_share_that_is_right() -> None:
    """On seeds that it was not fitted on; the table is the one in the documentation."""
    family, sure, right, _ = (np.array(column, dtype=object) for column in zip(*judged(), strict=True))
    print("\nfamily     stated     events  mean stated  right")
    for name in np.unique(family.astype(str)):
        for low, high in ((0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 0.95), (0.95, 1.001)):
            some = (family == name) & (sure >= low) & (sure < high)
            if some.any():
                stated, share = sure[some].astype(float).mean(), right[some].astype(float).mean()
                print(f"{name:10s} {low:.2f}-{min(high, 1):.2f} {some.sum():6d} {stated:12.3f} {share:6.3f}")
        high = (family == name) & (sure >= 0.9)
        assert right[high].astype(float).mean() >= 0.9


def test_confidence_fitted_on_one_family_holds_on_the_other() -> None:
    family, _, right, terms = zip(*judged(), strict=True)
    names, right, terms = np.array(family), np.array(right, dtype=bool), np.array(terms)
    for left_out in np.unique(names):
        inside = names != left_out
        weights = fit_weights(terms[inside], right[inside], names[inside].tolist())
        high = expit(terms[~inside] @ weights) >= 0.9
        print(f"\nfitted without {left_out}: {right[~inside][high].mean():.3f} of {high.sum()} told at .9 are right")
        assert right[~inside][high].mean() >= 0.9


def flickering_runs(count: int) -> list[SimulatedRun]:
    level = dataclasses.replace(LEVELS["default"], freedom=4.0, flickering=count)
    return [simulate(level, seed, n_layers=8, n_heads=12) for seed in SEEDS[:6]]


@pytest.mark.parametrize("count", FLICKER)
def test_flicker_and_heavy_tails(count: int) -> None:
    total = np.zeros(3)
    for run in flickering_runs(count):
        total += np.sum(list(count_events(found_events(link_series(run.series)), run.events).values()), axis=0)
    print(f"\n{count} flickering: event F1 {f1(total):.3f}")
    assert f1(total) >= FLICKER[count]


@pytest.mark.parametrize(("nodes", "budget"), [(158, 1.0), (590, 5.0)])
def test_a_large_series_is_linked_in_time(nodes: int, budget: float) -> None:
    """In a process of its own, as the tests check every shape."""
    heads = {158: 12, 590: 48}[nodes]
    found = subprocess.run(
        [sys.executable, "-c", TIMED.format(heads=heads)], capture_output=True, text=True, check=True
    )
    taken = float(found.stdout)
    print(f"\n{12 * heads} components x 200 steps: {taken:.2f} s")
    assert taken < budget


@pytest.mark.parametrize("level", LEVELS)
def test_our_own_simulated_series(level: str) -> None:
    total = np.zeros(3)
    for seed in SEEDS:
        run = simulate(level, seed)
        total += np.sum(list(count_events(found_events(link_series(run.series)), run.events).values()), axis=0)
    print(f"\n{level:10s} event F1 {f1(total):.3f} (own generator)")
    assert f1(total) >= 0.8


@pytest.mark.parametrize(("layers", "heads", "budget"), [(4, 4, 0.5), (12, 12, 0.5), (24, 16, 5.0), (36, 40, 2.0)])
def test_a_shuffled_model_is_put_back_in_time(layers: int, heads: int, budget: float) -> None:
    before = random_snapshot(ModelGraph(layers, heads), seed=0)
    after, truth = shuffled(before, seed=1)
    start = time.process_time()
    matching = match(before, after, same_run=False)
    taken = time.process_time() - start
    right = sum(truth[pair.before] == pair.after for pair in matching.pairs)
    print(f"\n{layers} x {heads}: {right} of {len(before.records['task'].scores['m0'].nodes)} right, {taken:.2f} s")
    assert right == layers * heads + layers
    assert taken < budget


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_intervals_hold_the_truth_as_often_as_they_say(share: float) -> None:
    """Aimed at .85 to .97.  At a twentieth of the run half-rise and change-point hold it .98 times on these seeds; over
    450 others .958, and over 200 that were read once, after that, .955 (logistic .958 and .935).  The excess over .90
    is with abrupt rises: what lies between two checkpoints may be abrupt or not, and the interval allows for both.
    """
    found = coverage(share, 200, family=11)
    print("\n" + ", ".join(f"{name} {held:.3f} (width {width:.3f})" for name, (held, width, _) in found.items()))
    assert all(0.85 <= held <= 0.99 for held, *_ in found.values())


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> list[History]:
    """Two seeds of the demo run; a minute or two."""
    folders = [tmp_path_factory.mktemp("demo") / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        run_demo(folder, seed=seed)
    return [History.open(folder / "history") for folder in folders]


def test_the_lead_among_redundant_induction_heads_passes_in_the_demo(demos: list[History]) -> None:
    """Seed 0: the model leans on a1.h1 most until about step 450, and on a1.h0 from step 600 on."""
    linked = link_lifelines(demos[0])
    handed = [event for event in linked.events if event.event == "lead change" and event.lifeline == "induction"]
    print("\n" + "\n".join(map(str, handed)))
    (event,) = handed
    assert (event.components_before[0].name, event.components_after[0].name) == ("a1.h1", "a1.h0")
    assert event.step_before <= 450 < event.step_after == 600


def test_three_clocks_of_every_induction_head_of_the_demo(demos: list[History]) -> None:
    linked = link_lifelines(demos[0])
    table = formation_table(demos[0], linked)
    for node in linked["induction"].components:
        rows = [row for row in table.formations if (row.component, row.role) == (node.name, "induction")]
        assert {row.clock for row in rows} == {"form", "function", "behaviour"}


def test_heads_of_two_seeds_of_the_demo(demos: list[History]) -> None:
    """Previous-token heads surely; induction heads, which are four copies, with each other; nothing else surely."""
    roles = [
        {node: line.lifeline for line in link_lifelines(demo).roles for node in line.components if line.role != "self"}
        for demo in demos
    ]
    pairs = match(*demos, same_run=False).pairs
    print("\n" + "\n".join(f"{p.before} {p.after} {p.similarity:.2f} {p.confidence:.2f}" for p in pairs))
    partners = {pair.before: pair.after for pair in pairs}
    for node, role in roles[0].items():
        if role == "induction" and node in partners:
            assert roles[1].get(partners[node]) == "induction"
    sure = [pair for pair in pairs if pair.confidence >= 0.9]
    assert sure
    assert all(roles[0].get(p.before) == roles[1].get(p.after) == "previous-token" for p in sure)
