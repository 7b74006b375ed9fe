"""Effects that add up speak for a split, and a jump that all make for nothing."""

import numpy as np

from tests.tracking.lifelines.test_presence import series_of_effects
from tracking.lifelines.effect_jumps import conserved, effect_jumps, shared_life
from tracking.lifelines.presence import presence_of


def test_a_parent_loses_what_its_copy_gains() -> None:
    drawing = (
        "a0.h0 ##########5555555555\na0.h1 ..........5555555555\na0.h2 ####################\na0.h3 ####################"
    )
    series = series_of_effects(drawing)
    jumps = effect_jumps(series, presence_of(series).on)
    assert np.isclose(jumps.size[10, 0], np.log(0.5))
    assert jumps.size[10, 2] == 0
    halved = conserved(jumps.size[10, :1], jumps.at(10)[:1], np.log(0.5), keeps=0.9)
    kept = conserved(jumps.size[10, 2:3], jumps.at(10)[2:3], np.log(0.5), keeps=0.9)
    assert halved[0] > 2
    assert kept[0] < -1


def test_a_jump_that_all_make_is_none() -> None:
    drawing = "\n".join(f"a0.h{head} ##########5555555555" for head in range(4))
    series = series_of_effects(drawing)
    assert np.nanmax(np.abs(effect_jumps(series, presence_of(series).on).size)) < 1e-9


def test_a_hand_over_is_one_life_and_two_births_are_two() -> None:
    one = series_of_effects("a0.h0 #####8642..........\na0.h1 .....2468##########")
    two = series_of_effects("a0.h0 #########..........\na0.h1 .....##############")
    lives = [(0, np.arange(9)), (1, np.arange(5, 19))]
    assert shared_life(one, *lives) > 0 > shared_life(two, *lives)
