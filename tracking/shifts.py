"""What else differs between settings: who carries a role, how many, in which order, how large and how well?

Each run gives one number for each **trait** at its last snapshots; settings are compared by exchanging runs, as in
`tracking.comparison`.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from tracking.history import History
from tracking.lifelines import Lifeline, link_lifelines
from tracking.runset import Settings, by_size, check_names, is_number, plain, varying
from tracking.survival import permutations

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe_shifts", "run_traits", "trait_shifts"]

LAST = 3
"""Snapshots at the end that a trait is averaged over."""


def run_traits(histories: Sequence[History]) -> "pd.DataFrame":
    """Columns run, trait, value.

    For each role: heads that carry it at the end, the mean layer of those; for each pair of roles the lag between the
    steps at which they are first carried, ln(later / earlier); the size of each circuit and every metric at the end.
    """
    import pandas as pd

    rows: list[tuple[str, str, float]] = []
    for history in histories:
        roles = link_lifelines(history).roles
        first: dict[str, float] = {}
        for lifeline in roles:
            rows += [(history.name, trait, value) for trait, value in _carried(lifeline)]
            starts = [step for step, nodes in zip(lifeline.steps, lifeline.nodes, strict=True) if nodes]
            if starts and starts[0] > 0:
                first[lifeline.lifeline] = float(starts[0])
        for a, b in combinations(sorted(first), 2):
            rows.append((history.name, f"{a} before {b}: ln ratio of steps", math.log(first[b] / first[a])))
        table = history.to_frame("metrics")
        for name, part in table.dropna(subset=["value"]).groupby("name"):
            rows.append(
                (history.name, f"{name} at the end", float(part.sort_values("step")["value"].tail(LAST).mean()))
            )
    return pd.DataFrame(rows, columns=["run", "trait", "value"])


def _carried(lifeline: Lifeline) -> list[tuple[str, float]]:
    carriers = [nodes for nodes in lifeline.nodes[-LAST:]]
    found = [(f"{lifeline.lifeline}: heads at the end", float(np.mean([len(nodes) for nodes in carriers])))]
    layers = [node.layer for nodes in carriers for node in nodes if node.layer is not None]
    return found + ([(f"{lifeline.lifeline}: mean layer at the end", float(np.mean(layers)))] if layers else [])


def trait_shifts(
    traits: "pd.DataFrame",
    settings: Settings,
    *,
    by: "str | Sequence[str]",
    confidence: float = 0.9,
    n_permutations: int = 1999,
    seed: int = 0,
) -> "pd.DataFrame":
    """How each trait differs between the lowest and the highest setting of a hyperparameter.

    Columns: hyperparameter, contrast, trait, estimate, low, high (Student's t over runs, what other hyperparameters do
    taken out), p_value (runs exchanged), q_value (Benjamini and Hochberg), n_runs.

    Raises:
        ValueError: as `tracking.comparison.compare`.
    """
    import pandas as pd

    names = (by,) if isinstance(by, str) else tuple(by)
    check_names(settings, names)
    rows = []
    for name in names:
        for trait, part in traits.groupby("trait", sort=True):
            values = part.set_index("run")["value"].astype(float).dropna()
            row = _shift(values, settings, name, (confidence, n_permutations, seed))
            rows += [{"hyperparameter": name, "trait": trait, **row}] if row else []
    columns = ["hyperparameter", "contrast", "trait", "estimate", "low", "high", "p_value", "n_runs"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(7, "q_value", stats.false_discovery_control(table["p_value"]) if len(table) else [])
    return table


def _shift(
    values: "pd.Series", settings: Settings, name: str, options: tuple[float, int, int]
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
    others = [key for key in varying({run: settings[run] for run in runs}) if key != name]
    keys = [tuple(plain(settings[run].get(other)) for other in others) for run in runs]
    found = _difference(x, y, _codes(keys), options)
    return None if found is None else {"contrast": f"{levels[-1]} : {levels[0]}", "n_runs": len(runs), **found}


def _codes(keys: Sequence[tuple]) -> np.ndarray:
    places: dict[tuple, int] = {}
    return np.array([places.setdefault(key, len(places)) for key in keys])


def _difference(
    x: Float[np.ndarray, "run"], y: Float[np.ndarray, "run"], stratum: np.ndarray, options: tuple[float, int, int]
) -> dict[str, float] | None:
    """Least squares of y on x within strata; the error does not suppose equal spreads (HC2)."""
    confidence, n_permutations, seed = options
    strata = [np.flatnonzero(stratum == place) for place in range(stratum.max() + 1)]
    if any(np.ptp(x[inside]) == 0 for inside in strata):
        strata = [np.arange(len(x))]
    x, y = x.copy(), y.copy()
    for inside in strata:
        x[inside] -= x[inside].mean()
        y[inside] -= y[inside].mean()
    total = float(x @ x)
    freedom = len(x) - len(strata) - 1
    if total == 0 or freedom < 1 or np.ptp(y) == 0:
        return None
    slope = float(x @ y) / total
    leverage = x**2 / total + sum((stratum == place) / max((stratum == place).sum(), 1) for place in set(stratum))
    residual = (y - slope * x) / np.sqrt(np.maximum(1 - leverage, 0.05))
    error = float(np.sqrt(x**2 @ residual**2)) / total
    away = error * float(stats.t.ppf((1 + confidence) / 2, freedom))
    drawn = np.abs(y[permutations(strata, len(y), n_permutations, seed)] @ x)
    p_value = float((drawn >= drawn[0] * (1 - 1e-9)).mean())
    return {"estimate": slope, "low": slope - away, "high": slope + away, "p_value": p_value}


def describe_shifts(shifts: "pd.DataFrame", *, level: float = 0.05) -> list[str]:
    """The shifts that stand after correction, in whole sentences, and how many were looked at."""
    found = [
        f"{row['trait']} differs by {row['estimate']:+.3g} ({row['low']:+.3g} to {row['high']:+.3g}) for "
        f"{row['hyperparameter']} {row['contrast']} (p = {row['p_value']:.2g}, {row['q_value']:.2g} after correction; "
        f"{row['n_runs']} runs)."
        for row in shifts.sort_values("p_value").to_dict("records")
        if row["q_value"] <= level
    ]
    return [*found, f"{len(shifts)} other traits were compared; {len(found)} differ after correction."]
