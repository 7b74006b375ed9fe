"""The one machine of states: what holds a bar, on curves that a reader can see, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracking.lifelines.states import Stretch, carriers, course, hold_level, holds, log_steps, stretches

BAR = 0.35
# One character a checkpoint, in tenths of 1; checkpoints one unit of ln(step) apart; `#` below it has the bar.
DRAWINGS = {
    "rises": ("000012577777", "......######", "formed"),
    "falls": ("777775210000", "######......", "there from the start and lost"),
    "there all along": ("777777777777", "############", "there from the start"),
    "never": ("000123210000", "............", "never"),
    "one snapshot above": ("000070000000", "............", "never"),
    "one snapshot below": ("000777077700", "...#######..", "formed and lost"),
    "sags below the bar but holds": ("000733333333", "...#########", "formed"),
    "comes back": ("007770007777", "..###...####", "formed"),
    "above at the last checkpoint alone": ("000000000007", "............", "pending"),
    "above at the first checkpoint alone": ("700000000000", "#...........", "there from the start and lost"),
    "below at the last checkpoint alone": ("000777777770", "...#########", "formed"),
    "not measured in between": ("00?77?77??00", "...#######..", "formed and lost"),
    "not measured at first": ("?????0077777", ".......#####", "formed"),
    "never measured": ("????????????", "............", "never"),
}


def drawn(levels: str) -> np.ndarray:
    return np.array([np.nan if level == "?" else int(level) / 10 for level in levels])


@pytest.mark.parametrize("name", DRAWINGS)
def test_states_of_a_drawing(name: str) -> None:
    levels, expected, what = DRAWINGS[name]
    curve = drawn(levels)
    has = holds(curve, np.arange(len(curve), dtype=float), BAR)
    assert "".join("#" if state else "." for state in has) == expected
    assert course(curve, has, BAR) == what


def test_a_dense_schedule_asks_for_the_dwell_and_not_for_the_next_checkpoint() -> None:
    x = np.arange(0, 2, 0.05)
    blip, lasting = np.where((x > 0.5) & (x < 0.7), 0.6, 0.0), np.where((x > 0.5) & (x < 0.95), 0.6, 0.0)
    assert not holds(blip, x, BAR).any()
    assert holds(lasting, x, BAR).any()


def test_the_level_of_chance_is_the_floor() -> None:
    assert hold_level(0.75, 0.5) == pytest.approx(0.7)
    curve, x = np.array([0.5, 0.5, 0.8, 0.71, 0.71, 0.69, 0.69]), np.arange(7.0)
    assert holds(curve, x, 0.75, floor=0.5).tolist() == [False, False, True, True, True, False, False]


def test_each_curve_may_have_its_own_bar() -> None:
    curves, x = np.array([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]), np.arange(3.0)
    assert holds(curves, x, np.array([0.4, 0.6])).tolist() == [[False, True, True], [False, False, False]]


curves_of_one_length = st.integers(2, 12).flatmap(
    lambda size: st.lists(st.lists(st.floats(0, 1), min_size=size, max_size=size), min_size=1, max_size=5)
)


@settings(deadline=None, max_examples=60)
@given(curves_of_one_length, st.floats(0.1, 0.9))
def test_a_higher_curve_has_its_bar_wherever_a_lower_one_does(rows: list[list[float]], bar: float) -> None:
    values = np.array(rows)
    x = np.linspace(0, 1, values.shape[1])
    assert (holds(values.max(axis=0), x, bar) >= holds(values, x, bar).any(axis=0)).all()


def test_components_that_are_above_once_each_carry_nothing() -> None:
    values, x = np.array([drawn("0070707070"), drawn("0007070707")]), np.arange(10.0)
    assert holds(values.max(axis=0), x, BAR).any()
    assert not carriers(values, x, BAR).any()


def test_stretches_say_whether_their_ends_were_seen() -> None:
    has = np.array([True, True, False, True])
    assert stretches(has) == (Stretch(0, 2, False, True), Stretch(3, 4, True, False))
    assert stretches(np.zeros(3, dtype=bool)) == ()


def test_step_0_stands_before_the_first_later_step() -> None:
    assert log_steps(np.array([0.0, 8.0, 16.0])).tolist() == pytest.approx(np.log([4, 8, 16]).tolist())
