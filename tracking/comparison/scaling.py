"""Scaling laws: how formation time scales with batch, context, width or learning rate, and whether a law holds here.

A power law, N = constant · product of hyperparameter^exponent (N in tokens), fitted to interval-censored times with
runs as the unit.  Beside it the law published for induction, N = 10^5.7 · sqrt(batch × context): a hypothesis, shown
with its residual ln(N / law) and with whether the fitted exponent of batch × context can be its 1/2.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracking.comparison.adjustment import adjustment
from tracking.comparison.run_set import QUESTION, RunSet, formation_times, law_tokens, questions, rows_of, varying
from tracking.comparison.survival import fit_times
from tracking.comparison.time_ratio import estimate_effect

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BATCH_CONTEXT", "describe_scaling", "scaling_law", "scaling_laws"]

LAW_EXPONENT = 0.5
BATCH_CONTEXT = "batch_size * context_length"
SIZES = ("d_model", "n_layers", "n_heads", "learning_rate")
"""What formation may scale with besides batch and context."""


def scaling_laws(runs: RunSet, *, n_permutations: int = 1999, seed: int = 0) -> "pd.DataFrame":
    """`scaling_law` of every role that forms, by each clock and definition, over whatever of batch times context,
    width, depth, heads and learning rate varies.

    Columns role, clock, definition, and those of `scaling_law`; no rows where no run knows its tokens.
    """
    import pandas as pd

    vary = varying(runs.settings)
    by = [BATCH_CONTEXT] if {"batch_size", "context_length"} & set(vary) else []
    by += [name for name in SIZES if name in vary]
    by = _independent(runs, by)
    rows = []
    for key, part in questions(runs):
        question = dict(zip(QUESTION, key, strict=True))
        if not np.isfinite(formation_times(runs, part, unit="tokens")["high"]).any():
            continue
        table = scaling_law(runs, **question, by=by, n_permutations=n_permutations, seed=seed)
        rows += [question | row for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=[*QUESTION, "quantity", "estimate", "low", "high", "p_value", "n_runs"])


def _independent(runs: RunSet, names: Sequence[str]) -> list[str]:
    """Those known of every run, above 0, that do not merely repeat the ones before them."""
    kept: list[str] = []
    columns = [np.ones(len(runs.runs))]
    for name in names:
        try:
            columns.append(np.array([_log(runs, run, name) for run in runs.runs]))
        except ValueError:
            continue
        if np.linalg.matrix_rank(np.column_stack(columns), tol=1e-6) < len(columns):
            columns.pop()
        else:
            kept.append(name)
    return kept


def scaling_law(
    runs: RunSet,
    *,
    role: str = "induction",
    clock: str = "form",
    definition: str | None = None,
    by: Sequence[str] = (BATCH_CONTEXT,),
    n_permutations: int = 1999,
    seed: int = 0,
) -> "pd.DataFrame":
    """The exponent of each hyperparameter, and the residual of the published law.

    Args:
        runs: formation and settings; every run must know its tokens a step.
        by: hyperparameters above 0; several names joined by `*` are multiplied.  What the others that vary do is taken
            out.

    Returns:
        Rows `exponent of NAME` (estimate, low, high: 90 %, p_value of no dependence) and, for induction where batch and
        context are known, `ln(N / law)` (its mean, with the interval of Student's t over runs left out one at a time).

    Raises:
        ValueError: a hyperparameter does not vary or is not above 0, or tokens are not known.
    """
    import pandas as pd

    part = rows_of(runs, role, clock, definition)
    times = formation_times(runs, part, unit="tokens")
    if not np.isfinite(times["high"]).any():
        raise ValueError(f"{role!r} forms in no run whose tokens a step are known, so nothing can be fitted")
    low, high = times["low"].to_numpy(dtype=float), times["high"].to_numpy(dtype=float)
    names = list(dict.fromkeys(times["run"]))
    codes = times["run"].map({name: place for place, name in enumerate(names)}).to_numpy(dtype=np.int64)
    logs = {name: np.array([_log(runs, run, name) for run in names]) for name in by}
    rows: list[dict[str, Any]] = []
    scaled = {part.strip() for name in by for part in name.split("*")}
    more = {run: {key: value for key, value in runs.settings[run].items() if key not in scaled} for run in names}
    for name, x in logs.items():
        if np.ptp(x) == 0:
            raise ValueError(f"{name} is the same in all runs, so no exponent can be fitted")
        rest = [other[codes] for key, other in logs.items() if key != name]
        taken = adjustment(more, names, x)
        others = np.column_stack([*rest, taken.columns[codes]])
        adjusted = {"others": others, "block": taken.block[codes], "shrunk": taken.shrunk}
        found = estimate_effect(low, high, x[codes], runs=codes, **adjusted, n_permutations=n_permutations, seed=seed)
        row = {"quantity": f"exponent of {name}", "estimate": found.estimate, "low": found.low, "high": found.high}
        rows.append(row | {"p_value": found.p_value, "n_runs": len(names)})
    law = np.log([law_tokens(runs.settings[run]) for run in names])
    if role == "induction" and np.isfinite(law).all():
        rows.append(_residual(low, high, law, codes))
    return pd.DataFrame(rows, columns=["quantity", "estimate", "low", "high", "p_value", "n_runs"])


def describe_scaling(table: "pd.DataFrame") -> list[str]:
    """The table of `scaling_law` or `scaling_laws` in whole sentences."""
    found = []
    for row in table.to_dict("records"):
        span = f"{row['estimate']:.2f} (90% interval {row['low']:.2f} to {row['high']:.2f}, {row['n_runs']} runs)"
        what = f"{row['role']} ({row['clock']}, {row['definition']})" if "role" in row else "Formation"
        if row["quantity"].startswith("exponent"):
            said = f"Of {what} in tokens, the {row['quantity']} is {span}"
            if row["quantity"].endswith(BATCH_CONTEXT):
                held = row["low"] <= LAW_EXPONENT <= row["high"]
                said += f"; the published 1/2 {'lies' if held else 'does not lie'} within it"
            found.append(said + ".")
        else:
            times = math.exp(abs(row["estimate"]))
            side = "fewer" if row["estimate"] < 0 else "more"
            found.append(
                f"{what} takes {times:.3g} times {side} tokens than the published law, 10^5.7 · √(batch × context), "
                f"says: ln ratio {span}."
            )
    return found


def _log(runs: RunSet, run: str, name: str) -> float:
    try:
        value = math.prod(float(runs.settings[run][part.strip()]) for part in name.split("*"))
        return math.log(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected {name} of run {run!r} to be known and above 0 ({error})") from error


def _residual(low: np.ndarray, high: np.ndarray, law: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    from scipy.stats import t

    def mean(kept: np.ndarray) -> float:
        ones = np.ones((int(kept.sum()), 1))
        return float(fit_times(low[kept], high[kept], ones, offset=law[codes][kept]).coefficients[0])

    n_runs = len(law)
    whole = mean(np.ones(len(codes), dtype=bool))
    without = np.array([mean(codes != run) for run in range(n_runs)])
    error = math.sqrt((n_runs - 1) / n_runs * float(((without - without.mean()) ** 2).sum()))
    away = error * float(t.ppf(0.95, max(n_runs - 1, 1)))
    row = {"quantity": "ln(N / law)", "estimate": whole, "low": whole - away, "high": whole + away}
    return row | {"p_value": math.nan, "n_runs": n_runs}
