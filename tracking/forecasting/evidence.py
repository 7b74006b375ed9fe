"""Forecast evidence: what is known of many runs, and what of each was known by a step.

**Evidence** is the formation and settings of runs together with every series that was recorded of them.  What may be
learned from at a step are the columns of `known_by`, which look at nothing later.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracking.comparison.run_set import RunSet, is_number, plain, run_set, varying
from tracking.history.history import History

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evidence", "evidence", "join_evidence", "known_by", "series_of"]


@dataclass(frozen=True)
class Evidence:
    """Many runs with all that was measured of them.

    Attributes:
        runs: formation and settings.
        series: long table run, name, step, value: metrics, and for each measure of heads the best head's score.
    """

    runs: RunSet
    series: "pd.DataFrame"


def evidence(histories: Sequence[History], *, definitions: Sequence[str] = ("half-rise",)) -> Evidence:
    """What comparison and forecast need of some histories."""
    import pandas as pd

    series = pd.concat([series_of(history) for history in histories], ignore_index=True)
    return Evidence(run_set(histories, definitions=definitions), series)


def series_of(history: History) -> "pd.DataFrame":
    """Every recorded number of a run, and for each measure of heads the best head's score: run, name, step, value."""
    import pandas as pd

    metrics = history.to_frame("metrics")[["run", "name", "step", "value"]]
    scores = history.to_frame("scores")
    best = scores.groupby(["run", "measure", "step"], as_index=False)["value"].max()
    best = best.rename(columns={"measure": "name"}).assign(name=lambda table: "best " + table["name"])
    return pd.concat([metrics, best], ignore_index=True)


def join_evidence(parts: Sequence[Evidence]) -> Evidence:
    """Several runs' evidence as one."""
    import pandas as pd

    settings, last, per_step = {}, {}, {}
    for part in parts:
        settings |= part.runs.settings
        last |= part.runs.last_step
        per_step |= part.runs.tokens_per_step
    formation = pd.concat([part.runs.formation for part in parts], ignore_index=True)
    series = pd.concat([part.series for part in parts], ignore_index=True)
    return Evidence(RunSet(formation, settings, last, per_step), series)


def known_by(known: Evidence, cuts: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The columns to learn from, by run: hyperparameters, and of each series its last value and latest change.

    Only what was measured by each run's cut is looked at.
    """
    columns: dict[str, dict[str, float]] = {run: {} for run in cuts}
    for name in varying({run: known.runs.settings[run] for run in known.runs.runs}):
        values = {run: plain(known.runs.settings[run].get(name)) for run in known.runs.runs}
        if all(map(is_number, values.values())):
            low = min(values.values())
            for run in cuts:
                columns[run][f"setting {name}"] = math.log(values[run]) if low > 0 else float(values[run])
        else:
            for run in cuts:
                columns[run] |= {f"setting {name} {v}": float(values[run] == v) for v in set(map(str, values.values()))}
    for (run, name), part in known.series.groupby(["run", "name"], sort=False):
        if run not in cuts:
            continue
        past = part[part["step"] <= cuts[run]].sort_values("step")
        values = past["value"].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        if len(values):
            quarter = max(2, len(values) // 4)
            columns[run][f"last {name}"] = float(values[-2:].mean())
            columns[run][f"change {name}"] = float(values[-1] - values[-quarter:].mean())
    return columns
