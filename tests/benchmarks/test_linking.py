"""How well are simulated series linked and dated, how sure may one be of it, and how long does it take?

Levels and seeds are fixed, the settings are the defaults, and no seed here was looked at when those were chosen.  The
first part needs an independent simulator that is not part of the project (`reference/simulator`), and skips without it;
its numbers flatter a method whose picture of a run is much like the simulator's.

    pytest -o addopts= -s tests/benchmarks/test_linking.py

Times are of the processor, so that whatever else runs does not count.
"""

import dataclasses
import importlib
import sys
import time
from functools import cache
from typing import Any

import numpy as np
import pytest

from circuits.graph import ModelGraph
from tests.conftest import shared_path
from tests.tracking.formation.test_formation import coverage
from tests.tracking.matching.test_matching import random_snapshot, shuffled
from tracking.cli.demo import run_demo
from tracking.datasets.simulated import LEVELS, count_events, simulate
from tracking.formation.formation import formation_table
from tracking.history.history import History
from tracking.lifelines.lifelines import link_lifelines
from tracking.lifelines.linking import Links, link_detections
from tracking.lifelines.windows import Detections
from tracking.matching.matching import match

SEEDS = range(3000, 3012)
LEAST = {"easy": 0.95, "default": 0.91, "ambiguous": 0.89, "noisy": 0.86, "hard": 0.87}


@cache
def simulator() -> Any:
    folder = str(shared_path("reference/simulator"))
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("circuit_sim"), importlib.import_module("scoring")
    finally:
        sys.path.remove(folder)


def detections_of(run: Any) -> Detections:
    frames = [(frame.units, frame.X, frame.E) for frame in run.frames]
    return Detections.from_frames(frames, run.units.kind, run.units.layer, movable=run.units.kind == 1)


@cache
def linked(level: str, seed: int) -> tuple[Any, Detections, Links]:
    sim, _ = simulator()
    run = sim.simulate_run(sim.PRESETS[level], seed)
    seen = detections_of(run)
    return run, seen, link_detections(seen)


def events_of(links: Links) -> list[tuple[str, int, tuple[int, ...]]]:
    found = []
    for change in links.changes:
        death = change.kind == "death"
        units = change.before if death else tuple(sorted(change.after))
        found.append((change.kind.replace("-", ""), change.frame_before if death else change.frame, units))
    return found


def links_of(seen: Detections, links: Links) -> list[tuple[tuple[tuple[int, int], tuple[int, int]], float]]:
    def end(place: int) -> tuple[int, int]:
        return int(seen.frame[place]), int(seen.unit[place])

    return [((end(link.before), end(link.after)), link.confidence) for link in links.links]


def f1(counts: np.ndarray) -> float:
    hits, false, missed = counts
    return float(2 * hits / (2 * hits + false + missed))


@pytest.mark.parametrize("level", LEAST)
def test_events_and_links(level: str) -> None:
    _, scoring = simulator()
    events, totals = {}, {"link": np.zeros(3), "move": np.zeros(3)}
    for seed in SEEDS:
        run, seen, links = linked(level, seed)
        for kind, count in scoring.score_events(events_of(links), scoring.truth_events(run)).items():
            events[kind] = events.get(kind, np.zeros(3)) + count
        for kind, count in scoring.score_links({link for link, _ in links_of(seen, links)}, run.links).items():
            totals[kind] = totals[kind] + count
    by_kind = " ".join(f"{kind} {f1(count):.2f}" for kind, count in events.items())
    score, all_links, moves = f1(np.sum(list(events.values()), axis=0)), f1(totals["link"]), f1(totals["move"])
    print(f"\n{level:10s} event F1 {score:.3f} ({by_kind}) links {all_links:.4f} moves {moves:.3f}")
    assert score >= LEAST[level]
    assert all_links >= 0.997
    if level == "default":
        assert moves >= 0.85


def test_confidence_means_what_it_says() -> None:
    rows = []
    for level in LEAST:
        for seed in SEEDS:
            run, seen, links = linked(level, seed)
            rows += [(sure, link in run.links, link[0][1] != link[1][1]) for link, sure in links_of(seen, links)]
    sure, right, moved = (np.array(column) for column in zip(*rows, strict=True))
    print("\nstated     links  mean stated  right")
    for low, high in ((0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 0.99), (0.99, 1.001)):
        some = (sure >= low) & (sure < high)
        if some.any():
            print(f"{low:.2f}-{min(high, 1):.2f} {some.sum():7d} {sure[some].mean():12.3f} {right[some].mean():6.3f}")
    brier = float(((sure - right) ** 2).mean())
    brier_moved = float(((sure[moved] - right[moved]) ** 2).mean())
    print(f"Brier {brier:.5f}, of links between components {brier_moved:.4f}")
    assert brier <= 0.005


def test_the_stated_share_of_false_hand_offs_holds() -> None:
    _, scoring = simulator()
    stated = false = found = 0.0
    for level in LEAST:
        for seed in SEEDS:
            run, _, links = linked(level, seed)
            handed = [change for change in links.changes if change.kind == "hand-off"]
            stated += sum(1 - change.confidence for change in handed)
            found += len(handed)
            false += scoring.score_events(events_of(links), scoring.truth_events(run))["handoff"][1]
    print(f"\nhand-offs {found:.0f}, stated false {stated / found:.3f}, false {false / found:.3f}")
    assert false <= stated


def test_a_large_series_is_linked_in_two_seconds() -> None:
    sim, _ = simulator()
    large = dataclasses.replace(sim.PRESETS["default"], L=12, H=12, T=200)
    run = sim.simulate_run(large, 0)
    start = time.process_time()
    link_detections(detections_of(run))
    taken = time.process_time() - start
    print(f"\n158 components x 200 steps: {taken:.2f} s")
    assert taken < 2


@pytest.mark.parametrize("level", LEVELS)
def test_our_own_simulated_series(level: str) -> None:
    total = np.zeros(3)
    for seed in SEEDS:
        run = simulate(level, seed)
        total += np.sum(list(count_events(link_detections(run.detections).changes, run.events).values()), axis=0)
    print(f"\n{level:10s} event F1 {f1(total):.3f} (own generator)")
    assert f1(total) >= 0.8


@pytest.mark.parametrize(("layers", "heads", "budget"), [(4, 4, 0.5), (12, 12, 0.5), (24, 16, 5.0), (36, 40, 5.0)])
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
    print("\n" + ", ".join(f"{name} {held:.3f} (width {width:.3f})" for name, (held, width) in found.items()))
    assert all(0.85 <= held <= 0.99 for held, _ in found.values())


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> list[History]:
    """Two seeds of the demo run; a minute or two."""
    folders = [tmp_path_factory.mktemp("demo") / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        run_demo(folder, seed=seed)
    return [History.open(folder / "history") for folder in folders]


def test_the_lead_among_redundant_induction_heads_passes_in_the_demo(demos: list[History]) -> None:
    """Seed 0: the model leans on a1.h1 most until step 450, and on a1.h0 from step 600 on."""
    linked = link_lifelines(demos[0])
    handed = [event for event in linked.events if event.event == "hand-off" and event.lifeline == "induction"]
    told = [(e.components_before[0].name, e.components_after[0].name, e.step_before, e.step_after) for e in handed]
    print("\n" + "\n".join(map(str, handed)))
    assert told == [("a1.h1", "a1.h0", 450, 600)]


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
