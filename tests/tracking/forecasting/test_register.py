"""What is predicted before the outcome is known is kept as it was written, and judged by what happens."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tracking.forecasting.test_forecast import told
from tracking.comparison.run_set import RunSet
from tracking.forecasting.register import describe_settled, predict_open, register, settle


def unfinished(known: RunSet, *, until: float = 60.0, n_runs: int = 4) -> RunSet:
    """The same runs when some of them stood at that step, none of these having formed by then."""
    rows = known.formation.set_index("run")
    late = [run for run in known.runs if rows.loc[run, "interval_before"] >= until][:n_runs]
    table = known.formation.copy()
    open_ = table["run"].isin(late)
    table.loc[open_, ["interval_after", "midpoint", "onset", "plateau", "low", "high"]] = float("nan")
    table.loc[open_, "interval_before"] = until
    table.loc[open_, "censored"] = "right"
    series = known.series[~known.series["run"].isin(late) | (known.series["step"] <= until)]
    last = {run: until if run in late else end for run, end in known.last_step.items()}
    return replace(known, formation=table, series=series, last_step=last)


def test_predictions_are_written_once_and_judged_by_what_happened(tmp_path: Path) -> None:
    known, path = told(), tmp_path / "register.json"
    table = register(unfinished(known), path)
    assert len(table) == 4
    assert (table["midpoint"] > 60).all()
    assert describe_settled(settle(unfinished(known), path)) == ["None of the 4 registered predictions is settled yet."]
    settled = settle(known, path)
    assert set(settled["outcome"]) <= {"held", "missed", "in part"}
    said = describe_settled(settled)
    assert said[0].startswith("4 of 4 registered predictions are settled")
    assert "where the median of the other runs has" in said[1]
    with pytest.raises(FileExistsError):
        register(unfinished(known), path)


def test_a_register_that_was_changed_is_none(tmp_path: Path) -> None:
    known, path = told(), tmp_path / "register.json"
    register(unfinished(known), path)
    about = json.loads(path.read_text())
    about["predictions"][0]["midpoint"] += 1
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="was changed after it was written"):
        settle(known, path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="expected a register"):
        settle(known, path)


def test_what_has_happened_already_is_not_predicted() -> None:
    with pytest.raises(ValueError, match="nothing is left to predict"):
        predict_open(told())
