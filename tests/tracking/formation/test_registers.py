"""A definition or a clock from outside the package is one entry, from the command line to the exported table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuits.graph import Node
from tests.timeline_examples import demo_history
from tracking.cli.cli import run
from tracking.formation.clocks import CLOCKS, Clock, Measured, form
from tracking.formation.curves import Curve
from tracking.formation.dating import DEFINITIONS, Case, Date, Definition
from tracking.formation.formation import formation_table
from tracking.formation.passages import Passage
from tracking.lifelines.events import EVENT_KINDS, Event
from tracking.lifelines.lifelines import Lifeline


def at_the_top(case: Case) -> list[Date]:
    """The snapshot with the largest value."""
    curve = case.curve
    after = max(int(curve.path.argmax()), 1)
    at, drawn = float(curve.x[after]), curve.x[case.draws.all.argmax(axis=1)]
    return [Date(1, Passage(at, after, drawn), np.nan, "none", at, at)]


def form_again(measured: Measured, role: Lifeline, node: Node | None, seed: int) -> Curve | None:
    return form(measured, role, node, seed)


def test_a_definition_and_a_clock_from_outside_reach_the_exported_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEFINITIONS, "top", Definition("where the curve is largest", at_the_top))
    monkeypatch.setitem(CLOCKS, "again", Clock("as form", form_again))
    demo_history().save(tmp_path / "history")
    args = ["export", str(tmp_path / "history"), "--format", "csv", "--out", str(tmp_path / "tables")]
    assert run(args) == 0
    table = pd.read_csv(tmp_path / "tables" / "formation.csv")
    assert "top" in set(table["definition"])
    both = table[table["definition"] == "threshold"].set_index(["lifeline", "component", "rise", "clock"])["midpoint"]
    both = both.unstack("clock").dropna(subset=["form", "again"])
    assert len(both)
    np.testing.assert_allclose(both["form"], both["again"], rtol=0.1)


def test_what_nothing_handles_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a list of definitions among"):
        formation_table(demo_history(), definitions=["eye"])
    with pytest.raises(ValueError, match="expected a kind of event among birth, death"):
        Event("a", "induction", "rebirth", 0, 1, "", "induction", (), (Node.head(0, 0),), 1.0)


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_every_kind_of_event_has_words(kind: str) -> None:
    nodes = (Node.head(0, 0),), (Node.head(0, 1),)
    sentence = str(Event("a", "induction", kind, 0, 1, "induction", "induction", *nodes, 1.0))
    assert "between steps 0 and 1" in sentence
    assert "{" not in sentence
