"""A component goes over to another role only where that one is larger, and stays so."""

from tracking.datasets.synthetic import history_from_drawing
from tracking.lifelines.lifelines import link_lifelines


def switches(drawing: str) -> list[tuple[str, str, int]]:
    found = link_lifelines(history_from_drawing(drawing)).events
    return [(e.role_before, e.role_after, e.step_after // 100) for e in found if e.event == "switch"]


def test_another_role_that_becomes_larger_is_a_switch() -> None:
    drawing = "a0.h0 previous-token ##########9632..........\na0.h0 induction      ............6###########"
    assert switches(drawing) == [("previous-token", "induction", 12)]


def test_another_role_above_its_bar_is_none_while_the_first_is_larger() -> None:
    drawing = "a0.h0 self           #######################\na0.h0 previous-token ..........5555555555555"
    assert switches(drawing) == []


def test_another_role_for_two_steps_is_none() -> None:
    drawing = "a0.h0 previous-token ##########33##########\na0.h0 induction      ..........##.........."
    assert switches(drawing) == []
