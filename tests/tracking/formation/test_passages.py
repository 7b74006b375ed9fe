"""Crossings between checkpoints, and the rises and losses of a curve with their intervals."""

import numpy as np
import pytest

from tracking.formation.crossings import crossing
from tracking.formation.passages import first_passages, interval, visits


def place(values: list[float], after: int, bar: float, n: int = 4000, gap: float = 0.2) -> np.ndarray:
    """Draws of the crossing, in gaps between checkpoints."""
    paths = np.repeat([values], n, axis=0)
    x = gap * np.arange(len(values), dtype=float)
    return crossing(paths, np.full(n, after), np.full(n, bar), x, np.random.default_rng(0)) / gap


def test_an_abrupt_rise_may_lie_anywhere_between_its_checkpoints() -> None:
    drawn = place([0.0, 0.0, 1.0, 1.0], 2, 0.3)
    assert np.quantile(drawn, [0.05, 0.5, 0.95]) == pytest.approx([1.05, 1.5, 1.95], abs=0.04)


def test_checkpoints_on_the_slope_say_where() -> None:
    drawn = place([0.0, 0.2, 0.4, 0.6], 2, 0.3)
    assert np.quantile(drawn, [0.05, 0.5, 0.95]) == pytest.approx([1.4, 1.5, 1.6], abs=0.02)


def test_checkpoints_far_apart_do_not_say_where() -> None:
    """Several abrupt rises look like one slope to them."""
    spread = [
        np.ptp(np.quantile(place([0.0, 0.2, 0.4, 0.6], 2, 0.3, gap=gap), [0.05, 0.95])) for gap in (0.3, 0.7, 1.4)
    ]
    assert spread[0] < spread[1] < spread[2]
    assert spread[2] == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("values", [[0.0, 0.1, 0.5, 0.6], [0.6, 0.5, 0.1, 0.0], [0.0, 1.0], [0.0, 0.0, 1.0]])
def test_a_crossing_lies_in_its_gap(values: list[float]) -> None:
    after = len(values) // 2
    drawn = place(values, after, 0.3)
    assert (drawn >= after - 1).all()
    assert (drawn <= after).all()


def test_every_visit_has_its_own_dates() -> None:
    x = np.arange(12.0)
    path = np.array([0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1.0])
    draws = np.repeat(path[None], 100, axis=0)
    first, second = visits(path, draws, x, 0.5, rng=np.random.default_rng(0))
    assert first.rise is not None
    assert first.loss is not None
    assert second.rise is not None
    assert second.loss is None
    assert (first.rise.after, first.loss.after, second.rise.after) == (2, 5, 8)
    for passage in (first.rise, first.loss, second.rise):
        low, high = interval(passage.drawn, 0.9)
        assert passage.after - 1 <= low <= passage.at <= high <= passage.after


def test_draws_that_never_rise_or_were_always_there_leave_the_interval_open() -> None:
    x = np.arange(6.0)
    path = np.array([0, 0, 0, 1, 1, 1.0])
    draws = np.stack([path, np.ones(6), np.zeros(6)]).repeat(40, axis=0)
    (visit,) = visits(path, draws, x, 0.5, rng=np.random.default_rng(0))
    assert visit.rise is not None
    assert interval(visit.rise.drawn, 0.9) == (-np.inf, np.inf)


def test_what_may_just_have_risen_is_seen_in_the_draws() -> None:
    x, rng = np.arange(6.0), np.random.default_rng(0)
    draws = np.array([0, 0, 0, 0, 0, 0.5]) + 0.1 * rng.standard_normal((400, 6))
    low, high = interval(first_passages(draws, x, 0.55, rng=rng), 0.9)
    assert 4 <= low <= 5
    assert high == np.inf
