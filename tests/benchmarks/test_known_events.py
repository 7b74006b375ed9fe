"""Are known events told, in trained models and in tables, by the commands that a user types?

    pytest -o addopts= -s tests/benchmarks/test_known_events.py

With `FORMATION_BENCHMARKS` set to a folder, runs and histories stay there.  Constants of the linking were fixed on base
A; the others differ in depth, width, MLPs and data, and were looked at once.  Surgery and the first simulator are not
part of the project (`reference/`), and their tests skip without them.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.known_answers import LAST, NEXT, SEEDS, TAKEN, parent_of, taking_over
from tests.benchmarks.test_linking import FLICKER, LEAST, flickering_runs, simulator, tables_of, unit_names
from tests.benchmarks.tiny_neox import exchange_heads, train_neox
from tests.conftest import shared_path
from tests.known_events import events_by_command, f1, simulated_events
from tests.known_events import tables_of as tables_of_series
from tracking.cli.cli import run
from tracking.datasets.simulated import count_events
from tracking.history.history import History
from tracking.lifelines.lifelines import link_lifelines

PLANS = range(1, 7)
ATTENTION = {"steps": 1500, "checkpoints": "0,400..1500:20", "d_model": 96}
WITH_MLP = {"steps": 1500, "checkpoints": "0,640..1500:20", "attn_only": False, "shortest_period": 10}
BASES: dict[str, dict[str, Any]] = {
    "A": {**ATTENTION, "n_layers": 2, "n_heads": 12},
    "B": {**ATTENTION, "n_layers": 3, "n_heads": 6, "seed": 5, "data_seed": 6},
    "with MLPs": {**WITH_MLP, "n_layers": 2, "n_heads": 8, "d_model": 64, "seed": 51, "data_seed": 52},
}
SURGERY = {"A": 0.9, "B": 0.8, "with MLPs": 0.8}
SIMULATED_SEEDS = range(3000, 3012)


def formation(*words: object) -> None:
    with redirect_stdout(StringIO()):
        assert run(list(map(str, words))) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("FORMATION_BENCHMARKS") or tmp_path_factory.mktemp("events"))


@cache
def surgery() -> Any:
    folder = str(shared_path("reference/surgery"))
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("surgery")
    finally:
        sys.path.remove(folder)


def recorded(run_folder: Path, out: Path) -> Path:
    """The history of a run and its tables in `out`; events in `out/tables/events.csv`."""
    if not (out / "tables" / "events.csv").exists():
        formation("record", run_folder, "--task", "induction", "--n-prompts", 32, "--out", out / "history")
        formation("export", out / "history", "--format", "csv", "--out", out / "tables")
    return out


def operated(home: Path, base: str) -> Iterator[tuple[Path, Path]]:
    """(run with moved weights, its recording) of each plan, after (the base, its recording)."""
    place = home / base.replace(" ", "-")
    trained, config = place / "run", place / "base.toml"
    place.mkdir(parents=True, exist_ok=True)
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in BASES[base].items()))
    formation("train", config, "--out", trained)
    first = recorded(trained, place / "plain")
    yield trained, first
    for plan in PLANS:
        moved = place / f"plan-{plan}"
        if not (moved / "truth.json").exists():
            surgery().build(trained, moved, plan, first / "tables" / "scores.csv")
        yield moved, recorded(moved, place / f"recorded-{plan}")


@pytest.mark.parametrize("base", SURGERY)
def test_known_surgery(home: Path, base: str) -> None:
    (_, plain), *plans = operated(home, base)
    told = [(str(moved), str(out / "tables" / "events.csv")) for moved, out in plans]
    print(f"\nbase {base}: ", end="")
    score, right = surgery().score(told, str(plain / "tables" / "events.csv"))
    assert score >= SURGERY[base]
    assert right >= 0.9


def thinned(history: History, every: int) -> History:
    kept = set(history.steps[::every])
    return replace(history, records={key: record for key, record in history.records.items() if key[0] in kept})


def placed(history: History, truth: dict[str, Any], natural: set[str]) -> tuple[np.ndarray, int]:
    """(hits, false, missed), and how many hits of abrupt events have an interval that does not hold the step."""
    script, steps = surgery(), truth["steps"]
    found = [e for e in link_lifelines(history).events if e.event in script.KINDS and key_of(e) not in natural]
    slow = {f"a{one['layer']}.h{one['b']}" for one in truth["plan"] if one["kind"] == "overlap"}
    counts, apart = np.zeros(3), 0
    for kind, place, who in truth["events"]:
        at = next(index for index, step in enumerate(history.steps) if step >= steps[place])
        near = []
        for one in found:
            named = {n.name for n in (*one.components_after, *(one.components_before if kind != "hand-off" else ()))}
            index = history.steps.index(one.step_before if kind == "death" else one.step_after)
            if one.event == kind and named & set(who) and abs(index - at) <= script.TOL.get(kind, 2):
                near.append((abs(index - at), found.index(one)))
        counts += [bool(near), 0, not near]
        if near:
            one = found.pop(min(near)[1])
            apart += not (one.step_before < steps[place] <= one.step_after) and not slow & set(who)
    return counts + [0, len(found), 0], apart


def key_of(event: Any) -> str:
    return f"{event.event} {event.components_before} {event.components_after}"


@pytest.mark.parametrize("base", SURGERY)
def test_a_third_of_the_checkpoints_tells_nearly_as_much(home: Path, base: str) -> None:
    (_, plain), *plans = operated(home, base)
    scores = []
    for every in (1, 3):
        whole = thinned(History.open(plain / "history"), every)
        natural = {key_of(event) for event in link_lifelines(whole).events}
        found = [
            placed(
                thinned(History.open(out / "history"), every), json.loads((moved / "truth.json").read_text()), natural
            )
            for moved, out in plans
        ]
        total = np.sum([counts for counts, _ in found], axis=0)
        scores.append(f1(total))
        print(f"\nbase {base}, every {every}: F1 {scores[-1]:.2f} {total}, {sum(a for _, a in found)} intervals false")
    assert scores[1] >= scores[0] - 0.1


def false_events(history: History) -> float:
    """Events for every 100 steps of components, where nothing happens to any."""
    return 100 * len(link_lifelines(history).events) / (len(history.steps) * len(history.graph.components))


def in_other_order(history: History, seed: int) -> History:
    """The same snapshots at steps that say nothing of when they were taken."""
    order = dict(zip(history.steps, np.random.default_rng(seed).permutation(history.steps).tolist(), strict=True))
    records = {
        (order[step], task): replace(record, step=order[step]) for (step, task), record in history.records.items()
    }
    return replace(history, records=dict(sorted(records.items())))


@pytest.mark.parametrize("base", SURGERY)
def test_plateaus_are_quiet_in_any_order(home: Path, base: str) -> None:
    (_, plain), *_ = operated(home, base)
    history = History.open(plain / "history")
    late = replace(history, records={key: record for key, record in history.records.items() if key[0] >= 800})
    usual, mixed = false_events(late), false_events(in_other_order(late, 0))
    print(
        f"\nbase {base}: {usual:.2f} false events per 100 lifeline-steps on the plateau, {mixed:.2f} in another order"
    )
    assert usual < 0.5
    assert mixed < 0.5


def test_two_heads_of_a_trained_neox_that_change_places_are_two_hand_offs(home: Path) -> None:
    place = home / "neox"
    if not (place / "run").exists():
        train_neox(place / "run", steps=1100, every=25, first=600)
    for layer, heads in ((0, (0, 5)), (1, (1, 4)), (1, (2, 5))):
        moved = place / f"exchanged-{layer}-{heads[0]}-{heads[1]}"
        if not moved.exists():
            exchange_heads(place / "run", moved, layer=layer, heads=heads, step=850)
        events = pd.read_csv(recorded(moved, place / f"recorded-{moved.name}") / "tables" / "events.csv")
        print(
            "\n", events[["event", "step_before", "step_after", "components_before", "components_after", "confidence"]]
        )
        names = [f"a{layer}.h{head}" for head in heads]
        handed = events[events["event"] == "hand-off"]
        assert sorted(handed["components_after"]) == names
        assert set(zip(handed["step_before"], handed["step_after"], strict=True)) == {(825, 850)}
        assert not events["event"].isin(["birth", "death"]).any()


def test_the_last_induction_head_dies_and_another_rises_and_controls_are_quiet(home: Path) -> None:
    """Ablated from step 450 on: the death lies between the checkpoints around that, the rise where the score rises.

    In the controls the head that was drawn anew at step 450 may take up another role; nothing befalls induction.
    """
    quiet = 0
    for seed in SEEDS:
        asked = taking_over(parent_of(home, seed), home / f"seed{seed}")
        late = [e for e in link_lifelines(asked.branch).events if e.step_after > TAKEN - 20]
        gone = [e for e in late if LAST in {n.name for n in e.stopped}]
        come = [e for e in late if NEXT in {n.name for n in e.began}]
        score = asked.branch.score("induction").value.sel(component=NEXT)
        risen = int(score.step[(score > 0.3) & (score.step > TAKEN)][0])
        usual = [e for e in link_lifelines(asked.control).events if e.step_after > TAKEN]
        none = [e for e in usual if "induction" in (e.role_before, e.role_after)]
        print(f"\nseed {seed}: {'; '.join(map(str, late))}; score above .3 at {risen}; control: {len(none)}")
        assert any(e.step_before <= TAKEN + 10 and e.step_after >= TAKEN for e in gone)
        assert any(e.step_before - 30 <= risen <= e.step_after + 30 for e in come)
        quiet += not none
    assert quiet == len(SEEDS)


@pytest.mark.parametrize("level", LEAST)
def test_simulated_series_by_command(level: str, tmp_path: Path) -> None:
    """The reference simulator's tables are imported, and the events exported."""
    sim, scoring = simulator()
    total = np.zeros(3)
    for seed in SIMULATED_SEEDS:
        simulated = sim.simulate_run(sim.PRESETS[level], seed)
        unit = {name: place for place, name in enumerate(unit_names(simulated.units))}
        told = [
            (
                row.event.replace("-", ""),
                row.step_before if row.event == "death" else row.step_after,
                tuple(
                    sorted(
                        unit[n]
                        for n in (row.components_before if row.event == "death" else row.components_after).split(",")
                    )
                ),
            )
            for row in events_by_command(*tables_of(simulated), tmp_path / str(seed)).itertuples()
        ]
        total += np.sum(list(scoring.score_events(told, scoring.truth_events(simulated)).values()), axis=0)
    print(f"\n{level:10s} event F1 {f1(total):.3f} (imported and exported)")
    assert f1(total) >= LEAST[level]


@pytest.mark.parametrize("count", FLICKER)
def test_flicker_by_command(count: int, tmp_path: Path) -> None:
    total = np.zeros(3)
    for place, simulated in enumerate(flickering_runs(count)):
        found = events_by_command(*tables_of_series(simulated.series), tmp_path / str(place))
        counts = count_events(simulated_events(found, simulated.series), simulated.events)
        total += np.sum(list(counts.values()), axis=0)
    print(f"\n{count} flickering: event F1 {f1(total):.3f} (imported and exported)")
    assert f1(total) >= FLICKER[count]
