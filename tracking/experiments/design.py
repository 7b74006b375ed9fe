"""Run design: which run next, to bring a formation forward, hold it back, hit a step, or move a recorded number.

A search proposes settings (Optuna's tree-structured Parzen estimator), runs each with a seed of its own, and learns
from what came of it.  A run is trained to a **cut** first; where the forecast from the completed runs gives it hardly a
chance to beat the best so far, it is stopped there (**pruned**).  At the end the best setting is run again with seeds
that the search has not seen: the best of many is partly luck, fresh seeds tell what it is worth.

Where it is known how the date responds to sources of data (`formation why`), the first settings that are tried follow
it.  A condition may name the **control**, runs of the base without any choice: each run is then held to the control of
its own seed, which differs from it in nothing but what was chosen, and the search keeps to a few seeds.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from circuits.display import table_html
from tracking.comparison.run_set import RunSet, join_runs
from tracking.execution.locks import held
from tracking.execution.pool import Progress
from tracking.experiments.curricula import going_on, shift_of
from tracking.experiments.experiment import Experiment, TrainAndRecord
from tracking.experiments.goals import Goal, parse_goal
from tracking.experiments.planning import Range, Space, check_recording, read_space
from tracking.forecasting.forecast import predict_date, predict_end
from tracking.forecasting.ridge import Prediction
from tracking.lifelines.lifelines import ROLE_THRESHOLDS
from tracking.results.influence_file import InfluenceFile, read_influence

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DesignResult", "design"]

FIRST = 6
"""Whole runs before anything is pruned."""
N_DRAWN = 8
"""Settings that are tried before the search learns from them; those of `start` count."""
FRESH = 1_000
"""Seeds from here on confirm; the search uses those below."""
CONTROL = 2_000
N_CONTROLS = 3


@dataclass(frozen=True)
class DesignResult:
    """What was tried, and what the best of it is worth.

    `trials`: trial, the chosen options, seed, state (whole or pruned), value (of the goal's quantity; NaN if pruned),
    cost, chance (predicted, to beat the best so far), steps.  `confirmed`: seed, value, kept (all conditions), met, and
    by how much it is beyond each condition (0 or less where that is kept).
    """

    goal: Goal
    trials: "pd.DataFrame"
    best: Mapping[str, Any]
    confirmed: "pd.DataFrame"
    steps_spent: int
    steps_whole: int
    sentences: tuple[str, ...] = field(default=())

    @property
    def saved(self) -> float:
        """Share of the training of the search that pruning saved."""
        return 1 - self.steps_spent / self.steps_whole

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        return self.trials


def design(
    space: "Space | str | Path | Mapping[str, Any]",
    goal: "Goal | str",
    *,
    budget: int = 40,
    out: "str | Path" = "design",
    prune: bool = True,
    cut: float = 0.4,
    least_chance: float = 0.1,
    confirm: int = 5,
    seed: int = 0,
    start: "str | Path | Mapping[str, Any] | None" = None,
    sampler: str = "tpe",
    experiment: Experiment | None = None,
    progress: Progress | None = None,
) -> DesignResult:
    """Search a space for the setting that serves a goal best, and confirm it on fresh seeds.

    Args:
        space: as `tracking.experiments.planning` reads it.
        goal: as `tracking.experiments.goals` reads it.
        budget: settings to try.
        out: folder of the runs; the same call again goes on.
        prune: stop hopeless runs at `cut` (a share of their steps), where their chance to beat the best so far is
            predicted to be below `least_chance`.
        confirm: runs of the best setting with fresh seeds.
        seed: of the search.
        start: the response to sources of the goal's date, or of when its number is half way: a file of
            `formation why --json`; what it points to is tried first.
        sampler: `tpe` learns from what was tried; `random` does not, and is what a search is to be held to.
        experiment: what runs a setting; the embedded trainer where not given.
        progress: called with ("design", settings tried, budget).

    Raises:
        ImportError: Optuna is not installed.
        ValueError: the space or goal cannot be read, or is about a role or number that does not exist.
    """
    space = space if isinstance(space, Space) else read_space(space)
    goal = goal if isinstance(goal, Goal) else parse_goal(goal, roles=list(ROLE_THRESHOLDS))
    if budget < 1 or confirm < 0 or not 0 < cut < 1:
        raise ValueError(f"expected a budget of 1 or more and a cut between 0 and 1, got {budget} and {cut}")
    if experiment is None:
        rng = np.random.default_rng(seed)
        drawn = {name: choice.draw(rng) for name, choice in space.choices.items()}
        check_recording([space.config(drawn, seed=0)], space.recording)
    run = experiment or TrainAndRecord(space, Path(out))
    study, distributions = _study(space, seed, sampler)
    for first in [] if start is None else _first_settings(space, goal, read_influence(start)):
        study.enqueue_trial(first)
    show = progress or (lambda what, done, total: None)
    with held(out, "design") if experiment is None else nullcontext():
        search = _Search(goal, run, _Controls(run), cut if prune else 1.0, least_chance)
        for number in range(budget):
            show("design", number, budget)
            trial = study.ask(distributions)
            row = search.attempt(number, dict(trial.params))
            trial.report(row["cost"], 0)
            if row["state"] == "pruned":
                study.tell(trial, state=_states().PRUNED)
            else:
                study.tell(trial, row["cost"])
        show("design", budget, budget)
        return _result(search, space, budget, confirm)


@dataclass
class _Controls:
    """Runs of the base without any choice, by seed: a condition compares a run with the control of its own seed."""

    run: Experiment
    found: dict[int, RunSet] = field(default_factory=dict)

    def value(self, quantity: Goal, seed: int) -> float:
        if seed not in self.found:
            self.found[seed] = self.run({}, seed=seed, name=f"control{seed:04d}", until=self.run.steps)
        value = quantity.value(self.found[seed].formation, self.found[seed].series)
        if not math.isfinite(value):
            raise ValueError(f"the control has no {quantity.subject!r} to compare with")
        return value


def _first_settings(space: Space, goal: Goal, response: InfluenceFile) -> list[dict[str, Any]]:
    """From the control towards the ends of the ranges that serve the goal: all the way, half and a quarter of it.

    What the date does not respond to stays as in the control.  The response knows nothing of the goal's conditions.
    """
    rises, shifts = _rise_wanted(goal, response.curve), response.sources
    if not goal.is_date:
        shifts = going_on(shifts, space.config({}, seed=0).steps)
    ranges = {name: choice for name, choice in space.choices.items() if isinstance(choice, Range)}
    sides = {name: -rises * np.sign(shift_of(name, shifts)) for name in ranges}  # a negative shift is earlier
    if not any(sides.values()):
        return []
    control = space.control()
    return [
        {name: choice.towards(sides[name], share, begin=control.get(name)) for name, choice in ranges.items()}
        for share in (1.0, 0.5, 0.25)
    ]


def _rise_wanted(goal: Goal, curve: str) -> int:
    """1 where the goal wants the date of the curve to be early, -1 late, 0 where it wants it at a step.

    A number at the end of a run is higher the earlier its curve rises, and a loss is lower the earlier it falls.

    Raises:
        ValueError: the response is of another curve than the goal.
    """
    early = {"below": 1, "above": -1, "at": 0}[goal.direction]
    if goal.is_date and goal.subject == curve.rpartition(":")[2]:
        return early
    kind, _, of = curve.partition("/")
    asked = goal.subject.partition("/")[2] if kind == "loss" else goal.subject.rpartition("/")[0]
    if not goal.is_date and kind == "loss" and asked == curve:
        return early
    if not goal.is_date and kind == "task" and asked == of:
        return -early
    raise ValueError(
        f"the response that the search is to start from is of {curve}, and the goal is about {goal.subject}; give what "
        f"`formation why --json` printed of that"
    )


@dataclass
class _Search:
    goal: Goal
    run: Experiment
    controls: _Controls
    cut: float
    least_chance: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    whole: list[RunSet] = field(default_factory=list)
    best: float = math.inf

    def attempt(self, number: int, setting: dict[str, Any]) -> dict[str, Any]:
        name, steps = f"trial{number:03d}", self.run.steps
        seed = CONTROL + number % N_CONTROLS if self.goal.beside_controls else number
        row: dict[str, Any] = {"trial": number, **setting, "seed": seed, "chance": math.nan}
        if self.cut < 1 and len(self.whole) >= FIRST:
            until = round(self.cut * steps)
            part = self.run(setting, seed=seed, name=name, until=until)
            row["chance"], predicted = self._chance(part, float(until))
            if row["chance"] < self.least_chance:
                row |= {"state": "pruned", "value": math.nan, "cost": predicted, "steps": until}
                self.rows.append(row)
                return row
        found = self.run(setting, seed=seed, name=name, until=steps)
        value, broken = self.judge(found, seed)
        cost = self.goal.cost(value, last_step=float(steps)) + 100.0 * sum(not apart <= 0 for apart in broken.values())
        self.whole.append(found)
        self.best = min(self.best, cost)
        row |= {"state": "whole", "value": value, "cost": cost, "steps": steps}
        self.rows.append(row)
        return row

    def judge(self, found: RunSet, seed: int) -> tuple[float, dict[str, float]]:
        """The goal's value of a whole run, and by how much it is beyond what each condition allows."""
        value = self.goal.value(found.formation, found.series)
        if math.isnan(value):
            names = ", ".join(sorted(found.series["name"].unique()))
            raise ValueError(f"no run records {self.goal.subject!r}; there are {names}")
        return value, {
            str(each): each.beyond(
                each.value(found.formation, found.series),
                self.controls.value(each, seed) if each.beside_control else each.target,
            )
            for each in self.goal.conditions
        }

    def _chance(self, part: RunSet, until: float) -> tuple[float, float]:
        """The probability of beating the best so far, and the cost that is predicted."""
        run = next(iter(part.settings))
        known = join_runs([*self.whole, part])
        goal = self.goal
        if goal.is_date:
            said = predict_date(known, run, role=goal.subject, clock=goal.clock, cut=until)
        else:
            said = predict_end(known, run, name=goal.subject, cut=until)
        if said is None:
            return 1.0, self.best
        return _beats(said, goal, self.best), _predicted(said, goal)


def _beats(said: Prediction, goal: Goal, best: float) -> float:
    """The probability that the goal's cost is below the best."""
    if best >= 50.0:
        return 1.0  # nothing has kept the conditions yet
    if goal.direction == "below":
        return said.below(best)
    if goal.direction == "above":
        return 1 - said.below(-best)
    target = math.log(goal.target) if goal.is_date else goal.target
    return said.below(target + best) - said.below(target - best)


def _predicted(said: Prediction, goal: Goal) -> float:
    if goal.direction == "at":
        return abs(said.mean - (math.log(goal.target) if goal.is_date else goal.target))
    return said.mean if goal.direction == "below" else -said.mean


def _result(search: _Search, space: Space, budget: int, confirm: int) -> DesignResult:
    import pandas as pd

    trials = pd.DataFrame(search.rows)
    whole = trials[trials["state"] == "whole"]
    first = whole.loc[whole["cost"].idxmin()]
    best = {name: first[name] for name in space.choices}
    best = {name: value.item() if isinstance(value, np.generic) else value for name, value in best.items()}
    rows = []
    for number in range(confirm):
        seed = FRESH + number
        found = search.run(best, seed=seed, name=f"confirm{number:02d}", until=search.run.steps)
        value, broken = search.judge(found, seed)
        kept = all(apart <= 0 for apart in broken.values())
        rows.append({"seed": seed, "value": value, "kept": kept, "met": search.goal.met(value) and kept, **broken})
    conditions = [str(each) for each in search.goal.conditions]
    confirmed = pd.DataFrame(rows, columns=["seed", "value", "kept", "met", *conditions])
    spent, everything = int(trials["steps"].sum()), budget * search.run.steps
    result = DesignResult(search.goal, trials, best, confirmed, spent, everything)
    return DesignResult(search.goal, trials, best, confirmed, spent, everything, tuple(_sentences(result)))


def _sentences(result: DesignResult) -> list[str]:
    goal, setting = result.goal, ", ".join(f"{name} {value}" for name, value in result.best.items())
    said = [f"Best of {len(result.trials)} settings for {goal}: {setting}."]
    values = result.confirmed["value"].to_numpy(dtype=float)
    if len(values) > 1 and np.isfinite(values).all():
        y = np.log(values) if goal.is_date else values
        away = float(y.std(ddof=1)) * float(stats.t.ppf(0.95, len(y) - 1)) / math.sqrt(len(y))
        ends = [float(y.mean()) + side * away for side in (-1, 0, 1)]
        low, middle, high = (math.exp(end) if goal.is_date else end for end in ends)
        what = f"{goal.subject} {goal.quantity}" if goal.is_date else goal.subject
        said.append(
            f"On {len(values)} fresh seeds: {what} {middle:.4g} on average (90% interval {low:.4g} to {high:.4g}; "
            f"single runs from {values.min():.4g} to {values.max():.4g})."
        )
    elif len(values):
        said.append(f"On {len(values)} fresh seeds: it forms in {int(np.isfinite(values).sum())} of them.")
    if len(values) and math.isfinite(goal.target):
        count = int(result.confirmed["met"].sum())
        ends = stats.binomtest(count, len(values)).proportion_ci(0.9, method="wilson")
        said.append(f"The goal is met in {count} of {len(values)} (90% interval {ends.low:.0%} to {ends.high:.0%}).")
    if len(values) and goal.conditions:
        said.append(f"What it is subject to is kept in {int(result.confirmed['kept'].sum())} of {len(values)}.")
    for each in goal.conditions if len(values) > 1 else ():
        apart = result.confirmed[str(each)].to_numpy(dtype=float)
        if each.beside_control and np.isfinite(apart).all():
            away = float(apart.std(ddof=1)) * float(stats.t.ppf(0.95, len(apart) - 1)) / math.sqrt(len(apart))
            low, high = apart.mean() - away, apart.mean() + away
            said.append(
                f"{each.subject} is {apart.mean():+.3g} worse than that of the control of the same seed (90% interval "
                f"{low:+.3g} to {high:+.3g})."
            )
    pruned = int((result.trials["state"] == "pruned").sum())
    said.append(
        f"{pruned} of {len(result.trials)} runs were stopped early; that saved {result.saved:.0%} of all steps."
    )
    return said


def _study(space: Space, seed: int, sampler: str) -> tuple[Any, dict[str, Any]]:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("a design needs Optuna: pip install 'circuit-formation-tracker[design]'") from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, Any] = {}
    for name, choice in space.choices.items():
        if not isinstance(choice, Range):
            distributions[name] = optuna.distributions.CategoricalDistribution(choice.values)
        elif choice.whole:
            low, high = round(choice.low), round(choice.high)
            distributions[name] = optuna.distributions.IntDistribution(low, high, log=choice.scale == "log")
        else:
            ends = (choice.low, choice.high)
            distributions[name] = optuna.distributions.FloatDistribution(*ends, log=choice.scale == "log")
    samplers = {
        "tpe": optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_DRAWN),
        "random": optuna.samplers.RandomSampler(seed=seed),
    }
    if sampler not in samplers:
        raise ValueError(f"expected a sampler among {', '.join(samplers)}, got {sampler!r}")
    return optuna.create_study(sampler=samplers[sampler]), distributions


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState
