"""An event is as sure as other prompts would make it, and no surer."""

import time
from dataclasses import replace

import numpy as np
import pytest

from circuits.graph import Node
from tests.examples import BY_NAME
from tracking.datasets.synthetic import history_from_drawing
from tracking.history.history import History
from tracking.lifelines.events import Event
from tracking.lifelines.lifelines import link_lifelines
from tracking.lifelines.resampled_events import N_DRAWS, found_again
from tracking.lifelines.roles import role_scores

BIRTH = Event("run", "induction", "birth", 300, 400, "", "induction", (), (Node.head(1, 0),), 0.5)
FIRST_ROLES = ("induction", "duplicate-token", "previous-token", "first-token", "self")


def induction(levels: str, *, noise: float = 0.02, n_folds: int = 8, seed: int = 0) -> History:
    return history_from_drawing(f"a1.h0 induction {levels}\na1.h1 induction {'.' * len(levels)}", noise=noise,
                                n_folds=n_folds, seed=seed)  # fmt: skip


def test_the_confidence_is_a_share_of_draws_and_the_same_every_time() -> None:
    history = BY_NAME["hand-off with an overlap"].history()
    events = link_lifelines(history).events
    assert events == link_lifelines(history).events
    assert N_DRAWS >= 100
    assert all((N_DRAWS * event.confidence) == pytest.approx(round(N_DRAWS * event.confidence)) for event in events)


@pytest.mark.parametrize("levels", ["....33444444", "....4444....", "....99999999"], ids=["weak", "brief", "clear"])
def test_as_sure_as_fresh_prompts_find_it_again(levels: str) -> None:
    """The mean confidence of an event is close to the share of other prompt sets that show it."""
    truth = {(e.event, e.components_after, e.step_after) for e in link_lifelines(induction(levels, noise=1e-6)).events}
    found, sure = [], []
    for seed in range(24):
        events = link_lifelines(induction(levels, noise=0.025, seed=seed)).events
        mine = [
            event
            for event in events
            if any(w == event.event and n == event.components_after and abs(t - event.step_after) <= 100
                   for w, n, t in truth)
        ]  # fmt: skip
        found.append(len(mine) / len(truth))
        sure += [event.confidence for event in mine]
    # What was found once is found again somewhat more often than any: it has been selected.
    assert np.mean(found) - 0.15 <= np.mean(sure) <= min(1.0, np.mean(found) + 0.15)


def test_all_checkpoints_and_components_see_the_same_draw() -> None:
    history = induction("....9999")
    for record in history.records.values():
        folds = record.scores["induction"].estimate.folds
        folds[:] = record.scores["induction"].values + np.linspace(-0.1, 0.1, len(folds))[:, None]
    roles, shifts = role_scores(history), []

    def tell(drawn, leads) -> list[Event]:
        shifts.append(drawn[0].level - roles[0].level)
        return []

    assert found_again([BIRTH], roles, [], tell)[0].confidence == 0
    assert len(shifts) == N_DRAWS
    assert all(np.ptp(shift) < 1e-12 for shift in shifts)
    spread = np.linspace(-0.1, 0.1, 8).std(ddof=1) / np.sqrt(8)
    assert np.std([shift[0, 0] for shift in shifts]) == pytest.approx(spread, rel=0.3)


@pytest.mark.parametrize(
    ("change", "confidence"),
    [
        ({}, 1),
        ({"step_before": 400, "step_after": 500}, 1),
        ({"step_before": 200, "step_after": 300}, 1),
        ({"step_before": 500, "step_after": 600}, 0),
        ({"event": "death"}, 0),
        ({"components_after": (Node.head(1, 1),)}, 0),
        ({"role_after": "self"}, 0),
    ],
    ids=["the same", "one later", "one earlier", "two later", "other kind", "other component", "other role"],
)
def test_found_again_is_the_same_change_no_further_than_a_neighbouring_interval(change: dict, confidence: int) -> None:
    other = replace(BIRTH, **change)
    (event,) = found_again([BIRTH], role_scores(induction("....9999")), [], lambda roles, leads: [other])
    assert event == replace(BIRTH, confidence=float(confidence))


def test_without_folds_the_confidence_stays() -> None:
    roles = role_scores(induction("....9999", n_folds=0))
    assert found_again([BIRTH], roles, [], lambda roles, leads: []) == [BIRTH]


def test_what_one_prompt_alone_shows_is_not_sure() -> None:
    """The mean over prompts reaches the threshold, but only as long as one fold of them is drawn."""
    history = induction("....5555", noise=0.001)
    for record in history.records.values():
        own = record.scores["induction"].estimate
        own.folds[:] = own.folds - own.value
        own.folds[0] += 8 * own.value
    (event,) = link_lifelines(history).events
    assert event.event == "birth"
    assert 0.4 < event.confidence < 0.8
    assert link_lifelines(induction("....5555", noise=0.001)).events[0].confidence == 1


def test_a_switch_and_the_lead_are_told_again_too() -> None:
    for name in ("switch", "turns"):
        examples = [example for key, example in BY_NAME.items() if name in key]
        assert examples
        for event in link_lifelines(examples[0].history()).events:
            assert (N_DRAWS * event.confidence) == pytest.approx(round(N_DRAWS * event.confidence))
            assert event.confidence > 0.5


def demo_shaped() -> History:
    """Eight heads, 61 steps, five measures, 8 folds; half of the scores rise, some fall again."""
    rng, lines = np.random.default_rng(0), []
    for place in range(8):
        for number, role in enumerate(FIRST_ROLES):
            levels = np.zeros(61, dtype=int)
            if (place + number) % 2 == 0:
                start, end = rng.integers(5, 40), rng.integers(45, 61) if rng.random() < 0.4 else 61
                levels[start:end] = np.minimum(9, 3 + np.arange(end - start))
            drawn = "".join(str(level) if level else "." for level in levels)
            lines.append(f"a{place // 4}.h{place % 4} {role} {drawn}")
    return history_from_drawing("\n".join(lines))


def test_it_takes_under_a_second() -> None:
    history = demo_shaped()
    start = time.process_time()
    linked = link_lifelines(history)
    assert time.process_time() - start < 1.0, "0.4 s where nothing else runs"
    assert len(linked.events) > 20
