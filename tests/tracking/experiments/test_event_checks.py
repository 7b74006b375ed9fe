"""Patching between checkpoints tells whose doing a change is, on a model whose weights were set by hand.

step            0   100   200   300   400   500
a0.h0           #   #     #     .     .     .     its output weights are zero from step 300 on
a1.h1           #   #     #     .     .     .     reads a0.h0 alone: its weights stay, its effect goes
"""

from dataclasses import replace

import pytest
import torch

from circuits.graph import Node
from circuits.loading import save_checkpoint
from tests.models import INDUCTION, induction_module
from tracking.checkpoints.runs import Run
from tracking.experiments.event_checks import checks_frame, verify_events
from tracking.lifelines.events import Event

STEPS = (0, 100, 200, 300, 400, 500)
UPSTREAM, DOWNSTREAM = Node.head(0, 0), Node.head(1, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("severed")
    for step in STEPS:
        module = induction_module()
        if step >= 300:
            with torch.no_grad():
                module.get_parameter("layers.0.attn.o.weight").zero_()
        save_checkpoint(module, INDUCTION, folder / f"checkpoint-{step}")
    return Run.open(folder)


def death(node: Node, before: int = 200, after: int = 300) -> Event:
    return Event("severed", "induction", "death", before, after, "induction", "", (node,), (), 0.9, stopped=(node,))


def test_the_head_whose_weights_changed_is_told_from_the_one_that_reads_it(run: Run) -> None:
    cause, consequence = verify_events([death(UPSTREAM), death(DOWNSTREAM)], run, n_prompts=8)
    assert cause.verdict == "own weights"
    assert cause.own == pytest.approx(1, abs=0.05)
    assert consequence.verdict == "consequence"
    assert consequence.cause == UPSTREAM
    assert (consequence.own, consequence.others) == pytest.approx((0, 1), abs=0.05)
    assert "it is a consequence: the weights of a0.h0 make 100% of that" in str(consequence)
    assert consequence.before > 1 > abs(consequence.after)


def test_a_change_that_no_event_of_the_time_explains_is_not_told_apart(run: Run) -> None:
    """The death of what feeds it was not told, so nothing is known of it."""
    (check,) = verify_events([death(DOWNSTREAM)], run, n_prompts=8)
    assert check.verdict == "not told apart"
    assert "cause and consequence are not told apart" in str(check)


def test_an_event_where_nothing_changes_is_not_seen(run: Run) -> None:
    (check,) = verify_events([death(DOWNSTREAM, 400, 500)], run, n_prompts=8)
    assert check.verdict == "not seen"
    assert check.steps == (300, 500)


def test_checks_are_a_table_and_a_switch_is_none(run: Run) -> None:
    switch = replace(death(UPSTREAM), event="switch", components_after=(UPSTREAM,))
    checks = verify_events([switch, death(UPSTREAM)], run, n_prompts=8)
    frame = checks_frame(checks)
    assert frame[["event", "component", "verdict"]].values.tolist() == [["death", "a0.h0", "own weights"]]


def test_a_step_without_checkpoint_gets_a_sentence(run: Run) -> None:
    with pytest.raises(ValueError, match="no checkpoint at step 250"):
        verify_events([death(UPSTREAM, 200, 250)], run, n_prompts=8)
