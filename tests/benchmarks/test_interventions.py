"""Do interventions on the demo's model have the effects that are known beforehand? Five seeds each.

Run with `pytest tests/benchmarks/test_interventions.py -s`; with `FORMATION_BENCHMARKS` set to a folder, runs and
histories stay there, and a second time takes a minute.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.known_answers import BACK, FORMED, LAST, LONGER, NEXT, SEEDS, STEPS, TAKEN, Asked, make
from tracking.comparison.effects import Effects, effect_of
from tracking.history.history import History
from tracking.lifelines.lifelines import link_lifelines

Answers = list[Mapping[str, Asked]]
LATE = f"lifeline == 'induction' and step_before >= {TAKEN - 20}"


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
    found = effects(answers, "no first layer")["induction", "form", "threshold"]
    assert (found.formed_branch, found.formed_control) == (0, len(answers))
    assert found.low > 0


def test_a_given_first_layer_brings_induction_forward(answers: Answers) -> None:
    found = effects(answers, "given a first layer")
    for clock in ("form", "function", "behaviour"):
        assert found["induction", clock, "threshold"].high < 0


def test_without_repeats_there_is_no_induction(answers: Answers) -> None:
    found = effects(answers, "nothing repeats")["induction", "form", "threshold"]
    assert (found.formed_branch, found.formed_control) == (0, len(answers))


def test_repeats_that_return_bring_induction_after_they_do(answers: Answers) -> None:
    found = effects(answers, "repeats return")["induction", "form", "threshold"]
    assert found.formed_branch == len(answers)
    assert found.low > 0
    for answer in answers:
        score = answer["repeats return"].branch.score("induction").value.max("component")
        assert (score.sel(step=slice(0, BACK)) < FORMED).all()
        assert score.sel(step=LONGER) > FORMED


def every_twenty_steps(history: History) -> History:
    return replace(history, records={key: record for key, record in history.records.items() if key[0] % 20 == 0})


def test_ablating_the_one_induction_head_makes_another_take_over_and_the_linking_shows_it(answers: Answers) -> None:
    """Another head takes over in every seed, and in no control.  Nobody carries the role for 20 to 50 steps in between;
    whether that is one hand-off or a death and a birth is a matter of degree.  Snapshots every twenty steps, linked as
    usual, must tell it as one in four seeds of five, and tell of nothing in the controls.
    """
    effects(answers, "another takes over")
    handed = 0
    for answer in answers:
        asked = answer["another takes over"]
        score, alone = (h.score("induction").value.sel(component=NEXT) for h in (asked.branch, asked.control))
        assert (score.sel(step=slice(TAKEN + 60, STEPS)) > FORMED).all()
        assert (alone < FORMED).sel(step=slice(TAKEN, STEPS)).all()
        lifelines, usual = (link_lifelines(every_twenty_steps(h)) for h in (asked.branch, asked.control))
        assert [node.name for node in lifelines["induction"].carriers(TAKEN - TAKEN % 20)] == [LAST]
        assert [node.name for node in lifelines["induction"].carriers(STEPS)] == [NEXT]
        events, none = (found.events_frame().query(LATE) for found in (lifelines, usual))
        handed += list(events["event"]) == ["hand-off"]
        assert set(events["event"]) in ({"hand-off"}, {"death", "birth"})
        assert none.empty
        first = int(score.step[(score > FORMED) & (score.step > TAKEN)][0])
        told = [f"{e.event} {e.components_before} {e.components_after} {e.confidence:.2f}" for e in events.itertuples()]
        most = float(alone[alone.step > TAKEN].max())
        print(f"    {NEXT} from step {first} on; in the control at most {most:.2f}; {told}")
    assert handed >= 4 / 5 * len(answers)


def effect_on_the_task(history: History, component: str) -> Any:
    return history.score("patching").value.sel(component=component)


def test_a_component_without_a_role_has_no_effect_and_that_is_said(answers: Answers) -> None:
    """At step 0 the task depends on no head: what patching finds is noise beside what it finds at the end."""
    found = effects(answers, "no role yet")
    for answer in answers:
        effect = abs(effect_on_the_task(answer["no role yet"].control, "a0.h0"))
        assert effect.sel(step=0) < effect.sel(step=STEPS) / 4
    for each in found.effects:
        assert not each.distinguishable or each.p_holm > 0.05
    assert "not distinguishable from zero" in found["induction", "form", "threshold"].sentence
    assert any(np.isfinite(each.shift) and each.shift != 0 for each in found.effects)


def test_a_component_that_only_looks_idle_has_an_effect_and_patching_says_so(answers: Answers) -> None:
    found = effects(answers, "looks idle")
    for answer in answers:
        asked = answer["looks idle"]
        component = asked.intervention.split()[1]
        assert asked.control.score("previous-token").value.sel(component=component, step=STEPS) < FORMED
        assert effect_on_the_task(asked.control, component).sel(step=STEPS) > 0.3
    assert found["induction", "form", "threshold"].distinguishable
