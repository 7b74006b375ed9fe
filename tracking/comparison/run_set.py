"""Run sets: which runs are compared, in what they differ, when each role formed in each, and what was recorded of them.

A curve may rise several times.  The columns `state`, `rise` and `n_rises` of the formation table say so, and `Rises`
says which of them counts: the one that lasts (the last), the first, or the one of a number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from circuits.suggestions import suggest
from tracking.formation.dating import DEFINITIONS
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifelines, link_lifelines

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "QUESTION",
    "Hyperparameters",
    "Rises",
    "RunSet",
    "Unit",
    "by_size",
    "check_names",
    "formation_times",
    "is_number",
    "join_runs",
    "law_tokens",
    "plain",
    "questions",
    "rises_that_count",
    "rows_of",
    "run_set",
    "series_of",
    "settings_of",
    "unit_of",
    "varying",
]

Unit = Literal["auto", "steps", "tokens"]
Hyperparameters = Mapping[str, Mapping[str, Any]]
Rises = Literal["lasting", "first"] | int
NOT_SETTINGS = frozenset({"seed", "data_seed", "data_order", "parent", "steps", "checkpoints", "name"})
UNKNOWN = "not told from noise"
UNDATED = "not datable by this definition"
SERIES = ("run", "name", "step", "value")
LAW = 10**5.7
QUESTION = ("role", "clock", "definition")


@dataclass(frozen=True)
class RunSet:
    """Many runs, as comparison and forecast see them.

    Attributes:
        formation: the formation table of all runs (a column `run`), as `tracking.formation.formation` gives it; steps.
        settings: hyperparameters by run.
        last_step: the last snapshot by run; a role without a row had not formed by then.
        tokens_per_step: by run; NaN where unknown.
        series: long table run, name, step, value: every recorded number, and for each measure of heads the best
            head's score (`best NAME`).
        lifelines: by run, where histories were linked for this.
    """

    formation: "pd.DataFrame"
    settings: Hyperparameters
    last_step: Mapping[str, float] = field(default_factory=dict)
    tokens_per_step: Mapping[str, float] = field(default_factory=dict)
    series: "pd.DataFrame" = field(default_factory=lambda: _no_series())
    lifelines: Mapping[str, Lifelines] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if missing := {*QUESTION, "run", "rise", "interval_before", "interval_after", "censored"} - set(self.formation):
            raise ValueError(f"expected a formation table, got one without the columns {', '.join(sorted(missing))}")
        if unknown := set(self.formation["run"]) - set(self.settings):
            raise ValueError(f"no hyperparameters are known of {', '.join(sorted(map(str, unknown)))}; give them")

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(self.settings)


def _no_series() -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(columns=list(SERIES))


def run_set(histories: Sequence[History], *, definitions: Sequence[str] = ("threshold",)) -> RunSet:
    """Link and date every history; only whole roles are kept, so that a run counts once in each comparison.

    Raises:
        ValueError: two histories are of one run, or one has no scores that are named as roles.
    """
    import pandas as pd

    from tracking.formation.formation import formation_table

    settings = settings_of(histories)
    linked = [link_lifelines(history) for history in histories]
    for history, lifelines in zip(histories, linked, strict=True):
        if nameless := [line.lifeline for line in lifelines.roles if not line.measure]:
            raise ValueError(
                f"what is linked in run {history.name!r} has no role's name ({', '.join(nameless[:3])}), so which of "
                "it is which in another run is not known; record or import scores of roles, such as induction"
            )
    tables = [
        formation_table(history, lifelines, definitions=definitions)
        for history, lifelines in zip(histories, linked, strict=True)
    ]
    formation = pd.concat([table.to_frame() for table in tables], ignore_index=True)
    series = pd.concat([series_of(history) for history in histories], ignore_index=True)
    return RunSet(
        _without_repeats(formation[formation["component"] == ""]),
        settings,
        {history.name: float(history.steps[-1]) for history in histories},
        {history.name: _tokens_per_step(history) for history in histories},
        series,
        {history.name: lifelines for history, lifelines in zip(histories, linked, strict=True)},
    )


def series_of(history: History) -> "pd.DataFrame":
    """Every recorded number of a run, and for each measure of heads the best head's score: run, name, step, value."""
    import pandas as pd

    rows, best = [], {}
    for (step, task), record in sorted(history.records.items()):
        rows += [(f"{task}/{name}", step, float(one.value)) for name, one in record.metrics.items()]
        for measure, scores in record.scores.items():
            known = scores.values[np.isfinite(scores.values)]
            if len(known):
                key = f"best {measure}", step
                best[key] = max(best.get(key, -math.inf), float(known.max()))
    rows += [(*key, value) for key, value in sorted(best.items())]
    return pd.DataFrame(rows, columns=list(SERIES[1:])).assign(run=history.name)[list(SERIES)]


