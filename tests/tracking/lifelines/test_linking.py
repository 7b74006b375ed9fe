"""Simulated series are linked as they happened, and chance makes no events."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from circuits.graph import Node
from tracking.datasets.simulated import LEVELS, SimulatedRun, count_events, found_events, simulate
from tracking.lifelines.linking import Linked, link_series
from tracking.lifelines.series import Series


@cache
def linked(level: str, seed: int) -> tuple[SimulatedRun, Linked]:
    run = simulate(level, seed)
    return run, link_series(run.series)


def f1(level: str, seeds: range) -> float:
    counts = [
        count for seed in seeds for run, found in [linked(level, seed)]
        for count in count_events(found_events(found), run.events).values()
    ]  # fmt: skip
    hits, false, missed = np.sum(counts, axis=0)
    return float(2 * hits / (2 * hits + false + missed))


@pytest.mark.parametrize(
    ("level", "least"), [("easy", 0.95), ("default", 0.93), ("ambiguous", 0.8), ("noisy", 0.9), ("hard", 0.85)]
)
def test_events_are_found_on_every_level(level: str, least: float) -> None:
    """The benchmark holds more seeds, and an independent simulator, to more."""
    assert f1(level, range(3)) >= least


@pytest.mark.parametrize("flickering", [0, 8, 40])
def test_flicker_makes_next_to_no_events(flickering: int) -> None:
    level = replace(LEVELS["default"], freedom=4.0, flickering=flickering)
    run = simulate(level, 0, n_layers=8, n_heads=12)
    counts = np.sum(list(count_events(found_events(link_series(run.series)), run.events).values()), axis=0)
    assert 2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]) >= 0.85


def test_the_order_of_heads_does_not_matter() -> None:
    """Renaming heads within their layers renames them in the events."""
    run, found = linked("default", 0)
    rng = np.random.default_rng(0)
    order = np.concatenate([8 * layer + rng.permutation(8) for layer in range(6)])
    renamed = link_series(_renamed(run.series, order))
    first = {(e.kind, e.frame, tuple(sorted(e.after))) for e in found_events(found)}
    again = {(e.kind, e.frame, tuple(sorted(order[list(e.after)].tolist()))) for e in found_events(renamed)}
    assert len(first ^ again) <= 0.1 * len(first)


def _renamed(series: Series, order: np.ndarray) -> Series:
    """Component k is the one that was `order[k]`."""
    n_steps, n_components = series.shape
    rows = (np.arange(n_steps)[:, None] * n_components + order).ravel()
    blocks = series.profile.shape[1] // n_components
    columns = np.concatenate([block * n_components + order for block in range(blocks)])
    profile = series.profile[rows].tocsc()[:, columns].tocsr()
    arrays = {name: getattr(series, name)[:, order] for name in ("effect", "features", "seen")}
    return replace(series, **arrays, profile=profile, movable=series.movable[order])


def test_linking_twice_gives_the_same() -> None:
    run, found = linked("default", 0)
    assert link_series(run.series).events == found.events


@pytest.mark.parametrize("level", LEVELS)
def test_time_shuffled_frames_give_next_to_no_lasting_function(level: str) -> None:
    """What comes and goes at random is no birth or death: shuffling destroys what lasts, and nothing is made of it."""
    series = simulate(level, 5).series
    order = np.random.default_rng(0).permutation(len(series.steps))
    n_components = len(series.nodes)
    rows = (order[:, None] * n_components + np.arange(n_components)).ravel()
    arrays = {name: getattr(series, name)[order] for name in ("effect", "features", "seen")}
    shuffled = link_series(replace(series, **arrays, profile=series.profile[rows]))
    assert len(shuffled.events) <= 0.5 * len(series.steps) * n_components / 100


def test_tracks_go_through_hand_offs() -> None:
    run, found = linked("easy", 0)
    for event in found.events:
        if event.kind == "hand-off":
            assert found.track[event.before[0]] == found.track[event.after[0]]
    assert isinstance(run.series.nodes[found.component(0)], Node)


def test_a_series_of_nothing_has_no_events() -> None:
    series = simulate("default", 0).series
    nothing = replace(series, seen=np.zeros_like(series.seen), effect=np.zeros_like(series.effect))
    assert link_series(nothing).events == ()
