"""Events are found where they were drawn, and nowhere else."""

import numpy as np
import pandas as pd
import pytest

from circuits.graph import ModelGraph, Node
from tests.examples import BY_NAME, EXAMPLES, WIRING, Example
from tracking.datasets.synthetic import history_from_drawing
from tracking.history.columns import COLUMNS
from tracking.history.history import History
from tracking.lifelines.alignment import align_runs
from tracking.lifelines.lifelines import Lifelines, link_lifelines


def told(linked: Lifelines) -> set[tuple[str, str, str, str, int]]:
    frame = linked.events_frame()
    role = frame.role_after.where(frame.role_after != "", frame.role_before)
    rows = zip(frame.event, frame.components_before, frame.components_after, role, frame.step_after // 100, strict=True)
    return set(rows)


@pytest.mark.parametrize("n_folds", [8, 0], ids=["folds", "no folds"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_events_are_those_drawn(example: Example, n_folds: int) -> None:
    linked = link_lifelines(example.history(n_folds=n_folds))
    leads = "turns" in example.name and n_folds == 0  # who leads is told only where the folds say how surely
    assert told(linked) == (set() if leads else set(example.events))
    assert all(0.5 < event.confidence <= 1 for event in linked.events)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_tables_have_their_columns_and_every_event_lies_between_neighbours(example: Example) -> None:
    history = example.history()
    linked = link_lifelines(history)
    assert list(linked.to_frame("lifelines").columns) == list(COLUMNS["lifelines"])
    assert list(linked.to_frame("events").columns) == list(COLUMNS["events"])
    assert {event.lifeline for event in linked.events} <= {line.lifeline for line in linked.lifelines}
    for event in linked.events:
        assert event.step_before < event.step_after
        assert {event.step_before, event.step_after} <= set(history.steps)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_names_of_heads_do_not_matter(example: Example) -> None:
    """Renaming the heads of a layer renames them in the events, and changes nothing else."""
    swapped = example.drawing.replace(".h0", ".hX").replace(".h1", ".h0").replace(".hX", ".h1")
    renamed = link_lifelines(Example(example.name, swapped, (), 0.0).history(n_folds=0))
    back = {"a0.h0": "a0.h1", "a0.h1": "a0.h0", "a1.h0": "a1.h1", "a1.h1": "a1.h0"}
    plain = told(link_lifelines(Example(example.name, example.drawing, (), 0.0).history(n_folds=0)))
    assert {(e, back.get(b, b), back.get(a, a), role, at) for e, b, a, role, at in told(renamed)} == plain


def test_a_role_lifeline_says_who_carries_it() -> None:
    line = link_lifelines(BY_NAME["hand-off with an overlap"].history())["induction"]
    assert line.carriers(0) == (Node.head(1, 0),)
    assert set(line.carriers(1500)) == {Node.head(1, 0), Node.head(1, 1)}
    assert line.carriers(2700) == (Node.head(1, 1),)
    with pytest.raises(KeyError, match="no step 50"):
        line.carriers(50)


def test_a_gap_longer_than_allowed_is_a_death_and_a_birth() -> None:
    history = history_from_drawing("a1.h0 induction ##########....############")
    assert {event.event for event in link_lifelines(history, max_gap=2).events} == {"birth", "death"}
    assert link_lifelines(history, max_gap=4).events == ()


def test_events_in_words() -> None:
    (event,) = link_lifelines(BY_NAME["sharp hand-off"].history()).events
    assert str(event) == "a1.h0 handed induction to a1.h1 between steps 1300 and 1400 (confidence 0.99)"


@pytest.mark.parametrize("n_folds", [8, 0], ids=["folds", "no folds"])
def test_a_series_that_only_fluctuates_has_next_to_no_events(n_folds: int) -> None:
    """At most one event in 100 lifeline-steps, with levels from nothing to just above the threshold."""
    events = steps = 0
    for seed in range(10):
        levels = (".", "2", "3", "4", "5", "#")
        drawing = "\n".join(f"a1.h{head} induction {level * 200}" for head, level in enumerate(levels))
        linked = link_lifelines(history_from_drawing(drawing, noise=0.05, n_folds=n_folds, seed=seed))
        events += len(linked.events)
        steps += 200 * len(linked.components)
    assert events <= steps / 100


def test_nameless_functions_are_followed_by_their_wiring() -> None:
    """With edges and no named role, the components of the circuit are linked by signature and wiring."""
    drawing = """
        a0.h0 x ########################
        a1.h0 y ############............
        a1.h2 y ............############
        a1.h1 x ........................
    """
    linked = link_lifelines(history_from_drawing(drawing, wiring={"y": ["x"]}))
    assert [(e.event, e.components_before, e.components_after) for e in linked.events] == [
        ("hand-off", (Node.head(1, 0),), (Node.head(1, 2),))
    ]
    assert {line.components for line in linked.roles} == {(Node.head(0, 0),), (Node.head(1, 0), Node.head(1, 2))}


def test_thresholds_are_taken_and_checked() -> None:
    history = BY_NAME["slow drift"].history()
    assert link_lifelines(history, thresholds={"induction": 0.5})["induction"].threshold == 0.5
    with pytest.raises(ValueError, match="thresholds name nonsense"):
        link_lifelines(history, thresholds={"nonsense": 0.5})
    with pytest.raises(ValueError, match="no task 'other'"):
        link_lifelines(history, task="other")
    with pytest.raises(ValueError, match="max_gap"):
        link_lifelines(history, max_gap=-1)


def test_an_empty_history_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="has no snapshots"):
        link_lifelines(History("nothing", ModelGraph(2, 2), {}))


@pytest.mark.parametrize("columns", [1, 2], ids=["one snapshot", "two snapshots"])
def test_short_histories_have_carriers_and_no_invented_events(columns: int) -> None:
    linked = link_lifelines(history_from_drawing(f"a1.h0 induction {'#' * columns}"))
    assert linked["induction"].nodes == ((Node.head(1, 0),),) * columns
    assert linked.events == ()


def test_scores_that_are_not_numbers_are_left_out() -> None:
    rows = [(100 * t, head, 0.8 if t >= 5 else 0.0) for t in range(12) for head in ("a1.h0", "a1.h1")]
    frame = pd.DataFrame(rows, columns=["step", "component", "value"]).assign(measure="induction")
    frame.loc[(frame.component == "a1.h1"), "value"] = np.nan
    frame = frame[~((frame.component == "a1.h0") & frame.step.isin([200, 700, 800]))]
    shuffled = frame.sample(frac=1, random_state=0)
    linked = link_lifelines(History.from_frame(shuffled))
    assert told(linked) == {("birth", "", "a1.h0", "induction", 5)}
    assert linked["induction"].components == (Node.head(1, 0),)


def test_runs_are_aligned_by_what_their_heads_do() -> None:
    one = history_from_drawing("a0.h0 previous-token ##########\na1.h0 induction .....#####", wiring=WIRING, name="one")
    drawing = "a0.h3 previous-token ##########\na1.h2 induction .....#####\na0.h1 duplicate-token ..########"
    other = history_from_drawing(drawing, wiring=WIRING, seed=4, name="other")
    found = align_runs([one, other])
    members = {family.label: dict(family.members) for family in found.families}
    assert members == {
        "induction head A": {"one": Node.head(1, 0), "other": Node.head(1, 2)},
        "previous-token head A": {"one": Node.head(0, 0), "other": Node.head(0, 3)},
    }
    assert found.alone == (("other", "duplicate-token", Node.head(0, 1)),)
    assert {line.run for line in found.lifelines.components if line.lifeline == "induction head A"} == {"one", "other"}


def test_runs_without_a_common_role_have_no_family() -> None:
    one = history_from_drawing("a0.h0 previous-token ##########\na1.h0 induction ..........", name="one")
    other = history_from_drawing("a0.h0 previous-token ..........\na1.h0 induction ##########", name="other")
    found = align_runs([one, other])
    assert found.families == ()
    assert {node for _, _, node in found.alone} == {Node.head(0, 0), Node.head(1, 0)}
    (remark,) = found.remarks
    assert remark.endswith("no role in common, so none of their components are put together: "
                           "'one' has previous-token, 'other' has induction")  # fmt: skip
    with pytest.raises(ValueError, match="two or more runs"):
        align_runs([one])


def test_runs_of_different_tasks_get_a_sentence() -> None:
    one = history_from_drawing("a0.h0 previous-token ##########", name="one")
    other = history_from_drawing("a1.h0 induction ##########", name="other")
    with pytest.raises(
        ValueError, match=r"'one' with task repeated-tokens \(previous-token\), and history 'other' with"
    ):
        align_runs([one, other])
    third = history_from_drawing("a0.h1 previous-token ##########", seed=1, name="third")
    found = align_runs([one, other, third])
    assert [set(family.members) for family in found.families] == [{"one", "third"}]
    assert [("'other'" in remark, "record the same task in both" in remark) for remark in found.remarks] == [
        (True, True)
    ] * 2
    assert align_runs([one, third]).remarks == ()
