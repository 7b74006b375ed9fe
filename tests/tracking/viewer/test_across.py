"""What a page of several runs says first is what the comparison finds."""

from tests.timeline_examples import demo_timeline, two_runs
from tracking.viewer.across import across_runs


def test_one_run_is_not_compared() -> None:
    assert across_runs(demo_timeline().runs) == {"story": "", "effects": [], "confidence": None}


def test_runs_are_told_by_how_many_form_what_and_by_what_moves_it() -> None:
    found = across_runs(two_runs().runs)
    assert found["story"].startswith("Of 2 runs, ")
    assert "induction forms in all 2 between steps 17" in found["story"]
    effects = {(row["what"], row["role"]): row for row in found["effects"]}
    row = effects["learning_rate 0.003 : 0.001", "induction"]
    assert row["verdict"] == "too few runs"
    assert row["runs"] == 2
    assert row["factor"].endswith("(no bound on either side)")  # two runs
