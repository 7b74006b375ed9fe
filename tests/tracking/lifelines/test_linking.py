"""Simulated series are linked as they happened, the probabilities mean what they say, and chance makes no events."""

from functools import cache

import numpy as np
import pytest

from tracking.datasets.simulated import LEVELS, SimulatedRun, count_events, simulate
from tracking.lifelines.linking import Links, link_detections
from tracking.lifelines.windows import Detections


@cache
def linked(level: str, seed: int) -> tuple[SimulatedRun, Links]:
    run = simulate(level, seed)
    return run, link_detections(run.detections)


def f1(level: str, seeds: range) -> float:
    counts = [
        count for seed in seeds for run, links in [linked(level, seed)]
        for count in count_events(links.changes, run.events).values()
    ]  # fmt: skip
    hits, false, missed = np.sum(counts, axis=0)
    return float(2 * hits / (2 * hits + false + missed))


@pytest.mark.parametrize(
    ("level", "least"), [("easy", 0.95), ("default", 0.91), ("ambiguous", 0.75), ("noisy", 0.86), ("hard", 0.8)]
)
def test_events_are_found_on_every_level(level: str, least: float) -> None:
    """The benchmark holds more seeds, and an independent simulator, to more."""
    assert f1(level, range(4)) >= least


def test_the_order_of_units_does_not_matter() -> None:
    """Renaming heads within their layers renames them in the events."""
    run = simulate("default", 0)
    seen, rng = run.detections, np.random.default_rng(0)
    new = np.concatenate([8 * layer + rng.permutation(8) for layer in range(6)])
    old = np.argsort(new)
    profile = seen.profile.tocsc()
    blocks = profile.shape[1] // len(new)
    profile = profile[:, np.concatenate([block * len(new) + old for block in range(blocks)])].tocsr()
    renamed = Detections(
        seen.frame, new[seen.unit], seen.features, profile, seen.kind, seen.layer, seen.movable, seen.n_frames
    )
    first = {(c.kind, c.frame, tuple(sorted(new[list(c.after)]))) for c in linked("default", 0)[1].changes}
    again = {(c.kind, c.frame, tuple(sorted(c.after))) for c in link_detections(renamed).changes}
    assert len(first ^ again) <= 0.05 * len(first)


def test_linking_twice_gives_the_same() -> None:
    run, links = linked("default", 0)
    again = link_detections(run.detections)
    assert again.links == links.links
    assert again.changes == links.changes


@pytest.mark.parametrize("level", LEVELS)
def test_every_detection_has_a_chain_and_links_go_forward(level: str) -> None:
    run, links = linked(level, 0)
    seen = run.detections
    assert len(links.chain) == len(seen.unit)
    assert all(seen.frame[link.before] < seen.frame[link.after] for link in links.links)
    assert all(0 <= link.confidence <= 1 for link in links.links)
    assert len({(link.before, link.after) for link in links.links}) == len(links.links)


def test_a_stated_share_of_false_hand_offs_holds() -> None:
    stated, false, found = 0.0, 0, 0
    for level in ("default", "noisy"):
        for seed in range(4):
            run, links = linked(level, seed)
            handed = [change for change in links.changes if change.kind == "hand-off"]
            found += len(handed)
            stated += sum(1 - change.confidence for change in handed)
            false += count_events(handed, run.events)["hand-off"][1]
    assert false / found <= stated / found + 0.02


def test_what_lasts_unchanged_has_no_events() -> None:
    """Ten seeds of 200 frames of functions that only fluctuate, now and then missed."""
    events = frames = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(12, 6))
        weights = np.triu(rng.random((12, 12)) < 0.3, 1) * rng.gamma(1.0, size=(12, 12))
        series = []
        for _ in range(200):
            units = np.flatnonzero(rng.random(12) > 0.03)
            features = vectors[units] + 0.3 * rng.normal(size=(len(units), 6))
            edges = weights[np.ix_(units, units)] * np.exp(0.3 * rng.normal(size=(len(units),) * 2))
            series.append((units, features, edges[None]))
        seen = Detections.from_frames(series, np.ones(12, dtype=np.int64), np.arange(12) // 4)
        events += len(link_detections(seen).changes)
        frames += 12 * 200
    assert events <= frames / 100


def test_shuffled_time_leaves_no_history() -> None:
    """With its units renamed at random in every frame a series has no long chains."""
    run = simulate("default", 0)
    seen, rng = run.detections, np.random.default_rng(0)
    unit = seen.unit.copy()
    for frame in range(seen.n_frames):
        here = seen.frame == frame
        unit[here] = rng.permutation(48)[: here.sum()]
    order = np.lexsort((unit, seen.frame))
    noise = Detections(
        seen.frame[order], unit[order], seen.features[order], seen.profile[order], seen.kind, seen.layer, seen.movable,
        seen.n_frames,
    )  # fmt: skip
    real = np.bincount(linked("default", 0)[1].chain)
    assert np.median(np.bincount(link_detections(noise).chain)) < 0.2 * np.median(real[real >= 3])


def test_nothing_gives_nothing() -> None:
    nobody = (np.zeros(0, dtype=np.int64), np.zeros((0, 3)), np.zeros((1, 0, 0)))
    seen = Detections.from_frames([nobody, nobody], np.ones(4, dtype=np.int64), np.zeros(4, dtype=np.int64))
    assert link_detections(seen).changes == ()


def test_one_frame_has_no_events() -> None:
    one = (np.arange(3), np.eye(3), np.zeros((1, 3, 3)))
    seen = Detections.from_frames([one], np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64))
    links = link_detections(seen)
    assert links.links == links.changes == ()
    assert links.chain.tolist() == [0, 1, 2]


def test_an_unknown_level_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="expected a level among easy"):
        simulate("impossible")
