"""Two arms of paired runs (another batch size, an intervention, a branch): does a recorded number differ between them?

A **pair** is two runs that are alike but for the arm (the same model size, or the branch and what it left).  Each pair
gives one number a metric: the mean difference between its arms over the stretch that both cover, at equal tokens (or
steps).  The pair is the unit: checkpoints of one run are no replicates, and one run in each arm leaves the spread
between seeds unknown, however many checkpoints it has.
"""

import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_arms", "describe_arms"]

ENOUGH = 0.05


def compare_arms(
    metrics: "pd.DataFrame",
    *,
    arms: Mapping[str, str],
    pairs: Mapping[str, str],
    baseline: str,
    clock: Literal["tokens", "step"] = "tokens",
    span: tuple[float, float] | None = None,
    confidence: float = 0.9,
) -> "pd.DataFrame":
    """The difference that an arm makes to every metric, pair by pair and together.

    Args:
        metrics: a table of metrics (run, step, tokens, name, value) of all runs.
        arms: the arm of each run; exactly two arms.
        pairs: the pair of each run.
        baseline: the arm that is subtracted.
        clock: at equal what the arms are compared.
        span: only this stretch of the clock.
        confidence: of the interval (Student's t over pairs; NaN for a single pair).

    Returns:
        One row a metric: name, n_pairs, n_higher (pairs in which the arm is above the baseline), difference, low, high,
        p_value (signs of the pairs flipped, exact), q_value (Benjamini and Hochberg over metrics), smallest_p,
        detectable (the difference that would have been seen with probability .8).

    Raises:
        ValueError: there are not two arms, or no metric is known in both arms of any pair.
    """
    import pandas as pd

    names = sorted(set(arms.values()))
    if len(names) != 2 or baseline not in names:
        raise ValueError(f"expected two arms, {baseline!r} and another, got {', '.join(map(repr, names)) or 'none'}")
    other = names[1 - names.index(baseline)]
    rows = []
    for metric, part in metrics.groupby("name", sort=True):
        by_pair = _differences(part, arms, pairs, (baseline, other), clock, span)
        if by_pair:
            rows.append({"name": metric, **_summary(np.array(list(by_pair.values())), confidence)})
    if not rows:
        raise ValueError(f"no metric is known in both arms of a pair over the same {clock}; check arms and pairs")
    table = pd.DataFrame(rows)
    table.insert(7, "q_value", stats.false_discovery_control(table["p_value"]))
    return table


def describe_arms(table: "pd.DataFrame", *, arm: str, baseline: str) -> list[str]:
    """The table in whole sentences, each with how little or how much it proves."""
    return [_sentence(row, arm, baseline) for row in table.to_dict("records")]


def _differences(
    part: "pd.DataFrame",
    arms: Mapping[str, str],
    pairs: Mapping[str, str],
    names: tuple[str, str],
    clock: str,
    span: tuple[float, float] | None,
) -> dict[str, float]:
    """Mean over the common stretch of (arm - baseline), by pair; repeated measurements of one place are averaged."""
    found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    for run, rows in part.dropna(subset=[clock, "value"]).groupby("run"):
        if run in arms and run in pairs:
            series = rows.groupby(clock)["value"].mean()
            found[pairs[run], arms[run]] = (series.index.to_numpy(dtype=float), series.to_numpy(dtype=float))
    differences = {}
    for pair in dict.fromkeys(pair for pair, _ in found):
        if all((pair, name) in found for name in names):
            (x0, y0), (x1, y1) = (found[pair, name] for name in names)
            low, high = max(x0[0], x1[0]), min(x0[-1], x1[-1])
            low, high = (low, high) if span is None else (max(low, span[0]), min(high, span[1]))
            places = x1 if len(x1) <= len(x0) else x0
            places = places[(places >= low) & (places <= high)]
            if len(places):
                differences[pair] = float((np.interp(places, x1, y1) - np.interp(places, x0, y0)).mean())
    return differences


def _summary(values: Float[np.ndarray, "pair"], confidence: float) -> dict[str, Any]:
    count, mean = len(values), float(values.mean())
    low = high = detectable = math.nan
    if count > 1:
        error = float(values.std(ddof=1)) / math.sqrt(count)
        low, high = (mean + error * float(stats.t.ppf(side, count - 1)) for side in _sides(confidence))
        detectable = error * float(stats.t.ppf(0.975, count - 1) + stats.t.ppf(0.8, count - 1))
    return {
        "n_pairs": count,
        "n_higher": int((values > 0).sum()),
        "difference": mean,
        "low": low,
        "high": high,
        "p_value": _flipped(values),
        "smallest_p": 2.0 ** (1 - count),
        "detectable": detectable,
    }


def _sides(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _flipped(values: Float[np.ndarray, "pair"]) -> float:
    """Share of all choices of signs whose mean is at least as far from 0."""
    if len(values) <= 14:
        signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (9999, len(values)))
        signs[0] = 1.0
    means = np.abs(signs @ values)
    return float((means >= means[0] * (1 - 1e-9)).mean())


def _sentence(row: Mapping, arm: str, baseline: str) -> str:
    count, higher, difference = row["n_pairs"], row["n_higher"], row["difference"]
    way = f"{row['name']} is {'higher' if difference > 0 else 'lower'} with {arm} than with {baseline}"
    share = f"in {max(higher, count - higher)} of {count} pairs (mean difference {difference:+.3g})"
    if count == 1:
        return f"{way} by {abs(difference):.3g} in the one pair there is: one run in each arm says nothing of chance."
    if row["smallest_p"] > ENOUGH and higher in (0, count):
        return (
            f"{way} {share}; with one run in each arm of {count} pairs that has p = {row['p_value']:.2g}, the least "
            f"possible, and the spread between seeds is not known: a hint, no proof."
        )
    if row["q_value"] <= ENOUGH:
        return f"{way} {share}; p = {row['p_value']:.2g}, {row['q_value']:.2g} after correction."
    return (
        f"No effect of {arm} on {row['name']} seen (mean difference {difference:+.3g}, interval {row['low']:+.3g} to "
        f"{row['high']:+.3g}, p = {row['p_value']:.2g}, {count} pairs); a difference of more than "
        f"{row['detectable']:.3g} would have been seen with probability .8."
    )
