"""Shifts are told with the certainty that pairs of runs allow, and no more."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tracking.comparison.effects import Effect, effect_of, mean_shift
from tracking.history.history import History

STEPS = np.arange(0, 800, 20)


def run(onset: float | None, *, loss: float = 1.0, name: str = "run", noise: float = 0.01, seed: int = 0) -> History:
    """One head becomes an induction head around a step, or never; another does nothing.

    score  .8 |              ______
              |             /
           .1 |____________/
                          onset
    """
    rng = np.random.default_rng(seed)
    height = 0.0 if onset is None else 0.7 / (1 + np.exp(-(STEPS - onset) / 10))
    rows = []
    for component, level in (("a1.h0", 0.1 + height), ("a1.h1", 0.1 + 0 * STEPS)):
        values = level + rng.normal(0, noise, len(STEPS))
        columns = {"run": name, "step": STEPS, "component": component, "task": "probe", "measure": "induction"}
        rows.append(pd.DataFrame({**columns, "value": values, "std_error": noise}))
    losses = {"run": name, "step": STEPS, "name": "probe/loss_second_half", "value": loss, "std_error": 0.01}
    return History.from_frame(pd.concat(rows), metrics=pd.DataFrame(losses))


def effect(branches: list[History], controls: list[History]) -> Effect:
    return effect_of(branches, controls, clocks=("form",))["induction", "form", "threshold"]


ONSETS = (300, 310, 295, 320, 305)


def test_a_shift_is_found_with_its_size() -> None:
    shifts = (52, 61, 45, 58, 49)
    branches = [run(onset + by, seed=n) for n, (onset, by) in enumerate(zip(ONSETS, shifts, strict=True))]
    found = effect(branches, [run(onset, seed=10 + n) for n, onset in enumerate(ONSETS)])
    assert found.low < np.mean(shifts) < found.high
    assert found.distinguishable
    assert abs(found.shift - np.mean(shifts)) < 8
    assert (found.formed_branch, found.formed_control, found.n_pairs) == (5, 5, 5)
    assert "steps later [+" in found.sentence
    assert "over 5 seeds" in found.sentence


def test_swapping_branch_and_control_turns_the_sign() -> None:
    branches, controls = [run(o + 50, seed=o) for o in ONSETS], [run(o, seed=o + 1) for o in ONSETS]
    one, other = effect(branches, controls), effect(controls, branches)
    np.testing.assert_allclose([one.shift, one.low, one.high], [-other.shift, -other.high, -other.low])
    assert one.p_value == pytest.approx(other.p_value)


@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_intervals_cover_nothing_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    found = np.array([mean_shift(rng.normal(0, 30, n), 0.95) for _ in range(4000)])
    assert abs(((found[:, 1] <= 0) & (found[:, 2] >= 0)).mean() - 0.95) < 0.012
    assert abs((found[:, 3] < 0.05).mean() - 0.05) < 0.012


def test_what_is_not_distinguishable_is_said_to_be_so_and_what_may_have_gone_unseen() -> None:
    branches = [
        run(onset + by, seed=n) for n, (onset, by) in enumerate(zip(ONSETS, (30, -25, 10, -20, 8), strict=True))
    ]
    found = effect(branches, [run(onset, seed=n) for n, onset in enumerate(ONSETS)])
    assert not found.distinguishable
    assert "not distinguishable from zero" in found.sentence
    assert f"a shift of {max(abs(found.low), abs(found.high)):.0f} steps may have gone unseen" in found.sentence


def test_the_same_runs_differ_in_nothing() -> None:
    runs = [run(onset, seed=n) for n, onset in enumerate(ONSETS)]
    assert "no difference at all over 5 seeds" in effect(runs, runs).sentence


def test_prevented_is_a_bound_not_a_date() -> None:
    found = effect([run(None, seed=n) for n in range(5)], [run(onset, seed=n) for n, onset in enumerate(ONSETS)])
    assert (found.formed_branch, found.formed_control) == (0, 5)
    assert found.high == np.inf
    assert 0 < found.low < found.shift == pytest.approx(780 - np.mean(ONSETS), abs=15)
    assert "formed in 0 of 5 branches and 5 of 5 controls; at least" in found.sentence


def test_made_to_form_is_the_same_bound_from_the_other_side() -> None:
    found = effect([run(onset, seed=n) for n, onset in enumerate(ONSETS)], [run(None, seed=n) for n in range(5)])
    assert found.low == -np.inf
    assert found.high < 0


def test_bounds_from_both_sides_leave_the_shift_open() -> None:
    found = effect([run(None), run(300)], [run(300), run(None)])
    assert np.isnan(found.shift)
    assert "the shift cannot be told" in found.sentence


def test_a_score_that_no_head_carries_has_not_formed_however_it_moves() -> None:
    def faint(seed: int) -> History:
        history = run(300, seed=seed)
        scores = history.to_frame("scores")
        scores["value"] = 0.1 + (scores["value"] - 0.1) * 0.1  # a clear rise, from .10 to .17
        scores["std_error"] *= 0.1
        return History.from_frame(scores, metrics=history.to_frame("metrics"))

    found = effect([faint(n) for n in range(3)], [run(300, seed=n) for n in range(3)])
    assert (found.formed_branch, found.formed_control) == (0, 3)


def test_one_seed_says_nothing_of_others() -> None:
    found = effect([run(380)], [run(300, seed=1)])
    assert found.low < 80 < found.high
    assert np.isnan(found.p_value)
    assert "in one seed, which says nothing of others" in found.sentence


def test_losses_are_compared_at_the_end() -> None:
    levels = (1.5, 1.4, 1.6, 1.45)
    found = effect_of([run(300, loss=level) for level in levels], [run(300) for _ in levels], clocks=("form",))
    loss = found["loss second half at the end", "", ""]
    assert loss.shift == pytest.approx(np.mean(levels) - 1)
    assert "nats higher" in loss.sentence


def test_all_effects_looked_at_are_corrected_for_together() -> None:
    branches = [run(onset + 50, loss=1.5 + onset / 1e4, seed=onset) for onset in ONSETS]
    found = effect_of(
        branches, [run(onset) for onset in ONSETS], clocks=("form",), definitions=("threshold", "change-point")
    )
    p = np.array([effect.p_value for effect in found.effects])
    corrected = np.array([effect.p_holm for effect in found.effects])
    assert len(p) == 3
    order = np.argsort(p)
    np.testing.assert_allclose(corrected[order], np.minimum(1, np.maximum.accumulate(p[order] * [3, 2, 1])))
    assert list(found.to_frame()["p_holm"]) == list(corrected)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="expected as many controls as branches, in the same order, got 1 and 2"):
        effect_of([run(1), run(2)], [run(3)])
    other = History.from_frame(run(300).to_frame("scores").replace("a1.h1", "a1.h3"))
    with pytest.raises(ValueError, match="are not of one model"):
        effect_of(run(300), other)


def test_branches_are_compared_with_controls_or_parents_like_any_other_runs() -> None:
    from tracking.comparison.comparison import compare

    def named(history: History, name: str, **hyperparameters: str) -> History:
        return replace(history, name=name, hyperparameters={"seed": 0, **hyperparameters})

    branches = [named(run(o + 100, seed=o), f"branch-{o}", intervention="freeze a0 from 0") for o in ONSETS]
    parents = [named(run(o, seed=o + 1), f"parent-{o}") for o in ONSETS]
    controls = [named(run(o, seed=o + 1), f"control-{o}", intervention="none") for o in ONSETS]
    found = [compare([*branches, *others], by="intervention") for others in (controls, parents)]
    assert found[0].sentences == found[1].sentences
    assert any("induction (form, threshold) forms 1." in sentence for sentence in found[0].sentences)
    with pytest.raises(ValueError, match=r"'rate' is 0\.1 in all runs, so nothing can be compared"):
        compare([*parents, *(replace(each, hyperparameters={"rate": 0.1}) for each in branches)], by="rate")
