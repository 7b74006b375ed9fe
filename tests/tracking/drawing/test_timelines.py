"""A timeline from the door draws itself, and is the value that everything else takes."""

import pandas as pd
import pytest

from tests.timeline_examples import demo_history
from tracking import build_timeline
from tracking.results import timeline
from tracking.results.timeline import as_timeline


def test_it_is_the_same_timeline_with_a_figure() -> None:
    pytest.importorskip("matplotlib")
    found = build_timeline(demo_history(), max_gap=1)
    plain = timeline.build_timeline(demo_history(), max_gap=1)
    pd.testing.assert_frame_equal(found.table("formation"), plain.table("formation"))
    assert as_timeline(found) is found
    assert repr(found) == repr(plain)
    assert found.plot(axis="tokens").axes
