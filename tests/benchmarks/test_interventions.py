"""Do interventions on the demo's model have the effects that are known beforehand? Five seeds each.

Run with `pytest tests/benchmarks/test_interventions.py -s`; with `FORMATION_BENCHMARKS` set to a folder, runs and
histories stay there, and a second time takes a minute.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.known_answers import BACK, FORMED, LONGER, SEEDS, STEPS, TAKEN, Asked, make
from tracking.effects import Effects, effect_of
from tracking.lifelines import link_lifelines

Answers = list[Mapping[str, Asked]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = Path(os.environ.get("FORMATION_BENCHMARKS") or tmp_path_factory.mktemp("known"))
    return [make(folder, seed) for seed in SEEDS]


def effects(answers: Answers, question: str) -> Effects:
    """The effects on induction and on the losses, printed."""
    asked = [answer[question] for answer in answers]
    branches, controls = [each.branch for each in asked], [each.control for each in asked]
    found = effect_of(branches, controls, roles=("induction",))
    print(f"\n{question}: " + "; ".join(dict.fromkeys(each.intervention for each in asked)))
    print(*(f"    {sentence}" for sentence in found.sentences), sep="\n")
    return found


def test_without_a_first_layer_there_is_no_induction(answers: Answers) -> None:
    found = effects(answers, "no first layer")["induction", "form", "half-rise"]
    assert (found.formed_branch, found.formed_control) == (0, len(answers))
    assert found.low > 0


def test_a_given_first_layer_brings_induction_forward(answers: Answers) -> None:
    found = effects(answers, "given a first layer")
    for clock in ("form", "function", "behaviour"):
        assert found["induction", clock, "half-rise"].high < 0


def test_without_repeats_there_is_no_induction(answers: Answers) -> None:
    found = effects(answers, "nothing repeats")["induction", "form", "half-rise"]
    assert (found.formed_branch, found.formed_control) == (0, len(answers))


def test_repeats_that_return_bring_induction_after_they_do(answers: Answers) -> None:
    found = effects(answers, "repeats return")["induction", "form", "half-rise"]
    assert found.formed_branch == len(answers)
    assert found.low > 0
    for answer in answers:
        score = answer["repeats return"].branch.score("induction").value.max("component")
        assert (score.sel(step=slice(0, BACK)) < FORMED).all()
        assert score.sel(step=LONGER) > FORMED


def test_a_spare_head_takes_over_and_the_linking_shows_it(answers: Answers) -> None:
    effects(answers, "a spare takes over")
    handed = 0
    for answer in answers:
        lifelines = link_lifelines(answer["a spare takes over"].branch)
        assert [node.name for node in lifelines["induction"].carriers(STEPS)] == ["a1.h0"]
        events = lifelines.events_frame().query("event == 'hand-off' and lifeline == 'induction'")
        mine = events[events["components_after"].str.contains("a1.h0") & (events["step_before"] >= TAKEN - 10)]
        handed += len(mine) > 0
        print(f"    hand-offs: {mine.drop(columns=['run', 'lifeline', 'event']).to_dict('records')}")
    assert handed >= 4


def test_a_component_without_a_role_has_no_effect_and_that_is_said(answers: Answers) -> None:
    effects(answers, "idle head gone")
    found = effects(answers, "idle head held")
    for effect in found.effects:
        assert not effect.distinguishable or effect.p_holm > 0.05
    assert any("not distinguishable from zero" in sentence for sentence in found.sentences)
    assert np.isfinite(found["induction", "form", "half-rise"].shift)
