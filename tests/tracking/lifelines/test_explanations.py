"""Every beginning and end is explained by what was drawn, with the next best explanation beside it."""

import numpy as np
import pytest

from tests.tracking.lifelines.test_presence import series_of_effects
from tracking.lifelines.linking import link_series

ONE, OTHER, THIRD = np.array([1.2, 0.2, 0.3]), np.array([0.2, 1.2, 0.4]), np.array([0.3, 0.2, 1.3])
LIVING = "\n".join(f"a0.h{head} ########################" for head in (4, 5, 6, 7))
STEADY = {f"a0.h{head}": np.array([0.6, 0.3, 0.1]) * (1 + 0.2 * head) for head in (4, 5, 6, 7)}


@pytest.mark.parametrize(
    ("drawing", "same", "kind"),
    [
        ("a0.h0 ............############\na0.h1 ########################", False, "birth"),
        ("a0.h0 ############............\na0.h1 ########################", False, "death"),
        ("a0.h0 ############............\na0.h1 ............############", True, "hand-off"),
        ("a0.h0 ############555555555555\na0.h1 ............555555555555", True, "split"),
        ("a0.h0 555555555555############\na0.h1 555555555555............", True, "merge"),
    ],
)
def test_what_was_drawn_is_told(drawing: str, same: bool, kind: str) -> None:
    features = {"a0.h0": ONE, "a0.h1": ONE if same else OTHER, **STEADY}
    linked = link_series(series_of_effects(drawing + "\n" + LIVING, features=features, noise=0.01))
    (event,) = linked.events
    assert event.kind == kind
    assert (event.frame_before, event.frame) == (11, 12)
    assert event.margin > 0
    assert 0 < event.share <= 1


def test_a_hand_off_needs_the_two_to_be_alike() -> None:
    drawing = "a0.h0 ############............\na0.h1 ............############\n" + LIVING
    features = {"a0.h0": ONE, "a0.h1": OTHER, **STEADY}
    linked = link_series(series_of_effects(drawing, features=features, noise=0.01))
    assert sorted(event.kind for event in linked.events) == ["birth", "death"]


def test_a_swap_is_two_hand_offs_and_two_tracks() -> None:
    series = series_of_effects("a0.h0 " + "#" * 24 + "\na0.h1 " + "#" * 24 + "\n" + LIVING, features=STEADY, noise=0.01)
    for component, (before, after) in enumerate(((ONE, THIRD), (THIRD, ONE))):
        series.features[:12, component] = before + 0.01 * np.random.default_rng(component).normal(size=(12, 3))
        series.features[12:, component] = after + 0.01 * np.random.default_rng(9 + component).normal(size=(12, 3))
    linked = link_series(series)
    assert [(event.kind, event.frame, event.swap) for event in linked.events] == [("hand-off", 12, True)] * 2
    assert len(set(linked.track.tolist())) == 6


def test_what_forms_with_the_task_has_no_birth() -> None:
    drawing = "a0.h0 .#######################\na0.h1 ..######################\n" + LIVING
    assert link_series(series_of_effects(drawing, features=STEADY)).events == ()
