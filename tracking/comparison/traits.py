"""Traits: what else differs between settings: who carries a role, how many, in which order, how large and how well.

Each run gives one number for each **trait**, by the clock that the trait is about (`tracking.formation.clocks`);
settings are compared by exchanging runs, as in `tracking.comparison.comparison`.  "At the end" is the mean of the last
three snapshots.

- **form** (which heads look like it): how many heads carry a role at the end, and in which layer on average;
- **function** (which heads the model needs): how many, as the effective number (sum of effects)² / sum of effects² of
  corrupting each carrier; their mean layer, weighted by effect; how many carriers are *redundant* (corrupting such a
  head costs less than a quarter of what the most needed one costs); the circuit's edges and faithfulness;
- **behaviour** (what the model can do): losses, in-context-learning score and task metrics.

By form and by function the order and lag of each two roles, and by function and behaviour the lag behind form.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from tracking.comparison.adjustment import adjustment
from tracking.comparison.permutation import ENOUGH, Scores, exchange
from tracking.comparison.run_set import (
    Hyperparameters,
    RunSet,
    by_size,
    check_names,
    is_number,
    plain,
    rises_that_count,
    run_set,
)
from tracking.formation.clocks import Measured
from tracking.formation.sentences import p_text, p_words
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifeline, Lifelines, link_lifelines

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe_shifts", "run_traits", "trait_shifts"]

LAST = 3
"""Snapshots at the end that a trait is averaged over."""
NEEDED = 0.25
"""Corrupting a head that is needed costs at least this share of what the most needed one costs."""
OF_CIRCUIT = {"n_edges": "edges in the circuit", "faithfulness": "faithfulness"}

TRAIT = ("role", "clock", "trait")
Trait = tuple[str, str, str, float]
"""role (or task), clock, trait, value"""


def run_traits(histories: Sequence[History], runs: RunSet | None = None) -> "pd.DataFrame":
    """Columns run, role, clock, trait, value; metrics have their task in the place of the role.

    `runs` are the same histories dated, where that has been done already.
    """
    import pandas as pd

    dated = run_set(histories) if runs is None else runs
    formation = dated.formation
    rows = []
    for history in histories:
        dates = formation[formation["run"] == history.name]
        rows += [
            (history.name, *trait)
            for trait in (*_carried(history, dated.lifelines.get(history.name)), *_dated(dates), *_ends(history))
        ]
    return pd.DataFrame(rows, columns=["run", "role", "clock", "trait", "value"])


def _carried(history: History, lifelines: Lifelines | None) -> Iterator[Trait]:
    measured = Measured(history)
    for line in (lifelines or link_lifelines(history)).roles:
        carriers = line.nodes[-LAST:]
        yield line.lifeline, "form", "heads", float(np.mean([len(nodes) for nodes in carriers]))
        if layers := [node.layer for nodes in carriers for node in nodes]:
            yield line.lifeline, "form", "mean layer", float(np.mean(layers))
            yield from _needed(measured, line)


def _needed(measured: Measured, line: Lifeline) -> Iterator[Trait]:
    task = measured.task_of(line)
    data = None if task is None else measured.effects(task)
    nodes = sorted({node for nodes in line.nodes[-LAST:] for node in nodes}, key=lambda node: (node.layer, node.index))
    if data is None:
        return
    ends = np.nan_to_num(data["value"].values[-LAST:]).mean(axis=0)
    at = {name: place for place, name in enumerate(data["component"].values.tolist())}
    known = [node for node in nodes if node.name in at]
    effects = np.maximum([ends[at[node.name]] for node in known], 0.0)
    if not len(effects) or effects.max() <= 0:
        return
    yield line.lifeline, "function", "effective number of heads", float(effects.sum() ** 2 / (effects**2).sum())
    layers = np.array([node.layer for node in known], dtype=float)
    yield line.lifeline, "function", "mean layer", float(effects @ layers / effects.sum())
    yield line.lifeline, "function", "redundant heads", float((effects < NEEDED * effects.max()).sum())


def _dated(dates: "pd.DataFrame") -> Iterator[Trait]:
    """Order (1: the first named is surely first, -1: surely second, 0: cannot be told) and lag of two dates."""
    if not len(dates):
        return
    dates = rises_that_count(dates[dates["definition"] == dates["definition"].iloc[0]])
    dates = dates[dates["censored"] == "no"]
    found = {(row["role"], row["clock"]): row for row in dates.to_dict("records")}
    for clock in ("form", "function"):
        roles = sorted(role for role, other in found if other == clock)
        for a, b in combinations(roles, 2):
            first, second = found[a, clock], found[b, clock]
            ahead = float(first["interval_after"] <= second["interval_before"])
            behind = float(second["interval_after"] <= first["interval_before"])
            yield f"{a}, {b}", clock, "order", ahead - behind
            yield f"{a}, {b}", clock, "lag, ln ratio of steps", _lag(first, second)
    for role, clock in found:
        if clock != "form" and (role, "form") in found:
            yield role, clock, "lag behind form, ln ratio of steps", _lag(found[role, "form"], found[role, clock])


def _lag(first: "dict[str, Any]", second: "dict[str, Any]") -> float:
    return math.log(max(second["midpoint"], 0.5) / max(first["midpoint"], 0.5))


def _ends(history: History) -> Iterator[Trait]:
    """What was recorded besides heads; what was chosen for the run, such as its learning rate, is no finding."""
    table = history.to_frame("metrics").dropna(subset=["value"]).sort_values("step")
    for name, part in table.groupby("name", sort=True):
        about, _, short = str(name).rpartition("/")
        if short not in history.hyperparameters:
            clock = "function" if short in OF_CIRCUIT else "behaviour"
            yield about, clock, OF_CIRCUIT.get(short, short), float(part["value"].tail(LAST).mean())


def trait_shifts(
    traits: "pd.DataFrame",
    settings: Hyperparameters,
    *,
    by: "str | Sequence[str]",
    confidence: float = 0.9,
    n_permutations: int = 1999,
    seed: int = 0,
) -> "pd.DataFrame":
    """How each trait differs between the lowest and the highest setting of a hyperparameter.

    Columns: hyperparameter, contrast, role, clock, trait, estimate, low, high (Student's t over runs, what other
    hyperparameters do taken out), p_value (runs exchanged), q_value (Benjamini and Hochberg), n_runs.

    Raises:
        ValueError: as `tracking.comparison.comparison.compare`.
    """
    import pandas as pd

    names = (by,) if isinstance(by, str) else tuple(by)
    check_names(settings, names)
    rows = []
    for name in names:
        for key, part in traits.groupby(list(TRAIT), sort=True):
            values = part.set_index("run")["value"].astype(float).dropna()
            row = _shift(values, settings, name, (confidence, n_permutations, seed))
            rows += [{"hyperparameter": name, **dict(zip(TRAIT, key, strict=True)), **row}] if row else []
    columns = ["hyperparameter", "contrast", *TRAIT, "estimate", "low", "high", "p_value", "n_runs"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(9, "q_value", stats.false_discovery_control(table["p_value"]) if len(table) else [])
    return table


def _shift(
    values: "pd.Series", settings: Hyperparameters, name: str, options: tuple[float, int, int]
) -> dict[str, Any] | None:
    """None where the trait or the hyperparameter does not vary among the runs that have the trait."""
    runs = [str(run) for run in values.index if plain(settings[str(run)].get(name)) is not None]
    levels = sorted({plain(settings[run].get(name)) for run in runs}, key=by_size)
    y = values.loc[runs].to_numpy(dtype=float)
    if len(levels) < 2 or len(runs) < 4 or np.ptp(y) == 0:
        return None
    chosen = {run: plain(settings[run].get(name)) for run in runs}
    if all(map(is_number, levels)):
        x = np.array([(chosen[run] - levels[0]) / (levels[-1] - levels[0]) for run in runs], dtype=float)
    else:
        x = np.array([float(chosen[run] == levels[-1]) for run in runs])
    found = _difference(x, y, settings, (name, runs), options)
    return None if found is None else {"contrast": f"{levels[-1]} : {levels[0]}", "n_runs": len(runs), **found}


def _difference(
    x: Float[np.ndarray, "run"],
    y: Float[np.ndarray, "run"],
    settings: Hyperparameters,
    about: tuple[str, Sequence[str]],
    options: tuple[float, int, int],
) -> dict[str, float] | None:
    """Least squares of y on x, all else that varies taken out; runs exchanged as for formation times."""
    confidence, n_permutations, seed = options
    rest = adjustment(settings, about[1], x, about=(about[0],))
    draws = {"n_permutations": n_permutations, "seed": seed}
    test = exchange(x, columns=rest.columns, block=rest.block, penalty=1.0 if rest.shrunk else 0.0, **draws)
    size = float(test.weight @ test.weight)
    if size < 1e-9 or np.ptp(y) == 0:
        return None
    estimate, error, freedom = test.slope(Scores.plain(y))
    away = error * float(stats.t.ppf((1 + confidence) / 2, freedom))
    p_value = test.p_value(Scores.plain(y), by_exchange=test.by_exchange(ENOUGH))
    return {"estimate": estimate, "low": estimate - away, "high": estimate + away, "p_value": p_value}


def describe_shifts(shifts: "pd.DataFrame", *, level: float = 0.05) -> list[str]:
    """The shifts that stand after correction, in whole sentences, and how many were looked at."""
    found = [
        f"{row['role']}: {row['trait']} ({row['clock']}) differs by {row['estimate']:+.3g} ({row['low']:+.3g} to "
        f"{row['high']:+.3g}) for {row['hyperparameter']} {row['contrast']} ({p_words(row['p_value'])}, "
        f"{p_text(row['q_value'])} after correction; {row['n_runs']} runs)."
        for row in shifts.sort_values("p_value").to_dict("records")
        if row["q_value"] <= level
    ]
    return [*found, f"Besides formation, {len(shifts)} traits were compared; {len(found)} differ after correction."]