def join_runs(parts: Sequence[RunSet]) -> RunSet:
    """Several sets of runs as one."""
    import pandas as pd

    settings, last, per_step = {}, {}, {}
    for part in parts:
        settings |= part.settings
        last |= part.last_step
        per_step |= part.tokens_per_step
    formation = pd.concat([part.formation for part in parts], ignore_index=True)
    series = pd.concat([part.series for part in parts], ignore_index=True)
    return RunSet(formation, settings, last, per_step, series)


def questions(runs: RunSet, *, rises: Rises = "lasting") -> list[tuple[tuple[str, str, str], "pd.DataFrame"]]:
    """Each (role, clock, definition) with the rows of the rise that counts, one a lifeline and run."""
    table = rises_that_count(runs.formation, rises)
    return [((str(a), str(b), str(c)), part) for (a, b, c), part in table.groupby(list(QUESTION), sort=True)]


def rows_of(runs: RunSet, role: str, clock: str, definition: str | None = None) -> "pd.DataFrame":
    """The rows of one question; where no definition is given, of the leading one that these runs are dated by."""
    found = {key: part for key, part in questions(runs) if key[:2] == (role, clock)}
    known = sorted(
        found, key=lambda key: list(DEFINITIONS).index(key[2]) if key[2] in DEFINITIONS else len(DEFINITIONS)
    )
    key = (role, clock, definition) if definition is not None else next(iter(known), None)
    return found.get(key, runs.formation.iloc[:0]) if key is not None else runs.formation.iloc[:0]


def rises_that_count(table: "pd.DataFrame", rises: Rises = "lasting") -> "pd.DataFrame":
    """The rows of a formation table that are compared: of each curve one rise.

    Raises:
        ValueError: it is asked for a rise that no curve has.
    """
    rise = table["rise"].fillna(1).clip(lower=1).astype(int)
    if isinstance(rises, int):
        if not (rise == rises).any():
            raise ValueError(f"no curve rises {rises} times among these runs; at most {rise.max()} times")
        return table[rise == rises]
    if rises not in ("lasting", "first"):
        raise ValueError(f"expected rises to be lasting, first, or a number, got {rises!r}")
    key = [table[name].fillna("") for name in ("run", *QUESTION, *({"lifeline"} & set(table)))]
    chosen = rise.groupby(key).transform("max" if rises == "lasting" else "min") if len(rise) else rise
    return table[rise == chosen]


def settings_of(histories: Sequence[History]) -> dict[str, dict[str, Any]]:
    """Hyperparameters by run.

    Raises:
        ValueError: two histories are of one run.
    """
    names = [history.name for history in histories]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two histories are of run {twice[0]!r}; give each run once")
    settings = {history.name: dict(history.hyperparameters) for history in histories}
    for history in histories:
        if history.parent is not None:
            settings[history.name].setdefault("parent", f"{history.parent.parent} at step {history.parent.step}")
    if any("intervention" in values for values in settings.values()):  # a run that is no branch is one without
        settings = {name: {"intervention": "none", **values} for name, values in settings.items()}
    return settings


def _without_repeats(table: "pd.DataFrame") -> "pd.DataFrame":
    """Roles of one task share its behaviour: keep it once, for the role that is about the task."""
    shared = table[table["clock"] == "behaviour"]
    columns = ["definition", "rise", "run", "interval_before", "interval_after", "censored"]
    dates = {
        str(role): set(part[columns].fillna(-1).itertuples(index=False, name=None))
        for role, part in shared.groupby("role")
    }
    told: dict[str, set[tuple]] = {}
    # A role that some runs do not have repeats only a part of what the others say.
    for role in sorted(dates, key=lambda role: (role != "induction", -len(dates[role]), role)):
        if not any(dates[role] <= other for other in told.values()):
            told[role] = dates[role]
    kept = (table["clock"] != "behaviour") | table["role"].isin(set(told))
    return table[kept].reset_index(drop=True)


def formation_times(runs: RunSet, rows: "pd.DataFrame", *, unit: str = "steps") -> "pd.DataFrame":
    """Columns run, low, high: the interval that each row of a formation table says, in steps or tokens.

    A run without a row is right-censored at its last snapshot.
    """
    import pandas as pd

    dated = set(rows["run"].astype(str))
    before, after = rows["interval_before"].astype(float), rows["interval_after"].astype(float)
    low = before.where(rows["censored"] != "left", 0.0)
    high = after.where(rows["censored"] != "right", np.inf)
    if "state" in rows:  # it is there, at some time before the end; or neither there nor not, for all that is known
        undated, known = rows["state"] == UNDATED, rows["state"] != UNKNOWN
        ends = rows["run"].astype(str).map(dict(runs.last_step)).astype(float)
        low, high = low.where(~undated, 0.0)[known], high.where(~undated, ends)[known]
        rows = rows[known]
    # There at step 0 already: before the first half step, for times are compared in logarithms.
    times = pd.DataFrame({"run": rows["run"].astype(str), "low": low, "high": high.clip(lower=0.5)})
    silent = [run for run in runs.runs if run not in dated and run in runs.last_step]
    never = pd.DataFrame({"run": silent, "low": [float(runs.last_step[run]) for run in silent], "high": np.inf})
    times = pd.concat([times, never.astype({"low": float})], ignore_index=True) if silent else times
    if unit == "tokens":
        per_step = times["run"].map(runs.tokens_per_step).astype(float)
        times = times.assign(low=times["low"] * per_step, high=times["high"] * per_step)
    return times.dropna().reset_index(drop=True)


def unit_of(runs: RunSet, unit: Unit) -> str:
    """Steps or tokens: what `auto` means for these runs.

    Raises:
        ValueError: tokens are asked for and a run does not know its own.
    """
    per_step = {run: float(runs.tokens_per_step.get(run, math.nan)) for run in runs.runs}
    known = all(math.isfinite(value) for value in per_step.values())
    if unit == "tokens" and not known:
        missing = next(run for run, value in per_step.items() if not math.isfinite(value))
        raise ValueError(f"run {missing!r} does not say how many tokens a step has; compare in steps")
    if unit == "auto":
        return "tokens" if known and len(set(per_step.values())) > 1 else "steps"
    return unit


def _tokens_per_step(history: History) -> float:
    known = [(step, tokens) for step, tokens in history.tokens.items() if tokens is not None and step > 0]
    return known[-1][1] / known[-1][0] if known else math.nan


def check_names(settings: Hyperparameters, names: Sequence[str]) -> None:
    """Raises:
    ValueError: there are too few runs to compare, or a hyperparameter is unknown or does not vary.
    """
    if len(settings) < 2:
        raise ValueError(f"expected at least two runs to compare, got {len(settings)}; train more seeds or settings")
    known = sorted({key for values in settings.values() for key in values})
    for name in names:
        if name not in known:
            raise ValueError(f"no run has a hyperparameter {name!r}; {suggest(name, known)}")
        values = {plain(values[name]) for values in settings.values() if values.get(name) is not None}
        if len(values) < 2:
            vary = ", ".join(varying(settings)) or "none does"
            raise ValueError(
                f"{name!r} is {next(iter(values), None)} in all runs, so nothing can be compared; vary: {vary}"
            )


def varying(settings: Hyperparameters) -> tuple[str, ...]:
    """The hyperparameters that differ between runs, seeds and schedules left out."""
    names = sorted({key for values in settings.values() for key in values} - NOT_SETTINGS)
    return tuple(name for name in names if len({plain(values.get(name)) for values in settings.values()}) > 1)


def plain(value: Any) -> Any:
    """A value that can be compared and hashed."""
    return value if isinstance(value, int | float | str | bool) or value is None else repr(value)


def by_size(value: Any) -> tuple[int, float, str]:
    """The order of settings: numbers by size, then names."""
    return (0, float(value), "") if is_number(value) else (1, 0.0, str(value))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def law_tokens(settings: Mapping[str, Any]) -> float:
    """Tokens at which the published law has induction form; NaN where batch or context are unknown."""
    try:
        return LAW * math.sqrt(float(settings["batch_size"]) * float(settings["context_length"]))
    except (KeyError, TypeError, ValueError):
        return math.nan
